//! The engine's steps with the entries of the tables that decided them.

use std::net::{IpAddr, SocketAddr};

use octoplane_api::v1;
use octoplane_api::v1::ExplainStage as Stage;
use octoplane_api::v1::explain_step::Entry;
use octoplane_convert::{
    egress_gateway_message, endpoint_message, ipcache_message, neighbour_message, policy_entry_message,
    route_message,
};
use octoplane_engine::{Choice, PolicyVerdict, Step};
use octoplane_flow::Tuple;
use octoplane_packet::Prefix;
use octoplane_tables::model::{BackendState, EgressKey, FrontendType, PolicyEntry, Role};
use octoplane_tables::{Action, Backend, State, Target, identity};

use super::answer::endpoint;
use super::question::{Question, known};
use crate::event::verdict_message;
use crate::flow::tuple_message;

/// The steps as messages.
pub(super) fn messages(state: &State, question: &Question, steps: &[Step]) -> Vec<v1::ExplainStep> {
    let mut teller = Teller {
        state,
        told: Vec::new(),
        looked_up: Vec::new(),
        routed: None,
    };
    teller.arrives(question);
    for step in steps {
        teller.tell(step);
    }
    teller.told
}

struct Teller<'a> {
    state: &'a State,
    told: Vec<v1::ExplainStep>,
    /// Addresses that were said to be somebody's.
    looked_up: Vec<IpAddr>,
    /// The address of which it was said last where it leads.
    routed: Option<IpAddr>,
}

impl Teller<'_> {
    fn push(&mut self, stage: Stage, text: String, entry: Option<Entry>) {
        self.told.push(v1::ExplainStep {
            stage: stage.into(),
            text,
            entry,
        });
    }

    fn arrives(&mut self, question: &Question) {
        let port = self.state.port_set().name(question.port);
        let src = question.tuple.src();
        let (text, entry) = match (question.role, question.node) {
            (Role::Pod, _) => {
                let owner = self.state.owner(src);
                let who = owner.map_or_else(String::new, |it| endpoint(self.state, it.id));
                let entry = owner.map(|it| Entry::Endpoint(endpoint_message(self.state.port_set(), it)));
                (
                    format!("{who} sends it by port {port}; {src} is its own address"),
                    entry,
                )
            }
            (Role::Host, _) => (format!("the node's kernel sends it by port {port}"), None),
            (Role::Uplink, Some(node)) => {
                let tunnel = if question.tunnel.is_some() {
                    " in a tunnel"
                } else {
                    ""
                };
                let sealed = if question.encrypted { ", encrypted" } else { "" };
                let entry = known(self.state, src).map(|it| Entry::Ipcache(ipcache_message(&it)));
                let text =
                    format!("node {node} sends it{tunnel} by port {port}{sealed}, as the ipcache has it");
                (text, entry)
            }
            (Role::Uplink, None) => (format!("it comes from the network by port {port}"), None),
        };
        self.push(Stage::Source, text, entry);
    }

    fn tell(&mut self, step: &Step) {
        match step {
            Step::Route { dst, target } => self.route(*dst, target),
            Step::Sender {
                src,
                identity,
                endpoint: 0,
                ..
            } => self.identity(*src, "source", Some(*identity)),
            Step::Sender { .. } => {}
            Step::Known { forward, is_forward } => {
                let text = match is_forward {
                    true => "it belongs to a connection, whose translation and backend stay",
                    false => "it answers within a connection, so that no policy is asked",
                };
                self.push(
                    Stage::Connection,
                    text.into(),
                    Some(Entry::Tuple(tuple_message(forward))),
                );
            }
            Step::Service { .. } => self.service(step),
            Step::Policy(verdict, entry) => self.policy(verdict, entry.as_ref()),
            Step::Proxy { port } => {
                let text = format!("policy sends it to the proxy at port {port} of the node's first address");
                self.push(Stage::Proxy, text, None);
            }
            Step::EgressGateway { src, dst, .. } => self.gateway(*src, *dst),
            Step::Masquerade { addr, out } => {
                let text = format!("it leaves under {addr}, as {}", show(out));
                self.push(Stage::Masquerade, text, Some(Entry::Tuple(tuple_message(out))));
            }
            Step::Way { out, target, node } => self.way(out, target, *node),
            Step::Rate {
                endpoint: id,
                ingress,
            } => {
                let it = self.state.endpoint(*id);
                let (rate, what) = match ingress {
                    true => (it.map_or(0, |it| it.ingress_rate), "receives"),
                    false => (it.map_or(0, |it| it.egress_rate), "sends"),
                };
                let text = format!(
                    "{} {what} at most {rate} bytes a second; whether there is room now was not looked at",
                    endpoint(self.state, *id)
                );
                let entry = it.map(|it| Entry::Endpoint(endpoint_message(self.state.port_set(), it)));
                self.push(Stage::Rate, text, entry);
            }
            Step::Encrypt { node, spi } => {
                let text = format!("it is encrypted for node {node} with SPI {spi:#x}");
                self.push(Stage::Encryption, text, None);
            }
        }
    }

    /// Where an address leads, and by which entry.
    fn route(&mut self, dst: IpAddr, target: &Target) {
        self.routed = Some(dst);
        let ports = self.state.port_set();
        let to = match target.action {
            Action::Deliver => {
                let text = format!("{dst} is an address of {}", endpoint(self.state, target.endpoint));
                let entry = self.state.endpoint(target.endpoint);
                let entry = entry.map(|it| Entry::Endpoint(endpoint_message(ports, it)));
                return self.push(Stage::Route, text, entry);
            }
            Action::Gateway => {
                return self.push(
                    Stage::Route,
                    format!("{dst} is the gateway that endpoints see"),
                    None,
                );
            }
            Action::Local => {
                return self.push(
                    Stage::Route,
                    format!("{dst} is one of this node's addresses"),
                    None,
                );
            }
            Action::Host => "this node's kernel".to_owned(),
            Action::Blackhole => "nowhere: what goes there is dropped".to_owned(),
            Action::PortDown => format!("port {}, which is down", ports.name(target.port)),
            Action::Forward | Action::Resolve => {
                let hop = target
                    .next_hop
                    .map(|hop| format!(" by {hop}"))
                    .unwrap_or_default();
                format!("port {}{hop}", ports.name(target.port))
            }
            Action::Glean => format!("the link of port {}", ports.name(target.port)),
            Action::None => return self.push(Stage::Route, format!("no route leads to {dst}"), None),
        };
        let found = self.state.route_to(dst);
        let (text, entry) = match found {
            _ if self.state.node().addresses.contains(&dst) => {
                (format!("{dst} is one of this node's addresses: to {to}"), None)
            }
            Some((prefix, _)) => {
                let route = self
                    .state
                    .route(&prefix)
                    .map(|it| Entry::Route(route_message(ports, it)));
                (format!("route {prefix} leads {dst} to {to}"), route)
            }
            None => (format!("{dst} leads to {to}"), None),
        };
        self.push(Stage::Route, text, entry);
    }

    /// Who is behind an address.
    fn identity(&mut self, addr: IpAddr, what: &str, seen: Option<u32>) {
        if self.looked_up.contains(&addr) {
            return;
        }
        self.looked_up.push(addr);
        let ports = self.state.port_set();
        let owner = self.state.owner(addr);
        let own = self.state.node().addresses.contains(&addr) || self.state.own_address(addr).is_some();
        let (id, how, entry) = match (owner, known(self.state, addr)) {
            (Some(it), _) => (
                it.identity,
                format!("the identity of {}", endpoint(self.state, it.id)),
                Some(Entry::Endpoint(endpoint_message(ports, it))),
            ),
            (None, _) if own => (identity::HOST, "this node".into(), None),
            (None, Some(it)) => (
                it.identity,
                format!("by ipcache entry {}", it.prefix),
                Some(Entry::Ipcache(ipcache_message(&it))),
            ),
            (None, None) => (
                seen.unwrap_or(identity::WORLD),
                "the world: no ipcache entry holds it".into(),
                None,
            ),
        };
        let id = seen.unwrap_or(id);
        self.push(
            Stage::Identity,
            format!("{what} {addr} has identity {id}: {how}"),
            entry,
        );
    }

    fn service(&mut self, step: &Step) {
        let Step::Service {
            name,
            addr,
            kind,
            inside,
            chosen,
            backends,
            usable,
        } = step
        else {
            return;
        };
        let address = SocketAddr::new(addr.0, addr.1);
        let text = match chosen {
            Some((backend, choice)) => {
                let how = match choice {
                    Choice::Random if *usable > 1 => format!("one of {usable} at random, here the first"),
                    Choice::Random => "the only one".into(),
                    Choice::Maglev => "by the hash of the connection".into(),
                    Choice::Affinity => "which its sender is with".into(),
                };
                let backend = SocketAddr::new(backend.addr, backend.port);
                format!("service {name} at {address}: to backend {backend}, {how}")
            }
            None if *usable == 0 => format!("service {name} at {address} has no backend for it"),
            None => format!("service {name} at {address} is not for this sender"),
        };
        let candidates = backends.iter().enumerate();
        let choice = v1::ServiceChoice {
            name: name.clone(),
            frontend: Some(v1::Frontend {
                address: addr.0.to_string(),
                port: addr.1.into(),
                r#type: frontend_type(*kind).into(),
            }),
            inside: *inside,
            choice: chosen
                .map_or(v1::BackendChoice::Unspecified, |(_, choice)| match choice {
                    Choice::Random => v1::BackendChoice::Random,
                    Choice::Maglev => v1::BackendChoice::Maglev,
                    Choice::Affinity => v1::BackendChoice::Affinity,
                })
                .into(),
            backend: chosen.as_ref().map(|(it, _)| backend(it)),
            candidates: candidates
                .map(|(number, it)| v1::ServiceCandidate {
                    backend: Some(backend(it)),
                    eligible: number < *usable,
                    answer: None,
                })
                .collect(),
        };
        self.push(Stage::Service, text, Some(Entry::Service(choice)));
    }

    fn policy(&mut self, verdict: &PolicyVerdict, entry: Option<&PolicyEntry>) {
        match verdict.egress {
            true => self.identity(verdict.tuple.dst(), "destination", Some(verdict.remote)),
            false => self.identity(verdict.tuple.src(), "source", Some(verdict.remote)),
        }
        let whose = match verdict.endpoint {
            0 => "the node".into(),
            id => endpoint(self.state, id),
        };
        let way = if verdict.egress { "egress" } else { "ingress" };
        let mut message = verdict_message(verdict);
        message.entry = entry.map(policy_entry_message);
        let by = match entry {
            Some(it) => format!(" by entry {}", show_entry(it)),
            None if verdict.enforced => ": no entry matches".into(),
            None => ": nothing is enforced".into(),
        };
        let what = match message.result() {
            v1::PolicyResult::Allow | v1::PolicyResult::Unspecified => "allows it".into(),
            v1::PolicyResult::Deny => format!("drops it ({}, {})", message.reason, message.code),
            v1::PolicyResult::Audit => format!("would drop it ({}), and audits only", message.reason),
            v1::PolicyResult::Proxy => {
                format!("sends it to the proxy at port {}", verdict.decided.proxy_port)
            }
        };
        let text = format!("{way} policy of {whose} {what}{by}");
        self.push(Stage::Policy, text, Some(Entry::Policy(message)));
    }

    fn gateway(&mut self, src: IpAddr, dst: IpAddr) {
        let lengths = |addr| (0..=Prefix::host(addr).len()).rev();
        // The longest source wins, then the longest destination.
        let rule = lengths(src).find_map(|source| {
            lengths(dst).find_map(|destination| {
                self.state.egress_gateway(&EgressKey {
                    source: Prefix::containing(src, source),
                    destination: Prefix::containing(dst, destination),
                })
            })
        });
        let Some(rule) = rule else { return };
        let message = egress_gateway_message(rule);
        let to = match rule.gateway {
            octoplane_tables::model::EgressGateway::Node(addr) => format!("leaves by gateway {addr}"),
            octoplane_tables::model::EgressGateway::Missing => "has no gateway at the moment".into(),
            octoplane_tables::model::EgressGateway::Excluded => "is excluded".into(),
        };
        let text = format!(
            "egress gateway rule {} to {}: it {to}",
            rule.key.source, rule.key.destination
        );
        self.push(Stage::EgressGateway, text, Some(Entry::EgressGateway(message)));
    }

    fn way(&mut self, out: &Tuple, target: &Target, node: Option<(IpAddr, bool)>) {
        let dst = out.dst();
        if let Some((addr, tunnel)) = node {
            let entry = known(self.state, dst);
            let by = entry
                .as_ref()
                .map(|it| format!(" by ipcache entry {}", it.prefix));
            let key = entry.as_ref().filter(|it| it.key != 0);
            let key = key.map(|it| format!(", key {}", it.key)).unwrap_or_default();
            let how = if tunnel { "in a tunnel to" } else { "to" };
            let text = format!(
                "{dst} is reached {how} node {addr}{}{key}",
                by.unwrap_or_default()
            );
            self.push(
                Stage::Tunnel,
                text,
                entry.map(|it| Entry::Ipcache(ipcache_message(&it))),
            );
            self.route(addr, target);
        } else {
            // Where it was sent was said before.
            if self.routed != Some(dst) {
                self.route(dst, target);
            }
        }
        if matches!(target.action, Action::Forward | Action::Resolve | Action::Glean) {
            let hop = target
                .next_hop
                .unwrap_or_else(|| node.map_or(dst, |(addr, _)| addr));
            let known = self.state.neighbour(target.port, hop);
            let text = match known.and_then(|it| it.mac) {
                Some(mac) => format!("neighbour {hop} has {mac}"),
                None => format!("the Ethernet address of neighbour {hop} is not known"),
            };
            let entry = known.map(|it| Entry::Neighbour(neighbour_message(self.state.port_set(), it)));
            self.push(Stage::Neighbour, text, entry);
        }
    }
}

/// A packet's addresses for people.
fn show(tuple: &Tuple) -> String {
    let side = |addr, port| match port {
        0 => IpAddr::to_string(&addr),
        port => SocketAddr::new(addr, port).to_string(),
    };
    format!(
        "{} to {}",
        side(tuple.src(), tuple.sport()),
        side(tuple.dst(), tuple.dport())
    )
}

/// What a policy entry matches, for people.
fn show_entry(PolicyEntry { key, value }: &PolicyEntry) -> String {
    let identity = match key.identity {
        0 => "any identity".into(),
        id => format!("identity {id}"),
    };
    let port = match (key.protocol, key.port_prefix_len) {
        (0, _) => "any protocol".into(),
        (protocol, 0) => format!("protocol {protocol}"),
        (protocol, 16) => format!("protocol {protocol} port {}", key.port),
        (protocol, len) => format!("protocol {protocol} ports {}/{len}", key.port),
    };
    let deny = if value.deny { ", deny" } else { "" };
    format!(
        "{identity}, {port}{deny}, precedence {}, cookie {}",
        value.precedence, value.cookie
    )
}

fn frontend_type(kind: FrontendType) -> v1::FrontendType {
    match kind {
        FrontendType::ClusterIp => v1::FrontendType::ClusterIp,
        FrontendType::NodePort => v1::FrontendType::NodePort,
        FrontendType::HostPort => v1::FrontendType::HostPort,
        FrontendType::ExternalIp => v1::FrontendType::ExternalIp,
        FrontendType::LoadBalancer => v1::FrontendType::LoadBalancer,
    }
}

fn backend(it: &Backend) -> v1::Backend {
    v1::Backend {
        address: it.addr.to_string(),
        port: it.port.into(),
        weight: it.weight.into(),
        state: match it.state {
            BackendState::Active => v1::BackendState::Active,
            BackendState::Terminating => v1::BackendState::Terminating,
            BackendState::Quarantined => v1::BackendState::Quarantined,
            BackendState::Maintenance => v1::BackendState::Maintenance,
        }
        .into(),
        local: it.local,
    }
}
