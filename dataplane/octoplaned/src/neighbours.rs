//! Who is where on the uplinks: keeps the neighbour table that the workers' news feed (RFC 826, RFC 4861).
//!
//! Workers hear answers and find stations missing; they tell this thread, which asks, waits, asks again, and programs
//! the tables. A station that has not been heard for a while is asked whether it is still there before it is forgotten.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};

use octoplane_config::schema;
use octoplane_engine::{NeighbourEvent, probe};
use octoplane_packet::MacAddr;
use octoplane_tables::model::{Change, Neighbour, Origin, PortId, RouteTarget};
use octoplane_tables::{ApplyError, Ports, SharedStore, State};
use tracing::{debug, warn};

/// How often a station is asked before it is given up (RFC 4861, MAX_MULTICAST_SOLICIT).
pub(crate) const TRIES: u32 = 3;

/// How long the thread sleeps between looks at the news: what resolving a neighbour costs on top of the answer's way.
const NAP: Duration = Duration::from_millis(2);
/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often the routes are searched for gateways that nobody has asked for.
const GATEWAYS: Duration = Duration::from_millis(500);

type Key = (PortId, IpAddr);

/// What is known of a station that this thread looks after. Static neighbours are not among them.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Station {
    mac: Option<MacAddr>,
    /// When it was heard last.
    heard: Instant,
    /// Questions since then.
    asked: u32,
    /// When the next question is due.
    next: Instant,
}

/// How often the thread has been through its news: who takes a port's number away waits until the thread no longer knows
/// it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rounds(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    rounds: AtomicU64,
    over: AtomicBool,
}

impl Rounds {
    /// Returns once the thread has heard all news that wait now, and seen the tables as they are now.
    pub(crate) fn wait(&self) {
        // The round that is under way may have begun with older tables.
        let enough = self.0.rounds.load(Acquire) + 2;
        while self.0.rounds.load(Acquire) < enough && !self.0.over.load(Acquire) {
            std::thread::sleep(NAP);
        }
    }
}

/// The thread is over when it ends, however it ends: nobody waits for it for ever.
impl Drop for Neighbours {
    fn drop(&mut self) {
        self.rounds.0.over.store(true, Release);
    }
}

/// Sends a frame out of a port.
pub(crate) type Send = Box<dyn Fn(PortId, Vec<u8>) + std::marker::Send>;

/// The table of stations and the means to keep it.
pub(crate) struct Neighbours {
    store: SharedStore,
    send: Send,
    config: schema::Neighbours,
    stations: HashMap<Key, Station>,
    /// Next hops of routes: asked for without end, so that their routes work from the first packet.
    gateways: BTreeSet<Key>,
    gateways_of: Option<u64>,
    /// The ports as they were last.
    ports: Ports,
    rounds: Rounds,
}

impl Neighbours {
    pub(crate) fn new(store: SharedStore, send: Send, config: schema::Neighbours) -> Self {
        Self {
            store,
            send,
            config,
            stations: HashMap::new(),
            gateways: BTreeSet::new(),
            gateways_of: None,
            ports: Ports::default(),
            rounds: Rounds::default(),
        }
    }

    /// How far the thread is, for others to wait for.
    pub(crate) fn rounds(&self) -> Rounds {
        self.rounds.clone()
    }

    /// Works until told to stop. `news` yields what workers said, `None` when there is no more for now.
    /// Calls `beat` some times a second.
    pub(crate) fn run(
        mut self,
        news: impl Fn() -> Option<NeighbourEvent>,
        beat: impl Fn(),
        stop: &Arc<AtomicBool>,
    ) {
        let mut next_tick = Instant::now();
        self.adopt(next_tick);
        let mut next_gateways = next_tick;
        while !stop.load(Relaxed) {
            let now = Instant::now();
            let mut changes = Vec::new();
            let state = self.store.state();
            self.forget_ports(&state);
            while let Some(event) = news() {
                self.hear(&state, event, now, &mut changes);
            }
            if now >= next_gateways {
                next_gateways = now + GATEWAYS;
                self.look_for_gateways(&state, now);
            }
            if now >= next_tick {
                next_tick = now + TICK;
                beat();
                self.tick(&state, now, &mut changes);
                self.store.reclaim();
            }
            self.apply(changes);
            self.rounds.0.rounds.fetch_add(1, Release);
            std::thread::sleep(NAP);
        }
    }

    /// Looks after those who were learned by the process before: whether they are still there is asked at once, and until that
    /// is known packets go to them.
    fn adopt(&mut self, now: Instant) {
        let learned = |it: &&Neighbour| it.origin == Origin::Learned && it.mac.is_some();
        for it in self.store.state().neighbours().filter(learned) {
            let station = Station {
                mac: it.mac,
                heard: now,
                asked: 0,
                next: now,
            };
            self.stations.insert((it.port, it.addr), station);
        }
    }

    /// Forgets who was on ports that are gone: their numbers may be those of others soon.
    fn forget_ports(&mut self, state: &State) {
        if self.ports == *state.port_set() {
            return;
        }
        self.ports = state.port_set().clone();
        self.stations.retain(|(port, _), _| state.port(*port).is_some());
        self.gateways.retain(|(port, _)| state.port(*port).is_some());
    }

    fn hear(&mut self, state: &State, event: NeighbourEvent, now: Instant, changes: &mut Vec<Change>) {
        match event {
            NeighbourEvent::Wanted { port, addr } => {
                let key = (port, addr);
                // Of one that was removed from the tables nobody is asked yet, either.
                let settled = self.is_asked(key) || is_learned(state, key);
                if !settled && (self.stations.contains_key(&key) || self.may_add(state, key)) {
                    self.ask_first(state, key, now);
                }
            }
            NeighbourEvent::Heard {
                port,
                addr,
                mac,
                addressed,
            } => {
                let key = (port, addr);
                if state
                    .neighbour(port, addr)
                    .is_some_and(|known| known.origin == Origin::Static)
                {
                    return;
                }
                let known = self.stations.get(&key).copied();
                // Who only passes by may move an entry, not make one: else anybody could fill the table.
                if known.is_none() && !(addressed && self.may_add(state, key)) {
                    return;
                }
                // Somebody may have removed it, or the tables may have been full: what they have counts, not what they were told.
                let programmed = state.neighbour(port, addr).and_then(|known| known.mac);
                if programmed != Some(mac) || known.and_then(|station| station.mac) != Some(mac) {
                    debug!(%addr, %mac, port, "neighbour");
                    let neighbour = Neighbour {
                        port,
                        addr,
                        mac: Some(mac),
                        origin: Origin::Learned,
                    };
                    changes.push(Change::PutNeighbour(neighbour));
                }
                let next = now + self.config.reachable;
                self.stations.insert(
                    key,
                    Station {
                        mac: Some(mac),
                        heard: now,
                        asked: 0,
                        next,
                    },
                );
            }
        }
    }

    /// Whether a question to a station is under way.
    fn is_asked(&self, key: Key) -> bool {
        self.stations
            .get(&key)
            .is_some_and(|station| station.mac.is_none() || station.asked > 0)
    }

    /// Whether a station belongs on this link, is not ourselves, and there is room for it.
    fn may_add(&self, state: &State, (port, addr): Key) -> bool {
        let on_link =
            matches!(state.route_to(addr), Some((_, RouteTarget::Link { port: link })) if link == port);
        let room = self.stations.len() < self.config.max_learned;
        // Who announces an address of ours is mistaken or worse.
        let foreign = state.own_address(addr).is_none();
        room && foreign
            && (on_link || self.gateways.contains(&(port, addr)) || is_gateway(state, (port, addr)))
    }

    fn look_for_gateways(&mut self, state: &State, now: Instant) {
        if self.gateways_of != Some(state.revision()) {
            self.gateways_of = Some(state.revision());
            self.gateways = state
                .routes()
                .filter_map(|route| gateway(&route.target))
                .collect();
        }
        let missing: Vec<Key> = self
            .gateways
            .iter()
            .filter(|&&(port, addr)| !self.is_asked((port, addr)) && state.neighbour(port, addr).is_none())
            .copied()
            .collect();
        for key in missing {
            self.ask_first(state, key, now);
        }
    }

    fn ask_first(&mut self, state: &State, key: Key, now: Instant) {
        self.ask(state, key, None);
        let next = now + self.config.retry;
        self.stations.insert(
            key,
            Station {
                mac: None,
                heard: now,
                asked: 1,
                next,
            },
        );
    }

    /// Repeats questions, and forgets who does not answer them.
    fn tick(&mut self, state: &State, now: Instant, changes: &mut Vec<Change>) {
        let due: Vec<(Key, Station)> = self
            .stations
            .iter()
            .filter(|(_, station)| now >= station.next)
            .map(|(key, station)| (*key, *station))
            .collect();
        for (key, station) in due {
            let (port, addr) = key;
            if station.asked < TRIES {
                // Its last known address is asked first, in case it is still there.
                self.ask(state, key, station.mac);
                let asked = station.asked + 1;
                self.stations.insert(
                    key,
                    Station {
                        asked,
                        next: now + self.config.retry,
                        ..station
                    },
                );
                continue;
            }
            self.stations.remove(&key);
            if station.mac.is_some() {
                debug!(%addr, port, "neighbour is gone");
                if is_learned(state, key) {
                    changes.push(Change::RemoveNeighbour { port, addr });
                }
            }
        }
    }

    fn ask(&self, state: &State, (port, addr): Key, known: Option<MacAddr>) {
        let Some(view) = state.port(port) else { return };
        let same_family = |own: &&(IpAddr, u8)| own.0.is_ipv4() == addr.is_ipv4();
        let on_link = |own: &&(IpAddr, u8)| octoplane_packet::Prefix::containing(own.0, own.1).contains(addr);
        let source = view
            .addresses
            .iter()
            .find(on_link)
            .or_else(|| view.addresses.iter().find(same_family));
        let Some((source, _)) = source else {
            debug!(%addr, port = view.name, "no address of this family to ask from");
            return;
        };
        if let Some(frame) = probe::question(view.mac, *source, addr, known) {
            (self.send)(port, frame);
        }
    }

    fn apply(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        if self.learn(&changes).is_ok() {
            return;
        }
        // One that is refused takes no other along.
        for change in changes {
            if let Err(error) = self.learn(&[change]) {
                warn!(%error, "a neighbour was not learned");
            }
        }
    }

    fn learn(&self, changes: &[Change]) -> Result<(), ApplyError> {
        // Between reading the state and now the control plane may have changed it: only what still fits is applied.
        let fits = |state: &State, change: &Change| match change {
            Change::RemoveNeighbour { port, addr } => is_learned(state, (*port, *addr)),
            Change::PutNeighbour(neighbour) => state.port(neighbour.port).is_some(),
            _ => true,
        };
        let fitting = |state: &State| changes.iter().filter(|it| fits(state, it)).cloned().collect();
        self.store.learn(fitting).map(drop)
    }
}

fn is_learned(state: &State, (port, addr): Key) -> bool {
    state
        .neighbour(port, addr)
        .is_some_and(|known| known.origin == Origin::Learned)
}

fn gateway(target: &RouteTarget) -> Option<Key> {
    match *target {
        RouteTarget::Gateway { port, gateway } => Some((port, gateway)),
        RouteTarget::Link { .. } | RouteTarget::Host | RouteTarget::Blackhole => None,
    }
}

fn is_gateway(state: &State, key: Key) -> bool {
    state.routes().any(|route| gateway(&route.target) == Some(key))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use octoplane_tables::model::{Port, Role};
    use octoplane_tables::{Capacity, Gateways, Store};

    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// An uplink with 192.0.2.1/24, and the ports that were asked on.
    fn lab() -> (Neighbours, Arc<Mutex<Vec<PortId>>>) {
        let uplink = Port {
            id: 0,
            name: "uplink".into(),
            role: Role::Uplink,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            admin_up: true,
            addresses: vec![(addr("192.0.2.1"), 24)],
        };
        let gateways = Gateways {
            ipv4: "169.254.1.1".parse().unwrap(),
            ipv6: "fe80::1".parse().unwrap(),
        };
        let store = SharedStore::new(Store::new(vec![uplink], gateways, Capacity::DEFAULT).unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let send = Arc::clone(&asked);
        let send: Send = Box::new(move |port, _| send.lock().unwrap().push(port));
        (Neighbours::new(store, send, schema::Neighbours::default()), asked)
    }

    impl Neighbours {
        fn round(&mut self, news: &[NeighbourEvent]) {
            let (state, mut changes) = (self.store.state(), Vec::new());
            for event in news {
                self.hear(&state, *event, Instant::now(), &mut changes);
            }
            self.apply(changes);
        }

        fn programmed(&self, text: &str) -> Option<MacAddr> {
            self.store.state().neighbour(0, addr(text))?.mac
        }
    }

    fn heard(text: &str) -> NeighbourEvent {
        NeighbourEvent::Heard {
            port: 0,
            addr: addr(text),
            mac: MAC,
            addressed: true,
        }
    }

    #[test]
    fn who_was_removed_is_learned_again() {
        let (mut it, asked) = lab();
        it.round(&[heard("192.0.2.7")]);
        assert_eq!(it.programmed("192.0.2.7"), Some(MAC));
        let remove = || Change::RemoveNeighbour {
            port: 0,
            addr: addr("192.0.2.7"),
        };
        it.store.apply(vec![remove()]).unwrap();
        it.round(&[heard("192.0.2.7")]);
        assert_eq!(it.programmed("192.0.2.7"), Some(MAC));
        // A packet for it does not wait until it is heard by chance.
        it.store.apply(vec![remove()]).unwrap();
        let wanted = NeighbourEvent::Wanted {
            port: 0,
            addr: addr("192.0.2.7"),
        };
        it.round(&[wanted, wanted]);
        assert_eq!(*asked.lock().unwrap(), [0], "once");
        it.round(&[heard("192.0.2.7")]);
        assert_eq!(it.programmed("192.0.2.7"), Some(MAC));
        it.round(&[wanted]);
        assert_eq!(asked.lock().unwrap().len(), 1);
    }

    #[test]
    fn who_cannot_be_learned_takes_nobody_along() {
        let (mut it, _) = lab();
        // Somebody announces our own address, and somebody one that nobody can have.
        it.round(&[heard("192.0.2.1"), heard("192.0.2.255"), heard("192.0.2.7")]);
        assert_eq!(it.programmed("192.0.2.1"), None);
        assert_eq!(it.programmed("192.0.2.7"), Some(MAC));
        let group = NeighbourEvent::Heard {
            port: 0,
            addr: addr("192.0.2.8"),
            mac: MacAddr([1, 0, 0, 0, 0, 7]),
            addressed: true,
        };
        it.round(&[group, heard("192.0.2.9")]);
        assert_eq!(it.programmed("192.0.2.8"), None);
        assert_eq!(it.programmed("192.0.2.9"), Some(MAC));
    }
}
