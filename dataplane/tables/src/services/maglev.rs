//! Choosing a backend by a hash that all nodes agree on (specification of the datapath, section 3.4).

use std::net::{IpAddr, SocketAddr};

use crate::model::Protocol;
use crate::services::murmur::murmur3_x64_128;

/// Positions in a table: Cilium's default.
pub const TABLE_SIZE: usize = 16_381;

/// What the hashes start from, the same at all nodes of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed {
    /// Of the tables.
    pub murmur: u32,
    /// Of IPv4 flows.
    pub jhash4: u32,
    /// Of IPv6 flows.
    pub jhash6: u32,
}

impl Seed {
    /// Cilium's default, `JLfvgnHc2kaSUFaI` in base64.
    pub const DEFAULT: Self = Self {
        murmur: 0x24b7_ef82,
        jhash4: 0x71dc_da46,
        jhash6: 0x9250_5688,
    };
}

/// A backend that takes part in a table.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Its address and port.
    pub addr: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its share, 1 or more.
    pub weight: u16,
}

/// What tells two backends apart.
fn name(candidate: &Candidate) -> String {
    let port = candidate.addr.port();
    let protocol = candidate.protocol.name();
    match candidate.addr.ip() {
        IpAddr::V4(ip) => format!("[{ip}:{port}/{protocol},State:active]"),
        IpAddr::V6(ip) => format!("[[{ip}]:{port}/{protocol},State:active]"),
    }
}

/// Where a backend's permutation of the positions starts, and how far apart its steps are.
fn offset_and_skip(name: &str, size: usize, seed: u32) -> (usize, usize) {
    let (h1, h2) = murmur3_x64_128(name.as_bytes(), seed);
    let size = size as u64;
    ((h1 % size) as usize, (h2 % (size - 1)) as usize + 1)
}

/// The table for these backends: at each position the index of one of them. Empty without backends. `size` is a prime.
pub fn table(candidates: &[Candidate], size: usize, seed: Seed) -> Box<[u16]> {
    const FREE: u16 = u16::MAX;
    let count = candidates.len().min(usize::from(FREE));
    if count == 0 || size < 3 {
        return Box::default();
    }
    struct Turn {
        index: u16,
        weight: u64,
        credit: f64,
        position: usize,
        skip: usize,
    }
    let mut named: Vec<(String, u16)> = candidates[..count]
        .iter()
        .enumerate()
        .map(|(index, candidate)| (name(candidate), index as u16))
        .collect();
    named.sort();
    let mut turns: Vec<Turn> = named
        .into_iter()
        .map(|(name, index)| {
            let (position, skip) = offset_and_skip(&name, size, seed.murmur);
            let weight = u64::from(candidates[usize::from(index)].weight);
            Turn {
                index,
                weight,
                credit: weight as f64 / count as f64,
                position,
                skip,
            }
        })
        .collect();
    let sum: u64 = turns.iter().map(|turn| turn.weight).sum();
    let weighted = sum / count as u64 > 1;
    let mut table = vec![FREE; size].into_boxed_slice();
    for n in 0..size {
        let mut i = n % count;
        if weighted {
            while (n as u64 + 1) * turns[i].weight < turns[i].credit as u64 {
                i = (i + 1) % count;
            }
            turns[i].credit += sum as f64;
        }
        let turn = &mut turns[i];
        while table[turn.position] != FREE {
            turn.position += turn.skip;
            if turn.position >= size {
                turn.position -= size;
            }
        }
        table[turn.position] = turn.index;
    }
    table
}

/// The hash of an IPv4 flow to a service. Addresses have their most significant byte first; with session affinity
/// `src_port` is 0; the destination address does not take part.
pub fn hash4(src: u32, src_port: u16, dst_port: u16, protocol: u8, seed: Seed) -> u32 {
    let init = 0xdead_beef_u32.wrapping_add(12).wrapping_add(seed.jhash4);
    let words = [src.swap_bytes(), ports(src_port, dst_port), protocol.into()];
    finish(words.map(|word| word.wrapping_add(init)))
}

/// The hash of an IPv6 flow to a service; as [`hash4`].
pub fn hash6(src: u128, src_port: u16, dst_port: u16, protocol: u8, seed: Seed) -> u32 {
    let word = |shift: u32| ((src >> shift) as u32).swap_bytes();
    let [a, b, c] = mix([word(96), word(64), word(32)]);
    let [a, b, c] = mix([
        a.wrapping_add(word(0)),
        b.wrapping_add(ports(src_port, dst_port)),
        c.wrapping_add(protocol.into()),
    ]);
    finish([a.wrapping_add(seed.jhash6), b, c])
}

/// The ports as a little-endian machine loads them from a packet.
fn ports(src: u16, dst: u16) -> u32 {
    u32::from(dst.swap_bytes()) << 16 | u32::from(src.swap_bytes())
}

/// `__jhash_mix` of Linux.
fn mix([mut a, mut b, mut c]: [u32; 3]) -> [u32; 3] {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    [a, b, c]
}

/// `__jhash_final` of Linux: its last word.
fn finish([mut a, mut b, mut c]: [u32; 3]) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(addr: &str, weight: u16) -> Candidate {
        Candidate {
            addr: addr.parse().unwrap(),
            protocol: Protocol::Tcp,
            weight,
        }
    }

    fn three() -> Vec<Candidate> {
        ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
            .map(|addr| candidate(addr, 1))
            .to_vec()
    }

    /// Ids as in the specification, where they start from 1.
    fn ids(table: &[u16]) -> Vec<u16> {
        table.iter().map(|index| index + 1).collect()
    }

    fn counts(table: &[u16]) -> Vec<usize> {
        let all = 0..=*table.iter().max().unwrap();
        all.map(|index| table.iter().filter(|&&at| at == index).count())
            .collect()
    }

    #[test]
    fn offsets_and_skips() {
        let pairs: Vec<_> = three()
            .iter()
            .map(|it| offset_and_skip(&name(it), TABLE_SIZE, Seed::DEFAULT.murmur))
            .collect();
        assert_eq!(pairs, [(5487, 12575), (15155, 16374), (7384, 5148)]);
    }

    #[test]
    fn small_table() {
        let table = table(&three(), 251, Seed::DEFAULT);
        assert_eq!(
            ids(&table)[..16],
            [2, 2, 1, 1, 2, 3, 2, 2, 1, 3, 3, 3, 2, 2, 3, 1]
        );
        assert_eq!(counts(&table), [84, 84, 83]);
    }

    #[test]
    fn table_of_the_usual_size() {
        let table = table(&three(), TABLE_SIZE, Seed::DEFAULT);
        assert_eq!(
            ids(&table)[..16],
            [1, 3, 3, 1, 1, 3, 1, 2, 2, 2, 3, 3, 3, 1, 2, 2]
        );
        assert_eq!(counts(&table), [5461, 5460, 5460]);
    }

    #[test]
    fn the_order_of_backends_does_not_matter() {
        let mut turned = three();
        turned.reverse();
        let turned: Vec<u16> = table(&turned, 251, Seed::DEFAULT).iter().map(|i| 2 - i).collect();
        assert_eq!(turned[..], table(&three(), 251, Seed::DEFAULT)[..]);
    }

    #[test]
    fn weights_give_shares() {
        let backends = [
            candidate("0.0.0.1:1", 2),
            candidate("0.0.0.2:2", 13),
            candidate("0.0.0.3:3", 111),
            candidate("0.0.0.4:4", 10),
        ];
        assert_eq!(counts(&table(&backends, 1021, Seed::DEFAULT)), [16, 98, 832, 75]);
        // What Cilium's table for these begins and ends with.
        let backends = [
            candidate("0.0.0.1:1", 2),
            candidate("0.0.0.3:3", 13),
            candidate("0.0.0.4:4", 111),
            candidate("0.0.0.5:5", 10),
        ];
        let table = table(&backends, 251, Seed::DEFAULT);
        assert_eq!(table[..16], [2, 2, 2, 2, 2, 3, 2, 2, 2, 1, 2, 2, 0, 2, 3, 2]);
        assert_eq!(
            table[251 - 16..],
            [3, 2, 2, 2, 2, 3, 2, 2, 1, 2, 2, 2, 2, 2, 2, 2]
        );
    }

    #[test]
    fn flows() {
        let src = 0xc000_020a;
        let hash = hash4(src, 40_000, 80, 6, Seed::DEFAULT);
        assert_eq!((hash, hash as usize % TABLE_SIZE), (0x2dbe_7460, 6502));
        let table = table(&three(), TABLE_SIZE, Seed::DEFAULT);
        assert_eq!(ids(&table)[6502], 1);
        let sticky = hash4(src, 0, 80, 6, Seed::DEFAULT);
        assert_eq!((sticky, sticky as usize % TABLE_SIZE), (0x7527_1ea2, 7352));
        assert_eq!(ids(&table)[7352], 3);
    }

    #[test]
    fn every_word_of_an_ipv6_flow_counts() {
        let base = hash6(1, 40_000, 80, 6, Seed::DEFAULT);
        for bit in 0..128 {
            assert_ne!(hash6(1 ^ 1 << bit, 40_000, 80, 6, Seed::DEFAULT), base, "{bit}");
        }
        assert_ne!(hash6(1, 40_001, 80, 6, Seed::DEFAULT), base);
        assert_ne!(hash6(1, 40_000, 81, 6, Seed::DEFAULT), base);
        assert_ne!(hash6(1, 40_000, 80, 17, Seed::DEFAULT), base);
    }

    #[test]
    fn no_backends_no_table() {
        assert!(table(&[], TABLE_SIZE, Seed::DEFAULT).is_empty());
    }
}
