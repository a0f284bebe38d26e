//! `[state]`.

use std::path::PathBuf;

use super::Section;
use super::text::optional_matching;
use crate::State;

pub(super) fn read(mut section: Section<'_>) -> State {
    let default = State::default();
    let path = |text: &str| {
        text.is_empty()
            || (text.starts_with('/') && text.len() <= 4000 && !text.contains('\0') && text != "/")
    };
    let mut directory = |key, default: Option<PathBuf>| {
        let form = "the absolute path of a directory, or \"\" for none";
        match optional_matching(&mut section, key, form, path) {
            Some(text) if text.is_empty() => None,
            Some(text) => Some(text.into()),
            None => default,
        }
    };
    let state = State {
        directory: directory("directory", default.directory),
        connections: directory("connections", default.connections),
    };
    section.finish();
    state
}
