//! What an unknown key may have been meant to be, and how text of the file is shown in a message.

/// The key most like `name`, if one is like it at all.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let alike = |key: &'k str| {
        (
            strsim::normalized_damerau_levenshtein(&name.to_lowercase(), key),
            key,
        )
    };
    let best = known
        .iter()
        .copied()
        .map(alike)
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    // Below this, words that share no more than a few letters are taken for misspellings.
    (best.0 >= 0.5).then_some(best.1)
}

/// Text of the file, cut and escaped so that a message stays one readable line.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 64;
    let mut out: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_key() {
        let known = ["rx_queues", "tx_queues", "mtu", "mac"];
        assert_eq!(nearest("rx_queue", &known), Some("rx_queues"));
        assert_eq!(nearest("MTU", &known), Some("mtu"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn text_is_cut_and_escaped() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown(&"x".repeat(70)), format!("{}...", "x".repeat(64)));
    }
}
