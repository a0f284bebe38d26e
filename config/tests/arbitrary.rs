//! Whatever the file holds, the answer is a configuration or a list of mistakes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use octoplane_config::{CpuSet, parse_for};
use proptest::prelude::*;

const SAMPLE: &str = include_str!("../octoplaned.toml");

fn check(text: &str, cpus: &CpuSet) {
    match parse_for(text, "f", cpus) {
        Ok(config) => {
            let effective = config.to_effective_toml();
            let again = parse_for(&effective, "effective", cpus);
            assert_eq!(again.map_err(|errors| errors.to_string()), Ok(config));
        }
        Err(errors) => {
            assert!(!errors.mistakes().is_empty());
            let lines = text.split('\n').count();
            assert!(
                errors
                    .mistakes()
                    .iter()
                    .all(|mistake| (1..=lines).contains(&mistake.line)),
                "{errors}"
            );
            assert_eq!(errors.to_string().lines().count(), errors.mistakes().len());
        }
    }
}

/// A value of any type, many of them at the edge of what is allowed.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        (0u32..70_000).prop_map(|n| n.to_string()),
        prop::sample::select(vec![
            "true",
            "false",
            "1.5",
            "[]",
            "{}",
            "[1, 2]",
            "[0]",
            "['x']",
            "'auto'",
            "'host'",
            "'pod'",
            "'busy'",
            "''",
            "1979-05-27",
            "'10.0.0.1/24'",
            "['10.0.0.1/24']",
            "'0000:02:00.1'",
            "'net_null9'",
            "'::1'",
            "0xffff",
            "[[1]]",
            "'\\u0000'",
            "\"\\u0000\\n\"",
            "'fe80::1'",
            "[{ a = 1 }]",
            "9600",
        ])
        .prop_map(str::to_owned),
        "\"[ -!#-\\[\\]-~]{0,12}\"",
    ]
}

#[test]
fn deep_nesting_is_refused() {
    for open in ["a = [", "a = {b = "] {
        let text = format!("a = {}", open.trim_start_matches("a = ").repeat(100_000));
        assert!(parse_for(&text, "f", &CpuSet::default()).is_err());
    }
}

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        check(&text, &CpuSet::default());
    }

    #[test]
    fn any_text_of_the_characters_of_toml(text in "[a-z0-9_ =\\[\\]{}\"'.,#:\n\\\\-]{0,200}") {
        check(&text, &"0-3".parse().unwrap());
    }

    /// The sample with values replaced, lines lost and lines doubled.
    #[test]
    fn a_mangled_sample(edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8, value()), 0..12)) {
        let mut lines: Vec<_> = SAMPLE.lines().map(str::to_owned).collect();
        for (index, kind, value) in edits {
            let at = index.index(lines.len());
            match kind {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[at].clone()),
                _ => {
                    if let Some((key, _)) = lines[at].clone().split_once(" = ") {
                        lines[at] = format!("{} = {value}", key.trim_start_matches('#'));
                    }
                }
            }
        }
        for cpus in ["", "0", "0-3"] {
            check(&lines.join("\n"), &cpus.parse().unwrap());
        }
    }

    #[test]
    fn one_value_of_the_sample_replaced(index in any::<prop::sample::Index>(), value in value()) {
        let keys: Vec<_> = SAMPLE.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).collect();
        let line = keys[index.index(keys.len())];
        let (key, _) = line.split_once(" = ").unwrap();
        check(&SAMPLE.replacen(&format!("\n{line}\n"), &format!("\n{key} = {value}\n"), 1), &"0-3".parse().unwrap());
    }
}
