//! Services.

use octoplane_api::v1;
use octoplane_tables::model::{
    Algorithm, BackendState, Forwarding, FrontendType, Protocol, Service, ServiceBackend, ServiceFrontend,
    TrafficPolicy,
};

use crate::field::Fields;
use crate::mistake::{Mistake, clip};

/// A service in the tables' terms.
pub fn service(message: v1::Service) -> Result<Service, Mistake> {
    let object = format!("service \"{}\"", clip(&message.name));
    let it = Fields { object: &object };
    Ok(Service {
        protocol: match it.choice("protocol", message.protocol)? {
            v1::ServiceProtocol::Tcp => Protocol::Tcp,
            v1::ServiceProtocol::Udp => Protocol::Udp,
            v1::ServiceProtocol::Sctp => Protocol::Sctp,
            v1::ServiceProtocol::Unspecified => {
                return Err(it.refuse("protocol", "is missing, expected TCP, UDP or SCTP"));
            }
        },
        frontends: list("frontends", &message.frontends, |field, one| {
            frontend(it, field, one)
        })?,
        backends: list("backends", &message.backends, |field, one| {
            backend(it, field, one)
        })?,
        algorithm: match it.choice("algorithm", message.algorithm)? {
            v1::Algorithm::Unspecified | v1::Algorithm::Random => Algorithm::Random,
            v1::Algorithm::Maglev => Algorithm::Maglev,
        },
        affinity_seconds: message.affinity_seconds,
        source_ranges: it.each("source_ranges", &message.source_ranges, |field, text| {
            it.prefix(field, text)
        })?,
        source_ranges_deny: message.source_ranges_deny,
        internal_policy: policy(it, "internal_policy", message.internal_policy)?,
        external_policy: policy(it, "external_policy", message.external_policy)?,
        forwarding: forwarding(it, message.forwarding)?,
        proxy_port: it.word("proxy_port", message.proxy_port)?,
        name: message.name,
    })
}

fn list<M, T>(
    field: &str,
    messages: &[M],
    read: impl Fn(&str, &M) -> Result<T, Mistake>,
) -> Result<Vec<T>, Mistake> {
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| read(&format!("{field}[{index}]"), message))
        .collect()
}

fn frontend(it: Fields<'_>, field: &str, message: &v1::Frontend) -> Result<ServiceFrontend, Mistake> {
    Ok(ServiceFrontend {
        addr: it.address(&format!("{field}.address"), &message.address)?,
        port: it.word(&format!("{field}.port"), message.port)?,
        kind: match it.choice(&format!("{field}.type"), message.r#type)? {
            v1::FrontendType::Unspecified | v1::FrontendType::ClusterIp => FrontendType::ClusterIp,
            v1::FrontendType::NodePort => FrontendType::NodePort,
            v1::FrontendType::HostPort => FrontendType::HostPort,
            v1::FrontendType::ExternalIp => FrontendType::ExternalIp,
            v1::FrontendType::LoadBalancer => FrontendType::LoadBalancer,
        },
    })
}

fn backend(it: Fields<'_>, field: &str, message: &v1::Backend) -> Result<ServiceBackend, Mistake> {
    Ok(ServiceBackend {
        addr: it.address(&format!("{field}.address"), &message.address)?,
        port: it.word(&format!("{field}.port"), message.port)?,
        weight: it.word(&format!("{field}.weight"), message.weight)?.max(1),
        state: match it.choice(&format!("{field}.state"), message.state)? {
            v1::BackendState::Unspecified | v1::BackendState::Active => BackendState::Active,
            v1::BackendState::Terminating => BackendState::Terminating,
            v1::BackendState::Quarantined => BackendState::Quarantined,
            v1::BackendState::Maintenance => BackendState::Maintenance,
        },
        local: message.local,
    })
}

fn policy(it: Fields<'_>, field: &str, value: i32) -> Result<TrafficPolicy, Mistake> {
    Ok(match it.choice(field, value)? {
        v1::TrafficPolicy::Unspecified | v1::TrafficPolicy::Cluster => TrafficPolicy::Cluster,
        v1::TrafficPolicy::Local => TrafficPolicy::Local,
    })
}

/// How packets reach a backend on another node; `None` if that is not said.
pub(crate) fn forwarding(it: Fields<'_>, value: i32) -> Result<Option<Forwarding>, Mistake> {
    Ok(match it.choice("forwarding", value)? {
        v1::Forwarding::Unspecified => None,
        v1::Forwarding::Snat => Some(Forwarding::Snat),
        v1::Forwarding::Dsr => Some(Forwarding::Dsr),
        v1::Forwarding::Hybrid => Some(Forwarding::Hybrid),
    })
}

pub(crate) fn forwarding_message(forwarding: Option<Forwarding>) -> i32 {
    match forwarding {
        None => v1::Forwarding::Unspecified,
        Some(Forwarding::Snat) => v1::Forwarding::Snat,
        Some(Forwarding::Dsr) => v1::Forwarding::Dsr,
        Some(Forwarding::Hybrid) => v1::Forwarding::Hybrid,
    }
    .into()
}

/// A service as a message.
pub fn service_message(service: &Service) -> v1::Service {
    let policy = |policy| match policy {
        TrafficPolicy::Cluster => v1::TrafficPolicy::Cluster.into(),
        TrafficPolicy::Local => v1::TrafficPolicy::Local.into(),
    };
    v1::Service {
        name: service.name.clone(),
        protocol: match service.protocol {
            Protocol::Tcp => v1::ServiceProtocol::Tcp,
            Protocol::Udp => v1::ServiceProtocol::Udp,
            Protocol::Sctp => v1::ServiceProtocol::Sctp,
        }
        .into(),
        frontends: service.frontends.iter().map(frontend_message).collect(),
        backends: service.backends.iter().map(backend_message).collect(),
        algorithm: match service.algorithm {
            Algorithm::Random => v1::Algorithm::Random,
            Algorithm::Maglev => v1::Algorithm::Maglev,
        }
        .into(),
        affinity_seconds: service.affinity_seconds,
        source_ranges: service.source_ranges.iter().map(ToString::to_string).collect(),
        source_ranges_deny: service.source_ranges_deny,
        internal_policy: policy(service.internal_policy),
        external_policy: policy(service.external_policy),
        forwarding: forwarding_message(service.forwarding),
        proxy_port: service.proxy_port.into(),
    }
}

fn frontend_message(it: &ServiceFrontend) -> v1::Frontend {
    v1::Frontend {
        address: it.addr.to_string(),
        port: it.port.into(),
        r#type: match it.kind {
            FrontendType::ClusterIp => v1::FrontendType::ClusterIp,
            FrontendType::NodePort => v1::FrontendType::NodePort,
            FrontendType::HostPort => v1::FrontendType::HostPort,
            FrontendType::ExternalIp => v1::FrontendType::ExternalIp,
            FrontendType::LoadBalancer => v1::FrontendType::LoadBalancer,
        }
        .into(),
    }
}

fn backend_message(it: &ServiceBackend) -> v1::Backend {
    v1::Backend {
        address: it.addr.to_string(),
        port: it.port.into(),
        weight: it.weight.into(),
        state: match it.state {
            BackendState::Active => v1::BackendState::Active,
            BackendState::Terminating => v1::BackendState::Terminating,
            BackendState::Quarantined => v1::BackendState::Quarantined,
            BackendState::Maintenance => v1::BackendState::Maintenance,
        }
        .into(),
        local: it.local,
    }
}
