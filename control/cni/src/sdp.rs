//! The DPU's SDP functions, the other ends of the host's functions (specification of the systems, section 1.8: how VFs are
//! identified).

use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel lists PCI functions.
pub const DEVICES: &str = "/sys/bus/pci/devices";

/// Vendor and device of an SDP function.
const VENDOR: &str = "0x177d";
const DEVICE: &str = "0xa0f7";

/// PCI addresses ("0002:01:00.1") of all SDP functions in ascending order. The first one is the other end of the host's
/// physical function, which is the management wire: it stays with the kernel. Function n + 1 is the other end of the host's
/// function of index n. Without PCI there are none.
pub fn functions(devices: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(devices) else {
        return Vec::new();
    };
    let is = |path: &Path, file: &str, id: &str| {
        fs::read_to_string(path.join(file)).is_ok_and(|text| text.trim().eq_ignore_ascii_case(id))
    };
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is(path, "vendor", VENDOR) && is(path, "device", DEVICE))
        .filter_map(|path| {
            let address = path.file_name()?.to_str()?.to_owned();
            Some((number(&address)?, address))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, address)| address).collect()
}

/// The function that is the management wire.
pub fn management(devices: &Path) -> Option<String> {
    functions(devices).into_iter().next()
}

/// The default place of [`functions`].
pub fn devices() -> PathBuf {
    DEVICES.into()
}

/// A PCI address as the numbers it is ordered by: domain, bus, device, function.
fn number(address: &str) -> Option<[u32; 4]> {
    let (domain, rest) = address.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let mut numbers = [0; 4];
    for (number, text) in numbers.iter_mut().zip([domain, bus, device, function]) {
        *number = u32::from_str_radix(text, 16).ok()?;
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sdp_functions_and_in_the_order_of_numbers() {
        let place = tempfile::tempdir().unwrap();
        for (address, vendor, device) in [
            // The order of the boot log: device 00 function 7 comes before device 01 function 0; a domain of five digits
            // comes after all of four.
            ("0002:01:01.0", "177d", "a0f7"),
            ("0002:01:00.7", "177d", "a0f7"),
            ("0002:01:00.1", "177D", "A0F7"),
            ("10000:00:00.0", "177d", "a0f7"),
            ("0002:01:00.0", "177d", "a065"),
            ("0002:01:00.2", "8086", "a0f7"),
            ("0002:0f:00.1", "177d", "a0f7"),
        ] {
            let function = place.path().join(address);
            fs::create_dir(&function).unwrap();
            fs::write(function.join("vendor"), format!("0x{vendor}\n")).unwrap();
            fs::write(function.join("device"), format!("0x{device}\n")).unwrap();
        }
        assert_eq!(
            functions(place.path()),
            [
                "0002:01:00.1",
                "0002:01:00.7",
                "0002:01:01.0",
                "0002:0f:00.1",
                "10000:00:00.0"
            ]
        );
        assert_eq!(management(place.path()).as_deref(), Some("0002:01:00.1"));
        assert_eq!(management(Path::new("/nosuch")), None);
    }
}
