//! From messages to what the database takes. Every mistake names its field.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use octoplane_api::v1;
use octoplane_control::IpsecRefusal;
use octoplane_esp::db::{PolicyConfig, PortRange};
use octoplane_esp::replay::MAX_WINDOW;
use octoplane_esp::sa::{
    DontFragment, Dscp, InnerSelector, Lifetime, MAX_INNER_SELECTORS, Mark, NatTraversal, OuterHeader, SaKey,
};
use octoplane_esp::view::{Action, MAX_TUNNELS};
use octoplane_esp::{Aead, AesKey, Algorithm, Direction, Hmac, IcvLen, KeyMaterial, Mode, SaConfig};
use octoplane_packet::Prefix;

/// SPIs below are reserved by IANA (RFC 4303, section 2.1); Cilium's keys have them.
const FIRST_SPI: u32 = 256;
/// Packets in the replay window of those who do not say.
const WINDOW: u32 = 1024;
const HOP_LIMIT: u8 = 64;

/// All that there are.
pub(crate) fn algorithms() -> impl Iterator<Item = Algorithm> {
    let keys = [AesKey::Aes128, AesKey::Aes192, AesKey::Aes256];
    let icvs = [IcvLen::Icv8, IcvLen::Icv12, IcvLen::Icv16];
    let hmacs = [Hmac::Sha256, Hmac::Sha256Icv12, Hmac::Sha384, Hmac::Sha512];
    let gcm = move |key| icvs.map(|icv| Algorithm::Aead(Aead::AesGcm(key, icv)));
    let cbc = move |key| hmacs.map(|hmac| Algorithm::CbcHmac(key, hmac));
    let chacha = Algorithm::Aead(Aead::ChaCha20Poly1305);
    keys.into_iter()
        .flat_map(gcm)
        .chain([chacha])
        .chain(keys.into_iter().flat_map(cbc))
}

/// A message under a name, for mistakes.
#[derive(Clone, Copy)]
pub(crate) struct Field<'a>(pub(crate) &'a str);

/// At most so many characters of what somebody sent.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

impl Field<'_> {
    fn wrong(self, name: &str, text: impl fmt::Display) -> IpsecRefusal {
        IpsecRefusal::Invalid {
            field: format!("{}.{name}", self.0),
            text: text.to_string(),
        }
    }

    fn number<T: TryFrom<u64>>(
        self,
        name: &str,
        value: u64,
        range: RangeInclusive<u64>,
    ) -> Result<T, IpsecRefusal> {
        let limits = (*range.start(), *range.end());
        let wrong = || self.wrong(name, format!("{value}, expected {} to {}", limits.0, limits.1));
        match range.contains(&value) {
            true => T::try_from(value).map_err(|_| wrong()),
            false => Err(wrong()),
        }
    }

    fn choice<T: Copy>(self, name: &str, value: &str, all: &[(&str, T)]) -> Result<T, IpsecRefusal> {
        let found = all.iter().find(|(text, _)| *text == value);
        found.map(|(_, it)| *it).ok_or_else(|| {
            let expected: Vec<_> = all
                .iter()
                .map(|(text, _)| *text)
                .filter(|text| !text.is_empty())
                .collect();
            let expected = expected.join("\", \"");
            self.wrong(name, format!("\"{}\", expected \"{expected}\"", shown(value)))
        })
    }

    fn address(self, name: &str, value: &str) -> Result<IpAddr, IpsecRefusal> {
        super::super::nodes::address(value, &format!("{}.{name}", self.0))
    }

    fn prefix(self, name: &str, value: &str) -> Result<Prefix, IpsecRefusal> {
        // An address is a prefix of its whole length.
        let host = value.parse().map(Prefix::host);
        host.or_else(|_| value.parse())
            .map_err(|error| self.wrong(name, format!("\"{}\": {error}", shown(value))))
    }

    fn direction(self, value: &str) -> Result<Direction, IpsecRefusal> {
        let all = [("outbound", Direction::Outbound), ("inbound", Direction::Inbound)];
        self.choice("direction", value, &all)
    }

    fn mark(self, value: Option<v1::IpsecMark>) -> Result<Mark, IpsecRefusal> {
        let v1::IpsecMark { value, mask } = value.unwrap_or_default();
        match value & !mask {
            0 => Ok(Mark { value, mask }),
            _ => Err(self.wrong(
                "mark.value",
                format!("{value:#x} has bits outside of the mask {mask:#x}"),
            )),
        }
    }

    fn reqid(self, value: u32) -> Result<u32, IpsecRefusal> {
        self.number("reqid", value.into(), 1..=u64::from(MAX_TUNNELS - 1))
    }

    fn spi(self, value: u32) -> Result<u32, IpsecRefusal> {
        if value < FIRST_SPI {
            let text = format!("{value} is reserved, expected {FIRST_SPI} to {}", u32::MAX);
            return Err(self.wrong("spi", text));
        }
        Ok(value)
    }
}

/// What a security association is known by.
pub(crate) fn name(message: &v1::IpsecSaName, field: &str) -> Result<SaKey, IpsecRefusal> {
    let field = Field(field);
    let direction = field.direction(&message.direction)?;
    Ok(SaKey {
        direction,
        spi: field.spi(message.spi)?,
        source: match message.source.as_str() {
            "" if direction == Direction::Inbound => None,
            text => Some(field.address("source", text)?),
        },
        destination: field.address("destination", &message.destination)?,
        mark: field.mark(message.mark)?,
    })
}

/// A security association.
pub(crate) fn sa(message: &v1::IpsecSaConfig, field: &str) -> Result<SaConfig, IpsecRefusal> {
    let key = name(
        &v1::IpsecSaName {
            direction: message.direction.clone(),
            spi: message.spi,
            source: message.source.clone(),
            destination: message.destination.clone(),
            mark: message.mark,
        },
        field,
    )?;
    let field = Field(field);
    if let Some(source) = key.source
        && source.is_ipv4() != key.destination.is_ipv4()
    {
        let text = format!(
            "{source} is of another family than the destination, {}",
            key.destination
        );
        return Err(field.wrong("source", text));
    }
    let modes = [
        ("tunnel", Mode::Tunnel),
        ("transport", Mode::Transport),
        ("", Mode::Tunnel),
    ];
    let mode = field.choice("mode", &message.mode, &modes)?;
    let algorithm = algorithms()
        .find(|it| it.to_string() == message.algorithm)
        .ok_or_else(|| {
            let all: Vec<_> = algorithms().map(|it| it.to_string()).collect();
            field.wrong(
                "algorithm",
                format!(
                    "\"{}\", expected one of {}",
                    shown(&message.algorithm),
                    all.join(", ")
                ),
            )
        })?;
    let window = message.replay_window.unwrap_or(WINDOW);
    let (window, esn) = (
        field.number("replay_window", window.into(), 0..=MAX_WINDOW.into())?,
        message.esn,
    );
    let nat_traversal = match message.nat_traversal {
        None => None,
        Some(ports) => {
            let port = |name, port: u32| field.number(name, port.into(), 1..=u16::MAX.into());
            Some(NatTraversal {
                source_port: port("nat_traversal.source_port", ports.source_port)?,
                destination_port: port("nat_traversal.destination_port", ports.destination_port)?,
            })
        }
    };
    if message.inner.len() > MAX_INNER_SELECTORS {
        let text = format!(
            "{} selectors, expected at most {MAX_INNER_SELECTORS}",
            message.inner.len()
        );
        return Err(field.wrong("inner", text));
    }
    let mut inner = Vec::new();
    for (index, selector) in message.inner.iter().enumerate() {
        let it = InnerSelector {
            source: field.prefix(&format!("inner[{index}].source"), &selector.source)?,
            destination: field.prefix(&format!("inner[{index}].destination"), &selector.destination)?,
        };
        if it.source.addr().is_ipv4() != it.destination.addr().is_ipv4() {
            let text = format!(
                "{} is of another family than the source, {}",
                it.destination, it.source
            );
            return Err(field.wrong(&format!("inner[{index}].destination"), text));
        }
        inner.push(it);
    }
    Ok(SaConfig {
        direction: key.direction,
        spi: key.spi,
        source: key.source,
        destination: key.destination,
        mark: key.mark,
        mode,
        algorithm,
        keys: keys(message, algorithm, field)?,
        esn,
        replay_window: window,
        nat_traversal,
        outer: outer(message.outer.as_ref(), field)?,
        lifetime: lifetime(message.lifetime.as_ref(), field)?,
        inner,
        reqid: field.reqid(message.reqid)?,
    })
}

fn keys(
    message: &v1::IpsecSaConfig,
    algorithm: Algorithm,
    field: Field<'_>,
) -> Result<KeyMaterial, IpsecRefusal> {
    let (salt, cipher, auth) = (
        algorithm.salt_len(),
        algorithm.cipher_key_len(),
        algorithm.auth_key_len(),
    );
    let (got, got_auth) = (message.key.len(), message.auth_key.len());
    if got != cipher + salt {
        let of = match salt {
            0 => String::new(),
            _ => format!(": {cipher} of the key and {salt} of the salt"),
        };
        let text = format!("{got} bytes, expected {} for {algorithm}{of}", cipher + salt);
        return Err(field.wrong("key", text));
    }
    if got_auth != auth {
        return Err(field.wrong(
            "auth_key",
            format!("{got_auth} bytes, expected {auth} for {algorithm}"),
        ));
    }
    Ok(match algorithm.is_aead() {
        true => KeyMaterial::aead(&message.key),
        false => KeyMaterial::cbc_hmac(&message.key, &message.auth_key),
    })
}

fn outer(message: Option<&v1::IpsecOuterHeader>, field: Field<'_>) -> Result<OuterHeader, IpsecRefusal> {
    let message = message.cloned().unwrap_or_default();
    let all = [
        ("copy", DontFragment::Copy),
        ("set", DontFragment::Set),
        ("clear", DontFragment::Clear),
        ("", DontFragment::Copy),
    ];
    Ok(OuterHeader {
        dscp: match message.dscp {
            None => Dscp::Copy,
            Some(dscp) => Dscp::Set(field.number("outer.dscp", dscp.into(), 0..=63)?),
        },
        ecn: !message.no_ecn,
        dont_fragment: field.choice("outer.dont_fragment", &message.dont_fragment, &all)?,
        hop_limit: match message.hop_limit {
            0 => HOP_LIMIT,
            limit => field.number("outer.hop_limit", limit.into(), 2..=255)?,
        },
    })
}

fn lifetime(message: Option<&v1::IpsecLifetime>, field: Field<'_>) -> Result<Lifetime, IpsecRefusal> {
    let it = message.copied().unwrap_or_default();
    for (name, soft, hard) in [
        ("bytes", it.soft_bytes, it.hard_bytes),
        ("packets", it.soft_packets, it.hard_packets),
        ("seconds", it.soft_seconds, it.hard_seconds),
    ] {
        if hard != 0 && soft > hard {
            let text = format!("{soft} is above hard_{name}, {hard}");
            return Err(field.wrong(&format!("lifetime.soft_{name}"), text));
        }
    }
    let some = |value| Some(value).filter(|value| *value != 0);
    Ok(Lifetime {
        soft_bytes: some(it.soft_bytes),
        hard_bytes: some(it.hard_bytes),
        soft_packets: some(it.soft_packets),
        hard_packets: some(it.hard_packets),
        soft_time: some(it.soft_seconds).map(Duration::from_secs),
        hard_time: some(it.hard_seconds).map(Duration::from_secs),
    })
}

/// A policy.
pub(crate) fn policy(message: &v1::IpsecSelectorPolicy, field: &str) -> Result<PolicyConfig, IpsecRefusal> {
    let field = Field(field);
    let direction = field.direction(&message.direction)?;
    let any = |other: Prefix| -> Result<Prefix, IpsecRefusal> {
        let all = if other.addr().is_ipv4() {
            "0.0.0.0/0"
        } else {
            "::/0"
        };
        field.prefix("source", all)
    };
    let (source, destination) = match (message.source.as_str(), message.destination.as_str()) {
        ("", "") => {
            let text = "missing, as is the destination: one of them has to say which family it is about";
            return Err(field.wrong("source", text));
        }
        ("", text) => {
            let destination = field.prefix("destination", text)?;
            (any(destination)?, destination)
        }
        (text, "") => {
            let source = field.prefix("source", text)?;
            (source, any(source)?)
        }
        (source, destination) => (
            field.prefix("source", source)?,
            field.prefix("destination", destination)?,
        ),
    };
    if source.addr().is_ipv4() != destination.addr().is_ipv4() {
        let text = format!("{destination} is of another family than the source, {source}");
        return Err(field.wrong("destination", text));
    }
    let protocol = match message.protocol {
        None => None,
        Some(protocol) => Some(field.number("protocol", protocol.into(), 0..=255)?),
    };
    let ports = |name: &str, ports: Option<v1::IpsecPorts>| -> Result<PortRange, IpsecRefusal> {
        let Some(v1::IpsecPorts { first, last }) = ports else {
            return Ok(PortRange::ANY);
        };
        let last = field.number(&format!("{name}.last"), last.into(), 0..=u16::MAX.into())?;
        let first = field.number(&format!("{name}.first"), first.into(), 0..=u64::from(last))?;
        let range = PortRange { first, last };
        // TCP, UDP, DCCP, SCTP.
        if range != PortRange::ANY && !matches!(protocol, Some(6 | 17 | 33 | 132)) {
            let text = "ports without a protocol that has some, expected protocol 6, 17, 33 or 132";
            return Err(field.wrong(name, text));
        }
        Ok(range)
    };
    let (source_ports, destination_ports) = (
        ports("source_ports", message.source_ports)?,
        ports("destination_ports", message.destination_ports)?,
    );
    let action = match message.action.as_str() {
        "protect" => Action::Protect(field.reqid(message.reqid)?),
        other => field.choice(
            "action",
            other,
            &[
                ("bypass", Action::Bypass),
                ("discard", Action::Discard),
                // Only for the text.
                ("protect", Action::Discard),
            ],
        )?,
    };
    if !matches!(action, Action::Protect(_)) && message.reqid != 0 {
        let text = format!("{}, but the policy does not protect", message.reqid);
        return Err(field.wrong("reqid", text));
    }
    Ok(PolicyConfig {
        id: message.id,
        direction,
        priority: message.priority,
        source,
        destination,
        protocol,
        source_ports,
        destination_ports,
        mark: field.mark(message.mark)?,
        action,
    })
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
