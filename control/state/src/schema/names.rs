//! Enumerations as words: those of a list stand for 1, 2 and so on; nothing stands for 0.

/// The number of a word.
pub(crate) fn number(field: &str, words: &[&str], text: &str) -> Result<i32, String> {
    if text.is_empty() {
        return Ok(0);
    }
    (1..)
        .zip(words)
        .find(|(_, word)| **word == text)
        .map(|(number, _)| number)
        .ok_or_else(|| format!("{field}: \"{text}\", expected {}", words.join(", ")))
}

/// The word for a number.
pub(crate) fn word(words: &[&str], number: i32) -> String {
    match usize::try_from(number) {
        Ok(0) => String::new(),
        Ok(known) if known <= words.len() => words[known - 1].into(),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let words = ["tcp", "udp"];
        for (text, value) in [("", 0), ("tcp", 1), ("udp", 2)] {
            assert_eq!(number("protocol", &words, text), Ok(value));
            assert_eq!(word(&words, value), text);
        }
        let error = number("protocol", &words, "tpc").unwrap_err();
        assert_eq!(error, "protocol: \"tpc\", expected tcp, udp");
    }
}
