//! The service, method by method.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use octoplane_packet::MacAddr;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::functions::{Functions, index};
use super::pb::{
    CniAddRequest, CniAddResponse, CniCheckRequest, CniCheckResponse, CniDelRequest, CniDelResponse,
    IntfDetails, IpDetails, PodDetails, cni_action_server,
};
use crate::attachments::{Attachments, Place, Reservation, Wanted};
use crate::error::AttachError;
use crate::ipam::Family;
use crate::record::{Key, Pod, Record, clip};

/// By what name attachments of this service are listed.
pub const NETWORK: &str = "CNIAction";
/// What the interface is called if the request does not say.
const INTERFACE: &str = "eth0";
/// Calls that are worked on at once; others wait.
const MOST_CALLS: usize = 64;

/// The service.
#[derive(Clone)]
pub struct Action {
    attachments: Arc<Attachments>,
    functions: Arc<dyn Functions>,
    calls: Arc<Semaphore>,
}

impl Action {
    /// Over these attachments.
    pub fn new(attachments: Arc<Attachments>, functions: Arc<dyn Functions>) -> Self {
        Self {
            attachments,
            functions,
            calls: Arc::new(Semaphore::new(MOST_CALLS)),
        }
    }

    /// Works off the runtime's threads, to the end even if the client goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, AttachError> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let permit = Arc::clone(&self.calls).acquire_owned().await;
        let action = self.clone();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&action)
        })
        .await
        .map_err(|_| Status::internal("the call was given up"))?
        .map(Response::new)
        .map_err(Status::from)
    }

    fn add(&self, request: CniAddRequest) -> Result<CniAddResponse, AttachError> {
        let pod = present(request.pod_info, "podInfo")?;
        let interface = present(request.intf_info, "intfInfo")?;
        let key = key(&pod, &interface)?;
        let function = index(&interface)?;
        let mac = mac(&request.mac_addr)?;
        if !request.vlan.is_empty() {
            return Err(AttachError::Unsupported {
                field: "vlan",
                why: "VLANs are not supported, expected nothing",
            });
        }
        if request.offload_flags.is_some_and(|flags| flags.check_sum_offload) {
            return Err(AttachError::Unsupported {
                field: "offloadFlags.CheckSumOffload",
                why: "checksums are not filled in here, expected false",
            });
        }
        let by_host = request
            .ipam_allocatedby_host
            .is_some_and(|it| it.ipam_allocatedby_host);
        let wanted = if by_host {
            Wanted::Given(vec![given(request.ip_info)?])
        } else {
            // The answer has room for one address, and the shipped plugin takes it for IPv4. IPv6 only where there is nothing
            // else.
            let family = if self.attachments.has_pool(Family::V4) || !self.attachments.has_pool(Family::V6) {
                Family::V4
            } else {
                Family::V6
            };
            Wanted::Pools(vec![family])
        };
        let port = self.functions.port(function)?;
        let reservation = Reservation {
            key,
            network: NETWORK.into(),
            pod: Pod::new(
                pod.pod_namespace,
                pod.pod_name,
                ["podInfo.pod_namespace", "podInfo.pod_name"],
            )?,
            wanted,
        };
        let record = self.attachments.add(reservation, Place { port, mac }, function)?;
        Ok(CniAddResponse {
            ip_info: Some(self.details(&record)),
            ..Default::default()
        })
    }

    /// Bare addresses: the client appends the prefix length.
    fn details(&self, record: &Record) -> IpDetails {
        let gateways = self.attachments.tables().state().gateways();
        let address = record.addresses.first().copied();
        let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let (version, gateway) = match address {
            IpAddr::V4(_) => ("4", gateways.ipv4.to_string()),
            IpAddr::V6(_) => ("6", gateways.ipv6.to_string()),
        };
        IpDetails {
            version: version.into(),
            address: address.to_string(),
            gateway,
            dns: String::new(),
        }
    }

    fn del(&self, request: CniDelRequest) -> Result<CniDelResponse, AttachError> {
        let pod = present(request.pod_info, "podInfo")?;
        let interface = present(request.intf_info, "intfInfo")?;
        // The function may be another pod's by now; the container is not.
        for key in self.of_container(&key(&pod, &interface)?) {
            self.attachments.detach(&key)?;
        }
        Ok(CniDelResponse {
            ip_info: Some(IpDetails::default()),
            ..Default::default()
        })
    }

    fn check(&self, request: CniCheckRequest) -> Result<CniCheckResponse, AttachError> {
        let pod = present(request.pod_info, "podInfo")?;
        let interface = present(request.intf_info, "intfInfo")?;
        let key = key(&pod, &interface)?;
        let keys = self.of_container(&key);
        if keys.is_empty() {
            return Err(AttachError::NotFound(key));
        }
        for key in keys {
            let record = self.attachments.check(&key)?;
            let Some(expected) = request.ip_info.as_ref().filter(|it| !it.address.is_empty()) else {
                continue;
            };
            let address = bare(&expected.address)?;
            if !record.addresses.contains(&address) {
                return Err(AttachError::Broken {
                    key,
                    why: format!("it has {:?}, not {address}", record.addresses),
                });
            }
        }
        Ok(CniCheckResponse {
            ip_info: Some(IpDetails::default()),
            ..Default::default()
        })
    }

    /// What this service attached for a container, by whatever name its interface goes.
    fn of_container(&self, key: &Key) -> Vec<Key> {
        let ours = |key: &Key| {
            self.attachments
                .get(key)
                .is_ok_and(|record| record.network == NETWORK)
        };
        let mut keys = self.attachments.of_container(&key.container);
        keys.retain(ours);
        if keys.is_empty() {
            // It may be on its way: whoever asks for it waits for that.
            keys.extend(self.attachments.is_busy(key).then(|| key.clone()));
        }
        keys
    }
}

fn present<T>(message: Option<T>, field: &str) -> Result<T, AttachError> {
    message.ok_or_else(|| AttachError::missing(field))
}

fn key(pod: &PodDetails, interface: &IntfDetails) -> Result<Key, AttachError> {
    let name = if interface.name.is_empty() {
        INTERFACE
    } else {
        &interface.name
    };
    Key::new(&pod.container_id, name, ["podInfo.containerId", "intfInfo.name"])
}

fn mac(text: &str) -> Result<MacAddr, AttachError> {
    if text.is_empty() {
        return Err(AttachError::missing("mac_addr"));
    }
    let wrong = |why: String| AttachError::Field {
        field: "mac_addr".into(),
        why,
    };
    let mac: MacAddr = text.parse().map_err(|error| wrong(format!("{error}")))?;
    if !mac.is_unicast() {
        return Err(wrong(format!("{mac} is not the address of a station")));
    }
    Ok(mac)
}

fn given(details: Option<IpDetails>) -> Result<IpAddr, AttachError> {
    let details = present(details, "ipInfo")?;
    if details.address.is_empty() {
        return Err(AttachError::missing("ipInfo.address"));
    }
    let address = bare(&details.address)?;
    let version = if address.is_ipv4() { "4" } else { "6" };
    if !details.version.is_empty() && details.version != version {
        return Err(AttachError::Field {
            field: "ipInfo.version".into(),
            why: format!(
                "\"{}\" is not the version of {address}, expected \"{version}\"",
                clip(&details.version)
            ),
        });
    }
    Ok(address)
}

/// An address, with or without a prefix length.
fn bare(text: &str) -> Result<IpAddr, AttachError> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    let address = address.parse().map_err(|_| AttachError::Field {
        field: "ipInfo.address".into(),
        why: format!("\"{}\" is not an IPv4 or IPv6 address", clip(text)),
    })?;
    Ok(match address {
        // One spelling for each address.
        IpAddr::V6(mapped) => mapped.to_ipv4_mapped().map_or(IpAddr::V6(mapped), IpAddr::V4),
        IpAddr::V4(_) => address,
    })
}

#[tonic::async_trait]
impl cni_action_server::CniAction for Action {
    async fn cmd_add(&self, request: Request<CniAddRequest>) -> Result<Response<CniAddResponse>, Status> {
        self.blocking(|action| action.add(request.into_inner())).await
    }

    async fn cmd_del(&self, request: Request<CniDelRequest>) -> Result<Response<CniDelResponse>, Status> {
        self.blocking(|action| action.del(request.into_inner())).await
    }

    async fn cmd_check(
        &self,
        request: Request<CniCheckRequest>,
    ) -> Result<Response<CniCheckResponse>, Status> {
        self.blocking(|action| action.check(request.into_inner())).await
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn addresses_come_bare_or_with_a_length() {
        assert_eq!(bare("10.0.0.1").unwrap().to_string(), "10.0.0.1");
        assert_eq!(bare("10.0.0.1/24").unwrap().to_string(), "10.0.0.1");
        assert_eq!(bare("::ffff:10.0.0.1").unwrap().to_string(), "10.0.0.1");
        assert_eq!(
            bare("fd00::1/128").unwrap(),
            IpAddr::V6(Ipv6Addr::from_bits(0xfd00 << 112 | 1))
        );
        assert!(bare("").is_err() && bare("ten").is_err());
    }
}
