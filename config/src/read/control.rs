//! `[control]` and `[gateway]`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use super::Section;
use super::access;
use super::suggest::shown;
use super::text::{matching, optional_matching};
use crate::{Class, Control, Gateway};

/// What the kernel's socket address holds beside its terminating NUL.
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn control(mut section: Section<'_>) -> Control {
    let default = Control::default();
    let path = |text: &str| {
        text.starts_with('/') && !text.ends_with('/') && text.len() <= MAX_SOCKET_PATH && !text.contains('\0')
    };
    let form = format!("the absolute path of a socket, at most {MAX_SOCKET_PATH} bytes");
    let socket = matching(
        &mut section,
        "socket",
        &default.socket.to_string_lossy(),
        &form,
        path,
    );
    let group = |text: &str| {
        (1..=32).contains(&text.len())
            && !text.starts_with('-')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    let socket_group = optional_matching(&mut section, "socket_group", "the name of a group", group);
    let read_group = optional_matching(&mut section, "read_group", "the name of a group", group);
    if read_group.is_some() && read_group == socket_group {
        section
            .place("read_group")
            .wrong("is that of socket_group, which may do everything, expected another group");
    }
    let read_group_may = access::classes(&mut section, "read_group_may", &[Class::Read, Class::Debug]);
    let max_message_mb = section.integer("max_message_mb", 1..=1024, "MiB", default.max_message_mb);
    let limits = access::limits(&mut section);
    let tcp = access::tcp(&mut section);
    section.finish();
    Control {
        socket: PathBuf::from(socket),
        socket_group,
        read_group,
        read_group_may: read_group_may.unwrap_or(default.read_group_may),
        max_message_mb,
        limits,
        tcp,
    }
}

pub(super) fn gateway(mut section: Section<'_>) -> Gateway {
    let default = Gateway::default();
    let ipv4 = address(
        &mut section,
        "ipv4",
        "a unicast IPv4 address",
        default.ipv4,
        Ipv4Addr::into,
    );
    let ipv6 = address(
        &mut section,
        "ipv6",
        "a unicast IPv6 address",
        default.ipv6,
        Ipv6Addr::into,
    );
    section.finish();
    Gateway { ipv4, ipv6 }
}

fn address<A: FromStr + Copy>(
    section: &mut Section<'_>,
    key: &'static str,
    expected: &str,
    default: A,
    into: impl Fn(A) -> IpAddr,
) -> A {
    let Some((item, text)) = section
        .item(key)
        .and_then(|item| item.text(expected).map(|text| (item, text)))
    else {
        return default;
    };
    match text.parse().ok().filter(|address| is_unicast(into(*address))) {
        Some(address) => address,
        None => {
            item.place
                .wrong(format!("\"{}\" is invalid, expected {expected}", shown(text)));
            default
        }
    }
}

/// Whether an interface on a network can own this address.
pub(super) fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            // 0.0.0.0/8 is "this network", 240.0.0.0/4 is reserved and holds the broadcast address.
            let [first, ..] = a.octets();
            first != 0 && first < 240 && !a.is_loopback() && !a.is_multicast()
        }
        IpAddr::V6(a) => {
            !a.is_unspecified() && !a.is_loopback() && !a.is_multicast() && a.to_ipv4_mapped().is_none()
        }
    }
}
