//! A message that the broker delivered.

use std::collections::BTreeMap;

use bytes::Bytes;
use lapin::types::AMQPValue;
use overstory_model::ids::MessageId;

/// The header in which a quorum queue counts earlier deliveries.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// Names a delivery of one subscription; worthless once that subscription has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryTag {
    pub(crate) generation: u64,
    pub(crate) tag: u64,
}

/// One message, with what is needed to work on it, acknowledge it or lay it among the dead letters.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What to acknowledge it with.
    pub tag: DeliveryTag,
    /// The exchange that it was published to.
    pub exchange: String,
    /// The key that it was published with.
    pub routing_key: String,
    /// The publisher's name for it.
    pub message_id: Option<String>,
    /// For example `application/json`.
    pub content_type: Option<String>,
    /// Headers; values that are not text are written as text, tables and arrays are left out.
    pub headers: BTreeMap<String, String>,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// How often it was delivered before, as far as the queue counts.
    pub delivery_count: u64,
    /// The publisher's time, Unix seconds.
    pub timestamp: Option<i64>,
    /// The body; empty when it is `oversized`.
    pub body: Bytes,
    /// The body's true size in bytes.
    pub size: usize,
    /// Whether the body is larger than the consumer takes.
    pub oversized: bool,
    /// The body whatever its size, for the dead letter.
    pub whole: Bytes,
}

impl Delivery {
    /// A delivery that no broker made, to feed to the code that works on deliveries.
    #[must_use]
    pub fn local(exchange: &str, routing_key: &str, body: Bytes) -> Self {
        Self {
            tag: DeliveryTag { generation: 0, tag: 0 },
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            message_id: None,
            content_type: None,
            headers: BTreeMap::new(),
            redelivered: false,
            delivery_count: 0,
            timestamp: None,
            size: body.len(),
            whole: body.clone(),
            body,
            oversized: false,
        }
    }

    pub(crate) fn from_broker(delivery: lapin::message::Delivery, generation: u64, max_body: usize) -> Self {
        let lapin::message::Delivery { delivery_tag, exchange, routing_key, redelivered, properties, data, .. } =
            delivery;
        let mut headers = BTreeMap::new();
        let mut delivery_count = 0;
        for (name, value) in properties.headers().iter().flat_map(|table| table.inner()) {
            if name.as_str() == DELIVERY_COUNT {
                delivery_count = integer(value).and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
            } else if let Some(text) = text(value) {
                headers.insert(name.as_str().to_owned(), text);
            }
        }
        let whole = Bytes::from(data);
        let oversized = whole.len() > max_body;
        Self {
            tag: DeliveryTag { generation, tag: delivery_tag },
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            message_id: properties.message_id().as_ref().map(|id| id.as_str().to_owned()),
            content_type: properties.content_type().as_ref().map(|kind| kind.as_str().to_owned()),
            headers,
            redelivered,
            delivery_count,
            timestamp: properties.timestamp().and_then(|time| i64::try_from(time).ok()),
            body: if oversized { Bytes::new() } else { whole.clone() },
            size: whole.len(),
            oversized,
            whole,
        }
    }

    /// The same for every delivery of this message: from the publisher's name for it, else from its content.
    #[must_use]
    pub fn id(&self) -> MessageId {
        match &self.message_id {
            Some(id) => MessageId::from_property(id),
            None => MessageId::from_content(&self.routing_key, &self.whole),
        }
    }
}

fn integer(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::ShortShortInt(value) => (*value).into(),
        AMQPValue::ShortShortUInt(value) => (*value).into(),
        AMQPValue::ShortInt(value) => (*value).into(),
        AMQPValue::ShortUInt(value) => (*value).into(),
        AMQPValue::LongInt(value) => (*value).into(),
        AMQPValue::LongUInt(value) => (*value).into(),
        AMQPValue::LongLongInt(value) => *value,
        AMQPValue::Timestamp(value) => i64::try_from(*value).ok()?,
        _ => return None,
    })
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        AMQPValue::Boolean(truth) => Some(truth.to_string()),
        AMQPValue::Float(number) => Some(number.to_string()),
        AMQPValue::Double(number) => Some(number.to_string()),
        other => integer(other).map(|number| number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_comes_from_the_publisher_or_from_the_content() {
        let plain = Delivery::local("e", "k", Bytes::from_static(b"x"));
        assert_eq!(plain.id(), MessageId::from_content("k", b"x"));
        let named = Delivery { message_id: Some("m".into()), ..plain };
        assert_eq!(named.id(), MessageId::from_property("m"));
    }
}
