//! `[[ports]]`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use super::control::is_unicast;
use super::item::Item;
use super::suggest::shown;
use super::{Section, device};
use crate::schema::{MAX_PORTS, MAX_WORKERS};
use crate::{DeviceSpec, Gateway, InterfaceAddr, MacAddr, Port, Queues, Role};

const NAME: &str = "1 to 15 of the characters a-z, 0-9, \"_\", \".\" and \"-\"";

/// The ports without mistakes; of the others the mistakes are noted.
pub(super) fn read(root: &mut Section<'_>, gateway: Gateway) -> Vec<Port> {
    let Some(sections) = root.tables("ports") else {
        if !root.has("ports") {
            root.place("ports")
                .wrong("is missing, expected at least one [[ports]]");
        }
        return Vec::new();
    };
    if sections.is_empty() || sections.len() > MAX_PORTS {
        root.place("ports")
            .wrong(format!("has {} ports, expected 1 to {MAX_PORTS}", sections.len()));
    }
    let mut seen = Seen {
        gateway,
        ..Seen::default()
    };
    let numbered = sections.into_iter().enumerate();
    numbered
        .filter_map(|(index, section)| read_port(index, section?, &mut seen))
        .collect()
}

/// One port that stands alone: what only one port may have is for others to check.
pub(crate) fn read_one_port(root: Section<'_>, gateway: Gateway) -> Option<Port> {
    let mut seen = Seen {
        gateway,
        ..Seen::default()
    };
    read_port(0, root, &mut seen)
}

/// What only one port may have, and the index of the port that has it.
#[derive(Default)]
struct Seen {
    gateway: Gateway,
    names: HashMap<String, usize>,
    devices: HashMap<String, usize>,
    addresses: HashMap<IpAddr, usize>,
    host: Option<usize>,
}

fn read_port(index: usize, mut section: Section<'_>, seen: &mut Seen) -> Option<Port> {
    let name = section
        .required("name", NAME)
        .and_then(|item| name(index, &item, seen));
    let roles = [Role::Pod, Role::Uplink, Role::Host].map(|role| (role.as_str(), role));
    let role = section.required_choice("role", &roles);
    if role == Some(Role::Host) {
        match seen.host {
            Some(first) => section.place("role").wrong(format!(
                "is \"host\" as that of ports[{first}], expected at most one host port"
            )),
            None => seen.host = Some(index),
        }
    }
    let device = section
        .required("device", device::EXPECTED)
        .and_then(|item| device(index, &item, seen));
    let rx_queues = queues(&mut section, "rx_queues");
    let tx_queues = queues(&mut section, "tx_queues");
    let mut descriptors = |key| section.integer(key, 64..=32_768, "descriptors", Port::DEFAULT_DESCRIPTORS);
    let rx_descriptors = descriptors("rx_descriptors");
    let tx_descriptors = descriptors("tx_descriptors");
    let mtu = section.integer("mtu", Port::MIN_MTU..=Port::MAX_MTU, "bytes", Port::DEFAULT_MTU);
    let mac = section.item("mac").and_then(|item| mac(&item));
    let addresses = section
        .item("addresses")
        .map_or_else(Vec::new, |item| addresses(index, role, &item, seen));
    let promiscuous = section.boolean("promiscuous", false);
    section.finish();
    Some(Port {
        name: name?,
        role: role?,
        device: device?,
        rx_queues,
        tx_queues,
        rx_descriptors,
        tx_descriptors,
        mtu,
        mac,
        addresses,
        promiscuous,
    })
}

fn name(index: usize, item: &Item<'_>, seen: &mut Seen) -> Option<String> {
    let text = item.text(NAME)?;
    let good = (1..=15).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'));
    if !good {
        item.place
            .wrong(format!("\"{}\" is invalid, expected {NAME}", shown(text)));
        return None;
    }
    if let Some(first) = seen.names.get(text) {
        item.place.wrong(format!(
            "\"{text}\" is the name of ports[{first}] already, expected another name"
        ));
        return None;
    }
    seen.names.insert(text.to_owned(), index);
    Some(text.to_owned())
}

fn device(index: usize, item: &Item<'_>, seen: &mut Seen) -> Option<DeviceSpec> {
    let device = device::read(item)?;
    if let Some(first) = seen.devices.get(device.name()) {
        let name = device.name();
        item.place.wrong(format!(
            "{name} is the device of ports[{first}] already, expected another device"
        ));
        return None;
    }
    seen.devices.insert(device.name().to_owned(), index);
    Some(device)
}

fn queues(section: &mut Section<'_>, key: &'static str) -> Queues {
    let most = u16::try_from(MAX_WORKERS).unwrap_or(u16::MAX);
    let count = section.integer(key, 0..=most, "queues (0: one per worker)", 0);
    NonZeroU16::new(count).map_or(Queues::PerWorker, Queues::Fixed)
}

fn mac(item: &Item<'_>) -> Option<MacAddr> {
    let expected = "a unicast MAC address as in 02:00:00:00:00:01";
    let text = item.text(expected)?;
    let mac = text.parse::<MacAddr>().ok().filter(|mac| mac.is_unicast());
    if mac.is_none() {
        item.place
            .wrong(format!("\"{}\" is invalid, expected {expected}", shown(text)));
    }
    mac
}

fn addresses(index: usize, role: Option<Role>, item: &Item<'_>, seen: &mut Seen) -> Vec<InterfaceAddr> {
    let expected = "a list of addresses as in \"192.0.2.1/24\" or \"2001:db8::1/64\"";
    let Some(items) = item.list(expected) else {
        return Vec::new();
    };
    if role == Some(Role::Pod) && !items.is_empty() {
        item.place
            .wrong("stands on a pod port, expected only on an uplink or host port");
    }
    items
        .iter()
        .filter_map(|item| address(index, item, seen))
        .collect()
}

fn address(index: usize, item: &Item<'_>, seen: &mut Seen) -> Option<InterfaceAddr> {
    let expected = "a unicast ADDRESS/LENGTH as in \"192.0.2.1/24\" or \"2001:db8::1/64\"";
    let text = item.text(expected)?;
    let Some(address) = interface_addr(text) else {
        item.place
            .wrong(format!("\"{}\" is invalid, expected {expected}", shown(text)));
        return None;
    };
    let ip = address.addr;
    if ip == IpAddr::V4(seen.gateway.ipv4) || ip == IpAddr::V6(seen.gateway.ipv6) {
        item.place.wrong(format!(
            "{ip} is the pods' gateway address, expected another address"
        ));
        return None;
    }
    match seen.addresses.insert(ip, index) {
        // A link-local address belongs to its link: two links may use the same.
        Some(first) if first == index || !is_link_local(ip) => {
            item.place.wrong(if first == index {
                format!("{ip} is given twice, expected another address")
            } else {
                format!("{ip} is an address of ports[{first}] already, expected another address")
            });
            None
        }
        _ => Some(address),
    }
}

fn interface_addr(text: &str) -> Option<InterfaceAddr> {
    let (addr, len) = text.split_once('/')?;
    let addr: IpAddr = addr.parse().ok().filter(|addr| is_unicast(*addr))?;
    let digits = (1..=3).contains(&len.len()) && len.bytes().all(|b| b.is_ascii_digit());
    let prefix_len: u8 = digits.then(|| len.parse().ok()).flatten()?;
    match addr {
        // The first and the last address of a network are its own and its broadcast address, but on a point-to-point
        // link (RFC 3021) and on a host's.
        IpAddr::V4(a) => {
            let host = u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
            let own = a.to_bits() & host;
            let good =
                matches!(prefix_len, 31 | 32) || (1..=30).contains(&prefix_len) && own != 0 && own != host;
            good.then_some(())?;
        }
        IpAddr::V6(_) => (1..=128).contains(&prefix_len).then_some(())?,
    }
    Some(InterfaceAddr { addr, prefix_len })
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}
