//! The cable between a pod and the data plane: a pair of veth interfaces.

use futures_util::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{Netns, by_name, change, connection, expect, kernel, mac_of, sysctl};
use crate::spec::{CniError, Code};

/// A pair to be made.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    /// Name of our end, in the plugin's namespace, which is the daemon's.
    pub(crate) host: &'a str,
    /// Name of the pod's end, in its namespace.
    pub(crate) pod: &'a str,
    /// The pod's Ethernet address; `None`: the kernel chooses.
    pub(crate) mac: Option<[u8; 6]>,
    /// Largest IP packet in bytes.
    pub(crate) mtu: u32,
    /// What our end is marked with, by which it is found again.
    pub(crate) alias: &'a str,
}

impl Pair<'_> {
    /// Makes the pair, our end up. Answers the Ethernet address of our end.
    pub(crate) async fn make(&self, netns: &Netns) -> Result<String, CniError> {
        let handle = connection()?;
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(self.pod)
            .mtu(self.mtu)
            .setns_by_fd(netns.fd());
        if let Some(mac) = self.mac {
            peer = peer.address(mac.to_vec());
        }
        let pair = LinkMessageBuilder::<LinkVeth>::new(self.host, self.pod)
            .mtu(self.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        handle
            .link()
            .add(pair.build())
            .execute()
            .await
            .map_err(|error| match &error {
                rtnetlink::Error::NetlinkError(message)
                    if message.to_io().raw_os_error() == Some(Errno::EEXIST as i32) =>
                {
                    CniError::new(
                        Code::Kernel,
                        format!("interface {} or {}: is there already", self.host, self.pod),
                    )
                }
                _ => kernel(format_args!("interfaces {} and {}", self.host, self.pod))(error),
            })?;
        // The data plane owns this end: the kernel must not speak on it.
        sysctl(self.host, "disable_ipv6", "1")?;
        let link = expect(&handle, self.host).await?;
        let index = link.header.index;
        let alias = LinkUnspec::new_with_index(index).alias(self.alias);
        change(&handle, self.host, alias).await?;
        change(&handle, self.host, LinkUnspec::new_with_index(index).up()).await?;
        Ok(mac_of(&link))
    }
}

/// Whether an interface is there.
pub(crate) async fn exists(name: &str) -> Result<bool, CniError> {
    Ok(by_name(&connection()?, name).await?.is_some())
}

/// Removes an interface, and with it the other end of its pair; one that is not there is fine.
pub(crate) async fn delete(name: &str) -> Result<(), CniError> {
    let handle = connection()?;
    let Some(link) = by_name(&handle, name).await? else {
        return Ok(());
    };
    match handle.link().del(link.header.index).execute().await {
        Err(error) if !super::is_missing(&error) => Err(kernel(format_args!("interface {name}"))(error)),
        _ => Ok(()),
    }
}

/// Names of all interfaces that are marked with this, together with what follows it.
pub(crate) async fn names_with_alias(prefix: &str) -> Result<Vec<(String, String)>, CniError> {
    let handle = connection()?;
    let links: Vec<LinkMessage> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(kernel("interfaces"))?;
    let marked = |link: LinkMessage| {
        let (mut name, mut rest) = (None, None);
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text),
                LinkAttribute::IfAlias(text) => rest = text.strip_prefix(prefix).map(str::to_owned),
                _ => {}
            }
        }
        Some((name?, rest?))
    };
    Ok(links.into_iter().filter_map(marked).collect())
}
