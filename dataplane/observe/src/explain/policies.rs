//! What policies of IPsec make of the packet: they stand between the engine and the uplinks.

use std::net::IpAddr;

use octoplane_api::v1;
use octoplane_engine::{Departure, DropReason, Engine, Fate, PolicyOptions, Trace, WayOut};
use octoplane_esp::Reader;
use octoplane_esp::view::{Action, Selected};
use octoplane_packet::headers::{ETHERNET_LEN, ethertype};
use octoplane_packet::{HeapPool, MacAddr};
use octoplane_tables::model::Role;

use super::Live;

/// Policies of IPsec.
#[derive(Clone)]
pub struct Policies {
    /// The policies, and their security associations.
    pub reader: Reader,
    /// What the workers were told besides.
    pub options: PolicyOptions,
}

/// What they say of a packet that is about to leave by an uplink.
pub(super) struct Departs {
    /// The policy's number; none says so: strict mode.
    policy: Option<u32>,
    what: Departure,
    /// The other end of the security association, and its SPI.
    sa: Option<(IpAddr, u32)>,
}

fn ip(frame: &[u8]) -> Option<&[u8]> {
    let kind = frame.get(ETHERNET_LEN - 2..ETHERNET_LEN)?.first_chunk()?;
    matches!(u16::from_be_bytes(*kind), ethertype::IPV4 | ethertype::IPV6)
        .then_some(frame.get(ETHERNET_LEN..)?)
}

impl Departs {
    /// What they say of the packet as it leaves an engine. `None`: nothing.
    pub(super) fn of(live: &Live<'_>, engine: &mut Engine<HeapPool>, trace: &Trace) -> Option<Self> {
        let Policies { mut reader, options } = live.policies.clone()?;
        let Some(Fate::Sent { port }) = trace.fate else {
            return None;
        };
        if engine.role(port) != Some(Role::Uplink) {
            return None;
        }
        let snapshot = reader.load();
        let (policy, what) = engine.departs(snapshot, ip(&trace.frame)?, &options, &mut WayOut::default());
        let sa = match what {
            Departure::Encrypt(id) | Departure::EncryptPieces(id, _) => snapshot.sa(id),
            _ => None,
        };
        let sa = sa.map(|sa| (sa.config().destination, sa.config().spi));
        (policy.is_some() || what != Departure::Plain).then_some(Self { policy, what, sa })
    }

    /// The step.
    pub(super) fn step(&self) -> v1::ExplainStep {
        let who = match self.policy {
            Some(number) => format!("IPsec policy {number}"),
            None => "strict mode".into(),
        };
        let text = match (self.what, self.sa) {
            (Departure::Plain, _) => format!("{who} lets it leave as it is"),
            (Departure::Encrypt(_) | Departure::EncryptPieces(..), Some((end, spi))) => {
                format!("{who} has it encrypted for {end} with SPI {spi:#x}")
            }
            (Departure::Drop(DropReason::NoSecurityAssociation), _) => {
                format!("{who} wants it encrypted, and there is no security association for it")
            }
            (Departure::Refuse(size), _) => format!("{who} wants it encrypted: only {size} bytes fit"),
            _ => format!("{who} drops it"),
        };
        step(text)
    }

    /// Says in the answer what becomes of the packet now.
    pub(super) fn correct(&self, live: &Live<'_>, answer: &mut v1::ExplainAnswer) {
        match self.what {
            Departure::Plain => {}
            Departure::Drop(reason) => *answer = dropped(reason, false),
            Departure::Refuse(_) => *answer = dropped(DropReason::FragmentationNeeded, true),
            Departure::Encrypt(_) | Departure::EncryptPieces(..) => {
                let Some((end, _)) = self.sa else { return };
                let mut reader = live.reader.clone();
                let snapshot = reader.load();
                let target = match end {
                    IpAddr::V4(end) => snapshot.route4(end.to_bits()),
                    IpAddr::V6(end) => snapshot.route6(end.to_bits()),
                };
                answer.encrypted = true;
                answer.node = end.to_string();
                // It finds its way by its new header.
                answer.port = live.state.port_set().name(target.port);
                let mac = target.macs.first_chunk().map(|mac| MacAddr(*mac).to_string());
                answer.mac = mac.unwrap_or_default();
                answer.text = format!(
                    "encrypted for {end}, sent by port {} to {}",
                    answer.port, answer.mac
                );
            }
        }
    }
}

/// What policies say of a packet that comes in by an uplink: the step, and whether it is dropped.
pub(super) fn arrives(live: &Live<'_>, frame: &[u8]) -> Option<(v1::ExplainStep, Option<v1::ExplainAnswer>)> {
    let Policies { mut reader, .. } = live.policies.clone()?;
    let selected = Selected::of(ip(frame)?)?;
    let found = reader.load().spd_inbound.lookup(&selected.query)?;
    let number = found.policy;
    let (text, answer) = match found.action {
        Action::Bypass => (format!("IPsec policy {number} lets it in as it is"), None),
        Action::Protect(reqid) => {
            let text = format!(
                "IPsec policy {number} lets it in by a security association with reqid {reqid} only: suppose it came so"
            );
            (text, None)
        }
        Action::Discard => (
            format!("IPsec policy {number} drops it"),
            Some(dropped(DropReason::IpsecPolicy, false)),
        ),
    };
    Some((step(text), answer))
}

fn step(text: String) -> v1::ExplainStep {
    v1::ExplainStep {
        stage: v1::ExplainStage::Encryption.into(),
        text,
        entry: None,
    }
}

fn dropped(reason: DropReason, told: bool) -> v1::ExplainAnswer {
    let and = if told { ", and the sender is told" } else { "" };
    v1::ExplainAnswer {
        outcome: v1::ExplainOutcome::Dropped.into(),
        code: reason.code().into(),
        reason: reason.text().into(),
        told,
        text: format!("dropped: {} ({}){and}", reason.text(), reason.code()),
        ..v1::ExplainAnswer::default()
    }
}
