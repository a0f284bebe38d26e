//! Values that are text of a certain form.

use super::Section;
use super::suggest::shown;

/// A text for which `valid` holds, else `default`.
pub(crate) fn matching(
    section: &mut Section<'_>,
    key: &'static str,
    default: &str,
    expected: &str,
    valid: impl Fn(&str) -> bool,
) -> String {
    optional_matching(section, key, expected, valid).unwrap_or_else(|| default.to_owned())
}

/// A text for which `valid` holds, if there is one.
pub(crate) fn optional_matching(
    section: &mut Section<'_>,
    key: &'static str,
    expected: &str,
    valid: impl Fn(&str) -> bool,
) -> Option<String> {
    let item = section.item(key)?;
    let text = item.text(expected)?;
    if !valid(text) {
        item.place
            .wrong(format!("\"{}\" is invalid, expected {expected}", shown(text)));
        return None;
    }
    Some(text.to_owned())
}

/// Directives of the log filter. A bare word that is no level would be taken for the name of a target by the
/// filter and silence everything else, so it is refused.
pub(crate) fn log_directives(section: &mut Section<'_>, key: &'static str, default: &str) -> String {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let level = |text: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text));
    let target = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-'))
    };
    let directive = |text: &str| match text.split_once('=') {
        Some((name, value)) => target(name) && level(value),
        None => level(text),
    };
    let expected = "error, warn, info, debug, trace, off, or a comma-separated list of TARGET=LEVEL";
    matching(section, key, default, expected, |text| {
        text.split(',').all(directive)
    })
}
