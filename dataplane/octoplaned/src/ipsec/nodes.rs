//! Other nodes, as they are programmed and kept.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use octoplane_api::v1;
use octoplane_config::Ipsec as Config;
use octoplane_control::IpsecRefusal;
use octoplane_esp::cilium::KeyIndex;
use serde_json::{Value, json};

/// Another node, by one of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) id: u16,
    pub(crate) key: Option<KeyIndex>,
    pub(crate) boot_id: String,
    /// Its end of the security associations.
    pub(crate) end: IpAddr,
}

/// The nodes.
pub(crate) type Nodes = BTreeMap<IpAddr, Node>;

/// A node as it is asked for, and its address. `field` names it in errors.
pub(crate) fn read(
    message: &v1::IpsecNode,
    field: &str,
    nodes: &Nodes,
) -> Result<(IpAddr, Node), IpsecRefusal> {
    let invalid = |name: &str, text: String| IpsecRefusal::Invalid {
        field: format!("{field}.{name}"),
        text,
    };
    let addr = address(&message.address, &format!("{field}.address"))?;
    let end = match message.sa_address.as_str() {
        "" => addr,
        text => address(text, &format!("{field}.sa_address"))?,
    };
    let key = match message.key {
        0 => None,
        key => Some(KeyIndex::new(key).map_err(|error| invalid("key", error.to_string()))?),
    };
    let boot_id = &message.boot_id;
    if !(boot_id.is_empty() && key.is_none()) && boot_id.len() != Config::BOOT_ID_LEN {
        let len = boot_id.len();
        let expected = Config::BOOT_ID_LEN;
        return Err(invalid("boot_id", format!("{len} bytes, expected {expected}")));
    }
    let id = match message.id {
        0 => choose(addr, boot_id, nodes)
            .ok_or_else(|| IpsecRefusal::Full("nodes: all 65535 numbers are taken".into()))?,
        id => u16::try_from(id).map_err(|_| invalid("id", format!("{id}, expected 1 to 65535, or 0")))?,
    };
    Ok((
        addr,
        Node {
            id,
            key,
            boot_id: boot_id.clone(),
            end,
        },
    ))
}

/// An address that a node can have.
pub(crate) fn address(text: &str, field: &str) -> Result<IpAddr, IpsecRefusal> {
    let parsed = text.parse::<IpAddr>().ok().map(|addr| addr.to_canonical());
    parsed
        .filter(|addr| !addr.is_unspecified() && !addr.is_multicast())
        .ok_or_else(|| IpsecRefusal::Invalid {
            field: field.to_owned(),
            text: format!(
                "\"{}\" is no unicast address",
                text.chars().take(64).collect::<String>()
            ),
        })
}

/// All addresses of one node share a number, and it stays.
fn choose(addr: IpAddr, boot_id: &str, nodes: &Nodes) -> Option<u16> {
    if let Some(node) = nodes.get(&addr) {
        return Some(node.id);
    }
    let same = |node: &&Node| !boot_id.is_empty() && node.boot_id == boot_id;
    if let Some(node) = nodes.values().find(same) {
        return Some(node.id);
    }
    let highest = nodes.values().map(|node| node.id).max().unwrap_or(0);
    highest.checked_add(1).or_else(|| {
        let taken: std::collections::HashSet<u16> = nodes.values().map(|node| node.id).collect();
        (1..=u16::MAX).find(|id| !taken.contains(id))
    })
}

/// A node as it is shown.
pub(crate) fn message(addr: &IpAddr, node: &Node) -> v1::IpsecNode {
    v1::IpsecNode {
        address: addr.to_string(),
        id: node.id.into(),
        key: node.key.map_or(0, |key| key.get().into()),
        boot_id: node.boot_id.clone(),
        sa_address: match node.end == *addr {
            true => String::new(),
            false => node.end.to_string(),
        },
    }
}

/// Writes the nodes down: all, or the file stays as it was.
pub(crate) fn save(path: &Path, nodes: &Nodes) -> io::Result<()> {
    let list: Vec<Value> = nodes
        .iter()
        .map(|(addr, node)| {
            json!({
                "address": addr, "id": node.id, "key": node.key.map_or(0, KeyIndex::get), "boot_id": node.boot_id,
                "sa_address": node.end,
            })
        })
        .collect();
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    serde_json::to_writer(&mut file, &list)?;
    file.flush()?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Reads what was written down. Without a file there are none.
pub(crate) fn load(path: &Path) -> anyhow::Result<Nodes> {
    use anyhow::Context as _;
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Nodes::new()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let list: Vec<Value> = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    let mut nodes = Nodes::new();
    for (index, value) in list.iter().enumerate() {
        let text = |key: &str| {
            value
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let number = |key: &str| value.get(key).and_then(Value::as_u64).unwrap_or(0) as u32;
        let message = v1::IpsecNode {
            address: text("address"),
            id: number("id"),
            key: number("key"),
            boot_id: text("boot_id"),
            sa_address: text("sa_address"),
        };
        let (addr, node) =
            read(&message, &format!("nodes[{index}]"), &nodes).with_context(|| path.display().to_string())?;
        nodes.insert(addr, node);
    }
    Ok(nodes)
}
