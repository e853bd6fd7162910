//! Writing an event in the published form, the one that [`super::parse`] reads back unchanged.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Event, EventKind, Source};
use crate::alarm::Initiator;
use crate::clock::Millis;
use crate::state::State;

impl Event {
    /// The event as the JSON body of a message or request.
    ///
    /// Keys that are empty or follow from others are left out. A sample's own time is not part of the format.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        // Writing maps with string keys and finite numbers to a Vec cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("connector", &self.connector)?;
        map.serialize_entry("connector_name", &self.connector_name)?;
        map.serialize_entry("event_type", self.kind.name())?;
        map.serialize_entry("source_type", &self.entity_kind())?;
        match &self.source {
            Source::Connector => {}
            Source::Component { component } => map.serialize_entry("component", component)?,
            Source::Resource { component, resource } => {
                map.serialize_entry("component", component)?;
                map.serialize_entry("resource", resource)?;
            }
        }
        if let EventKind::Check { state } = self.kind {
            map.serialize_entry::<str, State>("state", &state)?;
        }
        map.serialize_entry("timestamp", &Seconds(self.at))?;
        for (key, text) in [("output", &self.output), ("long_output", &self.long_output)] {
            if !text.is_empty() {
                map.serialize_entry(key, text)?;
            }
        }
        if self.initiator != Initiator::External {
            map.serialize_entry("initiator", &self.initiator)?;
            map.serialize_entry("author", &self.author)?;
        }
        if !self.samples.is_empty() {
            map.serialize_entry("perf_data_array", &self.samples)?;
        }
        if !self.tags.is_empty() {
            map.serialize_entry("tags", &self.tags)?;
        }
        for (key, value) in &self.extra {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// Whole seconds as an integer, others with their thousandths.
struct Seconds(Millis);

impl Serialize for Seconds {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of any real time fit 53 bits")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Millis(millis) = self.0;
        if millis % 1000 == 0 {
            serializer.serialize_i64(millis / 1000)
        } else {
            serializer.serialize_f64(millis as f64 / 1000.0)
        }
    }
}
