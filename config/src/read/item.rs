//! One value of the file.

use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::Place;

/// A value together with where it stands. Each getter notes a mistake if the value is not what it gets.
pub(crate) struct Item<'a> {
    pub(crate) place: Place<'a>,
    pub(crate) value: &'a DeValue<'a>,
}

impl<'a> Item<'a> {
    /// Notes that the value is of the wrong type.
    pub(crate) fn wrong_type(&self, expected: &str) {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a floating-point number",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.place.wrong(format!("expected {expected}, found {found}"));
    }

    /// Whether the value is the string `auto`.
    pub(crate) fn is_auto(&self) -> bool {
        self.value.as_str() == Some("auto")
    }

    pub(crate) fn boolean(&self, expected: &str) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.wrong_type(expected);
        }
        value
    }

    pub(crate) fn text(&self, expected: &str) -> Option<&'a str> {
        let value = self.value.as_str();
        if value.is_none() {
            self.wrong_type(expected);
        }
        value
    }

    /// An integer of `range`. `unit` says what it counts, `or` what else may stand here (`, or "auto"`).
    pub(crate) fn integer<T>(&self, range: &RangeInclusive<T>, unit: &str, or: &str) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let (min, max) = (range.start(), range.end());
        let space = if unit.is_empty() { "" } else { " " };
        let DeValue::Integer(integer) = self.value else {
            self.wrong_type(&format!("an integer from {min} to {max}{space}{unit}{or}"));
            return None;
        };
        let value = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let value = value
            .and_then(|v| T::try_from(v).ok())
            .filter(|v| range.contains(v));
        if value.is_none() {
            self.place.wrong(format!(
                "{integer} is out of range, expected {min} to {max}{space}{unit}{or}"
            ));
        }
        value
    }

    /// The items of a list.
    pub(crate) fn list(&self, expected: &str) -> Option<Vec<Self>> {
        let DeValue::Array(array) = self.value else {
            self.wrong_type(expected);
            return None;
        };
        let item = |(i, value): (usize, &'a toml::Spanned<DeValue<'a>>)| {
            let key = format!("{}[{i}]", self.place.key);
            let place = Place {
                mistakes: self.place.mistakes,
                key,
                offset: value.span().start,
            };
            Self {
                place,
                value: value.get_ref(),
            }
        };
        Some(array.iter().enumerate().map(item).collect())
    }
}
