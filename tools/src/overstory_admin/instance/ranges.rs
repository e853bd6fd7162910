//! The part of the hash space, or of all timestamps, that an instance is to keep, and how it fits to the others.

use std::str::FromStr;

use anyhow::bail;
use overstory_model::node::{Coverage, Span};
use overstory_swarm::key::HashRange;

use super::kind::{Kind, Shares};
use super::{Instance, ranges_of};

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::overstory_admin) struct Range(pub(in crate::overstory_admin) HashRange);

impl FromStr for Range {
    type Err = String;

    /// `MIN-MAX` with up to 16 hexadecimal digits each, `all` or `empty`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => return Ok(Self(HashRange::FULL)),
            "empty" => return Ok(Self(HashRange::EMPTY)),
            _ => {}
        }
        let limit = |text: &str| {
            let digits = text.strip_prefix("0x").unwrap_or(text);
            let fits = (1..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            fits.then(|| u64::from_str_radix(digits, 16).ok())?
        };
        let limits = text.split_once('-').and_then(|(min, max)| Some((limit(min)?, limit(max)?)));
        let (min, max) = limits.ok_or("a range is MIN-MAX in hexadecimal digits, all, or empty")?;
        HashRange::new(min, max).map(Self).map_err(|error| error.to_string())
    }
}

/// A timestamp as an operator writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::overstory_admin) struct Limit(pub(in crate::overstory_admin) u64);

impl FromStr for Limit {
    type Err = String;

    /// A number, or `0x` and up to 16 hexadecimal digits. A configuration has 16 hexadecimal digits without `0x`: what
    /// looks like that, with zeros in front, is refused.
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = match text.strip_prefix("0x") {
            Some(digits) if plain(digits) => u64::from_str_radix(digits, 16).ok(),
            None if plain(text) && (text == "0" || !text.starts_with('0')) => text.parse().ok(),
            _ => None,
        };
        number.map(Self).ok_or_else(|| "a timestamp is a number, or 0x and hexadecimal digits".to_owned())
    }
}

/// One of so many equal parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::overstory_admin) struct Share {
    index: u16,
    count: u16,
}

impl FromStr for Share {
    type Err = String;

    /// `I/N`, I from 1.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse::<u16>().ok()?, n.parse::<u16>().ok()?)));
        match numbers {
            Some((index, count)) if (1..=1024).contains(&count) && (1..=count).contains(&index) => {
                Ok(Self { index, count })
            }
            _ => Err("a share is I/N: the part I, from 1, of N equal ones, at most 1024".to_owned()),
        }
    }
}

impl Share {
    /// The part: shares of the same count fit without gap or overlap.
    pub(in crate::overstory_admin) fn range(self) -> HashRange {
        // Positions before part `i`: floor(i * 2^64 / n), at most 2^64.
        let before = |i: u16| (u128::from(i) << 64) / u128::from(self.count);
        let min = u64::try_from(before(self.index - 1)).unwrap_or(u64::MAX);
        let max = u64::try_from(before(self.index) - 1).unwrap_or(u64::MAX);
        HashRange::new(min, max).unwrap_or(HashRange::EMPTY)
    }
}

/// Says what a range of a kind is.
pub(in crate::overstory_admin) fn show(kind: &Kind, range: HashRange) -> String {
    match (kind.shares, range.min(), range.max()) {
        _ if range.is_empty() => "nothing".to_owned(),
        (Shares::Timestamps, 0, u64::MAX) => "all timestamps".to_owned(),
        (Shares::Timestamps, min, u64::MAX) => format!("timestamps from {min} on"),
        (Shares::Timestamps, 0, max) => format!("timestamps up to {max}"),
        (Shares::Timestamps, min, max) => format!("timestamps {min} to {max}"),
        _ => range.to_string(),
    }
}

/// Refuses a range that another instance of the group has a part of. Ranges of timestamps may be the same.
pub(in crate::overstory_admin) fn check_overlap(
    kind: &Kind,
    range: HashRange,
    group: &str,
    others: &[Instance],
) -> anyhow::Result<()> {
    let of_group = ranges_of(others, group).into_iter();
    let together = |theirs: HashRange| kind.shares == Shares::Timestamps && theirs == range;
    let taken = of_group.filter(|(_, theirs)| theirs.overlaps(range) && !together(*theirs));
    let taken: Vec<_> = taken.map(|(service, theirs)| format!("{service} has {}", show(kind, theirs))).collect();
    if taken.is_empty() {
        return Ok(());
    }
    if kind.shares == Shares::Timestamps {
        bail!(
            "{} overlap: {}. Give others (--minval N, --maxval N) or the same, another --group, or --force",
            show(kind, range),
            taken.join(", ")
        )
    }
    bail!(
        "the hash range {range} overlaps: {}. Give another one (--range MIN-MAX, --share I/N; --range empty for a node \
         that is to join by dhtredist), another --group for a dht of its own, or --force",
        taken.join(", ")
    )
}

/// What the instances of a group leave out and what they have twice, in words; nothing if none has a range.
pub(in crate::overstory_admin) fn describe(kind: &Kind, group: &str, members: &[(String, HashRange)]) -> Vec<String> {
    if members.is_empty() {
        return Vec::new();
    }
    let spans: Vec<_> = members.iter().map(|(_, range)| Span { min: range.min(), max: range.max() }).collect();
    let coverage = Coverage::of_type(kind.name, &spans);
    let name = |index: usize| members.get(index).map_or("", |(name, _)| name.as_str());
    let show =
        |span: Span| HashRange::new(span.min, span.max).map_or_else(|_| String::new(), |range| show(kind, range));
    let gaps = coverage.gaps.iter().map(|gap| format!("no node of the group {group} has {}", show(*gap)));
    let overlaps = coverage.overlaps.iter();
    let overlaps = overlaps.map(|(span, a, b)| format!("{} and {} both have {}", name(*a), name(*b), show(*span)));
    gaps.chain(overlaps).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::super::kind::{DHT, LOGFILES};
    use super::*;

    #[test]
    fn timestamps_are_numbers() {
        for (text, expected) in
            [("0", 0), ("1700000000", 1_700_000_000), ("0x10", 16), ("0xffffffffffffffff", u64::MAX)]
        {
            assert_eq!(text.parse(), Ok(Limit(expected)), "{text}");
        }
        for bad in
            ["", "0x", "-1", "+1", "ff", "0000000065e00000", "0x10000000000000000", "18446744073709551616", "0x+1"]
        {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_may_have_the_same_timestamps() {
        let all = || ("logfiles-a".to_owned(), HashRange::FULL);
        assert_eq!(describe(&LOGFILES, "g", &[all(), all()]), [""; 0]);
        let old = ("logfiles-b".to_owned(), HashRange::new(0, 99).unwrap());
        assert_eq!(
            describe(&LOGFILES, "g", std::slice::from_ref(&old)),
            ["no node of the group g has timestamps from 100 on"]
        );
        let told = describe(&LOGFILES, "g", &[all(), old]);
        assert_eq!(told, ["logfiles-b and logfiles-a both have timestamps up to 99"]);
    }

    #[test]
    fn ranges_are_read_in_three_forms() {
        let range = |text: &str| text.parse::<Range>().map(|range| range.0);
        assert_eq!(range("all"), Ok(HashRange::FULL));
        assert_eq!(range("empty"), Ok(HashRange::EMPTY));
        assert_eq!(range("ffffffffffffffff-0"), Ok(HashRange::EMPTY));
        assert_eq!(range("0x10-ff"), Ok(HashRange::new(16, 255).unwrap()));
        for bad in ["", "-", "1-", "2-1", "x-y", "00000000000000000-1", "+1-2", "1"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_fit_to_each_other() {
        for count in [1, 2, 3, 7, 1000, 1024] {
            let parts = (1..=count).map(|i| (i.to_string(), format!("{i}/{count}").parse::<Share>().unwrap().range()));
            let parts: Vec<_> = parts.collect();
            assert_eq!(describe(&DHT, "dht", &parts), [""; 0], "{count}");
        }
        assert_eq!("1/2".parse::<Share>().unwrap().range().max(), u64::MAX / 2);
        for bad in ["0/2", "3/2", "1/0", "1/1025", "1", "a/b", "-1/2"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }

    #[test]
    fn gaps_and_overlaps_are_told_with_names() {
        let parts =
            [("dht-a".to_owned(), HashRange::new(0, 9).unwrap()), ("dht-b".to_owned(), HashRange::new(5, 20).unwrap())];
        let told = describe(&DHT, "g", &parts);
        assert_eq!(told[0], "no node of the group g has 0x0000000000000015..0xffffffffffffffff");
        assert_eq!(told[1], "dht-a and dht-b both have 0x0000000000000005..0x0000000000000009");
    }
}
