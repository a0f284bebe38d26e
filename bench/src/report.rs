//! What is printed in the end.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::job::Setup;
use crate::sample::{Sample, median};

/// A figure that not every sample has.
type Figure = fn(&Sample) -> Option<f64>;

/// Parts of the bursts whose times are compared.
const QUANTILES: [(&str, Figure); 2] = [("p10", |run| run.cycles_p10), ("p50", |run| run.cycles_p50)];

/// All runs of an invocation.
pub(crate) struct Report<'a> {
    setup: &'a Setup,
    pub(crate) octoplane: Vec<Sample>,
    pub(crate) macswap: Vec<Sample>,
    pub(crate) testpmd: Vec<Sample>,
}

/// Medians of one candidate.
#[derive(Serialize)]
struct Summary<'a> {
    mpps: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cycles_per_packet: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_burst: Option<f64>,
    drops: BTreeMap<&'a str, u64>,
    runs: &'a [Sample],
}

impl<'a> Report<'a> {
    pub(crate) fn new(setup: &'a Setup) -> Self {
        Self {
            setup,
            octoplane: Vec::new(),
            macswap: Vec::new(),
            testpmd: Vec::new(),
        }
    }

    fn candidates(&self) -> impl Iterator<Item = (&'static str, &[Sample])> {
        [
            ("octoplane", self.octoplane.as_slice()),
            ("macswap", &self.macswap),
            ("testpmd", &self.testpmd),
        ]
        .into_iter()
        .filter(|(_, runs)| !runs.is_empty())
    }

    /// Median of the ratios of runs that followed each other: drift of the machine cancels out.
    fn ratio(&self, yardstick: &[Sample]) -> Option<f64> {
        (!yardstick.is_empty()).then(|| {
            median(
                self.octoplane
                    .iter()
                    .zip(yardstick)
                    .map(|(ours, theirs)| ours.mpps / theirs.mpps),
            )
        })
    }

    /// The same by what bursts take: the yardstick's time over ours. Each candidate's best run counts: what else goes on on
    /// the machine makes bursts slower, never faster.
    fn time_ratio(&self, quantile: fn(&Sample) -> Option<f64>) -> Option<f64> {
        let best = |runs: &[Sample]| runs.iter().filter_map(quantile).min_by(f64::total_cmp);
        Some(best(&self.macswap)? / best(&self.octoplane)?)
    }

    /// The figures of the last run, in one line.
    pub(crate) fn last(&self) -> String {
        let figures: Vec<String> = self
            .candidates()
            .filter_map(|(name, runs)| Some(format!("{name} {:.2} Mpps", runs.last()?.mpps)))
            .collect();
        figures.join(", ")
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let setup = self.setup;
        let mut text = format!(
            "{:?}, {}, {} flows {:?}, sizes {:?}, source {:?}, burst {}, workers on CPUs {:?}, memory {:?}\n\n",
            setup.scenario,
            if setup.ipv6 { "IPv6" } else { "IPv4" },
            setup.flows,
            setup.order,
            setup.sizes,
            setup.source,
            setup.burst,
            setup.workers,
            setup.memory,
        );
        let _ = writeln!(
            text,
            "{:<10} {:>5} {:>9} {:>9} {:>9} {:>9} {:>8}  drops",
            "", "runs", "Mpps", "min", "max", "cycles/p", "burst"
        );
        for (name, runs) in self.candidates() {
            let summary = summarise(runs);
            let (low, high) = runs.iter().fold((f64::MAX, 0.0), |(low, high): (f64, f64), run| {
                (low.min(run.mpps), high.max(run.mpps))
            });
            let or_dash = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
            let drops: Vec<String> = summary
                .drops
                .iter()
                .map(|(reason, count)| format!("{count} {reason}"))
                .collect();
            let _ = writeln!(
                text,
                "{name:<10} {:>5} {:>9.3} {low:>9.3} {high:>9.3} {:>9} {:>8}  {}",
                runs.len(),
                summary.mpps,
                or_dash(summary.cycles_per_packet),
                or_dash(summary.mean_burst),
                if drops.is_empty() {
                    "0".to_owned()
                } else {
                    drops.join(", ")
                },
            );
        }
        for (name, yardstick) in [("macswap", &self.macswap), ("testpmd", &self.testpmd)] {
            if let Some(ratio) = self.ratio(yardstick) {
                let _ = writeln!(text, "ratio_{name} {ratio:.3}");
            }
        }
        for (name, quantile) in QUANTILES {
            if let Some(ratio) = self.time_ratio(quantile) {
                let _ = writeln!(text, "ratio_macswap_{name} {ratio:.3}");
            }
        }
        for run in &self.octoplane {
            let figures = [
                ("cycles_p10", run.cycles_p10),
                ("cycles_p50", run.cycles_p50),
                ("transactions/s", run.churn),
                ("slow_ppm", run.slow_ppm),
                ("connections", run.connections.map(f64::from)),
                ("bytes a connection", run.connection_bytes),
            ];
            let figures: Vec<String> = figures
                .iter()
                .filter_map(|(name, value)| value.map(|value| format!("{name} {value:.1}")))
                .collect();
            let _ = writeln!(text, "run: {}", figures.join(", "));
            for dip in &run.dips {
                let _ = writeln!(
                    text,
                    "all decided again: from {:.2} to {:.2} Mpps, back after {} ms, {:.2} million packets fewer",
                    dip.before, dip.worst, dip.milliseconds, dip.missing
                );
            }
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> anyhow::Result<serde_json::Value> {
        let mut object = serde_json::Map::new();
        for (name, yardstick) in [("ratio_macswap", &self.macswap), ("ratio_testpmd", &self.testpmd)] {
            if let Some(ratio) = self.ratio(yardstick) {
                object.insert(name.to_owned(), ratio.into());
            }
        }
        for (name, quantile) in QUANTILES {
            if let Some(ratio) = self.time_ratio(quantile) {
                object.insert(format!("ratio_macswap_{name}"), ratio.into());
            }
        }
        for (name, runs) in self.candidates() {
            object.insert(name.to_owned(), serde_json::to_value(summarise(runs))?);
        }
        let mut setup = serde_json::to_value(self.setup)?;
        if let Some(setup) = setup.as_object_mut() {
            // Gone by the time anybody reads this.
            setup.remove("dir");
        }
        object.insert("setup".to_owned(), setup);
        Ok(object.into())
    }
}

fn summarise(runs: &[Sample]) -> Summary<'_> {
    let known = |of: fn(&Sample) -> Option<f64>| {
        let values: Vec<f64> = runs.iter().filter_map(of).collect();
        (!values.is_empty()).then(|| median(values))
    };
    let mut drops = BTreeMap::new();
    for (reason, count) in runs.iter().flat_map(|run| &run.drops) {
        *drops.entry(reason.as_str()).or_default() += count;
    }
    Summary {
        mpps: median(runs.iter().map(|run| run.mpps)),
        cycles_per_packet: known(|run| run.cycles_per_packet),
        mean_burst: known(|run| run.mean_burst),
        drops,
        runs,
    }
}
