//! The model itself: what it holds, and what it does with a frame before it looks at addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::bandwidth::Pace;
use crate::choices::{Choices, First};
use crate::config::{Direction, Endpoint, Mac, Port, Ports, Role, State};
use crate::conntrack::{Conntrack, Entry, Kind};
use crate::fib::{Target, identity};
use crate::fragments::Fragments;
use crate::icmp::Limiter;
use crate::lb::{BackendId, FrontendId};
use crate::nat::Nat;
use crate::outcome::{Flow as Way, Outcome, Punt, PuntTo, Stop, Told, Waiting, code};
use crate::wire::{Packet, Tuple, be16, byte, put};

/// What the model is told once.
#[derive(Debug, Clone)]
pub struct Options {
    /// ICMP errors a second and at once, each family; `None` is unlimited.
    pub icmp_errors: Option<(u32, u32)>,
    /// Packets for the kernel a second and at once; `None` is unlimited.
    pub exceptions: Option<(u32, u32)>,
    /// Most conntrack entries.
    pub flows: usize,
    /// Most fragmented packets known, and most fragments held (specification, 2.10).
    pub fragments: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            icmp_errors: Some((100, 1000)),
            exceptions: Some((100_000, 1024)),
            flows: 1 << 20,
            fragments: 8192,
        }
    }
}

/// One conntrack entry, for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Addresses and ports of the packet that opened it.
    pub tuple: Tuple,
    /// Which kind of entry.
    pub kind: Kind,
    /// What is known of it, both directions.
    pub entry: Entry,
}

/// The model. A copy of it goes its own way.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) ports: Ports,
    pub(crate) state: State,
    pub(crate) now: u64,
    pub(crate) ct: Conntrack,
    pub(crate) nat: Nat,
    pub(crate) affinity: BTreeMap<(FrontendId, IpAddr), (BackendId, u64)>,
    pub(crate) fragments: Fragments,
    pub(crate) paces: BTreeMap<u32, Pace>,
    pub(crate) icmp4: Limiter,
    pub(crate) icmp6: Limiter,
    exceptions: Limiter,
    host_mac: Option<Mac>,
}

/// A frame on its way.
pub(crate) struct Rx<'a> {
    pub(crate) port: Port,
    /// The frame as received, without priority tags.
    pub(crate) frame: Vec<u8>,
    /// What the port received: `frame`, or the tunnel packet that it was in.
    pub(crate) received: Vec<u8>,
    /// The node it came from in a tunnel; `frame` is the inner one then.
    pub(crate) tunnel: Option<IpAddr>,
    /// The tunnel's VNI.
    pub(crate) vni: u32,
    /// What the client used, as an option of the tunnel says.
    pub(crate) told: Option<(IpAddr, u16)>,
    pub(crate) choices: &'a mut dyn Choices,
    pub(crate) out: &'a mut Outcome,
}

impl<'a> Rx<'a> {
    /// One that has waited.
    fn waited(
        port: Port,
        frame: Vec<u8>,
        waiting: &Waiting,
        choices: &'a mut dyn Choices,
        out: &'a mut Outcome,
    ) -> Self {
        Self {
            port,
            received: frame.clone(),
            frame,
            tunnel: waiting.tunnel.map(|(node, _)| node),
            vni: waiting.tunnel.map_or(0, |(_, vni)| vni),
            told: None,
            choices,
            out,
        }
    }

    /// Which way it goes, seen from the endpoints.
    pub(crate) fn direction(&self) -> Direction {
        if self.port.role == Role::Pod {
            Direction::Egress
        } else {
            Direction::Ingress
        }
    }

    /// A drop in that direction.
    pub(crate) fn drop(&self, code: u16) -> Stop {
        Stop::Drop(code, self.direction())
    }

    /// Whether it was sent to many stations.
    pub(crate) fn group(&self) -> bool {
        byte(&self.frame, 0) & 1 != 0
    }
}

impl Model {
    /// A model of a data plane with these ports, nothing configured, at time 0.
    pub fn new(ports: Ports) -> Self {
        Self::with_options(ports, &Options::default())
    }

    /// The same with other limits.
    pub fn with_options(ports: Ports, options: &Options) -> Self {
        Self {
            ports,
            state: State::default(),
            now: 0,
            ct: Conntrack {
                entries: BTreeMap::new(),
                capacity: options.flows,
                made: 0,
            },
            nat: Nat::default(),
            affinity: BTreeMap::new(),
            fragments: Fragments::new(options.fragments),
            paces: BTreeMap::new(),
            icmp4: Limiter::new(options.icmp_errors),
            icmp6: Limiter::new(options.icmp_errors),
            exceptions: Limiter::new(options.exceptions),
            host_mac: None,
        }
    }

    /// Replaces the whole configuration; flows stay.
    pub fn apply(&mut self, state: State) {
        self.state = state;
    }

    /// Changes a port's MTU and administrative state.
    pub fn set_port(&mut self, name: &str, mtu: u16, admin_up: bool) {
        for port in self.ports.iter_mut().filter(|port| port.name == name) {
            (port.mtu, port.admin_up) = (mtu, admin_up);
        }
    }

    /// Lets time pass, to `now` nanoseconds. Fragments that have waited too long for their first one are dropped.
    pub fn set_time(&mut self, now: u64) -> Outcome {
        let mut outcome = Outcome::default();
        // Far enough from the end of time for every timeout.
        self.now = self.now.max(now.min(u64::MAX / 2));
        self.ct.expire(self.now);
        self.nat.expire(&self.ct);
        self.drop_late_fragments(&mut outcome);
        outcome
    }

    /// The time it is, in nanoseconds.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// All conntrack entries that are still valid.
    pub fn flows(&self) -> Vec<Flow> {
        self.ct
            .entries
            .iter()
            .map(|((tuple, kind), entry)| Flow {
                tuple: *tuple,
                kind: *kind,
                entry: entry.clone(),
            })
            .collect()
    }

    /// Forgets a flow with this entry, and its mapping.
    pub fn forget(&mut self, tuple: &Tuple) {
        self.ct
            .entries
            .retain(|(it, kind), _| *kind == Kind::Service || it != tuple);
        self.nat.mappings.retain(|mapping| mapping.original != *tuple);
    }

    /// All SNAT mappings that are still valid.
    pub fn mappings(&self) -> Vec<crate::nat::Mapping> {
        self.nat.mappings.clone()
    }

    /// Fragments that wait for their first one.
    pub fn held(&self) -> usize {
        self.fragments.held()
    }

    /// Gives up a packet that has waited for a neighbour in vain (RFC 1812, 5.2.7.1; RFC 4443, 3.1).
    pub fn give_up(&mut self, waiting: &Waiting) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(port) = self
            .ports
            .iter()
            .find(|known| known.name == waiting.port)
            .cloned()
        else {
            outcome.drops.push((code::NO_DEVICE, Direction::Ingress));
            return outcome;
        };
        let mut frame = waiting.frame.clone();
        while matches!(be16(&frame, 12), 0x8100 | 0x88a8) && frame.len() > 16 {
            frame.drain(12..16);
        }
        let mut choices = First;
        let mut rx = Rx::waited(port, frame, waiting, &mut choices, &mut outcome);
        let refused = match rx.tunnel.is_some() || rx.port.admin_up {
            true => Stop::Refuse(code::NO_FIB, rx.direction(), Told::HostUnreachable),
            false => rx.drop(code::NO_FIB),
        };
        self.conclude(&mut rx, Err(refused));
        outcome
    }

    /// What becomes of a frame, where the first of all choices is taken.
    pub fn receive(&mut self, port: &str, frame: &[u8]) -> Outcome {
        self.receive_with(port, frame, &mut First)
    }

    /// The same for one that came before and waited. It says nothing new about who sent it; what came out of a tunnel does not
    /// go back into it.
    pub fn retry_with(&mut self, waiting: &Waiting, choices: &mut dyn Choices) -> Outcome {
        let kernel = self.host_mac;
        let outcome = match waiting.tunnel {
            None => self.receive_with(&waiting.port, &waiting.frame, choices),
            Some((_, vni)) => self.retry_inner(waiting, vni, choices),
        };
        self.host_mac = kernel;
        outcome
    }

    fn retry_inner(&mut self, waiting: &Waiting, vni: u32, choices: &mut dyn Choices) -> Outcome {
        let mut outcome = Outcome::default();
        let mut ports = self.ports.iter();
        let Some(port) = ports
            .find(|known| known.name == waiting.port && known.admin_up)
            .cloned()
        else {
            outcome.drops.push((code::NO_DEVICE, Direction::Ingress));
            return outcome;
        };
        let mut rx = Rx::waited(port, waiting.frame.clone(), waiting, choices, &mut outcome);
        let v6 = be16(&rx.frame, 12) == 0x86dd;
        let result = match Packet::parse(v6, rx.frame.get(14..).unwrap_or_default()) {
            Ok(mut pkt) => self.inner(&mut rx, &mut pkt, vni),
            Err(code) => Err(rx.drop(code)),
        };
        self.conclude(&mut rx, result);
        outcome
    }

    /// What becomes of a frame that comes in by a port.
    pub fn receive_with(&mut self, port: &str, frame: &[u8], choices: &mut dyn Choices) -> Outcome {
        let mut outcome = Outcome::default();
        let mut ports = self.ports.iter();
        let Some(port) = ports.find(|known| known.name == port && known.admin_up).cloned() else {
            outcome.drops.push((code::NO_DEVICE, Direction::Ingress));
            return outcome;
        };
        let mut rx = Rx {
            port,
            frame: frame.to_vec(),
            received: frame.to_vec(),
            tunnel: None,
            vni: 0,
            told: None,
            choices,
            out: &mut outcome,
        };
        let result = self.frame(&mut rx);
        self.conclude(&mut rx, result);
        outcome
    }

    /// Does what is left to do for a packet that goes no further.
    pub(crate) fn conclude(&mut self, rx: &mut Rx<'_>, result: Way) {
        match result {
            Ok(()) | Err(Stop::Done) => {}
            Err(Stop::Drop(code, direction)) => rx.out.drops.push((code, direction)),
            Err(Stop::Refuse(code, direction, told)) => {
                rx.out.drops.push((code, direction));
                self.tell(rx, told);
            }
        }
    }

    /// Ethernet (specification, 1.2 steps 2 and 3, 1.5 steps 1 and 2).
    fn frame(&mut self, rx: &mut Rx<'_>) -> Way {
        let role = rx.port.role;
        if role == Role::Host
            && let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *rx.frame
            && Mac([a, b, c, d, e, f]).is_unicast()
        {
            self.host_mac = Some(Mac([a, b, c, d, e, f]));
        }
        let (mut pkt, v6) = loop {
            if rx.frame.len() < 14 {
                return Err(rx.drop(code::INVALID));
            }
            if role != Role::Pod && !rx.group() && !rx.frame.starts_with(&rx.port.mac.0) {
                return Err(rx.drop(code::OTHER_STATION));
            }
            let behind = rx.frame.get(14..).unwrap_or_default();
            match be16(&rx.frame, 12) {
                0x0806 => return self.arp(rx),
                0x0800 => break (Packet::parse(false, behind), false),
                0x86dd => break (Packet::parse(true, behind), true),
                0x8100 | 0x88a8 if role != Role::Pod => {
                    if behind.len() < 2 {
                        return Err(rx.drop(code::INVALID));
                    }
                    if be16(behind, 0) & 0xfff != 0 {
                        return Err(rx.drop(code::VLAN));
                    }
                    // A priority tag says nothing about where the packet belongs.
                    rx.frame.drain(12..16);
                }
                kind => {
                    let code = if kind < 0x0600 {
                        code::UNSUPPORTED_L2
                    } else {
                        code::UNSUPPORTED_L3
                    };
                    if role != Role::Uplink {
                        return Err(rx.drop(code));
                    }
                    let frame = rx.frame.clone();
                    return self.punt(rx, frame, 0, code);
                }
            }
        };
        let pkt = match &mut pkt {
            Ok(pkt) => pkt,
            Err(code) => return Err(rx.drop(*code)),
        };
        if v6 && self.is_neighbour_discovery(rx, pkt) {
            return self.neighbour_discovery(rx, pkt);
        }
        if role == Role::Pod {
            self.source_check(rx, pkt)?;
        }
        self.plausible(rx, pkt)?;
        if self.stays_here(rx, pkt)? {
            let src_id = self.asked(rx, pkt)?;
            return self.not_forwarded(rx, pkt, src_id);
        }
        if !self.fragment(rx, pkt)? {
            return Ok(());
        }
        let result = self.route_in(rx, pkt);
        self.conclude(rx, result);
        self.release_fragments(rx, pkt, None);
        Ok(())
    }

    /// A packet whose ports are known.
    pub(crate) fn route_in(&mut self, rx: &mut Rx<'_>, pkt: &Packet) -> Way {
        let mut pkt = pkt.clone();
        if self.is_tracked(rx, pkt.dst())
            && let Some(about) = self.about(&pkt)
        {
            let src_id = self.sender(rx, &pkt);
            return self.pass_on(rx, &pkt, about, src_id);
        }
        // What is for a pod has to be readable, whatever else is wrong with it.
        if matches!(self.target(pkt.dst()), Target::Endpoint(_)) {
            pkt.tuple().map_err(|code| rx.drop(code))?;
        }
        self.without_trace(|model| match rx.port.role {
            Role::Pod => model.pod_egress(rx, &mut pkt),
            Role::Uplink => model.netdev_ingress(rx, &mut pkt),
            Role::Host => model.kernel_egress(rx, &mut pkt),
        })
    }

    /// The identity of who sends a packet that was not in a tunnel.
    fn sender(&self, rx: &Rx<'_>, pkt: &Packet) -> u32 {
        match (rx.port.role, self.identity(pkt.src())) {
            (Role::Host, _) => identity::HOST,
            (Role::Uplink, identity::HOST) => 0,
            (_, id) => id,
        }
    }

    /// Does something with a packet; if it is refused, no flow knows of it afterwards.
    pub(crate) fn without_trace(&mut self, run: impl FnOnce(&mut Self) -> Way) -> Way {
        self.nat.before = self.ct.made;
        let before = (self.ct.clone(), self.nat.clone(), self.affinity.clone());
        let result = run(self);
        if let Err(Stop::Drop(code, _) | Stop::Refuse(code, ..)) = result
            && is_refusal(code)
        {
            (self.ct, self.nat, self.affinity) = before;
        }
        result
    }

    /// Source verification (specification, 1.2 step 7).
    fn source_check(&self, rx: &mut Rx<'_>, pkt: &Packet) -> Way {
        let (src, dst) = (pkt.src(), pkt.dst());
        if self
            .owner(src)
            .is_some_and(|endpoint| endpoint.port == rx.port.name)
        {
            return Ok(());
        }
        // Who pings a link-local gateway does so from a link-local address.
        let gateway = self.state.node.router6.map(IpAddr::V6);
        if let (IpAddr::V6(from), IpAddr::V6(to)) = (src, dst)
            && from.is_unicast_link_local()
            && to.is_unicast_link_local()
            && gateway == Some(dst)
            && byte(&pkt.bytes, 6) == 58
            && pkt.echo() == Some(false)
        {
            self.answer_echo(rx, pkt)?;
            return Err(Stop::Done);
        }
        Err(rx.drop(code::INVALID_SOURCE))
    }

    /// What cannot be (RFC 1812, 5.3.7; RFC 4291, 2.7), and what is never forwarded (RFC 1812, 5.3.4).
    fn plausible(&self, rx: &Rx<'_>, pkt: &Packet) -> Way {
        let (src, dst) = (pkt.src(), pkt.dst());
        match src {
            IpAddr::V4(addr) if !addr.is_unspecified() && !routable(src) => {
                return Err(rx.drop(code::INVALID));
            }
            IpAddr::V6(addr) if addr.is_multicast() || addr.is_loopback() && !to_many(rx, dst) => {
                return Err(rx.drop(code::INVALID));
            }
            _ => {}
        }
        Ok(())
    }

    /// Asks the policy of a pod that sends what begins no flow: it ends here. Returns the sender's identity.
    pub(crate) fn asked(&self, rx: &mut Rx<'_>, pkt: &Packet) -> Way<u32> {
        if rx.port.role != Role::Pod {
            return Ok(if rx.port.role == Role::Host {
                identity::HOST
            } else {
                0
            });
        }
        let tuple = pkt.tuple().map_err(|code| rx.drop(code))?;
        let Some(endpoint) = self.owner(tuple.src) else {
            return Err(rx.drop(code::INVALID_SOURCE));
        };
        self.egress_policy(rx, pkt, &tuple, endpoint, None)?;
        Ok(endpoint.identity)
    }

    /// What is not forwarded: the kernel's, unless it came from there.
    pub(crate) fn not_forwarded(&mut self, rx: &mut Rx<'_>, pkt: &Packet, identity: u32) -> Way {
        if rx.port.role == Role::Host {
            rx.out.consumed += 1;
            return Ok(());
        }
        let frame = self.reframe(rx, pkt);
        self.punt(rx, frame, identity, code::UNROUTABLE)
    }

    /// Whether a packet is for many, or has addresses that stay on a link.
    pub(crate) fn stays_here(&self, rx: &Rx<'_>, pkt: &Packet) -> Result<bool, Stop> {
        let (src, dst) = (pkt.src(), pkt.dst());
        if to_many(rx, dst) || src.is_unspecified() {
            return Ok(true);
        }
        match dst {
            IpAddr::V4(_) if !routable(dst) => Err(rx.drop(code::UNROUTABLE)),
            IpAddr::V4(_) => Ok(false),
            IpAddr::V6(addr) => {
                let gateway = self.state.node.router6 == Some(addr);
                if !routable(src) || addr.is_unicast_link_local() && !gateway {
                    Ok(true)
                } else if addr.is_unspecified() || addr.is_loopback() {
                    Err(rx.drop(code::UNROUTABLE))
                } else {
                    Ok(false)
                }
            }
        }
    }

    /// The received frame's Ethernet header in front of the packet as it is now.
    pub(crate) fn reframe(&self, rx: &Rx<'_>, pkt: &Packet) -> Vec<u8> {
        let mut frame = rx.frame.get(..12).unwrap_or_default().to_vec();
        frame.extend(pkt.ethertype().to_be_bytes());
        frame.extend(&pkt.bytes);
        frame.extend(&pkt.tail);
        frame
    }

    /// Hands a frame to the kernel; dropped with `otherwise` if there is no way to it.
    pub(crate) fn punt(&mut self, rx: &mut Rx<'_>, mut frame: Vec<u8>, identity: u32, otherwise: u16) -> Way {
        let Some(port) = self.ports.iter().find(|port| port.role == Role::Host).cloned() else {
            return Err(rx.drop(otherwise));
        };
        if !port.admin_up {
            return Err(rx.drop(code::NO_DEVICE));
        }
        if !self.exceptions.allow(self.now) {
            return Err(rx.drop(code::RATE_LIMITED));
        }
        if byte(&frame, 0) & 1 == 0 {
            put(&mut frame, 0, &self.host_mac.unwrap_or(port.mac).0);
        }
        rx.out.punts.push(Punt {
            to: PuntTo::Host,
            identity,
            frame: frame.clone(),
        });
        rx.out.sent.push((port.name, frame));
        Ok(())
    }

    /// Hands a packet to a proxy (specification, 1.8).
    pub(crate) fn hand_to_proxy(&self, rx: &mut Rx<'_>, pkt: &Packet, port: u16, identity: u32) -> Way {
        let frame = self.reframe(rx, pkt);
        rx.out.punts.push(Punt {
            to: PuntTo::Proxy(port),
            identity,
            frame,
        });
        Ok(())
    }

    /// The endpoint that has an address.
    pub(crate) fn owner(&self, addr: IpAddr) -> Option<&Endpoint> {
        self.state
            .endpoints
            .iter()
            .find(|endpoint| endpoint.addresses.contains(&addr))
    }

    /// Whether `addr` is one of this node's own.
    pub(crate) fn is_own(&self, addr: IpAddr) -> bool {
        self.state.node.addresses.contains(&addr)
            || self
                .ports
                .iter()
                .any(|port| port.addresses.iter().any(|own| own.addr == addr))
    }

    /// Whether `addr` is the gateway that pods see.
    pub(crate) fn is_gateway(&self, addr: IpAddr) -> bool {
        let node = &self.state.node;
        node.router4.map(IpAddr::V4) == Some(addr) || node.router6.map(IpAddr::V6) == Some(addr)
    }
}

/// Whether a packet that is dropped for this reason was not wanted, as opposed to one that could not be sent.
fn is_refusal(code: u16) -> bool {
    matches!(
        code,
        code::POLICY
            | code::POLICY_DENY
            | code::AUTH
            | code::ENCAP_PROHIBITED
            | code::NO_SERVICE
            | code::SOURCE_RANGE
            | code::CLUSTER_IP
            | code::NAT_NO_MAPPING
            | code::NAT_PROTOCOL
            | code::CT_FULL
            | code::NO_EGRESS_GATEWAY
            | code::NO_EGRESS_IP
    )
}

/// Whether a packet to `dst` was sent to many stations.
fn to_many(rx: &Rx<'_>, dst: IpAddr) -> bool {
    rx.group() && rx.port.role != Role::Pod
        || match dst {
            IpAddr::V4(addr) => addr.is_multicast() || addr.is_broadcast(),
            IpAddr::V6(addr) => addr.is_multicast(),
        }
}

/// Whether packets from or to this address are forwarded (RFC 1812, 4.2.2.11 and 5.3.7; RFC 4291, section 2).
pub(crate) fn routable(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => !matches!(addr.octets(), [0 | 127 | 224.., ..]),
        IpAddr::V6(addr) => {
            !(addr.is_multicast()
                || addr.is_unicast_link_local()
                || addr.is_unspecified()
                || addr.is_loopback())
        }
    }
}
