//! Direct server return on the wire: how a load balancer tells a backend's node which address and port a client used, so
//! that it answers in their name (specification, 3.6).

pub(crate) mod geneve;
pub(crate) mod ipip;
pub(crate) mod option;

use std::net::IpAddr;

use crate::address::{routable4, routable6};
use crate::drop_reason::DropReason;

/// The address and port of a service that a client used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Front {
    pub(crate) addr: IpAddr,
    pub(crate) port: u16,
}

impl Front {
    /// One that a packet may be answered in the name of.
    ///
    /// # Errors
    /// [`DropReason::InvalidPacket`]: nobody can have used it.
    fn checked(addr: IpAddr, port: u16) -> Result<Self, DropReason> {
        let usable = match addr {
            IpAddr::V4(addr) => routable4(addr.to_bits()),
            IpAddr::V6(addr) => routable6(addr.to_bits()),
        };
        match usable && port != 0 {
            true => Ok(Self { addr, port }),
            false => Err(DropReason::InvalidPacket),
        }
    }
}

/// What a load balancer on another node says about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Told {
    /// Nothing.
    #[default]
    Nothing,
    /// What its client used.
    Used(Front),
    /// Which endpoint of this node it is for; its own destination is what its client used.
    For(IpAddr),
}

/// What goes out with a packet so that the backend's node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// Nothing.
    None,
    /// An option in the IP header.
    Option(Front),
    /// An option of the Geneve tunnel that it goes through.
    Geneve(Front),
    /// An IP packet around it, to this backend.
    Ipip(IpAddr),
}

impl Note {
    /// Bytes that the packet grows by.
    pub(crate) fn len(&self) -> u16 {
        let len = match self {
            Self::None => 0,
            Self::Option(front) => option::len(front),
            Self::Geneve(front) => geneve::len(front),
            Self::Ipip(dst) => ipip::len(*dst),
        };
        len as u16
    }
}
