//! What is printed of ESP's cases.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::setup::{PathKind, Setup};
use crate::sample::{Sample, median};

/// All runs of one case.
pub(super) struct Case {
    pub(super) setup: Setup,
    pub(super) octoplane: Vec<Sample>,
    /// By name: `crypto_perf`, or `bare` with the library.
    pub(super) yardstick: Option<(&'static str, String)>,
    pub(super) yardsticks: Vec<Sample>,
}

impl Case {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            setup,
            octoplane: Vec::new(),
            yardstick: None,
            yardsticks: Vec::new(),
        }
    }

    /// What it is, in words.
    pub(super) fn title(&self) -> String {
        let Setup {
            operation,
            path,
            size,
            sas,
            provider,
            workers,
            ..
        } = &self.setup;
        format!(
            "{} {size} B, {}{provider}, {sas} SA, {} worker{}",
            operation.name(),
            match path {
                PathKind::Engine => "engine, ",
                PathKind::Esp => "",
            },
            workers.len(),
            if workers.len() == 1 { "" } else { "s" }
        )
    }

    /// The yardstick's ratio: the median of those of runs that followed each other.
    fn ratio(&self) -> Option<f64> {
        (!self.yardsticks.is_empty()).then(|| ratio(&self.octoplane, &self.yardsticks))
    }

    /// Ratios to cases that differ in one thing only, and have the first value of it.
    fn ratios(&self, all: &[Self]) -> Vec<(String, f64)> {
        let mut ratios = Vec::new();
        if let (Some(ratio), Some((name, _))) = (self.ratio(), &self.yardstick) {
            ratios.push((format!("ratio_{name}"), ratio));
            ratios.push((
                format!("ratio_{name}_quiet"),
                quiet_ratio(&self.octoplane, &self.yardsticks),
            ));
        }
        let like = |other: &&Self| {
            other.setup.operation == self.setup.operation
                && other.setup.size == self.setup.size
                && other.setup.provider == self.setup.provider
        };
        let same_workers = |other: &&Self| other.setup.workers.len() == self.setup.workers.len();
        let same_sas = |other: &&Self| other.setup.sas == self.setup.sas;
        let first = all.iter().filter(like).find(same_workers);
        if let Some(first) = first.filter(|first| first.setup.sas != self.setup.sas) {
            let name = format!("ratio_{}_sas", first.setup.sas);
            let quiet = quiet_ratio(&self.octoplane, &first.octoplane);
            ratios.push((format!("{name}_quiet"), quiet));
            ratios.push((name, ratio(&self.octoplane, &first.octoplane)));
        }
        let first = all.iter().filter(like).find(same_sas);
        if let Some(first) = first.filter(|first| first.setup.workers.len() != self.setup.workers.len()) {
            let name = format!("ratio_{}_workers", first.setup.workers.len());
            let quiet = quiet_ratio(&self.octoplane, &first.octoplane);
            ratios.push((format!("{name}_quiet"), quiet));
            ratios.push((name, ratio(&self.octoplane, &first.octoplane)));
        }
        ratios
    }

    fn candidates(&self) -> impl Iterator<Item = (String, &[Sample])> {
        let yardstick = self
            .yardstick
            .as_ref()
            .map(|(name, what)| (format!("{name} {what}"), self.yardsticks.as_slice()));
        [("octoplane".to_owned(), self.octoplane.as_slice())]
            .into_iter()
            .chain(yardstick)
            .filter(|(_, runs)| !runs.is_empty())
    }

    /// The figures of the last run, in one line.
    pub(super) fn last(&self) -> String {
        let figures: Vec<String> = self
            .candidates()
            .filter_map(|(name, runs)| Some(format!("{name} {:.3}", runs.last()?.mpps)))
            .collect();
        format!("{}: {} million a second", self.title(), figures.join(", "))
    }

    /// For people.
    pub(super) fn table(&self, all: &[Self]) -> String {
        let mut text = format!("{}, burst {}\n", self.title(), self.setup.burst);
        for (name, runs) in self.candidates() {
            let (low, high) = runs.iter().fold((f64::MAX, 0.0), |(low, high): (f64, f64), run| {
                (low.min(run.mpps), high.max(run.mpps))
            });
            let cycles = median(runs.iter().filter_map(|run| run.cycles_per_packet));
            let _ = writeln!(
                text,
                "  {name:<28} {:>3} {:>9.3} {low:>9.3} {high:>9.3} {:>9.3} {cycles:>9.1}  {}",
                runs.len(),
                median(runs.iter().map(|run| run.mpps)),
                quiet(runs),
                other(runs)
            );
        }
        for (name, ratio) in self.ratios(all) {
            let _ = writeln!(text, "  {name} {ratio:.3}");
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self, all: &[Self]) -> anyhow::Result<Value> {
        let mut object = Map::new();
        for (name, ratio) in self.ratios(all) {
            object.insert(name, ratio.into());
        }
        for (name, runs) in self.candidates() {
            let name = name.split(' ').next().unwrap_or_default().to_owned();
            let summary = json!({
                "mops": median(runs.iter().map(|run| run.mpps)),
                "cycles_per_packet": median(runs.iter().filter_map(|run| run.cycles_per_packet)),
                "runs": serde_json::to_value(runs)?,
            });
            object.insert(name, summary);
        }
        if let Some((_, what)) = &self.yardstick {
            object.insert("yardstick".to_owned(), what.clone().into());
        }
        object.insert("setup".to_owned(), serde_json::to_value(&self.setup)?);
        Ok(object.into())
    }
}

/// Head of the table.
pub(super) fn head() -> String {
    format!(
        "  {:<28} {:>3} {:>9} {:>9} {:>9} {:>9} {:>9}  other\n",
        "", "run", "Mop/s", "min", "max", "quiet", "cycles/p"
    )
}

fn ratio(ours: &[Sample], theirs: &[Sample]) -> f64 {
    // There may be several of theirs for each of ours.
    let each = (theirs.len() / ours.len().max(1)).max(1);
    let them = theirs
        .chunks(each)
        .map(|runs| median(runs.iter().map(|run| run.mpps)));
    median(ours.iter().zip(them).map(|(ours, theirs)| ours.mpps / theirs))
}

/// While nobody else used the CPU: of our and the libraries' fastest tenth of rounds, and of the fastest run of another
/// program.
fn quiet_ratio(ours: &[Sample], theirs: &[Sample]) -> f64 {
    quiet(ours) / quiet(theirs)
}

fn quiet(runs: &[Sample]) -> f64 {
    let rounds: Vec<f64> = runs.iter().filter_map(|run| run.quiet).collect();
    match rounds.is_empty() {
        true => runs.iter().map(|run| run.mpps).fold(0.0, f64::max),
        false => median(rounds),
    }
}

/// What was refused, or done by somebody else.
fn other(runs: &[Sample]) -> String {
    let mut all = std::collections::BTreeMap::<&str, u64>::new();
    for (why, n) in runs.iter().flat_map(|run| &run.drops) {
        *all.entry(why).or_default() += n;
    }
    let all: Vec<String> = all.iter().map(|(why, n)| format!("{n} {why}")).collect();
    all.join(", ")
}
