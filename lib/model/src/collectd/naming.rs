//! The names of things: collectd's five-part identity, the metric made of it, its unit.

use super::SkipReason;
use crate::metric::MetricKind;
use crate::perf::MAX_NAME;

/// Whose values a list holds, in collectd's terms.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Identity {
    /// The machine: our component.
    pub host: String,
    /// The plugin that read them.
    pub plugin: String,
    /// The thing that it read, empty when there is but one.
    pub plugin_instance: String,
    /// The type, which decides the data sources.
    pub type_name: String,
    /// The part of the thing, empty when there is but one.
    pub type_instance: String,
}

impl Identity {
    /// Checks the parts and makes them fit to be shown: control characters become `?`.
    pub(super) fn new(host: &str, plugin: (&str, &str), kind: (&str, &str)) -> Result<Self, SkipReason> {
        let part = |text: &str| -> Result<String, SkipReason> {
            if text.len() > MAX_NAME {
                return Err(SkipReason::BadName);
            }
            Ok(text.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
        };
        let identity = Self {
            host: part(host)?,
            plugin: part(plugin.0)?,
            plugin_instance: part(plugin.1)?,
            type_name: part(kind.0)?,
            type_instance: part(kind.1)?,
        };
        let named = [&identity.host, &identity.plugin, &identity.type_name].iter().all(|part| !part.is_empty());
        if named { Ok(identity) } else { Err(SkipReason::BadName) }
    }

    /// Takes `plugin-instance` and `type-instance` apart at their first dash.
    pub(super) fn from_parts(host: &str, plugin: &str, kind: &str) -> Result<Self, SkipReason> {
        Self::new(host, split_instance(plugin), split_instance(kind))
    }

    /// The metric of one data source of this identity.
    #[must_use]
    pub fn metric(&self, source: &str) -> String {
        metric_name(&self.plugin, &self.plugin_instance, &self.type_name, &self.type_instance, source)
    }
}

/// Makes `plugin[-instance]/type[-instance][/source]`; the source `value` is left out.
#[must_use]
pub fn metric_name(plugin: &str, plugin_instance: &str, type_name: &str, type_instance: &str, source: &str) -> String {
    let size = plugin.len() + plugin_instance.len() + type_name.len() + type_instance.len() + source.len() + 4;
    let mut name = String::with_capacity(size);
    let mut add = |separator: &str, part: &str| {
        if !part.is_empty() {
            name.push_str(separator);
            name.push_str(part);
        }
    };
    add("", plugin);
    add("-", plugin_instance);
    add("/", type_name);
    add("-", type_instance);
    add("/", if source == "value" { "" } else { source });
    name
}

fn split_instance(text: &str) -> (&str, &str) {
    text.split_once('-').unwrap_or((text, ""))
}

/// The unit of the samples made of a type: of its rate where its kind is a count.
#[must_use]
pub fn unit_of(type_name: &str, kind: MetricKind) -> Option<&'static str> {
    let gauge = kind == MetricKind::Gauge;
    Some(match type_name {
        "percent" | "percent_bytes" | "percent_inodes" | "humidity" => "%",
        "memory" | "swap" | "df" | "df_complex" | "bytes" | "capacity" | "cache_size" | "file_size" | "ps_code"
        | "ps_data" | "ps_rss" | "ps_stacksize" | "ps_vm" | "vs_memory"
            if gauge =>
        {
            "B"
        }
        "disk_octets" | "if_octets" | "io_octets" | "node_octets" | "ps_disk_octets" | "total_bytes"
        | "apache_bytes" | "ipt_bytes" => "B/s",
        // Of disks: the mean time of one operation.
        "disk_time" | "ping" | "ping_stddev" | "latency" | "delay" => "ms",
        "disk_io_time" => "ms/s",
        "uptime" | "duration" => "s",
        "temperature" => "°C",
        "voltage" => "V",
        "current" => "A",
        "power" => "W",
        "cpufreq" | "frequency" => "Hz",
        "fanspeed" => "rpm",
        _ if gauge => return None,
        _ => "1/s",
    })
}
