//! Offloads of an interface, over the generic netlink family "ethtool" (the kernel's documentation, ethtool-netlink,
//! FEATURES_SET).

use std::fmt;

use futures_util::StreamExt as _;
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

use crate::spec::{CniError, Code};

/// Offloads by which the kernel leaves a checksum to the device.
const CHECKSUMS: [&str; 4] = [
    "tx-checksum-ip-generic",
    "tx-checksum-ipv4",
    "tx-checksum-ipv6",
    "tx-checksum-sctp",
];

// Numbers from linux/ethtool_netlink.h.
const FEATURES_SET: u8 = 12;
const FEATURES_HEADER: u16 = 1;
const FEATURES_WANTED: u16 = 3;
const HEADER_DEV_NAME: u16 = 2;
const HEADER_FLAGS: u16 = 3;
const FLAG_OMIT_REPLY: u32 = 2;
const BITSET_BITS: u16 = 3;
const BITSET_BITS_BIT: u16 = 1;
const BITSET_BIT_NAME: u16 = 2;

/// A request of the family, already as attributes; what comes back is not looked at.
#[derive(Clone, PartialEq, Eq)]
struct SetFeatures(Vec<DefaultNla>);

impl fmt::Debug for SetFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FEATURES_SET")
    }
}

impl GenlFamily for SetFeatures {
    fn family_name() -> &'static str {
        "ethtool"
    }

    fn command(&self) -> u8 {
        FEATURES_SET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for SetFeatures {
    fn buffer_len(&self) -> usize {
        self.0.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for SetFeatures {
    fn parse_with_param(_: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self(Vec::new()))
    }
}

fn text(kind: u16, text: &str) -> DefaultNla {
    let mut value = text.as_bytes().to_vec();
    value.push(0);
    DefaultNla::new(kind, value)
}

fn nested(kind: u16, parts: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; parts.buffer_len()];
    parts.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

/// Has the kernel fill in the checksums of what is sent by an interface (in the namespace of the calling thread).
pub(super) async fn fill_checksums(name: &str) -> Result<(), CniError> {
    let header = nested(
        FEATURES_HEADER,
        &[
            text(HEADER_DEV_NAME, name),
            DefaultNla::new(HEADER_FLAGS, FLAG_OMIT_REPLY.to_ne_bytes().to_vec()),
        ],
    );
    // A bit that is named without a value is to be off.
    let bits = CHECKSUMS.map(|bit| nested(BITSET_BITS_BIT, &[text(BITSET_BIT_NAME, bit)]));
    let wanted = nested(FEATURES_WANTED, &[nested(BITSET_BITS, &bits)]);
    let (connection, mut handle, _) = genetlink::new_connection()?;
    tokio::spawn(connection);
    let failed = |why: &dyn fmt::Display| {
        CniError::new(Code::Kernel, format!("interface {name}: checksum offload: {why}"))
    };
    let mut message = NetlinkMessage::from(GenlMessage::from_payload(SetFeatures(vec![header, wanted])));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let answers = handle.request(message).await.map_err(|error| failed(&error))?;
    let mut answers = std::pin::pin!(answers);
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(|error| failed(&error))?;
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(failed(&error.to_io()));
        }
    }
    Ok(())
}
