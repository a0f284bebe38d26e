//! Many security associations in one burst.

use super::Sa;

/// Has the cache lines of many fetched side by side, before they are needed one after the other. Each loop does so little
/// that the processor is in several rounds of it at once. Says whether there was more than one to fetch.
#[inline]
pub(crate) fn warm(sas: &[Option<&Sa>]) -> bool {
    let different = |pair: &[Option<&Sa>; 2]| match pair {
        [Some(one), Some(other)] => !std::ptr::eq(*one, *other),
        _ => true,
    };
    if sas.array_windows().all(|pair| !different(pair)) {
        return false;
    }
    let mut read = 0;
    for sa in sas.iter().flatten() {
        read ^= sa.iv_len ^ sa.outer.as_ref().map_or(0, |outer| outer.len() as u8);
    }
    for sa in sas.iter().flatten() {
        read ^= sa.state.read();
    }
    std::hint::black_box(read);
    true
}
