//! `octobench curves`: pods that talk to services on another node, with tables of different sizes.

use anyhow::bail;
use clap::Parser;
use serde::Serialize;

use crate::cli::{Cli, Command, CurvesArgs, Format};
use crate::job::Subject;
use crate::sample::{Sample, median};
use crate::scenario::ENDPOINTS;
use crate::{child, forward};

/// What differs from point to point, and the flows of established packets.
const CURVES: [(&str, &[u32], u32); 5] = [
    ("flows", &[1000, 65_536, 1_000_000], 0),
    ("policy-entries", &[10, 1000, 64_000], 1000),
    ("services", &[10, 100, 1000, 10_000], 10_000),
    ("ipcache", &[1000, 100_000, 1_000_000], 1000),
    ("churn", &[0, 1000], 1000),
];
/// Most flows that new connections are made of.
const MOST: u32 = 10_000;

/// One point of a curve. Rates are medians; those against the first point, of runs that followed each other.
#[derive(Serialize)]
struct Point {
    curve: &'static str,
    value: u32,
    /// Million packets of established connections a second.
    established: f64,
    established_to_first: f64,
    /// The same by the time that the least disturbed tenth of all bursts took.
    quiet_to_first: Option<f64>,
    /// Million new connections a second, while a million are kept. Not of `flows`.
    new: Option<f64>,
    new_to_first: Option<f64>,
}

/// Measures and prints.
pub(crate) fn run(args: &CurvesArgs) -> anyhow::Result<()> {
    let mut points = Vec::new();
    for (curve, values, flows) in CURVES {
        let mut established = vec![Vec::new(); values.len()];
        let mut new = vec![Vec::new(); values.len()];
        for _ in 0..args.repeat {
            for (index, &value) in values.iter().enumerate() {
                let flows = if flows == 0 { value } else { flows };
                established[index].push(measure(args, curve, value, flows, false)?);
                if curve != "flows" {
                    let services = if curve == "services" { value } else { 16 };
                    let flows = (services * ENDPOINTS).min(MOST);
                    new[index].push(measure(args, curve, value, flows, true)?);
                }
            }
        }
        for (index, &value) in values.iter().enumerate() {
            let point = point(curve, value, [&established, &new], index);
            if args.output == Format::Table {
                if points.is_empty() {
                    println!(
                        "{:<16} {:>9} {:>12} {:>8} {:>8} {:>8} {:>8}",
                        "", "", "established", "ratio", "quiet", "new", "ratio"
                    );
                }
                println!("{}", row(&point));
            }
            points.push(point);
        }
    }
    if args.output == Format::Json {
        println!("{}", serde_json::to_string_pretty(&points)?);
    }
    Ok(())
}

fn row(point: &Point) -> String {
    let or_dash = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    format!(
        "{:<16} {:>9} {:>12.2} {:>8.2} {:>8} {:>8} {:>8}",
        point.curve,
        point.value,
        point.established,
        point.established_to_first,
        or_dash(point.quiet_to_first),
        or_dash(point.new),
        or_dash(point.new_to_first),
    )
}

fn point(curve: &'static str, value: u32, runs: [&[Vec<Sample>]; 2], index: usize) -> Point {
    let rate = |runs: &[Sample]| median(runs.iter().map(|run| run.mpps));
    let to_first = |runs: &[Vec<Sample>]| {
        let pairs = runs[index].iter().zip(&runs[0]);
        median(pairs.map(|(run, first)| run.mpps / first.mpps))
    };
    let best = |runs: &[Sample]| {
        runs.iter()
            .filter_map(|run| run.cycles_p10)
            .min_by(f64::total_cmp)
    };
    let [established, new] = runs;
    let has_new = !new[index].is_empty();
    Point {
        curve,
        value,
        established: rate(&established[index]),
        established_to_first: to_first(established),
        quiet_to_first: best(&established[0])
            .zip(best(&established[index]))
            .map(|(first, it)| first / it),
        new: has_new.then(|| rate(&new[index])),
        new_to_first: has_new.then(|| to_first(new)),
    }
}

fn measure(args: &CurvesArgs, curve: &str, value: u32, flows: u32, new: bool) -> anyhow::Result<Sample> {
    let mut words = vec![
        "octobench".to_owned(),
        "forward".to_owned(),
        "--scenario=pod-to-service".to_owned(),
        "--source=generator".to_owned(),
        "--order=random".to_owned(),
        format!("--flows={flows}"),
        format!("--duration={}", args.duration),
    ];
    if curve != "flows" {
        words.push(format!("--{curve}={value}"));
    }
    // A million connections are decided one by one before all are known.
    words.push(format!("--warmup={}", if flows > 100_000 { 4.0 } else { 0.5 }));
    words.extend(args.ipv6.then(|| "--ipv6".to_owned()));
    words.extend(new.then(|| "--new-connections".to_owned()));
    let Command::Forward(forward) = Cli::try_parse_from(words)?.command else {
        bail!("no options of `forward`");
    };
    let dir = tempfile::Builder::new().prefix("octobench-").tempdir()?;
    let setup = forward::setup(&forward, dir.path().to_path_buf())?;
    child::run(Subject::Octoplane, &setup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_compared_with_the_first_one() {
        let run = |mpps, cycles| Sample {
            mpps,
            cycles_p10: Some(cycles),
            ..Sample::default()
        };
        let established = [
            vec![run(10.0, 100.0), run(8.0, 110.0)],
            vec![run(9.0, 125.0), run(8.0, 140.0)],
        ];
        let new = [vec![], vec![]];
        let point = point("services", 7, [&established, &new], 1);
        assert!((point.established_to_first - 0.95).abs() < 1e-9);
        assert_eq!((point.quiet_to_first, point.new), (Some(0.8), None));
    }
}
