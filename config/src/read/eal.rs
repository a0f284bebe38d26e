//! `[eal]`.

use super::Section;
use super::suggest::shown;
use super::text::matching;
use crate::{Eal, IovaMode};

/// Long options that the daemon sets from other keys, or that would keep it from running.
const OURS: [&str; 18] = [
    "allow",
    "block",
    "file-prefix",
    "help",
    "in-memory",
    "iova-mode",
    "lcores",
    "log-level",
    "main-lcore",
    "master-lcore",
    "no-huge",
    "no-pci",
    "no-shconf",
    "proc-type",
    "service-corelist",
    "socket-mem",
    "vdev",
    "version",
];

/// Short options of the same kind.
const OURS_SHORT: [char; 9] = ['a', 'b', 'c', 'h', 'l', 'm', 'S', 's', 'v'];

pub(super) fn read(mut section: Section<'_>, some_pci: bool) -> Eal {
    let default = Eal::default();
    let prefix = |text: &str| {
        (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    let prefix_form = "1 to 32 letters, digits, \"_\" or \"-\"";
    let file_prefix = matching(
        &mut section,
        "file_prefix",
        &default.file_prefix,
        prefix_form,
        prefix,
    );
    let level_form = "a level (emergency, alert, critical, error, warning, notice, info, debug, or 1 to 8) \
                      or PATTERN:LEVEL";
    let log_level = matching(
        &mut section,
        "log_level",
        &default.log_level,
        level_form,
        is_log_level,
    );
    let modes = [IovaMode::Auto, IovaMode::Va, IovaMode::Pa].map(|mode| (mode.as_str(), mode));
    let iova = section.choice("iova", &modes).unwrap_or_default();
    let extra_args = extra_args(&mut section);
    let pci = section.auto_boolean("pci");
    if pci == Some(false) && some_pci {
        section
            .place("pci")
            .wrong("is false although a port or crypto device is a PCI device, expected true or \"auto\"");
    }
    section.finish();
    Eal {
        file_prefix,
        log_level,
        iova,
        extra_args,
        pci: pci.unwrap_or(some_pci),
    }
}

fn is_log_level(text: &str) -> bool {
    const NAMES: [&str; 8] = [
        "emergency",
        "alert",
        "critical",
        "error",
        "warning",
        "notice",
        "info",
        "debug",
    ];
    let (pattern, level) = text.rsplit_once(':').map_or((None, text), |(p, l)| (Some(p), l));
    let pattern = pattern.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_graphic()));
    pattern && (NAMES.contains(&level) || matches!(level.as_bytes(), [b'1'..=b'8']))
}

fn extra_args(section: &mut Section<'_>) -> Vec<String> {
    let Some(items) = section
        .item("extra_args")
        .and_then(|item| item.list("a list of strings"))
    else {
        return Vec::new();
    };
    let mut args = Vec::new();
    for item in items {
        let Some(arg) = item.text("a string") else {
            continue;
        };
        if arg.is_empty() || arg.contains('\0') {
            item.place
                .wrong("is empty or has a NUL, expected an EAL argument");
        } else if is_ours(arg) {
            let shown = shown(arg);
            item.place.wrong(format!(
                "\"{shown}\" is set by the daemon itself, expected another EAL argument"
            ));
        } else {
            args.push(arg.to_owned());
        }
    }
    args
}

/// Whether EAL would take `arg` for an option of ours.
fn is_ours(arg: &str) -> bool {
    match arg.strip_prefix("--") {
        // Ends EAL's options: all behind it would be lost.
        Some("") => true,
        // getopt takes any unambiguous beginning for the whole option.
        Some(long) => {
            let name = long.split('=').next().unwrap_or(long);
            OURS.iter().any(|ours| ours.starts_with(name))
        }
        None => arg
            .strip_prefix('-')
            .and_then(|short| short.chars().next())
            .is_some_and(|c| OURS_SHORT.contains(&c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_ours_are_known_in_all_spellings() {
        for arg in [
            "-l",
            "-l0",
            "--lcores",
            "--lcores=0",
            "--lcor",
            "--no-pci",
            "--vdev=net_null0",
            "-a",
            "--",
            "--f=x",
        ] {
            assert!(is_ours(arg), "{arg}");
        }
        for arg in [
            "-n",
            "4",
            "-d",
            "x.so",
            "--legacy-mem",
            "--match-allocations",
            "--huge-dir=/mnt",
            "--no-telemetry",
        ] {
            assert!(!is_ours(arg), "{arg}");
        }
    }

    #[test]
    fn log_levels() {
        for text in ["debug", "8", "lib.eal:debug", "pmd.net.*:info"] {
            assert!(is_log_level(text), "{text}");
        }
        for text in ["", "9", "loud", ":debug", "lib.eal:"] {
            assert!(!is_log_level(text), "{text}");
        }
    }
}
