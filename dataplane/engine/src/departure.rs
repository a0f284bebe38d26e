//! What policies of IPsec say of packets that are about to leave by an uplink (RFC 4301, section 5.1).

use octoplane_esp::view::{Action, Selected};
use octoplane_esp::{Mode, Sa, SaId, Snapshot};
use octoplane_packet::{BufPool, Prefix};

use crate::drop_reason::DropReason;
use crate::engine::Engine;

/// What becomes of IPv4 packets that are too large to be encrypted, and whose senders allow to cut them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TooBig {
    /// They are dropped, and their senders are told, as those of all other packets.
    #[default]
    Icmp,
    /// They are cut, and the fragments encrypted; in transport mode, which takes whole packets only, it is the other way round (RFC
    /// 4303, section 3.3.4).
    Fragment,
}

/// What policies say besides what is programmed.
#[derive(Debug, Clone, Default)]
pub struct PolicyOptions {
    /// What becomes of what is too large.
    pub too_big: TooBig,
    /// What leaves in the clear from one of these for the same is dropped (195): strict mode of the specification, 1.10. Own
    /// packets are not, nor those to other nodes in a tunnel.
    pub strict: Vec<Prefix>,
    /// Other nodes have addresses there: nothing that is for them is dropped.
    pub strict_nodes: bool,
}

/// What is to be done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It goes as it is.
    Plain,
    /// It is dropped.
    Drop(DropReason),
    /// It is encrypted.
    Encrypt(SaId),
    /// It is encrypted in fragments of this size, in bytes.
    EncryptPieces(SaId, u16),
    /// It is dropped, and its sender hears of this size, in bytes.
    Refuse(u16),
}

/// What is known of the way to a security association's other end; the same for most of a burst.
#[derive(Debug, Default)]
pub struct WayOut(Option<(SaId, Option<u16>)>);

impl WayOut {
    /// The largest IP packet on that way.
    fn mtu<P: BufPool>(&mut self, sa: &Sa, engine: &mut Engine<P>) -> Option<u16> {
        match self.0 {
            Some((last, mtu)) if last == sa.id() => mtu,
            _ => {
                let mtu = engine.mtu_towards(sa.config().destination);
                self.0 = Some((sa.id(), mtu));
                mtu
            }
        }
    }
}

impl<P: BufPool> Engine<P> {
    /// What is to be done with an IP packet that is about to leave by an uplink, and the number of the policy that says so, if one
    /// does. `way` is new for each burst.
    #[inline]
    pub fn departs(
        &mut self,
        snapshot: &Snapshot,
        packet: &[u8],
        options: &PolicyOptions,
        way: &mut WayOut,
    ) -> (Option<u32>, Departure) {
        let Some(selected) = Selected::of(packet) else {
            return (None, Departure::Drop(DropReason::InvalidPacket));
        };
        if selected.is_neighbour_discovery || selected.may_be_esp() && snapshot.is_own_esp(packet) {
            return (None, Departure::Plain);
        }
        let found = snapshot.spd.lookup(&selected.query);
        let policy = found.map(|found| found.policy);
        let departure = match found.map(|found| found.action) {
            None | Some(Action::Bypass) => self.in_the_clear(&selected, options),
            Some(Action::Discard) => Departure::Drop(DropReason::IpsecPolicy),
            Some(Action::Protect(tunnel)) => match snapshot.tunnel(tunnel).and_then(|id| snapshot.sa(id)) {
                Some(sa) => self.encrypted_by(sa, &selected, options, way),
                None => Departure::Drop(DropReason::NoSecurityAssociation),
            },
        };
        (policy, departure)
    }

    fn in_the_clear(&mut self, selected: &Selected, options: &PolicyOptions) -> Departure {
        let (src, dst) = (selected.query.source, selected.query.destination);
        let within = |prefix: &Prefix| prefix.contains(src) && prefix.contains(dst);
        match options.strict.iter().any(within) && !self.may_go_plain(src, dst, options.strict_nodes) {
            true => Departure::Drop(DropReason::Unencrypted),
            false => Departure::Plain,
        }
    }

    fn encrypted_by(
        &mut self,
        sa: &Sa,
        selected: &Selected,
        options: &PolicyOptions,
        way: &mut WayOut,
    ) -> Departure {
        let (config, query) = (sa.config(), &selected.query);
        let transport = config.mode == Mode::Transport;
        if transport && (Some(query.source), query.destination) != (config.source, config.destination) {
            // It is for packets between its ends only (RFC 4301, section 4.1).
            return Departure::Drop(DropReason::NoSecurityAssociation);
        }
        let Some(mtu) = way.mtu(sa, self) else {
            return Departure::Drop(DropReason::Unroutable);
        };
        let room = match transport {
            true => usize::from(mtu).saturating_sub(sa.overhead(0)),
            false => sa.max_len(mtu.into()),
        };
        if selected.len <= room {
            return Departure::Encrypt(sa.id());
        }
        match (selected.may_cut && options.too_big == TooBig::Fragment, transport) {
            (true, true) => Departure::Encrypt(sa.id()),
            (true, false) => Departure::EncryptPieces(sa.id(), room as u16),
            (false, _) => Departure::Refuse(room as u16),
        }
    }
}
