//! Verbs about security associations and policies of one's own, and what happens to them.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use octoplane_api::v1;
use octoplane_api::v1::ipsec_client::IpsecClient;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use zeroize::{Zeroize as _, Zeroizing};

use crate::cli::Format;
use crate::error::Failure;
use crate::output::{print, write};

type Client = IpsecClient<Channel>;

/// Bytes of a key.
type Secret = Zeroizing<Vec<u8>>;

/// Longest file with a key, in bytes.
const MAX_KEY_FILE: u64 = 1024;

#[derive(Debug, Subcommand)]
pub(crate) enum IpsecSaVerb {
    /// All of them.
    List,
    /// Add one, or replace it; policies encrypt with it from now on.
    #[command(visible_alias = "set")]
    Add(Box<SaArguments>),
    /// Remove one.
    Del(SaName),
}

#[derive(Debug, Args)]
pub(crate) struct SaName {
    /// "outbound" or "inbound".
    direction: String,
    /// Security parameters index, from 256 on; 0x… is hexadecimal.
    #[arg(long, value_parser = number)]
    spi: u32,
    /// Who encrypts; inbound, not given: whoever has the key.
    #[arg(long, default_value = "")]
    src: String,
    /// Who decrypts.
    #[arg(long)]
    dst: String,
    /// Marks of packets that it is for.
    #[arg(long, value_name = "VALUE/MASK")]
    mark: Option<Mark>,
}

#[derive(Debug, Args)]
pub(crate) struct SaArguments {
    #[command(flatten)]
    name: SaName,
    /// What policies name it by, 1 to 262143.
    #[arg(long)]
    reqid: u32,
    /// "tunnel" or "transport".
    #[arg(long, default_value = "tunnel")]
    mode: String,
    /// As in aes-128-gcm-16, chacha20-poly1305 or aes-256-cbc-hmac-sha256-128.
    #[arg(long)]
    algorithm: String,
    /// File with the key in hexadecimal, "-" for standard input: the encryption key with, for AES-GCM and ChaCha20-Poly1305, four
    /// bytes of salt behind it, or else, after a space, the integrity key.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Sequence numbers of 64 bits.
    #[arg(long)]
    esn: bool,
    /// Inbound: packets in the replay window, 0 to 4096; not given: 1024.
    #[arg(long)]
    replay_window: Option<u32>,
    /// In UDP, from and to these ports.
    #[arg(long, value_name = "SOURCE:DESTINATION")]
    nat_traversal: Option<Pair<':'>>,
    /// DSCP of the outer header, 0 to 63; not given: that of the packet inside.
    #[arg(long)]
    dscp: Option<u32>,
    /// ECN is 0 outside, and not looked at.
    #[arg(long)]
    no_ecn: bool,
    /// "Don't fragment" outside: "copy", "set" or "clear".
    #[arg(long, default_value = "copy")]
    dont_fragment: String,
    /// TTL or hop limit outside, 2 to 255, of which this node takes one.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    hop_limit: u32,
    /// Bytes after which an event tells; those that are encrypted count.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    soft_bytes: u64,
    /// Bytes after which packets are refused.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    hard_bytes: u64,
    /// Packets after which an event tells.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    soft_packets: u64,
    /// Packets after which packets are refused.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    hard_packets: u64,
    /// Seconds after which an event tells.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    soft_seconds: u64,
    /// Seconds after which packets are refused.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    hard_seconds: u64,
    /// Inbound: what may come out, as in 10.2.0.0/16,10.1.0.0/16; several times for several.
    #[arg(long, value_name = "SOURCE,DESTINATION")]
    inner: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IpsecPolicyVerb {
    /// What becomes of packets to other nodes, and policies of one's own.
    List,
    /// Add a policy, or replace it.
    #[command(visible_alias = "set")]
    Add(PolicyArguments),
    /// Remove policies by their numbers.
    Del {
        /// The numbers.
        #[arg(required = true)]
        ids: Vec<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PolicyArguments {
    /// Number of the policy.
    id: u32,
    /// "outbound" or "inbound".
    direction: String,
    /// "protect", "bypass" or "discard".
    action: String,
    /// Protect: of the security associations.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    reqid: u32,
    /// Those with lower numbers come first.
    #[arg(long, default_value_t = 0)]
    priority: u32,
    /// Prefix of source addresses; not given: all.
    #[arg(long, default_value = "", hide_default_value = true)]
    src: String,
    /// Prefix of destination addresses; not given: all.
    #[arg(long, default_value = "", hide_default_value = true)]
    dst: String,
    /// Protocol number, or tcp, udp, sctp, icmp, icmpv6.
    #[arg(long, value_parser = protocol)]
    protocol: Option<u32>,
    /// Source port, or the first and the last.
    #[arg(long, value_name = "FIRST-LAST")]
    sport: Option<Pair<'-'>>,
    /// Destination port, or the first and the last.
    #[arg(long, value_name = "FIRST-LAST")]
    dport: Option<Pair<'-'>>,
    /// Marks of packets.
    #[arg(long, value_name = "VALUE/MASK")]
    mark: Option<Mark>,
}

/// Two numbers, or one for both.
#[derive(Debug, Clone, Copy)]
struct Pair<const SEPARATOR: char>(u32, u32);

impl<const SEPARATOR: char> FromStr for Pair<SEPARATOR> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once(SEPARATOR).unwrap_or((text, text));
        Ok(Self(number(first)?, number(last)?))
    }
}

/// A value and a mask.
#[derive(Debug, Clone, Copy)]
struct Mark(v1::IpsecMark);

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
        Ok(Self(v1::IpsecMark {
            value: number(value)?,
            mask: number(mask)?,
        }))
    }
}

fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("\"{text}\" is no number of 32 bits"))
}

fn protocol(text: &str) -> Result<u32, String> {
    Ok(match text {
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "icmpv6" => 58,
        "sctp" => 132,
        other => number(other)?,
    })
}

impl SaName {
    fn message(self) -> v1::IpsecSaName {
        v1::IpsecSaName {
            direction: self.direction,
            spi: self.spi,
            source: self.src,
            destination: self.dst,
            mark: self.mark.map(|mark| mark.0),
        }
    }
}

/// Bytes of hexadecimal digits.
fn unhex(text: &str) -> Option<Secret> {
    let text = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    // Room for all first: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for [high, low] in pairs {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(*high)? << 4 | digit(*low)?) as u8);
    }
    Some(bytes)
}

/// Key and integrity key of a file.
fn keys(path: &PathBuf) -> Result<(Secret, Secret), Failure> {
    let wrong = |text: String| Failure::Usage(format!("--key-file: {text}"));
    // One more than may be, to see that there are more.
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE as usize + 2));
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().take(MAX_KEY_FILE + 1).read_to_string(&mut text),
        false => fs::File::open(path).and_then(|file| file.take(MAX_KEY_FILE + 1).read_to_string(&mut text)),
    };
    let length = read.map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    if length as u64 > MAX_KEY_FILE {
        return Err(wrong(format!(
            "{}: expected at most {MAX_KEY_FILE} bytes",
            path.display()
        )));
    }
    let expected = || {
        wrong(format!(
            "{}: expected one or two keys in hexadecimal",
            path.display()
        ))
    };
    let mut words = text.split_ascii_whitespace();
    let mut key = || words.next().map(unhex);
    let first = key().flatten().ok_or_else(expected)?;
    let second = match key() {
        None => Zeroizing::default(),
        Some(second) => second.ok_or_else(expected)?,
    };
    match words.next() {
        None => Ok((first, second)),
        Some(_) => Err(expected()),
    }
}

fn config(arguments: SaArguments) -> Result<v1::IpsecSaConfig, Failure> {
    let (key, auth_key) = keys(&arguments.key_file)?;
    let name = arguments.name.message();
    let lifetime = v1::IpsecLifetime {
        soft_bytes: arguments.soft_bytes,
        hard_bytes: arguments.hard_bytes,
        soft_packets: arguments.soft_packets,
        hard_packets: arguments.hard_packets,
        soft_seconds: arguments.soft_seconds,
        hard_seconds: arguments.hard_seconds,
    };
    let inner = arguments.inner.iter().map(|text| {
        let (source, destination) = text.split_once(',').unwrap_or((text, ""));
        v1::IpsecInnerSelector {
            source: source.into(),
            destination: destination.into(),
        }
    });
    Ok(v1::IpsecSaConfig {
        direction: name.direction,
        spi: name.spi,
        source: name.source,
        destination: name.destination,
        mark: name.mark,
        mode: arguments.mode,
        algorithm: arguments.algorithm,
        key: key.to_vec(),
        auth_key: auth_key.to_vec(),
        esn: arguments.esn,
        replay_window: arguments.replay_window,
        nat_traversal: arguments
            .nat_traversal
            .map(|Pair(source_port, destination_port)| v1::IpsecNatTraversal {
                source_port,
                destination_port,
            }),
        outer: Some(v1::IpsecOuterHeader {
            dscp: arguments.dscp,
            no_ecn: arguments.no_ecn,
            dont_fragment: arguments.dont_fragment,
            hop_limit: arguments.hop_limit,
        }),
        lifetime: Some(lifetime).filter(|it| *it != v1::IpsecLifetime::default()),
        inner: inner.collect(),
        reqid: arguments.reqid,
    })
}

/// Adds or removes a security association.
pub(crate) async fn add_sa(client: &mut Client, arguments: SaArguments) -> Result<(), Failure> {
    let config = config(arguments)?;
    let line = format!("+ ipsec sa {} {:#x}\n", config.direction, config.spi);
    let mut request = v1::ProgramIpsecRequest {
        sas: vec![config],
        ..Default::default()
    };
    let result = client.program_ipsec(request.clone()).await;
    for sa in &mut request.sas {
        sa.key.zeroize();
        sa.auth_key.zeroize();
    }
    result?;
    write(&line);
    Ok(())
}

/// Removes a security association.
pub(crate) async fn del_sa(client: &mut Client, name: SaName) -> Result<(), Failure> {
    let line = format!("- ipsec sa {} {:#x}\n", name.direction, name.spi);
    let request = v1::ProgramIpsecRequest {
        remove_sas: vec![name.message()],
        ..Default::default()
    };
    client.program_ipsec(request).await?;
    write(&line);
    Ok(())
}

/// Adds a policy.
pub(crate) async fn add_policy(client: &mut Client, arguments: PolicyArguments) -> Result<(), Failure> {
    let ports = |pair: Option<Pair<'-'>>| pair.map(|Pair(first, last)| v1::IpsecPorts { first, last });
    let line = format!("+ ipsec policy {}\n", arguments.id);
    let policy = v1::IpsecSelectorPolicy {
        id: arguments.id,
        direction: arguments.direction,
        priority: arguments.priority,
        source: arguments.src,
        destination: arguments.dst,
        protocol: arguments.protocol,
        source_ports: ports(arguments.sport),
        destination_ports: ports(arguments.dport),
        mark: arguments.mark.map(|mark| mark.0),
        action: arguments.action,
        reqid: arguments.reqid,
        spi: 0,
    };
    let request = v1::ProgramIpsecRequest {
        policies: vec![policy],
        ..Default::default()
    };
    client.program_ipsec(request).await?;
    write(&line);
    Ok(())
}

/// Removes policies.
pub(crate) async fn del_policies(client: &mut Client, ids: Vec<u32>) -> Result<(), Failure> {
    let lines: String = ids.iter().map(|id| format!("- ipsec policy {id}\n")).collect();
    let request = v1::ProgramIpsecRequest {
        remove_policies: ids,
        ..Default::default()
    };
    client.program_ipsec(request).await?;
    write(&lines);
    Ok(())
}

fn mark_value(mark: Option<v1::IpsecMark>) -> Value {
    mark.map_or(Value::Null, |it| json!({"value": it.value, "mask": it.mask}))
}

/// What a security association of one's own has that those of nodes have not.
pub(crate) fn config_value(config: &v1::IpsecSaConfig) -> Value {
    let nat = config.nat_traversal.map(|it| {
        json!({
            "source_port": it.source_port, "destination_port": it.destination_port,
        })
    });
    let lifetime = config.lifetime.map(|it| {
        json!({
            "soft_bytes": it.soft_bytes, "hard_bytes": it.hard_bytes, "soft_packets": it.soft_packets,
            "hard_packets": it.hard_packets, "soft_seconds": it.soft_seconds, "hard_seconds": it.hard_seconds,
        })
    });
    let outer = config.outer.as_ref().map(|it| {
        json!({
            "dscp": it.dscp, "no_ecn": it.no_ecn, "dont_fragment": it.dont_fragment, "hop_limit": it.hop_limit,
        })
    });
    let inner = config.inner.iter();
    let inner: Vec<_> = inner
        .map(|it| json!({"source": it.source, "destination": it.destination}))
        .collect();
    json!({
        "mode": if config.mode.is_empty() { "tunnel" } else { &config.mode }, "reqid": config.reqid,
        "mark": mark_value(config.mark), "nat_traversal": nat, "outer": outer, "lifetime": lifetime, "inner": inner,
    })
}

fn ports_value(ports: Option<v1::IpsecPorts>) -> Value {
    ports.map_or(Value::Null, |it| json!({"first": it.first, "last": it.last}))
}

/// A policy, for programs.
pub(crate) fn policy_value(it: &v1::IpsecSelectorPolicy) -> Value {
    json!({
        "id": it.id, "direction": it.direction, "priority": it.priority, "source": it.source,
        "destination": it.destination, "protocol": it.protocol, "source_ports": ports_value(it.source_ports),
        "destination_ports": ports_value(it.destination_ports), "mark": mark_value(it.mark), "action": it.action,
        "reqid": it.reqid, "spi": it.spi,
    })
}

fn or_any(text: &str) -> String {
    if text.is_empty() {
        "any".into()
    } else {
        text.into()
    }
}

/// A policy, for people.
pub(crate) fn policy_row(it: &v1::IpsecSelectorPolicy) -> [String; 9] {
    let ports = |ports: Option<v1::IpsecPorts>| match ports {
        None => String::new(),
        Some(it) if it.first == it.last => format!(" port {}", it.first),
        Some(it) => format!(" ports {}-{}", it.first, it.last),
    };
    let mark = it.mark.unwrap_or_default();
    let used = match it.spi {
        0 => "-".into(),
        spi => format!("{spi:#x}"),
    };
    [
        it.id.to_string(),
        it.direction.clone(),
        it.priority.to_string(),
        or_any(&it.source) + &ports(it.source_ports),
        or_any(&it.destination) + &ports(it.destination_ports),
        it.protocol
            .map_or_else(|| "any".into(), |protocol| protocol.to_string()),
        match mark.mask {
            0 => "any".into(),
            mask => format!("{:#x}/{mask:#x}", mark.value),
        },
        match it.reqid {
            0 => it.action.clone(),
            reqid => format!("{} {reqid}", it.action),
        },
        used,
    ]
}

/// Heads of [`policy_row`].
pub(crate) const POLICY_HEADS: [&str; 9] = [
    "id",
    "direction",
    "priority",
    "source",
    "destination",
    "protocol",
    "mark",
    "action",
    "spi",
];

fn name_value(name: Option<&v1::IpsecSaName>) -> Value {
    name.map_or(Value::Null, |it| {
        json!({
            "direction": it.direction, "spi": it.spi, "source": it.source, "destination": it.destination,
            "mark": mark_value(it.mark),
        })
    })
}

/// Prints what happens to security associations until the daemon goes.
pub(crate) async fn events(client: &mut Client, after: u64, format: Format) -> Result<(), Failure> {
    let request = v1::StreamIpsecEventsRequest { after };
    let mut messages = client.stream_ipsec_events(request).await?.into_inner();
    while let Some(message) = messages.next().await {
        for event in message?.events {
            let value = json!({
                "number": event.number, "time": event.time, "kind": event.kind, "limit": event.limit,
                "sa": name_value(event.sa.as_ref()), "reqid": event.reqid, "text": event.text,
            });
            match format {
                Format::Table => {
                    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(event.time);
                    let time = humantime::format_rfc3339_micros(time);
                    write(&format!(
                        "{time} {} reqid {}: {}\n",
                        event.number, event.reqid, event.text
                    ));
                }
                // One document a line.
                Format::Json => write(&format!("{value}\n")),
                Format::Yaml => {
                    write("---\n");
                    print(&value, format)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_pairs_and_marks() {
        assert_eq!(number("0x100"), Ok(256));
        assert!(number("4294967296").is_err() && number("-1").is_err() && number("0xg").is_err());
        let Pair(first, last): Pair<'-'> = "80".parse().unwrap();
        assert_eq!((first, last), (80, 80));
        let Mark(mark) = "0x100/0xff00".parse().unwrap();
        assert_eq!((mark.value, mark.mask), (0x100, 0xff00));
    }

    #[test]
    fn keys_come_from_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "0x0102\nA0b0\n").unwrap();
        let (key, auth) = keys(&path).unwrap();
        assert_eq!((&key[..], &auth[..]), (&[1, 2][..], &[0xa0, 0xb0][..]));
        for text in ["", "012", "0g", "01 02 03", "01 0"] {
            fs::write(&path, text).unwrap();
            assert!(keys(&path).is_err(), "{text}");
        }
    }
}
