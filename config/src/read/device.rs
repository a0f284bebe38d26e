//! The `device` of a port, and crypto devices.

use super::item::Item;
use super::suggest::shown;
use crate::DeviceSpec;

/// What DPDK has room for in a device's name, without the terminating NUL.
const MAX_NAME: usize = 63;

pub(super) const EXPECTED: &str =
    "a PCI address as in 0000:02:00.1 or a virtual device as in net_tap0,iface=tap0";

const EXPECTED_CRYPTO: &str =
    "a PCI address as in 0002:20:00.1 or a virtual device as in crypto_aesni_gcm0,max_nb_queue_pairs=8";

pub(super) fn read(item: &Item<'_>) -> Option<DeviceSpec> {
    read_kind(item, "net_", EXPECTED)
}

pub(super) fn read_crypto(item: &Item<'_>) -> Option<DeviceSpec> {
    read_kind(item, "crypto_", EXPECTED_CRYPTO)
}

/// `prefix` is what the names of all drivers for virtual devices of the kind begin with.
fn read_kind(item: &Item<'_>, prefix: &str, expected: &str) -> Option<DeviceSpec> {
    let text = item.text(expected)?;
    let device = pci(text).or_else(|| vdev(text, prefix));
    if device.is_none() {
        item.place
            .wrong(format!("\"{}\" is invalid, expected {expected}", shown(text)));
    }
    device
}

/// The domain is asked for because DPUs have several: without it, it is easily the wrong one.
fn pci(text: &str) -> Option<DeviceSpec> {
    let hex = |part: &str, digits: std::ops::RangeInclusive<usize>| {
        let good = digits.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
        good.then(|| u32::from_str_radix(part, 16).ok()).flatten()
    };
    let (domain, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    hex(domain, 4..=8)?;
    hex(bus, 2..=2)?;
    hex(device, 2..=2).filter(|device| *device < 32)?;
    hex(function, 1..=1).filter(|function| *function < 8)?;
    Some(DeviceSpec::Pci(text.to_ascii_lowercase()))
}

fn vdev(text: &str, prefix: &str) -> Option<DeviceSpec> {
    let (name, args) = text.split_once(',').unwrap_or((text, ""));
    let rest = name.strip_prefix(prefix)?;
    let name_good = !rest.is_empty()
        && name.len() <= MAX_NAME
        && rest
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    // A trailing comma is a forgotten argument.
    let args_good = args.bytes().all(|b| b.is_ascii_graphic()) && !text.ends_with(',');
    (name_good && args_good).then(|| DeviceSpec::Vdev {
        name: name.to_owned(),
        args: args.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_device() {
        assert_eq!(pci("0002:01:00.A"), None);
        assert_eq!(pci("0002:1F:00.1"), Some(DeviceSpec::Pci("0002:1f:00.1".into())));
        for text in [
            "02:00.1",
            "0000:02:00.8",
            "0000:02:20.0",
            "0000:02:00",
            "0000:002:00.1",
            "+000:02:00.1",
        ] {
            assert_eq!(pci(text), None, "{text}");
        }
        let device = vdev("net_tap0,iface=tap0,mac=fixed", "net_");
        assert_eq!(
            device.map(|d| d.to_string()).as_deref(),
            Some("net_tap0,iface=tap0,mac=fixed")
        );
        assert_eq!(
            vdev("net_null0", "net_").map(|d| d.to_string()).as_deref(),
            Some("net_null0")
        );
        for text in [
            "",
            "net_",
            "eth0",
            "crypto_null0",
            "net_tap0,",
            "net_tap0,iface=a b",
            "net_tap 0",
        ] {
            assert_eq!(vdev(text, "net_"), None, "{text}");
        }
    }
}
