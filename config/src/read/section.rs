//! A table of the file that is being read.

use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::de::{DeTable, DeValue};

use super::item::Item;
use super::suggest::{nearest, shown};
use super::{Mistakes, Place};

/// A table and the keys that have been asked for: what is left over at [`Section::finish`] is unknown.
pub(crate) struct Section<'a> {
    mistakes: &'a Mistakes<'a>,
    /// Full path, empty for the document.
    path: String,
    /// Where its header stands.
    offset: usize,
    /// `None` where the file does not have it.
    table: Option<&'a DeTable<'a>>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The whole document.
    pub(crate) fn root(table: &'a DeTable<'a>, mistakes: &'a Mistakes<'a>) -> Self {
        Self {
            mistakes,
            path: String::new(),
            offset: 0,
            table: Some(table),
            known: Vec::new(),
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The value of `key`, which thereby becomes a known one.
    pub(crate) fn item(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.known.push(key);
        let (_, value) = self.table?.iter().find(|(k, _)| k.get_ref().as_ref() == key)?;
        let place = Place {
            mistakes: self.mistakes,
            key: self.path_of(key),
            offset: value.span().start,
        };
        Some(Item {
            place,
            value: value.get_ref(),
        })
    }

    /// Where to complain about `key`: at its value, or at this section's header if it has none.
    pub(crate) fn place(&self, key: &str) -> Place<'a> {
        let value = self
            .table
            .and_then(|table| table.iter().find(|(k, _)| k.get_ref().as_ref() == key));
        let offset = value.map_or(self.offset, |(_, value)| value.span().start);
        Place {
            mistakes: self.mistakes,
            key: self.path_of(key),
            offset,
        }
    }

    /// Whether the file has `key` here.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table
            .is_some_and(|table| table.iter().any(|(k, _)| k.get_ref().as_ref() == key))
    }

    /// Whether the file has a list with something in it under `key`.
    pub(crate) fn has_items(&self, key: &str) -> bool {
        let value = self
            .table
            .and_then(|table| table.iter().find(|(k, _)| k.get_ref().as_ref() == key));
        value.is_some_and(|(_, value)| value.get_ref().as_array().is_some_and(|list| !list.is_empty()))
    }

    /// Like [`Section::item`]; notes a mistake if there is none.
    pub(crate) fn required(&mut self, key: &'static str, expected: &str) -> Option<Item<'a>> {
        let item = self.item(key);
        if item.is_none() {
            self.place(key).wrong(format!("is missing, expected {expected}"));
        }
        item
    }

    /// A table within this one; an empty one if the file does not have it.
    pub(crate) fn table(&mut self, key: &'static str) -> Self {
        let (offset, path) = (self.offset, self.path_of(key));
        let mut section = Self {
            mistakes: self.mistakes,
            path,
            offset,
            table: None,
            known: Vec::new(),
        };
        if let Some(item) = self.item(key) {
            section.offset = item.place.offset;
            match item.value {
                DeValue::Table(table) => section.table = Some(table),
                _ => item.wrong_type(&format!("a table: [{key}]")),
            }
        }
        section
    }

    /// An array of tables within this one. `None` if it is missing or no array; only the latter is noted. Items that
    /// are no tables are noted and stand as `None`, so that the others keep their numbers.
    pub(crate) fn tables(&mut self, key: &'static str) -> Option<Vec<Option<Self>>> {
        let expected = format!("a list of tables: [[{key}]]");
        let items = self.item(key)?.list(&expected)?;
        let section = |item: Item<'a>| {
            let table = item.value.as_table();
            if table.is_none() {
                item.wrong_type(&format!("a table: [[{key}]]"));
            }
            let Place {
                mistakes,
                key: path,
                offset,
            } = item.place;
            table.is_some().then_some(Self {
                mistakes,
                path,
                offset,
                table,
                known: Vec::new(),
            })
        };
        Some(items.into_iter().map(section).collect())
    }

    /// An integer of `range`; `unit` says what it counts.
    pub(crate) fn integer<T>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
        unit: &str,
        default: T,
    ) -> T
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        self.item(key)
            .and_then(|item| item.integer(&range, unit, ""))
            .unwrap_or(default)
    }

    /// An integer of `range`, or `None` where it is left to us.
    pub(crate) fn auto_integer<T>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
        unit: &str,
    ) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        self.item(key)
            .filter(|item| !item.is_auto())?
            .integer(&range, unit, ", or \"auto\"")
    }

    pub(crate) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        self.item(key)
            .and_then(|item| item.boolean("true or false"))
            .unwrap_or(default)
    }

    /// A boolean, or `None` where it is left to us.
    pub(crate) fn auto_boolean(&mut self, key: &'static str) -> Option<bool> {
        self.item(key)
            .filter(|item| !item.is_auto())?
            .boolean("true, false or \"auto\"")
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.item(key).and_then(|item| choose(&item, words))
    }

    /// One of several words, which has no default.
    pub(crate) fn required_choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.required(key, &listed(words))
            .and_then(|item| choose(&item, words))
    }

    /// To be called when all keys have been asked for: notes those that nobody asked for.
    pub(crate) fn finish(self) {
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let message = match nearest(name, &self.known) {
                Some(near) => format!("unknown key, did you mean \"{near}\"?"),
                None => format!("unknown key, expected one of {}", self.known.join(", ")),
            };
            self.mistakes
                .add_at(key.span().start, &self.path_of(&shown(name)), message);
        }
    }
}

fn listed<T>(words: &[(&str, T)]) -> String {
    let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    match words.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => words.concat(),
    }
}

fn choose<T: Copy>(item: &Item<'_>, words: &[(&str, T)]) -> Option<T> {
    let expected = listed(words);
    let text = item.text(&expected)?;
    let found = words.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        item.place
            .wrong(format!("\"{}\" is unknown, expected {expected}", shown(text)));
    }
    found.map(|(_, value)| *value)
}
