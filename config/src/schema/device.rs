//! What a port is made of.

use std::fmt;

/// The DPDK device of a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DeviceSpec {
    /// A PCI function by its address in lower case, `domain:bus:device.function`.
    Pci(String),
    /// A virtual device, which EAL creates.
    Vdev {
        /// Its name, which begins with the driver's: `net_tap0`. Unique.
        name: String,
        /// Its arguments without the comma that parts them from the name: `iface=tap0`. May be empty.
        args: String,
    },
}

impl DeviceSpec {
    /// Name under which DPDK knows the device once EAL is up.
    pub fn name(&self) -> &str {
        match self {
            Self::Pci(address) => address,
            Self::Vdev { name, .. } => name,
        }
    }

    /// Whether this is a PCI function.
    pub const fn is_pci(&self) -> bool {
        matches!(self, Self::Pci(_))
    }
}

/// As EAL's `--allow` or `--vdev` takes it, and as it stands in the file.
impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(address) => f.write_str(address),
            Self::Vdev { name, args } if args.is_empty() => f.write_str(name),
            Self::Vdev { name, args } => write!(f, "{name},{args}"),
        }
    }
}
