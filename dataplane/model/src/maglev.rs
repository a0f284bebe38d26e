//! Maglev (specification, 3.4): MurmurHash3 for the table, Jenkins' hash for flows.

use std::net::IpAddr;

use crate::wire::octets;

/// Size of the table.
pub const TABLE: usize = 16381;

/// The three seeds of the default `JLfvgnHc2kaSUFaI`.
pub const SEEDS: (u32, u32, u32) = (0x24b7_ef82, 0x71dc_da46, 0x9250_5688);

fn le64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take(8)
        .enumerate()
        .fold(0, |word, (at, byte)| word | u64::from(*byte) << (8 * at))
}

fn finish(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

/// MurmurHash3, x64, 128 bits, with the seed in both halves.
pub fn murmur3(data: &[u8], seed: u32) -> (u64, u64) {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let first = |word: u64| word.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let second = |word: u64| word.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let (mut h1, mut h2) = (u64::from(seed), u64::from(seed));
    let blocks = data.chunks_exact(16);
    let rest = blocks.remainder();
    for block in blocks {
        let (low, high) = block.split_at(8);
        h1 ^= first(le64(low));
        h1 = h1
            .rotate_left(27)
            .wrapping_add(h2)
            .wrapping_mul(5)
            .wrapping_add(0x52dc_e729);
        h2 ^= second(le64(high));
        h2 = h2
            .rotate_left(31)
            .wrapping_add(h1)
            .wrapping_mul(5)
            .wrapping_add(0x3849_5ab5);
    }
    let (low, high) = rest.split_at(rest.len().min(8));
    h2 ^= second(le64(high));
    h1 ^= first(le64(low));
    h1 ^= data.len() as u64;
    h2 ^= data.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    (h1, h2) = (finish(h1), finish(h2));
    h1 = h1.wrapping_add(h2);
    (h1, h2.wrapping_add(h1))
}

/// Offset and skip of a backend's permutation.
pub fn permutation(text: &str, seed: u32, size: usize) -> (usize, usize) {
    let (h1, h2) = murmur3(text.as_bytes(), seed);
    let size = size as u64;
    ((h1 % size) as usize, (h2 % (size - 1) + 1) as usize)
}

/// The table: indices into `backends`, which are hash strings with weights. They need not be sorted.
pub fn table(backends: &[(String, u32)], seed: u32, size: usize) -> Vec<usize> {
    if backends.is_empty() {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..backends.len()).collect();
    order.sort_by_key(|index| backends.get(*index).map(|backend| &backend.0));
    struct Candidate {
        index: usize,
        weight: f64,
        counter: f64,
        next: usize,
        skip: usize,
    }
    let count = backends.len() as f64;
    let mut candidates: Vec<Candidate> = order
        .into_iter()
        .filter_map(|index| {
            let (text, weight) = backends.get(index)?;
            let (offset, skip) = permutation(text, seed, size);
            Some(Candidate {
                index,
                weight: f64::from(*weight),
                counter: f64::from(*weight) / count,
                next: offset,
                skip,
            })
        })
        .collect();
    let sum: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let weighted = sum / count > 1.0;
    let mut filled: Vec<Option<usize>> = vec![None; size];
    for n in 0..size {
        let mut i = n % candidates.len();
        if weighted {
            while candidates
                .get(i)
                .is_some_and(|candidate| (n + 1) as f64 * candidate.weight < candidate.counter.floor())
            {
                i = (i + 1) % candidates.len();
            }
        }
        let Some(candidate) = candidates.get_mut(i) else {
            break;
        };
        if weighted {
            candidate.counter += sum;
        }
        loop {
            let at = candidate.next;
            candidate.next = (at + candidate.skip) % size;
            match filled.get_mut(at) {
                Some(place @ None) => {
                    *place = Some(candidate.index);
                    break;
                }
                Some(Some(_)) => {}
                None => break,
            }
        }
    }
    filled.into_iter().flatten().collect()
}

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

fn last([mut a, mut b, mut c]: [u32; 3]) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// The hash of a flow: its destination address plays no part.
pub fn flow_hash(src: IpAddr, sport: u16, dport: u16, protocol: u8) -> u32 {
    let raw = |port: u16| u32::from(port.swap_bytes());
    let ports = raw(dport) << 16 | raw(sport);
    let protocol = u32::from(protocol);
    let words: Vec<u32> = octets(src).chunks(4).map(|word| le64(word) as u32).collect();
    match *words {
        [p1, p2, p3, p4] => {
            let [a, b, c] = mix([p1, p2, p3].map(|word| word.wrapping_add(0xdead_beef)));
            let [a, b, c] = mix([
                a.wrapping_add(p4),
                b.wrapping_add(ports),
                c.wrapping_add(protocol),
            ]);
            last([a.wrapping_add(SEEDS.2), b, c])
        }
        _ => {
            let start = 0xdead_beef_u32.wrapping_add(12).wrapping_add(SEEDS.1);
            let saddr = words.first().copied().unwrap_or_default();
            last([saddr, ports, protocol].map(|word| word.wrapping_add(start)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Vec<(String, u32)> {
        (1..4)
            .map(|n| (format!("[10.0.0.{n}:80/TCP,State:active]"), 1))
            .collect()
    }

    #[test]
    fn permutations_of_the_specification() {
        let want = [(5487, 12575), (15155, 16374), (7384, 5148)];
        for ((text, _), want) in three().iter().zip(want) {
            assert_eq!(permutation(text, SEEDS.0, 16381), want);
        }
    }

    #[test]
    fn tables_of_the_specification() {
        let ids = |size| -> Vec<usize> {
            table(&three(), SEEDS.0, size)
                .into_iter()
                .map(|at| at + 1)
                .collect()
        };
        let count = |table: &[usize]| [1, 2, 3].map(|id| table.iter().filter(|at| **at == id).count());
        let small = ids(251);
        assert_eq!(small[..16], [2, 2, 1, 1, 2, 3, 2, 2, 1, 3, 3, 3, 2, 2, 3, 1]);
        assert_eq!(count(&small), [84, 84, 83]);
        let large = ids(16381);
        assert_eq!(large[..16], [1, 3, 3, 1, 1, 3, 1, 2, 2, 2, 3, 3, 3, 1, 2, 2]);
        assert_eq!(count(&large), [5461, 5460, 5460]);
        let src = "192.0.2.10".parse().unwrap();
        let hash = flow_hash(src, 40000, 80, 6);
        assert_eq!((hash, hash as usize % 16381), (0x2dbe_7460, 6502));
        assert_eq!(large[6502], 1);
        let hash = flow_hash(src, 0, 80, 6);
        assert_eq!((hash, hash as usize % 16381), (0x7527_1ea2, 7352));
        assert_eq!(large[7352], 3);
    }

    #[test]
    fn weights_share_the_table() {
        let backends: Vec<(String, u32)> = [(1, 2), (3, 13), (4, 111), (5, 10)]
            .iter()
            .map(|(n, weight)| (format!("[0.0.0.{n}:{n}/TCP,State:active]"), *weight))
            .collect();
        let table = table(&backends, SEEDS.0, 251);
        let count = |index| table.iter().filter(|at| **at == index).count() as f64;
        for (index, (_, weight)) in backends.iter().enumerate() {
            let share = f64::from(*weight) / 136.0 * 251.0;
            assert!((count(index) - share).abs() < 6.0, "{index}: {}", count(index));
        }
    }
}
