//! `[ipsec]`.

use std::net::IpAddr;
use std::time::Duration;

use octoplane_packet::Prefix;

use super::Section;
use super::item::Item;
use super::text::optional_matching;
use crate::{Ipsec, IpsecFraming, IpsecTooBig};

/// Each packet that leaves is compared with all of them.
const MAX_PREFIXES: usize = 16;

pub(super) fn read(mut section: Section<'_>) -> Ipsec {
    let default = Ipsec::default();
    let absolute =
        |text: &str| text.starts_with('/') && text.len() <= 4000 && !text.contains('\0') && text != "/";
    let key_file = optional_matching(&mut section, "key_file", "the absolute path of a file", absolute);
    let policies = section.boolean("policies", default.policies);
    let answers = [IpsecTooBig::Icmp, IpsecTooBig::Fragment].map(|answer| (answer.as_str(), answer));
    let too_big = section.choice("too_big", &answers).unwrap_or(default.too_big);
    let strict = section.boolean("strict", default.strict);
    let strict_cidrs = section
        .item("strict_cidrs")
        .and_then(|item| prefixes(&item))
        .unwrap_or_default();
    let strict_remote_nodes = section.boolean("strict_remote_nodes", default.strict_remote_nodes);
    let framings =
        [IpsecFraming::TunnelInEsp, IpsecFraming::EspInTunnel].map(|framing| (framing.as_str(), framing));
    let framing = section.choice("framing", &framings).unwrap_or(default.framing);
    let addresses = section
        .item("addresses")
        .and_then(|item| addresses(&item))
        .unwrap_or_default();
    let rotation = section.integer("rotation_s", 0..=86_400, "seconds", default.rotation.as_secs());
    let directory = optional_matching(
        &mut section,
        "directory",
        "the absolute path of a directory",
        absolute,
    );
    let form = "36 characters as in /proc/sys/kernel/random/boot_id";
    let boot_id = optional_matching(&mut section, "boot_id", form, |text| {
        text.len() == Ipsec::BOOT_ID_LEN && text.bytes().all(|byte| byte.is_ascii_graphic())
    });
    section.finish();
    Ipsec {
        key_file: key_file.map(Into::into),
        policies,
        too_big,
        strict,
        strict_cidrs,
        strict_remote_nodes,
        framing,
        addresses,
        rotation: Duration::from_secs(rotation),
        directory: directory.map_or(default.directory, Into::into),
        boot_id,
    }
}

fn prefixes(item: &Item<'_>) -> Option<Vec<Prefix>> {
    const EXPECTED: &str = "at most 16 prefixes as in 10.0.0.0/8";
    let mut good = Vec::new();
    for item in item.list(EXPECTED)? {
        let Some(text) = item.text("a prefix") else {
            continue;
        };
        match text.parse() {
            Ok(prefix) if good.len() < MAX_PREFIXES => good.push(prefix),
            _ => item.place.wrong(format!(
                "\"{}\" is invalid, expected {EXPECTED}",
                super::suggest::shown(text)
            )),
        }
    }
    Some(good)
}

fn addresses(item: &Item<'_>) -> Option<Vec<IpAddr>> {
    const EXPECTED: &str = "one unicast address of each family at most";
    let mut good: Vec<IpAddr> = Vec::new();
    for item in item.list(EXPECTED)? {
        let Some(text) = item.text("an IP address") else {
            continue;
        };
        match text.parse::<IpAddr>() {
            Ok(addr)
                if !addr.is_unspecified()
                    && !addr.is_multicast()
                    && !addr.is_loopback()
                    && good.iter().all(|other| other.is_ipv4() != addr.is_ipv4()) =>
            {
                good.push(addr);
            }
            _ => item.place.wrong(format!(
                "\"{}\" is invalid, expected {EXPECTED}",
                super::suggest::shown(text)
            )),
        }
    }
    Some(good)
}
