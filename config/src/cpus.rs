//! The CPUs a process may use.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A set of CPU ids. Its text form is the kernel's: `0-3,8`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuSet(BTreeSet<usize>);

/// A text is not a list of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a list of CPUs: expected ids and ranges as in 0-3,8")]
pub struct CpuListError(String);

impl CpuSet {
    /// Greatest CPU id that a list may name; keeps a typing mistake from filling memory.
    const MAX_ID: usize = 65_535;

    /// The CPUs that this process may use. To be asked before a thread is pinned, or the answer is that thread's
    /// own CPU.
    pub fn allowed() -> Self {
        let allowed = std::fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|status| {
                let list = status
                    .lines()
                    .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
                list.trim().parse::<Self>().ok().filter(|set| !set.0.is_empty())
            });
        // Without /proc the ids are a guess, but their number is right.
        allowed.unwrap_or_else(|| (0..std::thread::available_parallelism().map_or(1, usize::from)).collect())
    }

    /// Whether `cpu` is in the set.
    pub fn contains(&self, cpu: usize) -> bool {
        self.0.contains(&cpu)
    }

    /// How many CPUs are in the set.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the set has no CPU.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The CPUs in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// The CPUs that are not in `others`, in ascending order.
    pub(crate) fn without(&self, others: &[usize]) -> Vec<usize> {
        self.iter().filter(|cpu| !others.contains(cpu)).collect()
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(ids: I) -> Self {
        Self(ids.into_iter().collect())
    }
}

impl FromStr for CpuSet {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || CpuListError(text.chars().take(64).collect());
        let id = |part: &str| part.parse().ok().filter(|id| *id <= Self::MAX_ID).ok_or_else(bad);
        let mut set = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('-') {
                Some((first, last)) => set.extend(id(first)?..=id(last)?),
                None => {
                    set.insert(id(part)?);
                }
            }
        }
        Ok(Self(set))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = ids.next() {
            let mut last = first;
            while ids.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in ["", "0", "0-1", "0-3,8", "1,3,5-9"] {
            assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), text);
        }
        for text in ["a", "1-", "-1", "0-99999999999", "1 2"] {
            assert!(text.parse::<CpuSet>().is_err(), "{text}");
        }
    }

    #[test]
    fn this_machine_has_a_cpu() {
        assert!(!CpuSet::allowed().is_empty());
    }
}
