//! `[cni]`.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use octoplane_packet::Prefix;

use super::Section;
use super::control::is_unicast;
use super::item::Item;
use super::suggest::shown;
use super::text::{matching, optional_matching};
use crate::schema::{Cni, CniTls, IdentityRule, Pool};
use crate::{Port, Role};

/// Longest list of each kind: beyond it a typing mistake is likelier than a need.
const MOST: usize = 65_536;

const ABSOLUTE: &str = "an absolute path";

pub(super) fn read(mut section: Section<'_>, ports: &[Port]) -> Cni {
    let default = Cni::default();
    let listen = section
        .item("listen")
        .and_then(|item| parsed(&item, "ADDRESS:PORT as in 192.168.1.1:8000"))
        .filter(|address: &SocketAddr| {
            let unspecified = address.ip().is_unspecified();
            if unspecified {
                section.place("listen").wrong(format!(
                    "{address} means every network, expected our address on the management wire: this listener asks for no \
                     certificate (cni.tls does)"
                ));
            }
            !unspecified
        });
    let tls = section.has("tls").then(|| tls(section.table("tls"))).flatten();
    let names = port_names(&mut section, ports);
    let directory = matching(
        &mut section,
        "directory",
        &default.directory.to_string_lossy(),
        ABSOLUTE,
        absolute,
    );
    let pools = section.tables("pools").unwrap_or_default();
    let mut known = Vec::new();
    for pool in pools.into_iter().flatten() {
        known.extend(self::pool(pool, &known));
    }
    let reuse_delay = section.integer(
        "reuse_delay_s",
        0..=86_400,
        "seconds",
        default.reuse_delay.as_secs(),
    );
    let orphan_grace = section.integer(
        "orphan_grace_s",
        10..=86_400,
        "seconds",
        default.orphan_grace.as_secs(),
    );
    let rules = section.tables("identities").unwrap_or_default();
    let identities = rules.into_iter().flatten().filter_map(rule).collect();
    section.finish();
    Cni {
        listen,
        tls,
        ports: names,
        directory: PathBuf::from(directory),
        pools: known,
        reuse_delay: Duration::from_secs(reuse_delay),
        orphan_grace: Duration::from_secs(orphan_grace),
        identities,
    }
}

fn absolute(text: &str) -> bool {
    text.starts_with('/') && !text.contains('\0')
}

/// A value that has a form of its own.
fn parsed<T: FromStr>(item: &Item<'_>, expected: &str) -> Option<T> {
    let text = item.text(expected)?;
    let value = text.parse().ok();
    if value.is_none() {
        item.place
            .wrong(format!("\"{}\" is invalid, expected {expected}", shown(text)));
    }
    value
}

fn tls(mut section: Section<'_>) -> Option<CniTls> {
    let form = "ADDRESS:PORT as in 192.0.2.10:8443";
    let listen = section
        .required("listen", form)
        .and_then(|item| parsed(&item, form));
    let mut path = |key| {
        let item = section.required(key, ABSOLUTE)?;
        let text = item.text(ABSOLUTE)?;
        if !absolute(text) {
            item.place
                .wrong(format!("\"{}\" is invalid, expected {ABSOLUTE}", shown(text)));
            return None;
        }
        Some(PathBuf::from(text))
    };
    let (certificate, key, client_ca) = (path("certificate"), path("key"), path("client_ca"));
    section.finish();
    Some(CniTls {
        listen: listen?,
        certificate: certificate?,
        key: key?,
        client_ca: client_ca?,
    })
}

fn port_names(section: &mut Section<'_>, ports: &[Port]) -> Vec<String> {
    let expected = "a list of names of pod ports";
    let Some(items) = section.item("ports").and_then(|item| item.list(expected)) else {
        return Vec::new();
    };
    let name = |item: &Item<'_>| {
        let text = item.text("the name of a pod port")?;
        let known = ports
            .iter()
            .any(|port| port.name == text && port.role == Role::Pod);
        if !known {
            item.place.wrong(format!(
                "\"{}\" is not the name of a [[ports]] of role \"pod\"",
                shown(text)
            ));
        }
        known.then(|| text.to_owned())
    };
    limited(section, "ports", items.len());
    items.iter().filter_map(name).collect()
}

fn limited(section: &Section<'_>, key: &'static str, count: usize) {
    if count > MOST {
        section
            .place(key)
            .wrong(format!("has {count} entries, expected at most {MOST}"));
    }
}

fn pool(mut section: Section<'_>, others: &[Pool]) -> Option<Pool> {
    let expected = "a unicast prefix as in 10.200.0.0/16 or fd00:200::/64";
    let prefix = section
        .required("prefix", expected)
        .and_then(|item| prefix(&item, expected));
    if let Some(prefix) = prefix
        && let Some(other) = others.iter().find(|other| overlap(other.prefix, prefix))
    {
        section
            .place("prefix")
            .wrong(format!("{prefix} overlaps the pool {}", other.prefix));
    }
    let mut exclude = Vec::new();
    let expected = "a list of addresses or prefixes in the pool";
    let items = section.item("exclude").and_then(|item| item.list(expected));
    for item in items.unwrap_or_default() {
        let expected = "an address or a prefix as in 10.200.0.1 or 10.200.1.0/24";
        let Some(text) = item.text(expected) else { continue };
        let part = text.parse::<IpAddr>().map(Prefix::host).or_else(|_| text.parse());
        match (part, prefix) {
            (Err(_), _) => item
                .place
                .wrong(format!("\"{}\" is invalid, expected {expected}", shown(text))),
            (Ok(part), Some(pool)) if !(overlap(pool, part) && part.len() >= pool.len()) => {
                item.place.wrong(format!("{part} is not in the pool {pool}"));
            }
            (Ok(part), _) => exclude.push(part),
        }
    }
    section.finish();
    Some(Pool {
        prefix: prefix?,
        exclude,
    })
}

fn prefix(item: &Item<'_>, expected: &str) -> Option<Prefix> {
    let text = item.text(expected)?;
    let wrong = |why: &dyn Display| {
        item.place.wrong(format!(
            "\"{}\" is invalid, expected {expected}{why}",
            shown(text)
        ));
    };
    match text.parse::<Prefix>() {
        Ok(prefix) if is_unicast(prefix.addr()) => Some(prefix),
        Ok(_) => {
            wrong(&"");
            None
        }
        Err(error) => {
            wrong(&format!(": {error}"));
            None
        }
    }
}

fn overlap(one: Prefix, other: Prefix) -> bool {
    one.contains(other.addr()) || other.contains(one.addr())
}

fn rule(mut section: Section<'_>) -> Option<IdentityRule> {
    let pattern = |text: &str| (1..=253).contains(&text.len());
    let form = "a pattern of 1 to 253 bytes, as in \"kube-*\"";
    let namespace = optional_matching(&mut section, "namespace", form, pattern);
    let name = optional_matching(&mut section, "name", form, pattern);
    let range = 1..=Cni::MAX_IDENTITY;
    let identity = section
        .required("identity", &format!("1 to {}", Cni::MAX_IDENTITY))
        .and_then(|item| item.integer(&range, "", ""));
    let expected = "a list of labels as in \"app=web\"";
    let items = section.item("labels").and_then(|item| item.list(expected));
    let labels = items
        .unwrap_or_default()
        .iter()
        .filter_map(|item| item.text("a label as in \"app=web\""))
        .map(str::to_owned)
        .collect();
    section.finish();
    Some(IdentityRule {
        namespace: namespace.unwrap_or_else(|| "*".to_owned()),
        name: name.unwrap_or_else(|| "*".to_owned()),
        identity: identity?,
        labels,
    })
}
