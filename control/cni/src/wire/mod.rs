//! `CNIAction`, as the host's CNI plugin speaks it (specification of the systems, section 1.3: gRPC protocol).

mod functions;
mod service;

pub use functions::PortOfDevice;
pub use functions::{ByConfiguration, Functions, Sdp, index};
pub use service::{Action, NETWORK};

/// The messages and the service, as generated.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated"
)]
pub mod pb {
    // The protos have no package.
    tonic::include_proto!("_");
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::pb;

    /// A field of type string or message: its number, and what is in it (Protocol Buffers, wire type 2).
    fn field(number: u8, value: impl AsRef<[u8]>) -> Vec<u8> {
        let value = value.as_ref();
        [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
    }

    /// A field of type uint32 or bool (wire type 0).
    fn number(number: u8, value: u8) -> Vec<u8> {
        vec![number << 3, value]
    }

    /// Bytes made by hand from the table of the specification (section 1.3: gRPC protocol): numbers and types of all fields.
    #[test]
    fn the_numbers_of_fields_are_those_of_the_specification() {
        let pod = [field(1, "ns"), field(2, "web"), field(3, "c1")].concat();
        let interface = [field(1, "eth0"), number(2, 3), number(3, 1), number(4, 2)].concat();
        let details = [
            field(1, "4"),
            field(2, "10.0.0.1"),
            field(3, "10.0.0.254"),
            field(4, "dns"),
        ]
        .concat();
        let pod_info = Some(pb::PodDetails {
            pod_namespace: "ns".into(),
            pod_name: "web".into(),
            container_id: "c1".into(),
        });
        let intf_info = Some(pb::IntfDetails {
            name: "eth0".into(),
            vfid: 3,
            pfid: 1,
            num_pfs: 2,
        });
        let ip_info = Some(pb::IpDetails {
            version: "4".into(),
            address: "10.0.0.1".into(),
            gateway: "10.0.0.254".into(),
            dns: "dns".into(),
        });
        let add = pb::CniAddRequest {
            pod_info: pod_info.clone(),
            intf_info: intf_info.clone(),
            mac_addr: "mac".into(),
            ipam_allocatedby_host: Some(pb::IpaMallocatedbyHost {
                ipam_allocatedby_host: true,
            }),
            ip_info: ip_info.clone(),
            offload_flags: Some(pb::OffloadFlags {
                check_sum_offload: true,
            }),
            vlan: "5".into(),
        };
        let bytes = [
            field(1, &pod),
            field(2, &interface),
            field(3, "mac"),
            field(4, number(1, 1)),
            field(5, &details),
            field(6, number(1, 1)),
            field(7, "5"),
        ];
        assert_eq!(add.encode_to_vec(), bytes.concat());
        let added = pb::CniAddResponse {
            ip_info: ip_info.clone(),
            vlan: "5".into(),
            status: "ok".into(),
        };
        let bytes = [field(1, &details), field(2, "5"), field(3, "ok")];
        assert_eq!(added.encode_to_vec(), bytes.concat());
        let del = pb::CniDelRequest {
            intf_info: intf_info.clone(),
            pod_info: pod_info.clone(),
        };
        assert_eq!(
            del.encode_to_vec(),
            [field(1, &interface), field(2, &pod)].concat()
        );
        let check = pb::CniCheckRequest {
            intf_info,
            pod_info,
            ip_info: ip_info.clone(),
        };
        let bytes = [field(1, &interface), field(2, &pod), field(3, &details)];
        assert_eq!(check.encode_to_vec(), bytes.concat());
        let bytes = [field(1, &details), field(2, "ok")].concat();
        let (deleted, checked) = (
            pb::CniDelResponse {
                ip_info: ip_info.clone(),
                status: "ok".into(),
            },
            pb::CniCheckResponse {
                ip_info,
                status: "ok".into(),
            },
        );
        assert_eq!(deleted.encode_to_vec(), bytes);
        assert_eq!(checked.encode_to_vec(), bytes);
    }
}
