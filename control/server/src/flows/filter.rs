//! Which connections a client means.

use std::net::IpAddr;

use octoplane_api::v1;
use octoplane_flow::Tuple;
use octoplane_packet::Prefix;
use tonic::Status;

use super::refuse;
use crate::refusal::clip;

/// A filter that was checked. What is not set fits everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Filter {
    address: Option<Prefix>,
    source: Option<Prefix>,
    destination: Option<Prefix>,
    port: Option<u16>,
    protocol: Option<u8>,
}

impl Filter {
    /// Checks a filter; its absence is no filter.
    pub(super) fn read(message: Option<&v1::FlowFilter>) -> Result<Self, Status> {
        let Some(it) = message else {
            return Ok(Self::default());
        };
        Ok(Self {
            address: prefix("filter.address", &it.address)?,
            source: prefix("filter.source", &it.source)?,
            destination: prefix("filter.destination", &it.destination)?,
            port: number("filter.port", it.port, u16::MAX.into())?,
            protocol: number("filter.protocol", it.protocol, u8::MAX.into())?,
        })
    }

    /// Whether it lets everything pass.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a connection fits whose directions arrive with these tuples.
    pub(super) fn fits(&self, forward: &Tuple, reply: &Tuple) -> bool {
        // The other direction turned round is what a direction leaves as.
        let source = |prefix: Prefix| prefix.contains(forward.src()) || prefix.contains(reply.dst());
        let destination = |prefix: Prefix| prefix.contains(forward.dst()) || prefix.contains(reply.src());
        self.protocol.is_none_or(|it| it == forward.protocol())
            && self.port.is_none_or(|it| {
                [forward.sport(), forward.dport(), reply.sport(), reply.dport()].contains(&it)
            })
            && self.source.is_none_or(source)
            && self.destination.is_none_or(destination)
            && self.address.is_none_or(|it| source(it) || destination(it))
    }
}

fn prefix(field: &str, text: &str) -> Result<Option<Prefix>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let why = match text.parse::<IpAddr>() {
        Ok(addr) => return Ok(Some(Prefix::host(addr))),
        Err(_) if text.contains('/') => match text.parse() {
            Ok(prefix) => return Ok(Some(prefix)),
            Err(error) => error.to_string(),
        },
        Err(_) => format!("\"{}\" is neither an address nor a prefix", clip(text)),
    };
    Err(refuse(field, why))
}

/// A number of which 0 means that it is not set.
fn number<T: TryFrom<u32>>(field: &str, value: u32, most: u32) -> Result<Option<T>, Status> {
    let out = |_| refuse(field, format!("{value} is out of range, expected at most {most}"));
    let number = T::try_from(value).map_err(out)?;
    Ok((value != 0).then_some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(src: &str, dst: &str, sport: u16, dport: u16) -> Tuple {
        Tuple::new(src.parse().unwrap(), dst.parse().unwrap(), sport, dport, 6, 0)
    }

    #[test]
    fn each_side_before_and_after_translation() {
        // A pod asks a service; the backend answers to what the pod was translated to.
        let forward = tuple("10.0.0.1", "172.20.0.1", 4000, 80);
        let reply = tuple("10.0.0.9", "192.0.2.1", 8080, 50_000);
        let message = v1::FlowFilter::default();
        let fits = |message: v1::FlowFilter| Filter::read(Some(&message)).unwrap().fits(&forward, &reply);
        assert!(fits(message.clone()));
        for (text, source, destination) in [
            ("10.0.0.1", true, false),
            ("192.0.2.0/24", true, false),
            ("172.20.0.1/32", false, true),
            ("10.0.0.9", false, true),
            ("10.0.0.0/8", true, true),
            ("10.0.0.2", false, false),
            ("::/0", false, false),
        ] {
            let text = text.to_owned();
            let by_source = v1::FlowFilter {
                source: text.clone(),
                ..message.clone()
            };
            let by_destination = v1::FlowFilter {
                destination: text.clone(),
                ..message.clone()
            };
            let by_either = v1::FlowFilter {
                address: text,
                ..message.clone()
            };
            assert_eq!(fits(by_source), source);
            assert_eq!(fits(by_destination), destination);
            assert_eq!(fits(by_either), source || destination);
        }
        for (port, expected) in [
            (80, true),
            (8080, true),
            (4000, true),
            (50_000, true),
            (81, false),
        ] {
            let by_port = v1::FlowFilter {
                port,
                ..message.clone()
            };
            assert_eq!(fits(by_port), expected, "{port}");
        }
        for (protocol, expected) in [(6, true), (17, false)] {
            let by_protocol = v1::FlowFilter {
                protocol,
                ..message.clone()
            };
            assert_eq!(fits(by_protocol), expected);
        }
    }
}
