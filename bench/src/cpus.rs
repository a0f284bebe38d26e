//! Which CPU does what.

use anyhow::{Context, bail, ensure};
use core_affinity::CoreId;

/// CPUs of one invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cpus {
    /// One for each worker, used by nothing else of ours.
    pub(crate) workers: Vec<usize>,
    /// The CPU of everything else.
    pub(crate) control: usize,
}

/// Picks CPUs: those asked for, or else the highest ones; the lowest other one is for control.
pub(crate) fn pick(asked: &[usize], count: usize) -> anyhow::Result<Cpus> {
    let mut allowed: Vec<usize> = core_affinity::get_core_ids()
        .context("the CPUs of this process cannot be found out")?
        .into_iter()
        .map(|core| core.id)
        .collect();
    allowed.sort_unstable();
    choose(&allowed, asked, count)
}

fn choose(allowed: &[usize], asked: &[usize], count: usize) -> anyhow::Result<Cpus> {
    let workers = if asked.is_empty() {
        ensure!(
            count <= allowed.len(),
            "--nb-cores {count}: this process may use {} CPUs",
            allowed.len()
        );
        allowed[allowed.len() - count..].to_vec()
    } else {
        ensure!(
            asked.len() == count,
            "--core names {} CPUs for {count} workers",
            asked.len()
        );
        asked.to_vec()
    };
    for cpu in &workers {
        if !allowed.contains(cpu) {
            bail!("--core {cpu}: this process may use {allowed:?}");
        }
    }
    let free = allowed.iter().find(|cpu| !workers.contains(cpu));
    let control = match (free, workers.first()) {
        (Some(&cpu), _) => cpu,
        (None, Some(&cpu)) => {
            eprintln!("octobench: no CPU is left for control: figures suffer from it");
            cpu
        }
        (None, None) => bail!("no workers"),
    };
    Ok(Cpus { workers, control })
}

/// Pins the calling thread.
pub(crate) fn pin(cpu: usize) -> anyhow::Result<()> {
    ensure!(
        core_affinity::set_for_current(CoreId { id: cpu }),
        "cannot run on CPU {cpu}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_get_the_highest_and_control_the_lowest() {
        let cpus = choose(&[0, 1, 2, 3], &[], 2).unwrap();
        assert_eq!((cpus.workers, cpus.control), (vec![2, 3], 0));
        let cpus = choose(&[0, 1, 2], &[0], 1).unwrap();
        assert_eq!((cpus.workers, cpus.control), (vec![0], 1));
        assert_eq!(choose(&[5], &[], 1).unwrap().control, 5);
        assert!(choose(&[0, 1], &[], 3).is_err());
        assert!(choose(&[0, 1], &[4], 1).is_err());
        assert!(choose(&[0, 1], &[0, 1], 1).is_err());
    }
}
