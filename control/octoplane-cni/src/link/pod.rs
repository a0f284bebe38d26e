//! The pod's end: addresses and routes. To be called inside the pod's namespace.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::{change, connection, expect, features, kernel, mac_of, sysctl};
use crate::spec::{CniError, Code};

/// What the interface of a pod is to have.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Its name.
    pub(crate) name: String,
    /// Addresses, each alone on the link (/32 and /128).
    pub(crate) addresses: Vec<IpAddr>,
    /// Gateways of the data plane, of which those of the addresses' families are used.
    pub(crate) gateways: [IpAddr; 2],
    /// Destinations with the lengths of their prefixes.
    pub(crate) routes: Vec<(IpAddr, u8)>,
}

/// What the interface of a pod has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) mac: String,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    pub(crate) addresses: Vec<IpAddr>,
    /// Gateways of default routes by it.
    pub(crate) gateways: Vec<IpAddr>,
}

/// Sets an interface up. Answers its Ethernet address.
pub(crate) async fn set_up(setup: &Setup) -> Result<String, CniError> {
    let handle = connection()?;
    let name = &setup.name;
    // The other end takes packets as they are in memory: the kernel would leave their checksums to a device.
    features::fill_checksums(name).await?;
    if setup.addresses.iter().any(IpAddr::is_ipv6) {
        // Container runtimes switch IPv6 off where they know of no address.
        sysctl(name, "disable_ipv6", "0")?;
        sysctl("lo", "disable_ipv6", "0")?;
        // The gateway does not advertise itself; nobody else should.
        sysctl(name, "accept_ra", "0")?;
    }
    let loopback = expect(&handle, "lo").await?.header.index;
    change(&handle, "lo", LinkUnspec::new_with_index(loopback).up()).await?;
    let link = expect(&handle, name).await?;
    let index = link.header.index;
    for &address in &setup.addresses {
        add_address(&handle, name, index, address).await?;
    }
    change(&handle, name, LinkUnspec::new_with_index(index).up()).await?;
    for &gateway in &setup.gateways {
        let used = setup
            .addresses
            .iter()
            .any(|address| address.is_ipv4() == gateway.is_ipv4());
        // A link-local gateway is on the link by its nature.
        if used && gateway.is_ipv4() {
            let route = to(gateway, 32)?
                .scope(RouteScope::Link)
                .output_interface(index)
                .build();
            add_route(&handle, name, gateway, route).await?;
        }
    }
    for &(destination, length) in &setup.routes {
        let family = |address: &&IpAddr| address.is_ipv4() == destination.is_ipv4();
        let Some(&gateway) = setup.gateways.iter().find(family) else {
            continue;
        };
        let route = to(destination, length)?
            .output_interface(index)
            .gateway(gateway)
            .map_err(|error| CniError::new(Code::Kernel, format!("route {destination}/{length}: {error}")))?
            .build();
        add_route(&handle, name, destination, route).await?;
    }
    Ok(mac_of(&link))
}

async fn add_address(handle: &Handle, name: &str, index: u32, address: IpAddr) -> Result<(), CniError> {
    let mut request = handle.address().add(index, address, full(address));
    if address.is_ipv6() {
        // The data plane knows who has it: no need to wait for others to object (RFC 4862, section 5.4).
        let message = request.message_mut();
        message.header.flags |= AddressHeaderFlags::Nodad;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    let added = request.execute().await;
    added.map_err(kernel(format_args!("interface {name}: address {address}")))
}

async fn add_route(
    handle: &Handle,
    name: &str,
    destination: IpAddr,
    route: RouteMessage,
) -> Result<(), CniError> {
    let added = handle.route().add(route).execute().await;
    added.map_err(kernel(format_args!("interface {name}: route to {destination}")))
}

fn to(destination: IpAddr, length: u8) -> Result<RouteMessageBuilder<IpAddr>, CniError> {
    RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(destination, length)
        .map_err(|error| CniError::new(Code::Conf, format!("route {destination}/{length}: {error}")))
}

fn full(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Looks at an interface.
pub(crate) async fn inspect(name: &str) -> Result<Found, CniError> {
    let handle = connection()?;
    let link = expect(&handle, name).await?;
    let index = link.header.index;
    let mut found = Found {
        mac: mac_of(&link),
        up: link.header.flags.contains(LinkFlags::Up),
        ..Found::default()
    };
    for attribute in &link.attributes {
        if let LinkAttribute::Mtu(mtu) = attribute {
            found.mtu = *mtu;
        }
    }
    let mut addresses = std::pin::pin!(handle.address().get().set_link_index_filter(index).execute());
    while let Some(message) = addresses.try_next().await.map_err(kernel("addresses"))? {
        for attribute in message.attributes {
            if let AddressAttribute::Address(address) = attribute {
                found.addresses.push(address);
            }
        }
    }
    for message in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let mut routes = std::pin::pin!(handle.route().get(message).execute());
        while let Some(route) = routes.try_next().await.map_err(kernel("routes"))? {
            if route.header.destination_prefix_length != 0 {
                continue;
            }
            let by_it =
                |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Oif(it) if *it == index);
            if !route.attributes.iter().any(by_it) {
                continue;
            }
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Gateway(RouteAddress::Inet(it)) => found.gateways.push((*it).into()),
                    RouteAttribute::Gateway(RouteAddress::Inet6(it)) => found.gateways.push((*it).into()),
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}
