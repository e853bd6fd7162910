//! A message on its way out, and its form in the spool (`docs/formats/spool.md`).

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use overstory_model::RoutingKey;
use overstory_model::ids::random_id;

/// Bodies above this are refused before they are sent, in bytes.
pub const MAX_BODY_BYTES: usize = 16 << 20;
const CODEC_VERSION: u8 = 1;
const MANDATORY: u8 = 1;

/// A message to publish; always persistent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Exchange; empty for the broker's default one, which routes by queue name.
    pub exchange: String,
    /// Routing key.
    pub routing_key: RoutingKey,
    /// Body, at most [`MAX_BODY_BYTES`].
    pub body: Bytes,
    /// For example `application/json`.
    pub content_type: String,
    /// Tells the same message delivered twice; kept when a message is sent again.
    pub message_id: String,
    /// Headers; text only.
    pub headers: BTreeMap<String, String>,
    /// Whether it is an error when no queue takes the message.
    pub mandatory: bool,
}

impl Outgoing {
    /// A JSON message with a random id.
    #[must_use]
    pub fn json(exchange: &str, routing_key: RoutingKey, body: Bytes) -> Self {
        Self {
            exchange: exchange.to_owned(),
            routing_key,
            body,
            content_type: "application/json".to_owned(),
            message_id: random_id(),
            headers: BTreeMap::new(),
            mandatory: false,
        }
    }

    /// Says which of the short texts does not fit into a frame, if one does not.
    pub(crate) fn too_long(&self) -> Option<(&'static str, usize)> {
        let names = [
            ("the exchange's name", self.exchange.len()),
            ("the content type", self.content_type.len()),
            ("the message id", self.message_id.len()),
        ];
        let headers = self.headers.keys().map(|key| ("a header's name", key.len()));
        names.into_iter().chain(headers).find(|(_, bytes)| *bytes > 255)
    }

    pub(crate) fn properties(&self) -> BasicProperties {
        let mut properties = BasicProperties::default()
            .with_content_type(cut(&self.content_type))
            .with_message_id(cut(&self.message_id))
            .with_delivery_mode(2);
        if !self.headers.is_empty() {
            let mut table = FieldTable::default();
            for (name, value) in &self.headers {
                table.insert(cut(name), AMQPValue::LongString(value.as_str().into()));
            }
            properties = properties.with_headers(table);
        }
        properties
    }

    /// Appends the spool's form of this message to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(CODEC_VERSION);
        out.put_u8(if self.mandatory { MANDATORY } else { 0 });
        for text in [&self.exchange, self.routing_key.as_str(), &self.content_type, &self.message_id] {
            put_text(out, text);
        }
        out.put_u32_le(u32::try_from(self.headers.len()).unwrap_or(u32::MAX));
        for (name, value) in &self.headers {
            put_text(out, name);
            put_text(out, value);
        }
        out.put_slice(&self.body);
    }

    /// Reads the spool's form of a message; `None` when it is not one.
    pub(crate) fn decode(mut from: Bytes) -> Option<Self> {
        if from.remaining() < 2 || from.get_u8() != CODEC_VERSION {
            return None;
        }
        let mandatory = from.get_u8() & MANDATORY != 0;
        let exchange = take_text(&mut from)?;
        let routing_key = RoutingKey::fit(take_text(&mut from)?);
        let content_type = take_text(&mut from)?;
        let message_id = take_text(&mut from)?;
        let mut headers = BTreeMap::new();
        for _ in 0..from.try_get_u32_le().ok()? {
            let name = take_text(&mut from)?;
            headers.insert(name, take_text(&mut from)?);
        }
        Some(Self { exchange, routing_key, body: from, content_type, message_id, headers, mandatory })
    }
}

/// Every text comes through [`Outgoing::too_long`] first; should one not, it is cut rather than a reason to panic.
pub(crate) fn cut(text: &str) -> ShortString {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    ShortString::try_new(&text[..end]).unwrap_or_default()
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.put_slice(text.as_bytes());
}

fn take_text(from: &mut Bytes) -> Option<String> {
    let length = usize::try_from(from.try_get_u32_le().ok()?).ok()?;
    if length > from.remaining() {
        return None;
    }
    String::from_utf8(from.split_to(length).into()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use proptest::prelude::*;

    use super::*;

    fn encoded(message: &Outgoing) -> Bytes {
        let mut out = Vec::new();
        message.encode(&mut out);
        out.into()
    }

    #[test]
    fn the_spools_form_is_fixed() {
        let message = Outgoing {
            exchange: "e".into(),
            routing_key: RoutingKey::fit("k".into()),
            body: Bytes::from_static(b"{}"),
            content_type: "t".into(),
            message_id: "i".into(),
            headers: BTreeMap::from([("h".to_owned(), "v".to_owned())]),
            mandatory: true,
        };
        let golden = b"\x01\x01\x01\0\0\0e\x01\0\0\0k\x01\0\0\0t\x01\0\0\0i\x01\0\0\0\x01\0\0\0h\x01\0\0\0v{}";
        assert_eq!(encoded(&message), &golden[..]);
        assert_eq!(Outgoing::decode(Bytes::from_static(golden)), Some(message));
    }

    proptest! {
        #[test]
        fn every_message_comes_back(
            exchange in ".{0,20}", key in ".{0,300}", body: Vec<u8>, id in ".{0,40}",
            headers in proptest::collection::btree_map(".{0,8}", ".{0,300}", 0..4), mandatory: bool,
        ) {
            let message = Outgoing {
                exchange, routing_key: RoutingKey::fit(key), body: body.into(), content_type: String::new(),
                message_id: id, headers, mandatory,
            };
            prop_assert_eq!(Outgoing::decode(encoded(&message)), Some(message));
        }

        #[test]
        fn anything_else_is_refused_or_a_message_but_never_a_panic(bytes: Vec<u8>) {
            let _ = Outgoing::decode(bytes.into());
        }
    }
}
