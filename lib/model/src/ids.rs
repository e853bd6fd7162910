//! Identifiers made here: random ones, and the one that tells a message delivered twice.

use std::fmt;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Makes a random identifier in the form of a version 4 UUID.
#[must_use]
pub fn random_id() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (position, byte) in bytes.iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The bytes as lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Sixteen bytes that stand for one message, however often it is delivered.
///
/// Made from the AMQP `message-id` that our publishers set, or from the message itself for publishers that set none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// Makes the id of a message whose publisher named it.
    #[must_use]
    pub fn from_property(message_id: &str) -> Self {
        Self::digest(&[b"id", message_id.as_bytes()])
    }

    /// Makes the id of a message whose publisher did not name it.
    #[must_use]
    pub fn from_content(routing_key: &str, body: &[u8]) -> Self {
        Self::digest(&[b"content", routing_key.as_bytes(), body])
    }

    fn digest(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        Self(id)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_have_the_uuid_form_and_differ() {
        let id = random_id();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert_ne!(id, random_id());
    }

    #[test]
    fn a_boundary_moved_between_key_and_body_is_another_message() {
        assert_ne!(MessageId::from_content("ab", b"c"), MessageId::from_content("a", b"bc"));
        assert_eq!(MessageId::from_property("x"), MessageId::from_property("x"));
    }
}
