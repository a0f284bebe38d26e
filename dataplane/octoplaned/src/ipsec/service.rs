//! What the control service gets to see of encryption.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use octoplane_api::v1;
use octoplane_config::IpsecFraming;
use octoplane_control::{IpsecControl, IpsecRefusal};
use octoplane_engine::{Counter, Framing};
use octoplane_esp::cilium::effective;
use octoplane_esp::view::NodeDecision;
use octoplane_esp::{Cause, Direction, Sa};
use octoplane_worker::crypto::{ProviderStats, Why};
use octoplane_worker::{Dataplane, IpsecStats};

use super::program::{self, Known};
use super::{Inner, Ipsec, nodes};

/// Encryption behind the control socket.
pub(crate) struct Service {
    pub(crate) ipsec: Arc<Ipsec>,
    pub(crate) dataplane: Arc<Dataplane>,
}

fn errors(count: impl Fn(Cause) -> u64) -> Vec<v1::IpsecError> {
    let of = |cause: &Cause| v1::IpsecError {
        cause: cause.label().into(),
        packets: count(*cause),
        text: cause.text().into(),
    };
    Cause::ALL
        .iter()
        .map(of)
        .filter(|error| error.packets > 0)
        .collect()
}

fn sa(sa: &Arc<Sa>, provider: String, known: Option<&Known>, now: u64) -> v1::IpsecSa {
    let (config, mut used) = (sa.config(), sa.used());
    if let Some(known) = known {
        used.packets = used.packets.saturating_add(known.before.packets);
        used.bytes = used.bytes.saturating_add(known.before.bytes);
    }
    let outbound = config.direction == Direction::Outbound;
    v1::IpsecSa {
        direction: if outbound { "outbound" } else { "inbound" }.into(),
        spi: config.spi,
        source: config.source.map_or_else(|| "any".into(), |it| it.to_string()),
        destination: config.destination.to_string(),
        algorithm: config.algorithm.to_string(),
        fingerprint: sa.fingerprint().to_string(),
        esn: config.esn,
        replay_window: config.replay_window,
        sequence: match outbound {
            true => sa.sequence().next(),
            false => sa.highest_accepted(),
        },
        packets: used.packets,
        bytes: used.bytes,
        errors: errors(|cause| sa.errors(cause)),
        provider,
        config: known.map(|known| known.config.clone()),
        state: program::state(sa, now).into(),
        age_seconds: known.map_or(0, program::age),
    }
}

impl Service {
    fn sum(&self, get: impl Fn(&IpsecStats) -> u64) -> u64 {
        let workers = self.dataplane.workers.iter();
        workers.filter_map(|it| it.ipsec.as_ref()).map(get).sum()
    }

    fn providers(&self, get: impl Fn(&ProviderStats) -> u64) -> u64 {
        let crypto = self.dataplane.crypto.as_ref();
        crypto.map_or(0, |crypto| crypto.stats().map(get).sum())
    }

    /// Has crypto devices know of everything before the first packet.
    fn prepare(&self, inner: &Inner) {
        if let Some(crypto) = &self.dataplane.crypto {
            for sa in inner.database.snapshot().sad.iter() {
                crypto.prepare(sa.session());
            }
        }
    }

    fn queues(&self) -> Vec<v1::IpsecQueue> {
        let in_device = |worker: usize| {
            let stats = self.dataplane.crypto.as_ref()?.stats().nth(worker)?;
            Some(stats.in_device.get())
        };
        let of = |(worker, it): (usize, &IpsecStats)| v1::IpsecQueue {
            worker: worker as u32,
            waiting: it.counts.waiting.get(),
            in_device: in_device(worker).unwrap_or(0),
        };
        let workers = self.dataplane.workers.iter().enumerate();
        workers
            .filter_map(|(worker, it)| Some((worker, it.ipsec.as_ref()?)))
            .map(of)
            .collect()
    }

    fn devices(&self) -> Vec<v1::IpsecDevice> {
        let Some(crypto) = &self.dataplane.crypto else {
            return Vec::new();
        };
        let of = |it: octoplane_worker::crypto::DeviceReport| v1::IpsecDevice {
            name: it.name,
            driver: it.driver,
            algorithms: it.algorithms,
            sessions: it.sessions,
            workers: it.workers.iter().map(|(worker, _)| *worker as u32).collect(),
            unused: it
                .workers
                .iter()
                .filter_map(|(worker, cause)| cause.map(|cause| format!("worker {worker}: {}", cause.name())))
                .collect(),
        };
        crypto.report().into_iter().map(of).collect()
    }
}

impl IpsecControl for Service {
    fn status(&self) -> v1::IpsecStatus {
        let devices = self.devices();
        let now = self.dataplane.clock.now();
        let inner = self.ipsec.inner();
        let keys = inner.keys.held().iter().map(|held| v1::IpsecKey {
            key: held.key.index.get().into(),
            algorithm: held.key.algorithm.to_string(),
            removed_in_seconds: inner
                .keys
                .ends(held)
                .map(|end| end.saturating_sub(now) / 1_000_000_000),
        });
        v1::IpsecStatus {
            key: inner.announced.map_or(0, |key| key.get().into()),
            boot_id: inner.boot_id.clone(),
            addresses: inner.local.iter().map(IpAddr::to_string).collect(),
            strict: inner.strict,
            keys: keys.collect(),
            key_file_error: inner.keys.error.clone().unwrap_or_default(),
            provider: if devices.is_empty() {
                "software"
            } else {
                "cryptodev"
            }
            .into(),
            devices,
            nodes: inner.nodes.len() as u64,
            sas: inner.database.snapshot().sad.len() as u64,
            framing: match inner.framing {
                Framing::TunnelInEsp => IpsecFraming::TunnelInEsp,
                Framing::EspInTunnel => IpsecFraming::EspInTunnel,
            }
            .as_str()
            .into(),
            policies: inner.programmed.allowed,
            too_big: inner.programmed.too_big.as_str().into(),
        }
    }

    fn program(&self, request: v1::ProgramIpsecRequest) -> Result<u64, IpsecRefusal> {
        let now = self.dataplane.clock.now();
        let mut inner = self.ipsec.inner();
        let revision = inner.program(now, request)?;
        self.prepare(&inner);
        Ok(revision)
    }

    fn events(&self, after: u64) -> Vec<v1::IpsecEvent> {
        self.ipsec.inner().events.after(after)
    }

    fn set_nodes(&self, request: v1::SetIpsecNodesRequest) -> Result<u64, IpsecRefusal> {
        let now = self.dataplane.clock.now();
        let mut inner = self.ipsec.inner();
        if inner.keys.held().is_empty() {
            return Err(IpsecRefusal::Failed(
                "ipsec.key_file is not in the configuration of the daemon".into(),
            ));
        }
        let before = inner.nodes.clone();
        let mut next = inner.nodes.clone();
        let mut removed = HashSet::new();
        for (index, text) in request.remove.iter().enumerate() {
            let addr = nodes::address(text, &format!("remove[{index}]"))?;
            if next.remove(&addr).is_some() {
                removed.insert(addr);
            }
        }
        let mut put = Vec::new();
        for (index, message) in request.nodes.iter().enumerate() {
            let (addr, node) = nodes::read(message, &format!("nodes[{index}]"), &next)?;
            removed.remove(&addr);
            if next.insert(addr, node.clone()) != Some(node) {
                put.push(addr);
            }
        }
        put.sort_unstable();
        put.dedup();
        let file = inner.nodes_file.clone();
        nodes::save(&file, &next)
            .map_err(|error| IpsecRefusal::Failed(format!("{}: {error}", file.display())))?;
        inner.nodes = next;
        let removed: Vec<_> = removed.into_iter().collect();
        if let Err(error) = inner.update(now, &put, &removed) {
            inner.nodes = before;
            // If this fails, the nodes are there after the next start.
            let _ = nodes::save(&file, &inner.nodes);
            return Err(IpsecRefusal::Failed(error));
        }
        self.prepare(&inner);
        Ok(inner.database.snapshot().revision)
    }

    fn nodes(&self) -> Vec<v1::IpsecNode> {
        let inner = self.ipsec.inner();
        let nodes = inner.nodes.iter();
        nodes.map(|(addr, node)| nodes::message(addr, node)).collect()
    }

    fn sas(&self) -> Vec<v1::IpsecSa> {
        let now = self.dataplane.clock.now();
        let inner = self.ipsec.inner();
        let snapshot = Arc::clone(inner.database.snapshot());
        let known = inner.programmed.sas.clone();
        drop(inner);
        let mut sas: Vec<_> = snapshot.sad.iter().collect();
        sas.sort_by_key(|sa| {
            let config = sa.config();
            let outbound = config.direction == Direction::Outbound;
            let other = match outbound {
                true => Some(config.destination),
                false => config.source,
            };
            (other, config.spi, !outbound)
        });
        let provider = |of: &Sa| {
            let crypto = self.dataplane.crypto.as_ref();
            let device = crypto.and_then(|crypto| crypto.device_of(of.session()));
            device.unwrap_or_else(|| "software".into())
        };
        let shown = |it| sa(it, provider(it), known.get(&it.config().key()), now);
        sas.into_iter().map(shown).collect()
    }

    fn policies(&self) -> v1::IpsecPolicyList {
        let inner = self.ipsec.inner();
        let snapshot = inner.database.snapshot();
        let of = |(addr, node): (&IpAddr, &nodes::Node)| {
            let key = inner.announced.zip(node.key);
            v1::IpsecPolicy {
                node: addr.to_string(),
                action: match snapshot.node(*addr) {
                    NodeDecision::Encrypt(_) => "encrypt",
                    NodeDecision::Plain => "plain",
                    NodeDecision::NoNodeId | NodeDecision::NoSa => "drop",
                }
                .into(),
                key: key.map_or(0, |(local, peer)| effective(local, peer).get().into()),
            }
        };
        let policies = inner.database.policies();
        v1::IpsecPolicyList {
            policies: inner.nodes.iter().map(of).collect(),
            selectors: policies.map(|it| program::policy(it, snapshot)).collect(),
        }
    }

    fn counters(&self) -> v1::IpsecCounters {
        let total = |counter: fn(&IpsecStats) -> &Counter| self.sum(|stats| counter(stats).get());
        v1::IpsecCounters {
            encrypted: total(|it| &it.counts.encrypted),
            decrypted: total(|it| &it.counts.decrypted),
            full: total(|it| &it.counts.full),
            waiting: total(|it| &it.counts.waiting),
            outbound: errors(|cause| self.sum(|it| it.outbound.get(cause))),
            inbound: errors(|cause| self.sum(|it| it.inbound.get(cause))),
            device: self.providers(|it| it.device.get()),
            to_software: Why::ALL
                .iter()
                .map(|why| v1::IpsecError {
                    cause: why.name().into(),
                    packets: self.providers(|it| it.software(*why)),
                    text: String::new(),
                })
                .filter(|error| error.packets > 0)
                .collect(),
            lost: self.providers(|it| it.lost.get()),
            queues: self.queues(),
        }
    }
}
