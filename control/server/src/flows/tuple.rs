//! Between messages and tuples of the table.

use std::net::{IpAddr, SocketAddr};

use octoplane_api::v1;
use octoplane_flow::Tuple;
use tonic::Status;

use super::refuse;
use crate::refusal::clip;

/// A tuple as a message.
#[must_use]
pub fn flow_tuple(tuple: &Tuple) -> v1::FlowTuple {
    v1::FlowTuple {
        source: tuple.src().to_string(),
        destination: tuple.dst().to_string(),
        source_port: tuple.sport().into(),
        destination_port: tuple.dport().into(),
        protocol: tuple.protocol().into(),
        zone: tuple.zone().into(),
    }
}

/// A tuple that a client names. `field` is where it stands in the request.
pub(super) fn read(field: &str, message: &v1::FlowTuple) -> Result<Tuple, Status> {
    let address = |name: &str, text: &str| -> Result<IpAddr, Status> {
        text.parse().map_err(|_| {
            let why = format!("\"{}\" is not an IPv4 or IPv6 address", clip(text));
            refuse(&format!("{field}.{name}"), why)
        })
    };
    let source = address("source", &message.source)?;
    let destination = address("destination", &message.destination)?;
    if source.is_ipv4() != destination.is_ipv4() {
        let why = format!("{destination} is of another address family than source");
        return Err(refuse(&format!("{field}.destination"), why));
    }
    let wide = |name, value| number::<u16>(field, name, value, u16::MAX.into());
    let narrow = |name, value| number::<u8>(field, name, value, u8::MAX.into());
    Ok(Tuple::new(
        source,
        destination,
        wide("source_port", message.source_port)?,
        wide("destination_port", message.destination_port)?,
        narrow("protocol", message.protocol)?,
        narrow("zone", message.zone)?,
    ))
}

fn number<T: TryFrom<u32>>(field: &str, name: &str, value: u32, most: u32) -> Result<T, Status> {
    T::try_from(value).map_err(|_| {
        let why = format!("{value} is out of range, expected at most {most}");
        refuse(&format!("{field}.{name}"), why)
    })
}

/// A tuple in a message for people.
pub(super) fn show(tuple: &Tuple) -> String {
    format!(
        "{} to {}, protocol {}",
        SocketAddr::new(tuple.src(), tuple.sport()),
        SocketAddr::new(tuple.dst(), tuple.dport()),
        tuple.protocol()
    )
}
