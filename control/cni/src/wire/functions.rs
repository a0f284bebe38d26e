//! From the host's function to our port.

use std::path::PathBuf;

use crate::attachments::Function;
use crate::error::AttachError;
use crate::sdp;

use super::pb::IntfDetails;

/// Finds the port of a function of the host.
pub trait Functions: Send + Sync + 'static {
    /// Name of the port at the other end of the function with this index.
    ///
    /// # Errors
    /// [`AttachError::NoFunction`]
    fn port(&self, index: Function) -> Result<String, AttachError>;
}

/// Index of a function: number of PFs times VF, plus PF (specification of the systems, section 1.8).
///
/// # Errors
/// [`AttachError::Field`]
pub fn index(interface: &IntfDetails) -> Result<Function, AttachError> {
    let IntfDetails {
        vfid, pfid, num_pfs, ..
    } = *interface;
    let wrong = |field: &str, why: String| {
        Err(AttachError::Field {
            field: format!("intfInfo.{field}"),
            why,
        })
    };
    if num_pfs == 0 {
        return wrong("num_pfs", "is 0 or missing, expected at least 1".into());
    }
    if pfid >= num_pfs {
        return wrong(
            "pfid",
            format!("{pfid} is out of range, expected less than num_pfs, {num_pfs}"),
        );
    }
    match num_pfs.checked_mul(vfid).and_then(|base| base.checked_add(pfid)) {
        Some(index) => Ok(index),
        None => wrong("vfid", format!("{vfid} is out of range")),
    }
}

/// Ports that stand for functions by configuration.
pub struct ByConfiguration(pub Vec<String>);

impl Functions for ByConfiguration {
    fn port(&self, index: Function) -> Result<String, AttachError> {
        let port = usize::try_from(index).ok().and_then(|index| self.0.get(index));
        port.cloned().ok_or_else(|| {
            AttachError::NoFunction(format!(
                "intfInfo: there is no port for function {index}, cni.ports in the daemon's configuration has {}",
                self.0.len()
            ))
        })
    }
}

/// Tells which port has a device.
pub type PortOfDevice = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// SDP functions: that of index n is the other end of the host's function n - 1, and the first one is not ours.
pub struct Sdp {
    /// Where the kernel lists PCI functions.
    pub devices: PathBuf,
    /// Name of the port that has a PCI address.
    pub port: PortOfDevice,
}

impl Functions for Sdp {
    fn port(&self, index: Function) -> Result<String, AttachError> {
        let functions = sdp::functions(&self.devices);
        // Index 0 of the list is never reached.
        let position = usize::try_from(index).ok().and_then(|index| index.checked_add(1));
        let Some(address) = position.and_then(|position| functions.get(position)) else {
            return Err(AttachError::NoFunction(match functions.len() {
                0 => "intfInfo: this machine has no SDP functions (PCI id 177d:a0f7), and cni.ports in the daemon's configuration \
                      names no ports in their place"
                    .into(),
                count => format!(
                    "intfInfo: there is no SDP function for function {index} of the host: there are {count}, the first of which is \
                     the management wire"
                ),
            }));
        };
        (self.port)(address).ok_or_else(|| {
            AttachError::NoFunction(format!(
                "intfInfo: SDP function {address}, the other end of function {index} of the host, is no port of the data plane: \
                 add it to [[ports]]"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn interface(vfid: u32, pfid: u32, num_pfs: u32) -> IntfDetails {
        IntfDetails {
            name: String::new(),
            vfid,
            pfid,
            num_pfs,
        }
    }

    #[test]
    fn the_index_is_that_of_the_specification() {
        // idx = num_pfs * vfid + pfid
        assert_eq!(index(&interface(3, 0, 1)).unwrap(), 3);
        assert_eq!(index(&interface(3, 1, 2)).unwrap(), 7);
        assert_eq!(index(&interface(0, 0, 1)).unwrap(), 0);
        for (wrong, text) in [
            (interface(0, 0, 0), "intfInfo.num_pfs: is 0 or missing"),
            (interface(0, 2, 2), "intfInfo.pfid: 2 is out of range"),
            (
                interface(u32::MAX, 1, 2),
                "intfInfo.vfid: 4294967295 is out of range",
            ),
        ] {
            let error = index(&wrong).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn function_n_of_the_host_is_sdp_function_n_plus_one() {
        let place = tempfile::tempdir().unwrap();
        for number in 1..=4 {
            let function = place.path().join(format!("0002:01:00.{number}"));
            fs::create_dir(&function).unwrap();
            fs::write(function.join("vendor"), "0x177d\n").unwrap();
            fs::write(function.join("device"), "0xa0f7\n").unwrap();
        }
        let sdp = Sdp {
            devices: place.path().into(),
            port: Box::new(|address| {
                // Whoever is asked for the management wire has gone wrong.
                assert_ne!(address, "0002:01:00.1");
                (address != "0002:01:00.3").then(|| format!("port of {address}"))
            }),
        };
        assert_eq!(sdp.port(0).unwrap(), "port of 0002:01:00.2");
        assert_eq!(sdp.port(2).unwrap(), "port of 0002:01:00.4");
        let text = |index| sdp.port(index).unwrap_err().to_string();
        assert!(text(1).contains("0002:01:00.3, the other end of function 1 of the host, is no port"));
        for beyond in [3, u32::MAX] {
            assert!(text(beyond).contains("there are 4, the first of which is the management wire"));
        }
        let none = Sdp {
            devices: "/nosuch".into(),
            port: Box::new(|_| None),
        };
        assert!(
            none.port(0)
                .unwrap_err()
                .to_string()
                .contains("has no SDP functions")
        );
    }

    #[test]
    fn ports_by_configuration() {
        let ports = ByConfiguration(vec!["a".into(), "b".into()]);
        assert_eq!(ports.port(1).unwrap(), "b");
        assert!(
            ports
                .port(2)
                .unwrap_err()
                .to_string()
                .contains("cni.ports in the daemon's configuration has 2")
        );
    }
}
