//! From a file or text to a configuration.

use std::path::Path;

use crate::read::{Mistakes, Section, read_config};
use crate::{Config, ConfigErrors, CpuSet};

/// Reads the configuration file at `path` for this machine.
pub fn load(path: impl AsRef<Path>) -> Result<Config, ConfigErrors> {
    load_for(path, &CpuSet::allowed())
}

/// Reads the configuration file at `path` for a machine with these CPUs.
pub fn load_for(path: impl AsRef<Path>, cpus: &CpuSet) -> Result<Config, ConfigErrors> {
    let path = path.as_ref();
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse_for(&text, &file, cpus),
        Err(source) => Err(ConfigErrors::Read { file, source }),
    }
}

/// Reads a configuration for this machine from its text; `filename` is for the messages.
pub fn parse(text: &str, filename: &str) -> Result<Config, ConfigErrors> {
    parse_for(text, filename, &CpuSet::allowed())
}

/// Reads a configuration for a machine with these CPUs from its text; `filename` is for the messages.
pub fn parse_for(text: &str, filename: &str, cpus: &CpuSet) -> Result<Config, ConfigErrors> {
    let mistakes = Mistakes::new(text);
    let (document, errors) = toml::de::DeTable::parse_recoverable(text);
    for error in &errors {
        mistakes.add_at(error.span().map_or(0, |span| span.start), "", error.message());
    }
    // What the parser recovered from broken text is not what was meant: to judge it would add false alarms.
    if !errors.is_empty() {
        return Err(mistakes.into_errors(filename));
    }
    let config = read_config(Section::root(document.get_ref(), &mistakes), cpus);
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(mistakes.into_errors(filename)),
    }
}
