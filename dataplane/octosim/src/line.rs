//! What is said on a line, in JSON: a request, and the answer to it.

use std::net::IpAddr;
use std::time::Duration;

use octoplane_api::v1;
use octoplane_engine::{DropReason, FlowState, FlowView, NeighbourEvent};
use octoplane_flow::Tuple;
use octoplane_observe::verdict_message;
use octoplane_state::{Authentication, EgressGateway, Port, State};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::setup::{Setup, SetupError};
use crate::sim::{Outcome, Sim};

/// A request: one object on one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Begin: only the first request can be this, and only if the node was not given otherwise.
    Setup(Box<SetupLine>),
    /// Make the tables equal to this, as `octoctl apply` does it. What is missing is removed.
    Apply(Box<State>),
    /// Put these objects in. What is there otherwise stays.
    Put(Box<State>),
    /// Take these objects out.
    Remove(Box<Removal>),
    /// Let time pass, as in "1500ms" or "2m".
    Advance(Time),
    /// Have a port receive frames.
    Inject(Inject),
    /// Say what came out since this was asked last.
    Out {},
    /// The same, and it has to be this.
    Expect(Box<Expected>),
    /// Say what was dropped since the beginning.
    Drops {},
    /// List the connections.
    Flows {},
    /// Say what would happen to a packet.
    Explain(Question),
}

/// A packet that is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Who sends it: name, number or address of an endpoint, "host", or another address.
    pub from: String,
    /// Its destination.
    pub to: IpAddr,
    /// Destination port; none of ICMP.
    #[serde(default)]
    pub port: u16,
    /// "tcp", "udp", "sctp" or "icmp".
    #[serde(default = "tcp")]
    pub protocol: String,
    /// Source port, or identifier of the echo request; 0: any that is free.
    #[serde(default)]
    pub source_port: u16,
    /// The uplink that a packet from outside comes in by; empty: the one that leads back.
    #[serde(default)]
    pub in_port: String,
}

fn tcp() -> String {
    "tcp".into()
}

impl Question {
    /// The same as a message.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn request(self) -> Result<v1::ExplainRequest, String> {
        let protocol = match self.protocol.as_str() {
            "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            "icmp" => 1,
            other => return Err(format!("protocol: \"{other}\", expected tcp, udp, sctp or icmp")),
        };
        Ok(v1::ExplainRequest {
            from: self.from,
            to: self.to.to_string(),
            port: self.port.into(),
            protocol,
            source_port: self.source_port.into(),
            in_port: self.in_port,
        })
    }
}

/// What a simulation begins with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetupLine {
    /// The ports, with role.
    pub ports: Vec<Port>,
    /// What hashes and choices begin from.
    #[serde(default = "one")]
    pub seed: u64,
    /// Whether neighbours are asked for and learned.
    #[serde(default)]
    pub learn: bool,
}

fn one() -> u64 {
    1
}

impl SetupLine {
    /// What was written down of a setup; rates and limits are the usual ones.
    pub fn of(setup: &Setup) -> Self {
        let port = |it: &octoplane_tables::model::Port| Port {
            name: it.name.clone(),
            role: Some(it.role.name().into()),
            mac: Some(it.mac.to_string()),
            mtu: Some(it.mtu),
            admin: None,
            addresses: it
                .addresses
                .iter()
                .map(|(addr, len)| format!("{addr}/{len}"))
                .collect(),
        };
        Self {
            ports: setup.ports.iter().map(port).collect(),
            seed: setup.seed,
            learn: setup.learn,
        }
    }

    /// The setup that this is.
    ///
    /// # Errors
    /// [`SetupError`]
    pub fn setup(&self) -> Result<Setup, SetupError> {
        let state = State {
            ports: self.ports.clone(),
            ..State::default()
        };
        Ok(Setup {
            seed: self.seed,
            learn: self.learn,
            ..Setup::of_state(&state)?
        })
    }
}

/// Objects to take out, by their keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Removal {
    /// Numbers of endpoints.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<u32>,
    /// Prefixes of routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// Neighbours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<Station>,
    /// The node's settings.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub node: bool,
    /// Prefixes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ipcache: Vec<String>,
    /// Names of services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Endpoints whose policies are taken out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<u32>,
    /// Rules, by source and destination; their other fields do not count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_gateways: Vec<EgressGateway>,
    /// Authentications, by all fields but `expires`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authentications: Vec<Authentication>,
}

/// A neighbour.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Station {
    /// The port it is on.
    pub port: String,
    /// Its address.
    pub address: String,
}

/// Frames for a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inject {
    /// Its name.
    pub port: String,
    /// One frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hex: Option<Hex>,
    /// Several at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<Hex>,
}

/// Bytes in hexadecimal; blanks do not count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hex(pub Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(from)?;
        text.retain(|it| !it.is_whitespace());
        hex::decode(text).map(Self).map_err(de::Error::custom)
    }
}

impl AsRef<[u8]> for Hex {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A span of time, written as in "1500ms".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map(Self).map_err(|error| {
            de::Error::custom(format!(
                "\"{text}\": {error}, expected as in \"1500ms\" or \"2m\""
            ))
        })
    }
}

/// What has to come out. What is not given may be anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// These frames, in this order on each port. A frame without bytes is any frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Vec<ExpectedFrame>>,
    /// Drops with these codes, each as often as it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops: Option<Vec<u16>>,
}

/// A frame that has to come out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedFrame {
    /// The port it leaves by.
    pub port: String,
    /// All of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hex: Option<Hex>,
}

/// The answer to a request: one object on one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is set up.
    Ready(bool),
    /// The tables are changed.
    Applied(Applied),
    /// The time is this now, counted from the beginning.
    Time(Time),
    /// Frames were received.
    Injected(usize),
    /// What came out.
    Out(Out),
    /// It is what was expected.
    Expected(bool),
    /// It is not what was expected.
    Unexpected(Unexpected),
    /// What was dropped.
    Drops(Vec<Drop>),
    /// The connections.
    Flows(Vec<Flow>),
    /// What would happen to a packet.
    Explained(serde_json::Value),
    /// What is wrong with the request; nothing was done.
    Error(String),
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The revision of the tables.
    pub revision: u64,
    /// Objects put in or changed.
    pub put: usize,
    /// Objects taken out.
    pub removed: usize,
}

/// What came out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Out {
    /// Frames, in the order of each port's queue.
    pub sent: Vec<Sent>,
    /// Packets dropped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drops: Vec<Drop>,
    /// Packets for the kernel.
    #[serde(skip_serializing_if = "is_zero")]
    pub punted: u64,
    /// Packets that ended here as they should.
    #[serde(skip_serializing_if = "is_zero")]
    pub consumed: u64,
    /// Pings, ARP requests and neighbour solicitations answered.
    #[serde(skip_serializing_if = "is_zero")]
    pub answered: u64,
    /// Denials that audit mode let pass.
    #[serde(skip_serializing_if = "is_zero")]
    pub audited: u64,
    /// Packets that wait now.
    #[serde(skip_serializing_if = "is_zero")]
    pub waiting: u64,
    /// What policies said of packets that begin a connection, are refused, audited or sent through a proxy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<serde_json::Value>,
    /// What was heard of neighbours, and who is missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<Heard>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// A frame sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The port it left by.
    pub port: String,
    /// All of it.
    pub hex: Hex,
}

/// Packets dropped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// Code: below 256 that of Cilium's drop events, from 1000 our own.
    pub code: u16,
    /// Text of the code.
    pub reason: String,
    /// "ingress" (towards endpoints) or "egress" (from endpoints).
    pub direction: String,
    /// How many.
    pub packets: u64,
}

/// News of a neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The port it is on.
    pub port: String,
    /// Its address.
    pub address: String,
    /// What it said its Ethernet address is; none: packets wait to know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// What packets arrive with, and what they leave with.
    pub forward: Side,
    /// The same of the answers.
    pub reply: Side,
    /// "syn", "established", "closing"; "open" for what is not TCP.
    pub state: String,
    /// Seconds until it ends if nothing more comes.
    pub expires: u32,
}

/// One direction of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// As in "10.0.0.1:40000".
    pub source: String,
    /// As in "10.0.0.2:80".
    pub destination: String,
    /// Protocol number.
    pub protocol: u8,
}

/// What was wanted and what came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unexpected {
    /// What is different, for people.
    pub what: String,
    /// What came out.
    pub out: Out,
}

impl Out {
    /// What came out, by names.
    pub fn of(sim: &Sim, outcome: Outcome) -> Self {
        let heard = |event: NeighbourEvent| {
            let (port, addr, mac) = match event {
                NeighbourEvent::Heard { port, addr, mac, .. } => (port, addr, Some(mac.to_string())),
                NeighbourEvent::Wanted { port, addr } => (port, addr, None),
            };
            Heard {
                port: sim.port_name(port).into(),
                address: addr.to_string(),
                mac,
            }
        };
        Self {
            sent: outcome
                .sent
                .into_iter()
                .map(|(port, frame)| Sent {
                    port: sim.port_name(port).into(),
                    hex: Hex(frame),
                })
                .collect(),
            drops: drops(&outcome.drops),
            punted: outcome.punted,
            consumed: outcome.consumed,
            answered: outcome.answered,
            audited: outcome.audited,
            waiting: sim.waiting(),
            verdicts: outcome
                .verdicts
                .iter()
                .map(|it| octoplane_state::verdict_value(&verdict_message(it)))
                .collect(),
            neighbours: outcome.neighbours.into_iter().map(heard).collect(),
        }
    }
}

/// Counts with the texts of their codes.
pub fn drops(counts: &std::collections::BTreeMap<(u16, &'static str), u64>) -> Vec<Drop> {
    let text = |code| {
        let reason = DropReason::ALL.iter().find(|reason| reason.code() == code);
        reason.map_or("", |reason| reason.text())
    };
    counts
        .iter()
        .map(|(&(code, direction), &packets)| Drop {
            code,
            reason: text(code).into(),
            direction: direction.into(),
            packets,
        })
        .collect()
}

impl From<&Tuple> for Side {
    fn from(it: &Tuple) -> Self {
        let end = |addr, port| std::net::SocketAddr::new(addr, port).to_string();
        Self {
            source: end(it.src(), it.sport()),
            destination: end(it.dst(), it.dport()),
            protocol: it.protocol(),
        }
    }
}

impl From<&FlowView> for Flow {
    fn from(it: &FlowView) -> Self {
        Self {
            forward: Side::from(&it.forward.tuple),
            reply: Side::from(&it.reply.tuple),
            state: match it.state {
                FlowState::Syn => "syn",
                FlowState::Established => "established",
                FlowState::Closing => "closing",
                FlowState::Open => "open",
            }
            .into(),
            expires: it.expires,
        }
    }
}
