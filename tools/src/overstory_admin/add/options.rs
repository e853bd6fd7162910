//! What `overstory add` can be told about an instance, kind by kind.

use std::net::Ipv4Addr;

use anyhow::bail;
use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};
use overstory_swarm::key::HashRange;

use crate::overstory_admin::instance::Name;
use crate::overstory_admin::instance::kind::{DHT, DMQ, Kind, LOGFILES, QUEUE};
use crate::overstory_admin::instance::layout::Setting;
use crate::overstory_admin::instance::ports::Wanted;
use crate::overstory_admin::instance::ranges::{Limit, Range, Share};

/// The longest beginning of channels' names that has a limit of its own.
const MAX_PREFIX: usize = 200;
/// Stands for the channels that have no setting of their own.
const ALL: &str = "*";
/// The highest age of a bucket.
const MAX_DAYS: u32 = 36_525;

#[derive(Debug, Subcommand)]
pub(in crate::overstory_admin) enum Command {
    /// A node of the distributed hash table: dht-NAME, ports from 21000 on
    Dht(Box<Dht>),
    /// A node of the message queue with overflow to disk: dmq-NAME, ports from 22000 on
    Dmq(Box<Dmq>),
    /// A node of records on disk by channel and timestamp: logfiles-NAME, ports from 23000 on
    Logfiles(Box<Logfiles>),
    /// A node of a queue in memory: queue-NAME, ports from 22400 on
    Queue(Box<Dmq>),
}

/// What every kind has.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Its name: the service is KIND-NAME, its files are in srv/KIND-NAME
    name: Name,
    /// Port of the legacy protocol, the first free one if not given; the neo protocol has the port + 100
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Port for metrics and health, the first free one if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: Option<u16>,
    /// The nodes that clients use together with it; not given: those of its kind, or for a queue it alone
    #[arg(long, value_name = "NAME")]
    group: Option<Name>,
    /// Address of the neo protocol
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST)]
    address: Ipv4Addr,
    /// Address of the legacy protocol, which has no authentication
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST)]
    legacy_address: Ipv4Addr,
    /// Starts it
    #[arg(long)]
    start: bool,
}

#[derive(Debug, Args)]
pub(in crate::overstory_admin) struct Dht {
    #[command(flatten)]
    common: Common,
    /// The part of the hash space that it keeps, in hexadecimal digits; also: all, empty
    #[arg(long, value_name = "MIN-MAX", conflicts_with = "share")]
    range: Option<Range>,
    /// The part I of N equal ones that it keeps
    #[arg(long, value_name = "I/N")]
    share: Option<Share>,
    /// The most bytes of records, as in 1000000, 512K, 64M or 2G; 0 for no limit
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    size_limit: Option<u64>,
    /// A process of its own, dhtdump-NAME, writes the records to the files
    #[arg(long)]
    dump_process: bool,
    /// Seconds between two dumps; 0: only when it ends
    #[arg(long, value_name = "S")]
    dump_period: Option<u32>,
    /// Accepts a range that another node of the group has a part of
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(in crate::overstory_admin) struct Dmq {
    #[command(flatten)]
    common: Common,
    /// Port of the neo protocol, that of the legacy protocol + 100 if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    neo_port: Option<u16>,
    /// The most bytes of a queue in memory, as in 1000000, 512K, 64M or 2G
    #[arg(long, value_name = "BYTES", value_parser = queue_size)]
    channel_size: Option<u64>,
    /// The same for the channels whose names begin with PREFIX; can be given more than once
    #[arg(long = "size", value_name = "PREFIX=BYTES", value_parser = prefix_size)]
    sizes: Vec<(String, u64)>,
    /// What is on disk of a record that was taken
    #[arg(long, value_enum)]
    durability: Option<Durability>,
}

#[derive(Debug, Args)]
pub(in crate::overstory_admin) struct Logfiles {
    #[command(flatten)]
    common: Common,
    /// Port of the neo protocol, that of the legacy protocol + 100 if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    neo_port: Option<u16>,
    /// The first timestamp that it takes, as a number or 0x and hexadecimal digits
    #[arg(long, value_name = "N")]
    minval: Option<Limit>,
    /// The last timestamp that it takes
    #[arg(long, value_name = "N")]
    maxval: Option<Limit>,
    /// When what was put is safe on disk
    #[arg(long, value_enum)]
    sync: Option<Sync>,
    /// The format of new buckets, v1 or v2, for the channels whose names begin with PREFIX (the longest one counts) or for
    /// all others; can be given more than once
    #[arg(long = "format", value_name = "[PREFIX=]FORMAT", value_parser = prefix_format)]
    formats: Vec<(String, &'static str)>,
    /// Rewrites buckets in format v2 when they are so many days old, or never; can be given more than once
    #[arg(long, value_name = "[PREFIX=]DAYS", value_parser = prefix_days)]
    compress_after: Vec<(String, String)>,
    /// Deletes buckets when they are so many days old, or never; can be given more than once
    #[arg(long, value_name = "[PREFIX=]DAYS", value_parser = prefix_days)]
    delete_after: Vec<(String, String)>,
    /// What timestamps count since 1970; the age of buckets needs it
    #[arg(long, value_enum)]
    unit: Option<Unit>,
    /// Accepts timestamps that another node of the group has a part of
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sync {
    /// Written within a second, on disk at the next checkpoint
    Interval,
    /// Before the client is answered
    Always,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Unit {
    /// Seconds
    S,
    /// Milliseconds
    Ms,
    /// Microseconds
    Us,
    /// Nanoseconds
    Ns,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Durability {
    /// Nothing until the node ends; a full queue refuses
    Memory,
    /// What does not fit into memory; the rest when the node ends
    Overflow,
    /// Every record, before its client is answered
    Journal,
}

/// What the operator asked for.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) kind: &'static Kind,
    pub(super) name: Name,
    pub(super) group: Name,
    pub(super) ports: Wanted,
    pub(super) address: Ipv4Addr,
    pub(super) legacy_address: Ipv4Addr,
    pub(super) range: Option<HashRange>,
    /// Whether the range may be another node's, too.
    pub(super) force: bool,
    pub(super) settings: Vec<Setting>,
    /// Those of the dump process.
    pub(super) dump: Option<Vec<Setting>>,
    pub(super) start: bool,
    /// What is accepted and hardly meant.
    pub(super) warnings: Vec<String>,
}

impl Command {
    /// What is asked for.
    ///
    /// # Errors
    /// Options contradict each other.
    pub(super) fn wish(&self) -> anyhow::Result<Wish> {
        match self {
            Self::Dht(args) => args.wish(),
            Self::Dmq(args) => args.wish(&DMQ),
            Self::Logfiles(args) => args.wish(),
            Self::Queue(args) => args.wish(&QUEUE),
        }
    }
}

impl Common {
    fn wish(&self, kind: &'static Kind) -> anyhow::Result<Wish> {
        for (address, option) in [(self.address, "--address"), (self.legacy_address, "--legacy-address")] {
            if address.is_broadcast() || address.is_multicast() {
                bail!("{option}: {address} is no address to listen on");
            }
        }
        let group = match &self.group {
            Some(group) => group.clone(),
            None => kind.default_group(self.name.as_str()).parse().map_err(anyhow::Error::msg)?,
        };
        Ok(Wish {
            kind,
            name: self.name.clone(),
            group,
            ports: Wanted { legacy: self.port, neo: None, admin: self.admin_port },
            address: self.address,
            legacy_address: self.legacy_address,
            range: None,
            force: false,
            settings: Vec::new(),
            dump: None,
            start: self.start,
            warnings: Vec::new(),
        })
    }
}

impl Dht {
    fn wish(&self) -> anyhow::Result<Wish> {
        if self.dump_process && self.dump_period == Some(0) {
            bail!("--dump-process with --dump-period 0 would never dump");
        }
        let range = match (self.range, self.share) {
            (Some(Range(range)), _) => range,
            (None, Some(share)) => share.range(),
            (None, None) => HashRange::FULL,
        };
        let period = |seconds| Setting::new("Dump", "period_s", seconds);
        let asked = self.dump_period.map(period);
        let (own, dump) =
            if self.dump_process { (Some(period(0)), Some(asked.into_iter().collect())) } else { (asked, None) };
        let size_limit = self.size_limit.map(|limit| Setting::new("Options_Memory", "size_limit", limit));
        let settings = size_limit.into_iter().chain(own).collect();
        Ok(Wish { range: Some(range), force: self.force, settings, dump, ..self.common.wish(&DHT)? })
    }
}

impl Dmq {
    fn wish(&self, kind: &'static Kind) -> anyhow::Result<Wish> {
        for (at, (one, _)) in self.sizes.iter().enumerate() {
            if let Some((other, _)) = self.sizes.iter().skip(at + 1).find(|(other, _)| meet(one, other)) {
                bail!("--size: a channel's name can begin with both {one} and {other}");
            }
        }
        let durability = self.durability.map(|durability| match durability {
            Durability::Memory => "memory",
            Durability::Overflow => "overflow",
            Durability::Journal => "journal",
        });
        let channel_size = self.channel_size.map(|size| Setting::new("Server", "channel_size_limit", size));
        let durability = durability.map(|word| Setting::new("Queue", "durability", word));
        let sizes = self.sizes.iter().map(|(prefix, size)| Setting::new("ChannelSizeById", prefix, size));
        let settings = channel_size.into_iter().chain(durability).chain(sizes).collect();
        let wish = self.common.wish(kind)?;
        Ok(Wish { settings, ports: Wanted { neo: self.neo_port, ..wish.ports }, ..wish })
    }
}

impl Logfiles {
    fn wish(&self) -> anyhow::Result<Wish> {
        check_once("--format", &self.formats)?;
        check_once("--compress-after", &self.compress_after)?;
        check_once("--delete-after", &self.delete_after)?;
        let limit = |limit: Option<Limit>, default| limit.map_or(default, |Limit(number)| number);
        let (min, max) = (limit(self.minval, 0), limit(self.maxval, u64::MAX));
        if min > max {
            bail!("--minval {min} is above --maxval {max}");
        }
        let range = HashRange::new(min, max)?;
        let word = |value: Option<PossibleValue>| value.map(|value| value.get_name().to_owned());
        let sync = word(self.sync.and_then(|sync| sync.to_possible_value()));
        let unit = word(self.unit.and_then(|unit| unit.to_possible_value()));
        let settings = sync.map(|word| Setting::new("Sync", "mode", word)).into_iter();
        let settings = settings.chain(unit.map(|word| Setting::new("Retention", "unit", word)));
        let settings = settings.chain(by_prefix("ChannelFormat", &self.formats));
        let settings = settings.chain(by_prefix("CompressAfterDays", &self.compress_after));
        let settings = settings.chain(by_prefix("DeleteAfterDays", &self.delete_after)).collect();
        let wish = self.common.wish(&LOGFILES)?;
        let ports = Wanted { neo: self.neo_port, ..wish.ports };
        let warnings = never_compressed(&self.compress_after, &self.delete_after);
        Ok(Wish { range: Some(range), force: self.force, settings, ports, warnings, ..wish })
    }
}

/// Settings whose keys are the beginnings of channels' names.
fn by_prefix<T: ToString>(section: &'static str, values: &[(String, T)]) -> impl Iterator<Item = Setting> {
    values.iter().map(move |(prefix, value)| Setting::new(section, prefix, value.to_string()))
}

/// Refuses what is given twice for the same channels; of several beginnings of a name the longest one counts.
fn check_once<T>(option: &str, values: &[(String, T)]) -> anyhow::Result<()> {
    for (at, (one, _)) in values.iter().enumerate() {
        if values.iter().skip(at + 1).any(|(other, _)| other == one) {
            bail!("{option} is given twice for {}", if one == ALL { "all channels" } else { one });
        }
    }
    Ok(())
}

/// Names the ages of compression that no bucket reaches, since it is deleted before.
fn never_compressed(compress: &[(String, String)], delete: &[(String, String)]) -> Vec<String> {
    let days = |text: &str| text.parse::<u32>().ok();
    let deleted = |channels: &str| {
        let rules = delete.iter().filter(|(prefix, _)| prefix == ALL || channels.starts_with(prefix.as_str()));
        let rule = rules.max_by_key(|(prefix, _)| if prefix == ALL { 0 } else { prefix.len() });
        rule.and_then(|(_, age)| days(age))
    };
    let idle = compress.iter().filter_map(|(prefix, age)| {
        let (compressed, deleted) = (days(age)?, deleted(prefix)?);
        let of = if prefix == ALL { String::new() } else { format!(" of {prefix}*") };
        let text = || {
            format!(
                "buckets{of} are deleted after {deleted} days, so that none is compressed, which would be after {compressed}"
            )
        };
        (deleted <= compressed).then(text)
    });
    idle.collect()
}

/// Whether a name can begin with both.
fn meet(one: &str, other: &str) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn prefix(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if text.is_empty() || text.len() > MAX_PREFIX || !text.chars().all(plain) {
        return Err("the beginning of a channel's name has letters, digits, _ and -".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads `PREFIX=BYTES`.
fn prefix_size(text: &str) -> Result<(String, u64), String> {
    let (name, size) = text.split_once('=').ok_or("give it as PREFIX=BYTES")?;
    Ok((prefix(name)?, queue_size(size)?))
}

/// Reads `PREFIX=VALUE`, or the value for all channels.
fn prefix_or_all(text: &str) -> Result<(String, &str), String> {
    match text.split_once('=') {
        None | Some((ALL, _)) => Ok((ALL.to_owned(), text.strip_prefix("*=").unwrap_or(text))),
        Some((name, value)) => Ok((prefix(name)?, value)),
    }
}

fn prefix_format(text: &str) -> Result<(String, &'static str), String> {
    let (prefix, format) = prefix_or_all(text)?;
    let known = ["v1", "v2"].into_iter().find(|known| *known == format);
    Ok((prefix, known.ok_or("a format is v1 or v2")?))
}

fn prefix_days(text: &str) -> Result<(String, String), String> {
    let (prefix, days) = prefix_or_all(text)?;
    let fits = days == "never" || days.parse::<u32>().is_ok_and(|days| (1..=MAX_DAYS).contains(&days));
    let wrong = || format!("an age is 1 to {MAX_DAYS} days, or never");
    fits.then(|| (prefix, days.to_owned())).ok_or_else(wrong)
}

/// Reads how many bytes a queue has.
fn queue_size(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        0 => Err("a queue of no bytes takes nothing".to_owned()),
        size => Ok(size),
    }
}

/// Reads a number of bytes; K, M and G stand for powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (text.get(..at).unwrap_or_default(), 1 << 10),
        Some((at, 'M' | 'm')) => (text.get(..at).unwrap_or_default(), 1 << 20),
        Some((at, 'G' | 'g')) => (text.get(..at).unwrap_or_default(), 1 << 30),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    number.ok_or_else(|| "not a number of bytes such as 1000000, 512K, 64M or 2G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_may_have_a_unit() {
        for (text, expected) in [("0", 0), ("1000", 1000), ("512K", 512 << 10), ("10M", 10 << 20), ("2g", 2 << 30)] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "M", "-1", "1T", "10MB", "1.5G", "99999999999999999G", "5\u{e9}"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_is_that_of_a_beginning_of_names() {
        assert_eq!(prefix_size("log-1_=2K"), Ok(("log-1_".to_owned(), 2048)));
        for text in ["", "a", "=1", "a=", "a=0", "a b=1", "a]=1", "a=1=2", ";a=1", "a=-1", "\u{e9}=1"] {
            assert!(prefix_size(text).is_err(), "{text}");
        }
        assert!(prefix_size(&format!("{}=1", "x".repeat(MAX_PREFIX + 1))).is_err());
    }

    #[test]
    fn an_age_of_compression_that_no_bucket_reaches_is_told() {
        let rules = |texts: &[&str]| texts.iter().map(|text| prefix_days(text).unwrap()).collect::<Vec<_>>();
        let told = |compress: &[&str], delete: &[&str]| never_compressed(&rules(compress), &rules(delete));
        let expected = "buckets are deleted after 5 days, so that none is compressed, which would be after 10";
        assert_eq!(told(&["10"], &["5"]), [expected]);
        assert_eq!(told(&["log_=5"], &["lo=5", "9"]).len(), 1);
        for (compress, delete) in [
            (&["5"][..], &["10"][..]),
            (&["10"], &[]),
            (&["10"], &["never"]),
            (&["never"], &["5"]),
            (&["10"], &["log_=5"]),
            (&["log_=10"], &["5", "log=30"]),
        ] {
            assert_eq!(told(compress, delete), [""; 0], "{compress:?} {delete:?}");
        }
    }

    #[test]
    fn a_setting_is_for_a_beginning_of_names_or_for_all() {
        assert_eq!(prefix_format("v2"), Ok(("*".to_owned(), "v2")));
        assert_eq!(prefix_format("*=v1"), Ok(("*".to_owned(), "v1")));
        assert_eq!(prefix_days("log_=90"), Ok(("log_".to_owned(), "90".to_owned())));
        assert_eq!(prefix_days("never"), Ok(("*".to_owned(), "never".to_owned())));
        for text in ["", "v3", "a=", "=v1", "a b=v1", "*", "a*=v1"] {
            assert!(prefix_format(text).is_err(), "{text}");
        }
        for text in ["", "0", "-1", "x", "36526", "a=", "=1", "1.5"] {
            assert!(prefix_days(text).is_err(), "{text}");
        }
    }
}
