//! What the README shows is what happens.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::process::Command;

/// Commands in the README, which stand behind a `$`, with what they print.
fn shown() -> Vec<(String, String)> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line.strip_prefix("    ") {
            Some(line) if line.starts_with("$ ") => {
                commands.push((line[2..].into(), String::new()));
                inside = true;
            }
            Some(line) if inside => {
                let output = &mut commands.last_mut().unwrap().1;
                output.push_str(line);
                output.push('\n');
            }
            _ => inside = false,
        }
    }
    commands
}

#[test]
fn the_readme_is_right() {
    let commands = shown();
    assert!(!commands.is_empty());
    for (command, expected) in commands {
        let mut words = command.split_whitespace();
        assert_eq!(words.next(), Some("octosim"), "{command}");
        let output = Command::new(env!("CARGO_BIN_EXE_octosim"))
            .args(words)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{command}");
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn every_example_is_as_it_expects() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut examples = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let requests = entry.unwrap().path();
        if requests.extension().is_none_or(|it| it != "jsonl") {
            continue;
        }
        examples += 1;
        for seed in ["1", "2"] {
            let output = Command::new(env!("CARGO_BIN_EXE_octosim"))
                .args(["run", "--seed", seed, "-f"])
                .arg(requests.with_extension("yaml"))
                .arg(&requests)
                .output()
                .unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{}: {said}", requests.display());
            assert!(said.contains(r#"{"expected":true}"#), "{said}");
        }
    }
    assert!(examples >= 2);
}
