//! The readings of one tick, written as the JSON of our perf event while they are taken.

use std::fmt::Write as _;

use overstory_model::metric::MetricKind;

/// The most readings that one event carries.
const MAX_SAMPLES: usize = 1000;

/// `perf_data_array` in the making.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    json: String,
    samples: usize,
    /// Readings that found no room.
    dropped: usize,
}

/// A thing's `plugin[-instance]/` in JSON, made once when the thing is first seen.
#[derive(Debug, Clone)]
pub(crate) struct Prefix(String);

impl Prefix {
    pub(crate) fn new(plugin: &str, instance: &str) -> Self {
        let instance: String = instance.chars().map(|c| if c.is_control() || c == '/' { '_' } else { c }).collect();
        let name = overstory_model::collectd::metric_name(plugin, &instance, "", "", "");
        let quoted = serde_json::Value::String(name).to_string();
        let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
        Self(format!("{inner}/"))
    }
}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.json.clear();
        self.samples = 0;
        self.dropped = 0;
    }

    /// The items, without the brackets of the array.
    pub(crate) fn items(&self) -> &str {
        &self.json
    }

    pub(crate) const fn samples(&self) -> usize {
        self.samples
    }

    pub(crate) const fn dropped(&self) -> usize {
        self.dropped
    }

    /// Adds a whole number.
    pub(crate) fn count(&mut self, prefix: &Prefix, name: &'static str, value: u64) {
        if self.begin(prefix, name) {
            // Writing to a String cannot fail.
            let _ = write!(self.json, "{value}");
            self.end(name, MetricKind::Gauge);
        }
    }

    /// Adds a number, rounded to four decimals; one that is not finite is left out.
    pub(crate) fn gauge(&mut self, prefix: &Prefix, name: &'static str, value: f64) {
        self.number(prefix, name, value, MetricKind::Gauge);
    }

    /// Adds a rate per second, if there is one.
    pub(crate) fn rate(&mut self, prefix: &Prefix, name: &'static str, rate: Option<f64>) {
        if let Some(rate) = rate {
            self.number(prefix, name, rate, MetricKind::Derive);
        }
    }

    fn number(&mut self, prefix: &Prefix, name: &'static str, value: f64, kind: MetricKind) {
        if value.is_finite() && self.begin(prefix, name) {
            let _ = write!(self.json, "{}", (value * 10_000.0).round() / 10_000.0);
            self.end(name, kind);
        }
    }

    fn begin(&mut self, prefix: &Prefix, name: &'static str) -> bool {
        if self.samples >= MAX_SAMPLES {
            self.dropped += 1;
            return false;
        }
        if self.samples > 0 {
            self.json.push(',');
        }
        self.samples += 1;
        for part in ["{\"metric\":\"", &prefix.0, name, "\",\"value\":"] {
            self.json.push_str(part);
        }
        true
    }

    fn end(&mut self, name: &'static str, kind: MetricKind) {
        let type_name = name.split(['-', '/']).next().unwrap_or(name);
        if let Some(unit) = overstory_model::collectd::unit_of(type_name, kind) {
            self.json.push_str(",\"unit\":\"");
            self.json.push_str(unit);
            self.json.push('"');
        }
        self.json.push('}');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use serde_json::json;

    use super::*;

    #[test]
    fn items_are_json_whatever_the_names_hold() {
        let mut batch = Batch::default();
        let odd = Prefix::new("df", "a\"b\\c/d\n");
        batch.count(&odd, "df_complex-used", u64::MAX);
        batch.gauge(&odd, "percent_bytes-used", 12.345_678);
        batch.gauge(&odd, "percent_bytes-free", f64::NAN);
        batch.rate(&Prefix::new("interface", "eth0"), "if_octets/rx", Some(0.5));
        batch.rate(&Prefix::new("interface", "eth0"), "if_octets/tx", None);
        let items: serde_json::Value = serde_json::from_str(&format!("[{}]", batch.items())).unwrap();
        assert_eq!(
            items,
            json!([
                {"metric": "df-a\"b\\c_d_/df_complex-used", "value": u64::MAX, "unit": "B"},
                {"metric": "df-a\"b\\c_d_/percent_bytes-used", "value": 12.3457, "unit": "%"},
                {"metric": "interface-eth0/if_octets/rx", "value": 0.5, "unit": "B/s"},
            ])
        );
    }

    #[test]
    fn an_event_has_a_bound() {
        let (mut batch, prefix) = (Batch::default(), Prefix::new("p", ""));
        for value in 0..1005 {
            batch.count(&prefix, "gauge", value);
        }
        assert_eq!((batch.samples(), batch.dropped()), (MAX_SAMPLES, 5));
        batch.clear();
        assert_eq!((batch.samples(), batch.dropped(), batch.items()), (0, 0, ""));
    }
}
