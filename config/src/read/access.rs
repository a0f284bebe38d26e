//! Those keys of `[control]` that say who may do what.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Section;
use super::suggest::shown;
use crate::schema::{CertificateName, Class, ClientLimits, ControlTcp, Guard, TlsClient};

const ABSOLUTE: &str = "an absolute path";
const ADDRESS: &str = "ADDRESS:PORT as in 192.0.2.10:9443";
const NAME: &str =
    "\"dns:NAME\" or \"uri:URI\" (a subject's alternative name), or \"cn:NAME\" (its common name)";

/// The limits of each client.
pub(super) fn limits(section: &mut Section<'_>) -> ClientLimits {
    let default = ClientLimits::default();
    let timeout = default.request_timeout.as_secs();
    ClientLimits {
        connections: section.integer("client_connections", 1..=65_536, "", default.connections),
        requests: section.integer("client_requests", 1..=65_536, "", default.requests),
        streams: section.integer("client_streams", 1..=65_536, "", default.streams),
        requests_per_second: section.integer(
            "client_requests_per_second",
            1..=1_000_000,
            "",
            default.requests_per_second,
        ),
        request_timeout: Duration::from_secs(section.integer(
            "request_timeout_s",
            1..=3600,
            "seconds",
            timeout,
        )),
    }
}

/// Classes of methods, of those in `allowed`. `None` if the file does not have the key, or a mistake was noted.
pub(super) fn classes(section: &mut Section<'_>, key: &'static str, allowed: &[Class]) -> Option<Vec<Class>> {
    let words: Vec<String> = allowed
        .iter()
        .map(|class| format!("\"{}\"", class.as_str()))
        .collect();
    let expected = format!("a list of {}", words.join(", "));
    let list = section.item(key)?;
    let items = list.list(&expected)?;
    let mut found = BTreeSet::new();
    for item in items {
        let text = item.text(&words.join(", "))?;
        let Some(class) = allowed.iter().find(|class| class.as_str() == text) else {
            item.place.wrong(format!(
                "\"{}\" is invalid, expected one of {}",
                shown(text),
                words.join(", ")
            ));
            return None;
        };
        found.insert(*class);
    }
    if found.is_empty() {
        list.place.wrong(format!("is empty, expected {expected}"));
        return None;
    }
    Some(found.into_iter().collect())
}

/// The TCP listener, if there is one.
pub(super) fn tcp(control: &mut Section<'_>) -> Option<ControlTcp> {
    if !control.has("tcp") {
        return None;
    }
    let mut section = control.table("tcp");
    let listen = address(&mut section);
    let guard = if section.has("management_interface") {
        plain(&mut section)
    } else {
        tls(&mut section)
    };
    section.finish();
    Some(ControlTcp {
        listen: listen?,
        guard: guard?,
    })
}

fn address(section: &mut Section<'_>) -> Option<SocketAddr> {
    let item = section.required("listen", ADDRESS)?;
    let text = item.text(ADDRESS)?;
    let address = text
        .parse()
        .ok()
        .filter(|address: &SocketAddr| address.port() != 0);
    if address.is_none() {
        item.place
            .wrong(format!("\"{}\" is invalid, expected {ADDRESS}", shown(text)));
    }
    address
}

fn plain(section: &mut Section<'_>) -> Option<Guard> {
    for key in ["certificate", "key", "client_ca", "clients"] {
        if section.item(key).is_some() {
            section.place(key).wrong(
                "does not go with management_interface, which is for plain text, expected either of them",
            );
        }
    }
    let expected = "the name of a network interface, at most 15 bytes";
    let item = section.item("management_interface")?;
    let text = item.text(expected)?;
    let may = classes(section, "may", &Class::ALL);
    if may.is_none() && !section.has("may") {
        section.place("may").wrong(
            "is missing, expected a list of \"read\", \"program\", \"debug\": what everybody there may do",
        );
    }
    // As the kernel has it (dev_valid_name).
    let valid = (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && !text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '/' || c == ':');
    if !valid {
        item.place
            .wrong(format!("\"{}\" is invalid, expected {expected}", shown(text)));
        return None;
    }
    Some(Guard::ManagementInterface {
        interface: text.to_owned(),
        may: may?,
    })
}

fn tls(section: &mut Section<'_>) -> Option<Guard> {
    if !["certificate", "key", "client_ca", "clients"]
        .iter()
        .any(|key| section.has(key))
    {
        for key in [
            "certificate",
            "key",
            "client_ca",
            "clients",
            "may",
            "management_interface",
        ] {
            // All of them are known.
            section.item(key);
        }
        section.place("listen").wrong(
            "would be open to everybody on the network, expected certificate, key, client_ca and clients for mutual TLS, or \
             management_interface to be bound to the management wire",
        );
        return None;
    }
    let mut path = |key| {
        let item = section.required(key, ABSOLUTE)?;
        let text = item.text(ABSOLUTE)?;
        if !text.starts_with('/') || text.contains('\0') {
            item.place
                .wrong(format!("\"{}\" is invalid, expected {ABSOLUTE}", shown(text)));
            return None;
        }
        Some(PathBuf::from(text))
    };
    let (certificate, key, client_ca) = (path("certificate"), path("key"), path("client_ca"));
    if section.item("may").is_some() {
        section
            .place("may")
            .wrong("goes with management_interface only, expected clients");
    }
    section.item("management_interface");
    let clients = clients(section);
    Some(Guard::Tls {
        certificate: certificate?,
        key: key?,
        client_ca: client_ca?,
        clients: clients?,
    })
}

fn clients(section: &mut Section<'_>) -> Option<Vec<TlsClient>> {
    let expected = "a list as in [{ name = \"dns:agent.example\", may = [\"read\", \"program\"] }]";
    let place = section.place("clients");
    let Some(tables) = section.tables("clients") else {
        if !section.has("clients") {
            place.wrong(format!("is missing, expected {expected}"));
        }
        return None;
    };
    let count = tables.len();
    if count == 0 {
        place.wrong(format!("is empty, expected {expected}"));
    }
    let mut all: Vec<TlsClient> = Vec::new();
    for table in tables.into_iter().flatten() {
        all.extend(client(table, &all));
    }
    (count > 0 && all.len() == count).then_some(all)
}

fn client(mut section: Section<'_>, others: &[TlsClient]) -> Option<TlsClient> {
    let name = section.required("name", NAME).and_then(|item| {
        let text = item.text(NAME)?;
        let name = certificate_name(text);
        match &name {
            None => item
                .place
                .wrong(format!("\"{}\" is invalid, expected {NAME}", shown(text))),
            Some(name) if others.iter().any(|other| other.name == *name) => {
                item.place.wrong(format!(
                    "\"{}\" stands here twice, expected each name once",
                    shown(text)
                ));
                return None;
            }
            Some(_) => {}
        }
        name
    });
    let may = classes(&mut section, "may", &Class::ALL);
    if may.is_none() && !section.has("may") {
        section
            .place("may")
            .wrong("is missing, expected a list of \"read\", \"program\", \"debug\"");
    }
    section.finish();
    Some(TlsClient {
        name: name?,
        may: may?,
    })
}

fn certificate_name(text: &str) -> Option<CertificateName> {
    let (kind, name) = text.split_once(':')?;
    if name.is_empty() || name.len() > 253 || name.chars().any(char::is_control) {
        return None;
    }
    match kind {
        "dns" => {
            let plain = name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
            plain.then(|| CertificateName::Dns(name.to_ascii_lowercase()))
        }
        "uri" => Some(CertificateName::Uri(name.to_owned())),
        "cn" => Some(CertificateName::CommonName(name.to_owned())),
        _ => None,
    }
}
