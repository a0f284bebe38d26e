//! Interfaces: over netlink, in the namespace where they are.

mod features;
mod netns;
mod pair;
mod pod;

pub(crate) use netns::Netns;
pub(crate) use pair::{Pair, delete, exists, names_with_alias};
pub(crate) use pod::{Setup, inspect, set_up};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};

use crate::spec::{CniError, Code};

/// A netlink error with what was being done.
fn kernel(what: impl std::fmt::Display) -> impl Fn(rtnetlink::Error) -> CniError {
    move |error| {
        let text = match &error {
            rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
            other => other.to_string(),
        };
        CniError::new(Code::Kernel, format!("{what}: {text}"))
    }
}

fn is_missing(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message)
        if message.to_io().raw_os_error() == Some(nix::errno::Errno::ENODEV as i32))
}

/// A connection in the namespace of the calling thread; inside a runtime.
fn connection() -> Result<Handle, CniError> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

/// An interface by its name, if it is there.
async fn by_name(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, CniError> {
    let mut found = std::pin::pin!(handle.link().get().match_name(name).execute());
    match found.try_next().await {
        Ok(link) => Ok(link),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(kernel(format_args!("interface {name}"))(error)),
    }
}

/// An interface that must be there.
async fn expect(handle: &Handle, name: &str) -> Result<LinkMessage, CniError> {
    by_name(handle, name)
        .await?
        .ok_or_else(|| CniError::new(Code::Kernel, format!("interface {name}: is not there")))
}

async fn change(
    handle: &Handle,
    name: &str,
    builder: LinkMessageBuilder<LinkUnspec>,
) -> Result<(), CniError> {
    let set = handle.link().set(builder.build()).execute().await;
    set.map_err(kernel(format_args!("interface {name}")))
}

/// The Ethernet address of an interface, as text.
fn mac_of(link: &LinkMessage) -> String {
    let found = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => Some(bytes),
        _ => None,
    });
    let bytes = found.map(Vec::as_slice).unwrap_or_default();
    let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.join(":")
}

/// Writes a setting of an interface of the calling thread's namespace; one that the kernel does not have is passed over.
fn sysctl(name: &str, setting: &str, value: &str) -> Result<(), CniError> {
    let path = format!("/proc/sys/net/ipv6/conf/{name}/{setting}");
    match std::fs::write(&path, value) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CniError::from(error).during(&path))
        }
        _ => Ok(()),
    }
}
