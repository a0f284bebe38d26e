//! The engine and the reference model, told the same, do the same: scenarios that once showed a difference, and random ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

use std::path::Path;

use octosim::compare::{replay, search};
use octosim::run;

#[test]
fn scenarios_that_were_treated_differently_once() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut differences = Vec::new();
    let mut scenarios = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let requests = run::read(&std::fs::read_to_string(&path).unwrap()).unwrap();
        scenarios += 1;
        if let Err((index, error)) = replay(&requests) {
            differences.push(format!("{}: request {index}: {error}", path.display()));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(scenarios > 40, "{scenarios} scenarios found");
}

#[test]
fn random_scenarios() {
    for (seed, steps) in [(1, 10), (2, 40)] {
        if let Some(failure) = search(seed, 60, steps).unwrap() {
            let requests = failure.requests.iter();
            let lines: Vec<_> = requests
                .map(|request| serde_json::to_string(request).unwrap())
                .collect();
            panic!("seed {seed}: {}\n{}", failure.difference, lines.join("\n"));
        }
    }
}
