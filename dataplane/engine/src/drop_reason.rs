//! Why packets are dropped.

/// Which way a dropped packet was going, seen from the endpoints (metrics direction of the specification, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Towards endpoints: it came from an uplink or the kernel.
    Ingress,
    /// It came from an endpoint.
    Egress,
}

impl Direction {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// Label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Reasons to drop a packet. Codes below 256 and their texts are those of Cilium's drop events (specification
        /// of the datapath, section 6.1); codes from 1000 are ours, for what eBPF programs do not have to care about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Code in events and metrics.
            pub const fn code(self) -> u16 {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// Text for people.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// The source address is not the sending endpoint's.
    InvalidSource = 132, "Invalid source ip";
    /// No policy entry allows it.
    PolicyDenied = 133, "Policy denied";
    /// Headers that contradict themselves or the packet's length.
    InvalidPacket = 134, "Invalid packet";
    /// The upper layer's header is cut off.
    CtInvalidHeader = 135, "CT: Truncated or invalid header";
    /// Larger than the MTU of the way out.
    FragmentationNeeded = 136, "Fragmentation needed";
    /// From an endpoint, and neither IPv4, IPv6 nor ARP.
    UnsupportedL3 = 139, "Unsupported L3 protocol";
    /// A neighbour solicitation for an address nobody here has.
    UnknownL3Target = 150, "Unknown L3 target address";
    /// No route, or one that forbids.
    Unroutable = 151, "Stale or unroutable IP";
    /// The IPv4 header checksum is wrong.
    L3Checksum = 153, "Incorrect L3 checksum";
    /// The checksum of an ICMP message to us is wrong.
    L4Checksum = 154, "Incorrect L4 checksum";
    /// The table of connections is full.
    CtInsertion = 155, "CT: Map insertion failed";
    /// Extension headers that make no sense.
    InvalidExtension = 156, "Invalid IPv6 extension header";
    /// A fragment that would have to be put together here.
    Fragment = 157, "IP fragmentation not supported";
    /// A tunnel packet without key.
    NoTunnelKey = 147, "Error retrieving tunnel key";
    /// The service has no backend.
    NoBackend = 158, "Service backend not found";
    /// The node has no address for tunnels of this family.
    NoTunnelEndpoint = 160, "No tunnel/encapsulation endpoint";
    /// For one of our own addresses, and there is no port to the kernel.
    LocalHostUnreachable = 164, "Local host is unreachable";
    /// An IEEE 802.3 frame from an endpoint.
    UnsupportedL2 = 166, "Unsupported L2 protocol";
    /// The endpoint sends more than it may.
    EdtHorizon = 162, "EDT horizon";
    /// Every port that the connection could be masqueraded with is taken.
    NoNatPort = 167, "No mapping for NAT masquerade";
    /// A protocol that cannot be masqueraded.
    NatProtocol = 168, "Unsupported protocol for NAT masquerade";
    /// The next hop did not answer.
    NoFib = 169, "FIB lookup failed";
    /// An endpoint sent a packet to the tunnel's port itself.
    EncapProhibited = 170, "Encapsulation traffic is prohibited";
    /// A tunnelled packet claims to come from a host's own identity.
    InvalidIdentity = 171, "Invalid identity";
    /// A service that is not offered to the outside.
    IsClusterIp = 174, "Is a ClusterIP";
    /// The first fragment of its packet did not come.
    FragmentNotFound = 175, "First fragment not found";
    /// The service does not serve this client.
    NotInSourceRange = 177, "Denied by LB src range";
    /// A policy entry denies it.
    PolicyDenylist = 181, "Policy denied by denylist";
    /// A VLAN tag on an uplink.
    VlanFiltered = 182, "VLAN traffic disallowed by VLAN filter";
    /// Both ends have to prove who they are first.
    AuthRequired = 189, "Authentication required";
    /// The node that its traffic has to leave from is missing.
    NoEgressGateway = 194, "No Egress Gateway found";
    /// It has to be encrypted and is not.
    Unencrypted = 195, "Traffic is unencrypted";
    /// The TTL or hop limit ran out.
    TtlExceeded = 196, "TTL exceeded";
    /// The node that it would be encrypted for, or that encrypted it, is unknown.
    NoNodeId = 197, "No node ID found";
    /// Too many packets for the kernel, or for the endpoint.
    RateLimited = 198, "Rate limited";
    /// This node is to send it on under an address that it has not got.
    NoEgressIp = 204, "No Egress IP configured";
    /// The port is administratively down or unknown.
    NoDevice = 206, "Device not found";
    /// The device's transmit queue took no more.
    TxFull = 1000, "Transmit queue full";
    /// The frame is addressed to another station.
    OtherStation = 1001, "Frame for another station";
    /// The packet lies in several buffers.
    Segmented = 1002, "Packet in several buffers";
    /// Too many packets already wait for neighbours to answer.
    ParkingFull = 1003, "Too many packets wait for neighbours";
    /// The worker that owns the transmit queue took no more.
    HandoffFull = 1004, "Hand-off queue full";
    /// The pool of packet buffers has run dry.
    NoBuffer = 1005, "No packet buffer left";
    /// Policy sends it through a proxy, and there is no way to one.
    ProxyMissing = 1006, "No way to the proxy";
    /// The nodes agree on a key, and there is no security association for it.
    NoSecurityAssociation = 1007, "No security association";
    /// It could not be encrypted; the counters of IPsec say why.
    NotEncrypted = 1008, "Encryption failed";
    /// It could not be decrypted, or was seen before; the counters of IPsec say why.
    NotDecrypted = 1009, "Decryption failed";
    /// A policy of IPsec says so, or what it says cannot be done.
    IpsecPolicy = 1010, "Denied by IPsec policy";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_codes_are_unique() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(
                DropReason::ALL
                    .iter()
                    .filter(|other| other.code() == reason.code())
                    .count(),
                1
            );
        }
    }
}
