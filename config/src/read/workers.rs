//! `[workers]`.

use std::time::Duration;

use super::Section;
use super::item::Item;
use crate::schema::MAX_WORKERS;
use crate::{CpuSet, PollMode, Workers};

/// `None` only where a mistake has been noted.
pub(super) fn read(mut section: Section<'_>, cpus: &CpuSet) -> Option<Workers> {
    let listed = section.item("cores");
    let count = section.item("count");
    let control = section.item("control_cores");
    let modes = [PollMode::Busy, PollMode::Adaptive].map(|mode| (mode.as_str(), mode));
    let poll = section.choice("poll", &modes).unwrap_or_default();
    let default_delay = u32::try_from(Workers::DEFAULT_MAX_WAKEUP_DELAY.as_micros()).unwrap_or(u32::MAX);
    let delay = section.integer("max_wakeup_delay_us", 10..=10_000, "microseconds", default_delay);
    let burst = section.integer(
        "burst",
        1..=Workers::DEFAULT_BURST,
        "packets",
        Workers::DEFAULT_BURST,
    );

    if let (Some(_), Some(count)) = (&listed, &count) {
        count
            .place
            .wrong("stands beside workers.cores, expected only one of the two");
    }
    // A list with mistakes in it has been complained about; to reckon with it would only add more.
    let control_list = control
        .as_ref()
        .map(|item| cpu_list(item, cpus, cpus.len().max(1)));
    let cores = match (&listed, &control_list) {
        (Some(item), _) => cpu_list(item, cpus, MAX_WORKERS),
        (None, Some(None)) => None,
        (None, Some(Some(control))) => choose(count.as_ref(), Some(control), cpus, &section),
        (None, None) => choose(count.as_ref(), None, cpus, &section),
    };
    section.finish();

    let cores = cores?;
    let control_cores = match (control, control_list) {
        (Some(item), Some(list)) => {
            let list = list?;
            // A worker that never sleeps would leave them nothing; one that does may share, if somebody wants it to.
            if let Some(cpu) = list.iter().find(|cpu| cores.contains(cpu))
                && cpus.len() > 1
                && poll == PollMode::Busy
            {
                item.place.wrong(format!(
                    "CPU {cpu} belongs to a worker that never sleeps, expected CPUs that no worker has, or \
                     poll = \"adaptive\""
                ));
                return None;
            }
            list
        }
        _ => leave_to_control(&cores, cpus, listed.as_ref())?,
    };
    Some(Workers {
        cores,
        control_cores,
        poll,
        max_wakeup_delay: Duration::from_micros(delay.into()),
        burst,
    })
}

/// The CPUs for the control threads where the file does not list them.
fn leave_to_control(cores: &[usize], cpus: &CpuSet, listed: Option<&Item<'_>>) -> Option<Vec<usize>> {
    let rest = cpus.without(cores);
    if !rest.is_empty() {
        return Some(rest);
    }
    if cpus.len() <= 1 {
        return Some(cores.to_vec());
    }
    // Only a list can take them all: where we choose, we keep one back.
    if let Some(item) = listed {
        let most = cpus.len() - 1;
        let message = format!(
            "leaves no CPU to the control threads, expected at most {most} of the CPUs {cpus}, or control_cores"
        );
        item.place.wrong(message);
    }
    None
}

/// Chooses CPUs where they are not listed: the highest, as the kernel's own work tends to the lowest.
fn choose(
    count: Option<&Item<'_>>,
    control: Option<&[usize]>,
    cpus: &CpuSet,
    section: &Section<'_>,
) -> Option<Vec<usize>> {
    let free = match (control, cpus.len()) {
        (_, 0 | 1) => cpus.iter().collect(),
        (Some(control), _) => cpus.without(control),
        (None, _) => cpus.iter().skip(1).collect::<Vec<_>>(),
    };
    if free.is_empty() {
        let whose = if control.is_some() {
            "control_cores"
        } else {
            "cores"
        };
        section.place(whose).wrong(format!(
            "no CPU of {cpus} is left for a worker, expected at least one"
        ));
        return None;
    }
    let most = free.len().min(MAX_WORKERS);
    let wanted = match count {
        Some(item) if !item.is_auto() => item.integer(
            &(1..=most),
            &format!("workers (of the CPUs {cpus})"),
            ", or \"auto\"",
        )?,
        _ => most,
    };
    Some(free.into_iter().rev().take(wanted).rev().collect())
}

/// A list of different CPUs that we may use. `None` where a mistake has been noted.
fn cpu_list(item: &Item<'_>, cpus: &CpuSet, most: usize) -> Option<Vec<usize>> {
    let items = item.list("a list of CPU ids")?;
    if items.is_empty() || items.len() > most {
        item.place
            .wrong(format!("has {} CPUs, expected 1 to {most}", items.len()));
        return None;
    }
    let mut list = Vec::with_capacity(items.len());
    let mut good = true;
    for item in items {
        let Some(cpu) = item.integer(&(0..=65_535), "", "") else {
            good = false;
            continue;
        };
        if !cpus.contains(cpu) {
            item.place.wrong(format!(
                "CPU {cpu} is not one that this process may use, expected one of {cpus}"
            ));
            good = false;
        } else if list.contains(&cpu) {
            item.place
                .wrong(format!("CPU {cpu} is listed twice, expected different CPUs"));
            good = false;
        }
        list.push(cpu);
    }
    good.then_some(list)
}
