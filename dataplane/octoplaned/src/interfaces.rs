//! The kernel interfaces that virtual devices are made from: what drivers do not check, or say badly.

use std::collections::BTreeSet;
use std::fs;

use octoplane_config::schema::DeviceSpec;
use octoplane_control::PortRefusal;

/// Where the kernel lists the interfaces of this thread's network namespace, which is where drivers look.
const INTERFACES: &str = "/proc/thread-self/net/dev";

/// Buffers that the AF_XDP driver takes for each receive queue, whatever the number of descriptors.
const AF_XDP_FILL: u32 = 2048;

/// Interfaces that a driver never lets go of.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    /// Those whose AF_XDP port was removed: the driver of DPDK 22.11 leaves its socket open, with its buffers.
    held: BTreeSet<Interface>,
}

/// An interface and not only its name, which the next one may have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Interface {
    name: String,
    index: Option<String>,
}

impl Interfaces {
    /// Whether a device can be made from its interface.
    pub(crate) fn check(&self, device: &DeviceSpec) -> Result<(), PortRefusal> {
        let Some(interface) = interface(device) else {
            return Ok(());
        };
        let Ok(table) = fs::read_to_string(INTERFACES) else {
            return Ok(());
        };
        let listed = |line: &str| {
            let name = line.trim_start().split_once(':').map(|(name, _)| name);
            name == Some(interface.name.as_str())
        };
        if !table.lines().any(listed) {
            return Err(PortRefusal::Device(format!(
                "there is no network interface \"{}\"",
                interface.name
            )));
        }
        if is_af_xdp(device) && self.held.contains(&interface) {
            return Err(PortRefusal::Device(format!(
                "interface {} was an AF_XDP port before, which the AF_XDP driver does not let go of: restart the daemon, \
                 make the interface anew, or use net_af_packet",
                interface.name
            )));
        }
        Ok(())
    }

    /// Remembers what the driver of a removed device keeps.
    pub(crate) fn removed(&mut self, device: &DeviceSpec) {
        if is_af_xdp(device) {
            self.held.extend(interface(device));
        }
    }
}

/// Packet buffers that a receive queue of a device holds.
pub(crate) fn buffers_for(device: &DeviceSpec, descriptors: u16) -> u32 {
    if is_af_xdp(device) {
        AF_XDP_FILL.max(descriptors.into())
    } else {
        descriptors.into()
    }
}

fn is_af_xdp(device: &DeviceSpec) -> bool {
    device.name().starts_with("net_af_xdp")
}

/// The interface that has to be there before the device; some drivers make theirs.
fn interface(device: &DeviceSpec) -> Option<Interface> {
    let DeviceSpec::Vdev { name, args } = device else {
        return None;
    };
    if !is_af_xdp(device) && !name.starts_with("net_af_packet") {
        return None;
    }
    let name = args.split(',').find_map(|arg| arg.strip_prefix("iface="))?;
    Some(Interface {
        name: name.to_owned(),
        index: fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, args: &str) -> DeviceSpec {
        DeviceSpec::Vdev {
            name: name.into(),
            args: args.into(),
        }
    }

    #[test]
    fn an_interface_that_is_missing_is_named() {
        let check = |name, args| Interfaces::default().check(&device(name, args));
        assert_eq!(check("net_af_packet3", "qpairs=1,iface=lo"), Ok(()));
        let missing = check("net_af_packet3", "iface=nosuch0").unwrap_err();
        assert!(missing.to_string().contains("\"nosuch0\""), "{missing}");
        // A tap device makes its interface itself.
        assert_eq!(check("net_tap0", "iface=nosuch0"), Ok(()));
    }

    #[test]
    fn what_a_driver_holds_is_not_tried_again() {
        let mut interfaces = Interfaces::default();
        for name in ["net_af_xdp3", "net_af_packet3"] {
            interfaces.removed(&device(name, "iface=lo"));
        }
        let held = interfaces.check(&device("net_af_xdp4", "iface=lo")).unwrap_err();
        assert!(held.to_string().contains("use net_af_packet"), "{held}");
        assert_eq!(interfaces.check(&device("net_af_packet4", "iface=lo")), Ok(()));
        assert_eq!(buffers_for(&device("net_af_xdp0", "iface=lo"), 1024), 2048);
        assert_eq!(buffers_for(&device("net_null0", ""), 1024), 1024);
    }
}
