//! `[crypto]`.

use std::collections::HashSet;
use std::time::Duration;

use super::item::Item;
use super::suggest::shown;
use super::{Section, device};
use crate::{Crypto, CryptoLibrary, CryptoProvider, DeviceSpec, Port};

pub(super) fn read(mut section: Section<'_>, ports: &[Port]) -> Crypto {
    let default = Crypto::default();
    let providers = [
        CryptoProvider::Auto,
        CryptoProvider::Software,
        CryptoProvider::Cryptodev,
    ]
    .map(|provider| (provider.as_str(), provider));
    let provider = section.choice("provider", &providers).unwrap_or_default();
    let devices = section
        .item("devices")
        .and_then(|item| devices(&item, ports))
        .unwrap_or_default();
    if provider == CryptoProvider::Cryptodev && devices.is_empty() && !section.has_items("devices") {
        section
            .place("devices")
            .wrong("has no devices although the provider is \"cryptodev\", expected at least one");
    }
    if provider == CryptoProvider::Software && section.has_items("devices") {
        section.place("devices").wrong(
            "has devices although the provider is \"software\", expected none, or \"auto\" or \"cryptodev\"",
        );
    }
    let queue_depth = section.integer("queue_depth", 64..=32_768, "packets", default.queue_depth);
    if !queue_depth.is_power_of_two() {
        section.place("queue_depth").wrong(format!(
            "{queue_depth} is no power of two, expected {} or {}",
            queue_depth.next_power_of_two() / 2,
            queue_depth.next_power_of_two()
        ));
    }
    let libraries = [
        ("aes-gcm", Some(CryptoLibrary::AesGcm)),
        ("ring", Some(CryptoLibrary::Ring)),
        ("aws-lc-rs", Some(CryptoLibrary::AwsLcRs)),
        ("auto", None),
    ];
    let library = section.choice("library", &libraries).flatten();
    let mut milliseconds = |key, range, default: Duration| {
        let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(section.integer(key, range, "milliseconds", default))
    };
    let timeout = milliseconds("timeout_ms", 1..=10_000, default.timeout);
    let retry = milliseconds("retry_ms", 1..=60_000, default.retry);
    section.finish();
    Crypto {
        provider,
        devices,
        queue_depth,
        library,
        timeout,
        retry,
    }
}

/// The devices without mistakes; of the others the mistakes are noted.
fn devices(item: &Item<'_>, ports: &[Port]) -> Option<Vec<DeviceSpec>> {
    let items = item.list("a list of crypto devices")?;
    if items.len() > Crypto::MAX_DEVICES {
        item.place.wrong(format!(
            "has {} devices, expected at most {}",
            items.len(),
            Crypto::MAX_DEVICES
        ));
    }
    let mut seen = HashSet::new();
    let mut good = Vec::new();
    for item in items {
        let Some(device) = device::read_crypto(&item) else {
            continue;
        };
        let name = shown(device.name());
        if let Some(port) = ports.iter().find(|port| port.device.name() == device.name()) {
            item.place.wrong(format!(
                "\"{name}\" is the device of port {}, expected a crypto device",
                port.name
            ));
        } else if !seen.insert(device.name().to_owned()) {
            item.place
                .wrong(format!("\"{name}\" is listed twice, expected different devices"));
        } else {
            good.push(device);
        }
    }
    Some(good)
}
