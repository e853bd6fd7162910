//! The walker over any bytes: it ends, it loses nothing without telling, and windows make no difference.

use super::input::{Input, Memory, Records};
use super::model;
use crate::bucket::{BucketNumber, KeyRange, Ranges};
use crate::format::v2::{self, BlockHeader, IndexHeader};
use crate::format::{BucketWriter, FRONT, Format, HEADER};
use crate::record::{self, Framing};
use crate::walk::{Damage, Step, Walker, read_file};

/// The largest window that is ever asked for: two records of the largest size with their heads, and one head more.
const MAX_NEED: usize = 2 * (record::MAX_HEAD + record::MAX_VALUE) + record::MAX_HEAD;

/// format u8 | bucket u8 | windows u8 | file
pub(super) fn any(data: &[u8]) {
    let mut input = Input(data);
    let (format, number, windows) = (input.format(), input.bucket(), input.byte());
    check(input.0, Some(format), number, windows);
    check(input.0, None, number, windows);
    check_tail(input.0, number);
}

/// format u8 | bucket u8 | windows u8 | records | damages
pub(super) fn damaged(data: &[u8]) {
    let mut input = Input(data);
    let (format, number, windows) = (input.format(), input.bucket(), input.byte());
    let mut file = input.file(format, number);
    input.damage(&mut file);
    check(&file, None, number, windows);
    check(&file, Some(format), number, windows);
}

/// A search for the next record against one that tries every place.
///
/// format u8 | bucket u8 | records | damages
pub(super) fn search(data: &[u8]) {
    let mut input = Input(data);
    let (format, number) = (if input.byte() % 2 == 0 { Format::Plain } else { Format::V1 }, input.bucket());
    let mut file = input.file(format, number);
    let header = format.header().len().min(file.len());
    let mut records = file.split_off(header);
    input.damage(&mut records);
    file.extend_from_slice(&records);
    if file.len() < HEADER || Format::of(&file) != Some(format) {
        return;
    }
    let walk = walk(&file, Some(format), number);
    // A plain file whose front is destroyed is searched as all formats.
    if walk.damages.first().is_some_and(|damage| damage.offset == 0) {
        return;
    }
    let (records, damages) = model::walk(&file, header, format.framing(), number);
    assert_eq!(walk.records, records, "the records that are found place by place");
    let found: Vec<_> = walk.damages.iter().map(|damage| (damage.offset, damage.bytes)).collect();
    assert_eq!(found, damages, "the damages that are found place by place");
}

/// What a walk gave.
struct Walk {
    records: Records,
    damages: Vec<Damage>,
    /// The format that it ended with.
    format: Format,
}

fn walk(file: &[u8], format: Option<Format>, number: BucketNumber) -> Walk {
    let length = file.len() as u64;
    let begin = format.or_else(|| Format::of(&file[..FRONT.min(file.len())])).unwrap_or(Format::V1);
    let mut walker = Walker::new(begin, number, length);
    let mut records = Records::new();
    let visit = &mut |key, value: &[u8]| records.push((key, value.to_vec()));
    let summary = read_file(&Memory::of(file), &mut walker, visit).expect("a file in memory");
    let bytes = records.iter().map(|(_, value)| value.len() as u64).sum::<u64>();
    assert_eq!((summary.records, summary.bytes, summary.end), (records.len() as u64, bytes, length));
    assert_eq!(summary.damage_count, summary.damages.len() as u64);
    assert_eq!(summary.damaged_bytes, summary.damages.iter().map(|damage| damage.bytes).sum::<u64>());
    assert!(records.iter().all(|(key, value)| number.holds(*key) && record::is_valid(*key, value.len())));
    Walk { records, damages: summary.damages, format: walker.format() }
}

/// All that is promised of a file.
fn check(file: &[u8], format: Option<Format>, number: BucketNumber, windows: u8) {
    let whole = walk(file, format, number);
    check_cover(file, &whole);
    let begin = format.or_else(|| Format::of(&file[..FRONT.min(file.len())])).unwrap_or(Format::V1);
    let walker = || Walker::new(begin, number, file.len() as u64);
    for slim in [false, true] {
        let (records, damages) = in_windows(walker(), file, usize::from(windows), slim);
        assert_eq!(records, whole.records, "the records in windows");
        assert_eq!(damages, whole.damages, "the damages in windows");
    }
    let range = KeyRange { low: number.first_key() | 0x100, high: number.first_key() | 0x8ff };
    let (some, _) = in_windows(walker().with_ranges(Ranges::one(range)), file, usize::from(windows), false);
    let wanted: Records = whole.records.iter().filter(|(key, _)| range.holds(*key)).cloned().collect();
    assert_eq!(some, wanted, "the records of a range");
    check_salvage(&whole, number);
}

/// Records on their way into a file.
fn check_tail(bytes: &[u8], number: BucketNumber) {
    for framing in [Framing::Plain, Framing::V1] {
        let (records, damages) = in_windows(Walker::records(framing, number, bytes.len() as u64), bytes, 9, false);
        let kept: usize = records.iter().map(|(_, value)| record::size(framing, value.len())).sum();
        let lost: u64 = damages.iter().map(|damage| damage.bytes).sum();
        let is_other = damages.first().is_some_and(|damage| damage.offset == 0);
        assert!(is_other || kept as u64 + lost == bytes.len() as u64);
    }
}

/// Walks with windows as small as is asked for, and some bytes more; every third call takes one record only.
fn in_windows(mut walker: Walker, file: &[u8], extra: usize, slim: bool) -> (Records, Vec<Damage>) {
    let (mut records, mut damages) = (Records::new(), Vec::new());
    let mut length = extra;
    // Every step is an advance: more than these are a loop without end.
    for turn in 0..=file.len() * 6 + 64 {
        let offset = usize::try_from(walker.offset()).expect("an offset in the file");
        let window = &file[offset..file.len().min(offset + length)];
        let refuse = turn % 3 == 1;
        let mut taken = 0;
        let step = walker.next(window, &mut |key, value| {
            if refuse && taken == 1 {
                return false;
            }
            taken += 1;
            records.push((key, value.to_vec()));
            true
        });
        let after = usize::try_from(walker.offset()).expect("an offset in the file");
        assert!(after >= offset && after <= file.len(), "the offset goes on");
        match step {
            Step::Need(need) => {
                assert!(need <= file.len() - after && need <= MAX_NEED, "{need} bytes are needed");
                assert!(after > offset || need > window.len(), "what is there is needed");
                length = need + extra * (turn % 5);
            }
            Step::Damaged(damage) => damages.push(damage),
            Step::Paused => {
                assert!(refuse && taken == 1, "paused without taking one");
                if slim {
                    walker.slim();
                    // It may have gone back to the front of a block.
                    length = length.max(file.len());
                }
            }
            Step::End => return (records, damages),
        }
    }
    panic!("the walk does not end");
}

/// Every byte is in the header, in a record or block, or in a damage.
fn check_cover(file: &[u8], walk: &Walk) {
    let end = file.len() as u64;
    if file.len() < HEADER {
        assert!(walk.records.is_empty() && walk.damages.is_empty());
        return;
    }
    let mut at = 0;
    let mut begins = Vec::new();
    for damage in &walk.damages {
        assert!(damage.bytes > 0 && damage.offset >= at, "damages are in order and have bytes");
        if damage.offset > at {
            begins.push((at, damage.offset));
        }
        at = damage.offset + damage.bytes;
    }
    assert!(at <= end, "no damage reaches over the end");
    if end > at {
        begins.push((at, end));
    }
    let header = walk.format.header().len() as u64;
    let whole_front = walk.damages.first().is_none_or(|damage| damage.offset != 0);
    match walk.format {
        Format::Plain | Format::V1 => {
            let heads = walk.format.framing().head();
            let kept: usize = walk.records.iter().map(|(_, value)| heads + value.len()).sum();
            let lost: u64 = walk.damages.iter().map(|damage| damage.bytes).sum();
            let front = if whole_front { header } else { 0 };
            assert_eq!(front + kept as u64 + lost, end, "every byte is in something");
        }
        Format::V2 => {
            let mut records = 0;
            for (from, to) in begins {
                let mut at = if from == 0 { header } else { from };
                while at < to {
                    let rest = &file[usize::try_from(at).expect("an offset")..];
                    at += match BlockHeader::read(rest, at) {
                        Ok(block) => {
                            records += u64::from(block.records);
                            block.size() as u64
                        }
                        Err(_) => IndexHeader::read(rest, at).expect("a block or an index").size() as u64,
                    };
                }
                assert_eq!(at, to, "blocks up to the next damage");
            }
            assert!(walk.records.len() as u64 >= records, "all records of the intact blocks");
        }
    }
}

/// What the checker's salvage keeps is what the walker gave, and a walk of that finds no damage.
fn check_salvage(walk: &Walk, number: BucketNumber) {
    let file = Memory::default();
    let mut writer = BucketWriter::new(&file, walk.format, 1).expect("a file in memory");
    for (key, value) in &walk.records {
        writer.push(*key, value).expect("a file in memory");
    }
    let written = writer.finish().expect("a file in memory");
    let bytes = file.bytes().clone();
    assert_eq!((written.length, written.records), (bytes.len() as u64, walk.records.len() as u64));
    let again = self::walk(&bytes, None, number);
    assert_eq!(again.records, walk.records, "the records of a salvaged file");
    assert_eq!(again.damages, [], "the damages of a salvaged file");
    assert!(bytes.len() < HEADER || again.format == walk.format);
    if walk.format == Format::V2 && !walk.records.is_empty() {
        assert!(
            v2::Index::read(&file, written.length).expect("a file in memory").is_some(),
            "a salvaged file has an index"
        );
    }
}
