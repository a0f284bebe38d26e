//! Where mistakes are gathered.

use std::cell::RefCell;

use crate::{ConfigErrors, Mistake};

/// The mistakes found so far in one text.
pub(crate) struct Mistakes<'a> {
    text: &'a str,
    found: RefCell<Vec<Mistake>>,
}

impl<'a> Mistakes<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text,
            found: RefCell::default(),
        }
    }

    /// Notes a mistake at a byte offset into the text.
    pub(crate) fn add_at(&self, offset: usize, key: &str, message: impl Into<String>) {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        self.found.borrow_mut().push(Mistake {
            line,
            key: key.to_owned(),
            message: message.into(),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// The mistakes in the order of the text.
    pub(crate) fn into_list(self) -> Vec<Mistake> {
        let mut mistakes = self.found.into_inner();
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes
    }

    /// The mistakes of a file.
    pub(crate) fn into_errors(self, file: &str) -> ConfigErrors {
        ConfigErrors::Invalid {
            file: file.to_owned(),
            mistakes: self.into_list(),
        }
    }
}

/// A place in the file that a mistake can be pinned on: a value, or the header of a section that lacks one.
#[derive(Clone)]
pub(crate) struct Place<'a> {
    pub(crate) mistakes: &'a Mistakes<'a>,
    /// Full path of the key.
    pub(crate) key: String,
    /// Byte offset into the text.
    pub(crate) offset: usize,
}

impl Place<'_> {
    /// Notes a mistake here.
    pub(crate) fn wrong(&self, message: impl Into<String>) {
        self.mistakes.add_at(self.offset, &self.key, message);
    }
}
