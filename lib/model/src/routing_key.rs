//! Routing keys that always fit: at most 255 bytes, one word per field.

use std::fmt;

use sha2::{Digest, Sha256};

/// The longest routing key that AMQP 0-9-1 can carry, in bytes.
pub const MAX_BYTES: usize = 255;

/// A routing key that fits into a frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoutingKey(String);

impl RoutingKey {
    /// Joins `words` with dots; dots inside a word become `/`.
    ///
    /// A key of more than 255 bytes is cut and ends in a hash of the whole, so that distinct keys stay distinct and
    /// bindings on the leading words still match. Readers that need the full names find them in the body.
    #[must_use]
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let key = words.into_iter().map(|word| word.replace('.', "/")).collect::<Vec<_>>().join(".");
        Self::fit(key)
    }

    /// Takes a ready key, cutting it when it is too long.
    #[must_use]
    pub fn fit(key: String) -> Self {
        if key.len() <= MAX_BYTES {
            return Self(key);
        }
        let digest = Sha256::digest(key.as_bytes());
        let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let mut cut = MAX_BYTES - hash.len() - 1;
        while !key.is_char_boundary(cut) {
            cut -= 1;
        }
        Self(format!("{}~{hash}", &key[..cut]))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoutingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dots_inside_words_become_slashes() {
        let key = RoutingKey::from_words(["c", "cn", "check", "component", "host1.example.org"]);
        assert_eq!(key.as_str(), "c.cn.check.component.host1/example/org");
    }

    #[test]
    fn two_long_keys_that_differ_at_the_end_stay_apart() {
        let (a, b) = ("x".repeat(400) + "a", "x".repeat(400) + "b");
        assert_ne!(RoutingKey::fit(a), RoutingKey::fit(b));
    }

    proptest! {
        #[test]
        fn every_key_fits(words in proptest::collection::vec(".{0,120}", 0..8)) {
            let key = RoutingKey::from_words(words.iter().map(String::as_str));
            prop_assert!(key.as_str().len() <= MAX_BYTES);
        }
    }
}
