//! What interfaces and ports are called.

use crate::spec::{CniError, Code};

/// What our ends of pairs begin with.
const PREFIX: &str = "oct";

/// Names that follow from an attachment alone, so that it can be removed whatever else was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// Our end of the pair, and the port in the data plane: at most 15 characters.
    pub(crate) port: String,
    /// The DPDK device.
    pub(crate) device: String,
    /// What our end is marked with.
    pub(crate) alias: String,
}

impl Names {
    pub(crate) fn new(network: &str, container: &str, interface: &str) -> Self {
        // Neither of them contains a line feed.
        let number = fnv([network, container, interface].join("\n").as_bytes());
        // 48 bits: with a thousand attachments two have the same number once in 500 million times; then the second one is
        // refused.
        let number = number & 0xffff_ffff_ffff;
        Self {
            port: format!("{PREFIX}{number:012x}"),
            device: format!("net_af_packet_{number:012x}"),
            alias: format!("{}{container} {interface}", alias_prefix(network)),
        }
    }

    /// The attachment that an alias names, by what follows the network in it.
    pub(crate) fn attachment(rest: &str) -> Option<(&str, &str)> {
        rest.split_once(' ')
    }
}

/// What the alias of all interfaces of a network begins with.
pub(crate) fn alias_prefix(network: &str) -> String {
    format!("octoplane-cni {network} ")
}

/// FNV-1a, of 64 bits: the same on every machine and in every build.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Six bytes of an Ethernet address of a station.
pub(crate) fn mac(text: &str) -> Result<[u8; 6], CniError> {
    let wrong = || {
        CniError::new(
            Code::Conf,
            format!("mac: \"{text}\" is not the Ethernet address of a station"),
        )
    };
    let parts: Vec<_> = text.split(':').collect();
    let parse = |part: &&str| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok())?;
    let bytes: Vec<u8> = parts.iter().map_while(parse).collect();
    let mac: [u8; 6] = bytes.try_into().map_err(|_| wrong())?;
    if parts.len() != mac.len() || mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(wrong());
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let names = Names::new("net", "c1", "eth0");
        assert_eq!(names.port.len(), 15);
        assert_ne!(names.port, Names::new("net", "c", "1eth0").port);
        let rest = names.alias.strip_prefix(&alias_prefix("net")).unwrap();
        assert_eq!(Names::attachment(rest), Some(("c1", "eth0")));
        // A reference value of FNV-1a.
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn addresses_of_stations_only() {
        assert_eq!(mac("02:0a:00:00:00:ff").unwrap(), [2, 10, 0, 0, 0, 255]);
        for wrong in [
            "",
            "02",
            "01:00:00:00:00:00",
            "00:00:00:00:00:00",
            "02:0a:00:00:00:fg",
            "02:0a:00:00:00:ff:00",
        ] {
            assert!(mac(wrong).is_err(), "{wrong}");
        }
    }
}
