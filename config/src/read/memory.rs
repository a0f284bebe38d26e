//! `[memory]`.

use super::Section;
use crate::{Crypto, DeviceSpec, Memory, Neighbours, Port, Workers};

/// Most mbufs there may be: more than any machine holds.
const MAX_MBUFS: u32 = 1 << 26;

/// `None` only if there are no workers to reckon with.
pub(super) fn read(
    mut section: Section<'_>,
    ports: &[Port],
    crypto: &Crypto,
    workers: Option<&Workers>,
    neighbours: &Neighbours,
) -> Option<Memory> {
    let mut devices = ports.iter().map(|port| &port.device).chain(&crypto.devices);
    let some_pci = devices.any(DeviceSpec::is_pci);
    let hugepages = section.auto_boolean("hugepages").unwrap_or(some_pci);
    let mbuf_cache = section.integer("mbuf_cache", 0..=512, "mbufs", 256);
    let given_mbufs = section.auto_integer("mbufs", 512..=MAX_MBUFS, "mbufs");
    let given_size = section.auto_integer("size_mb", 16..=16_777_216, "MiB");
    let given_room = section.auto_integer(
        "data_room",
        Memory::data_room_for(Port::MIN_MTU)..=u16::MAX,
        "bytes",
    );

    let largest = ports.iter().max_by_key(|port| port.mtu);
    let needed_room = Memory::data_room_for(largest.map_or(Port::DEFAULT_MTU, |port| port.mtu));
    if let (Some(room), Some(port)) = (given_room, largest)
        && room < needed_room
    {
        section.place("data_room").wrong(format!(
            "{room} does not hold a packet of port {} (MTU {}) with its headers, expected at least {needed_room} bytes",
            port.name, port.mtu
        ));
    }
    // Drivers divide buffers into lines; a ragged end would be lost.
    let data_room =
        given_room.unwrap_or_else(|| needed_room.next_multiple_of(128).max(Memory::DEFAULT_DATA_ROOM));

    let memory = workers.map(|workers| {
        let least = Memory::least_mbufs(ports, workers, mbuf_cache);
        if least > MAX_MBUFS {
            section.place("mbufs").wrong(format!(
                "the ports' descriptors need {least} mbufs, expected ports that need at most {MAX_MBUFS}"
            ));
        } else if let Some(mbufs) = given_mbufs
            && mbufs < least
        {
            section.place("mbufs").wrong(format!(
                "{mbufs} does not fill the receive descriptors and the workers' caches, expected at least {least} mbufs"
            ));
        }
        let mbufs = given_mbufs
            .unwrap_or_else(|| Memory::auto_mbufs(ports, workers, mbuf_cache, neighbours.max_parked).min(MAX_MBUFS));
        let needed = Memory::mb_for(mbufs, data_room);
        if let Some(size) = given_size
            && size < needed
        {
            section.place("size_mb").wrong(format!(
                "{size} does not hold {mbufs} mbufs with a data room of {data_room} bytes, expected at least {needed} MiB"
            ));
        }
        let size_mb = given_size.unwrap_or_else(|| {
            let devices = u32::try_from(crypto.devices.len()).unwrap_or(u32::MAX);
            Memory::auto_size_mb(mbufs, data_room).saturating_add(Crypto::DEVICE_MB.saturating_mul(devices))
        });
        Memory { hugepages, size_mb, mbufs, mbuf_cache, data_room }
    });
    section.finish();
    memory
}
