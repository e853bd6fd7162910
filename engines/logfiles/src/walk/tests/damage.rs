//! Larger damages than a bit, and damages that pretend to be none.

use super::*;

fn records() -> Records {
    (0..40)
        .map(|low| (bucket().first_key() + low * 3, vec![low.to_le_bytes()[0] + 1; 20 + to_usize(low % 7)]))
        .collect()
}

/// Where the records of a published format begin, and the end.
fn starts(format: Format, records: &Records) -> Vec<usize> {
    let mut at = format.header().len();
    let mut starts = vec![at];
    for (_, value) in records {
        at += record::size(format.framing(), value.len());
        starts.push(at);
    }
    starts
}

#[test]
fn a_file_that_was_cut_anywhere_has_the_records_in_front_of_the_cut() {
    let records = records();
    for format in [Format::Plain, Format::V1] {
        let (bytes, starts) = (written(format, &records), starts(format, &records));
        for cut in 0..bytes.len() {
            let (found, summary) = read(&bytes[..cut]);
            let whole = starts.iter().filter(|start| **start <= cut).count().saturating_sub(1);
            // Without a parity, 1 to 3 bytes do not prove that the record in front of them has the right length.
            let stray = format == Format::Plain && whole > 0 && (1..4).contains(&(cut - starts[whole]));
            let whole = if cut < HEADER { 0 } else { whole - usize::from(stray) };
            assert_eq!(found, records[..whole], "{format}, {cut}");
            let clean = cut < HEADER || starts.contains(&cut);
            assert_eq!(summary.damages.is_empty(), clean, "{format}, {cut}");
            if !clean {
                assert_eq!(summary.good_len, starts[whole] as u64, "{format}, {cut}");
            }
        }
    }
    let bytes = many_blocks(&records);
    for cut in HEADER..bytes.len() {
        let (found, summary) = read(&bytes[..cut]);
        assert_eq!(found, records[..found.len()], "{cut}");
        let good = usize::try_from(summary.good_len).unwrap();
        assert_eq!(many_blocks(&records[..found.len()]), bytes[..good], "{cut}");
    }
}

#[test]
fn a_part_that_was_never_written_is_not_taken_for_records() {
    let records = records();
    for bytes in [written(Format::V1, &records), many_blocks(&records)] {
        let mut longer = bytes.clone();
        longer.resize(bytes.len() + 10_000, 0);
        let (found, summary) = read(&longer);
        assert_eq!(found, records);
        assert_eq!((summary.good_len, summary.damaged_bytes), (bytes.len() as u64, 10_000));
    }
    // In the bucket of key 0 zeros would be a record.
    for format in FORMATS {
        let mut bytes = format.header().to_vec();
        bytes.resize(100_000, 0);
        let mut walker = Walker::new(format, BucketNumber::of(0), bytes.len() as u64);
        let summary = read_file(&Memory::of(&bytes), &mut walker, &mut |_, _| panic!("a record of zeros")).unwrap();
        assert_eq!(summary.damage_count, 1);
    }
}

#[test]
fn a_hole_costs_the_records_in_it() {
    let records = records();
    for format in [Format::Plain, Format::V1] {
        let (bytes, starts) = (written(format, &records), starts(format, &records));
        for (from, to) in [(10, 11), (10, 20), (0, 5), (35, 40), (0, 40)] {
            let mut damaged = bytes.clone();
            // From the middle of a head to the middle of a value.
            let to_byte = starts[to] - 5;
            damaged[starts[from] + 4..to_byte].fill(0xaa);
            let (found, summary) = read_as(format, &damaged);
            // Without a parity, the record in front is not proved any more.
            let first = if format == Format::Plain { from.saturating_sub(1) } else { from };
            let expected: Records = records[..first].iter().chain(&records[to..]).cloned().collect();
            assert_eq!(found, expected, "{format}: {from} to {to}");
            let damage = (to_usize(summary.damages[0].offset), to_usize(summary.damages[0].bytes));
            assert_eq!(damage, (starts[first], starts[to] - starts[first]), "{format}: {from} to {to}");
            assert_eq!(summary.damage_count, 1);
        }
    }
}

#[test]
fn a_part_that_cannot_be_read_costs_the_records_in_it() {
    let records = records();
    for format in [Format::Plain, Format::V1] {
        let (bytes, starts) = (written(format, &records), starts(format, &records));
        for from in 0..bytes.len() {
            let to = (from + 70).min(bytes.len());
            let mut unread = bytes.clone();
            unread[from..to].fill(0xaa);
            let mut walker = Walker::new(format, bucket(), bytes.len() as u64);
            walker.leave_out(from as u64, to as u64);
            let (found, damages) = read_split(walker, &unread, |_| 5);
            // Those in front, without the one that is not proved, and those behind.
            let first = starts.iter().filter(|start| **start <= from).count().saturating_sub(1);
            let stray = format == Format::Plain && first > 0 && (1..4).contains(&(from - starts[first]));
            let (first, last) = (first - usize::from(stray), starts.iter().filter(|start| **start < to).count());
            let expected = [&records[..first], records.get(last..).unwrap_or_default()].concat();
            assert_eq!(found, expected, "{format}, {from}");
            // The head of a plain record that has lost its front is looked for as those of other formats.
            let lost: u64 = damages.iter().map(|damage| damage.bytes).sum();
            let front = if damages[0].offset == 0 { 0 } else { format.header().len() };
            let kept: usize = expected.iter().map(|(_, value)| record::size(format.framing(), value.len())).sum();
            assert_eq!(front + kept + to_usize(lost), bytes.len(), "{format}, {from}: {damages:?}");
        }
    }
}

#[test]
fn a_file_whose_front_is_destroyed_is_recognised_by_what_follows() {
    let records = records();
    for format in FORMATS {
        let bytes = match format {
            Format::V2 => many_blocks(&records),
            _ => written(format, &records),
        };
        for filler in [0, 0xaa] {
            let mut damaged = bytes.clone();
            damaged[..200].fill(filler);
            let (found, summary) = read(&damaged);
            assert!(found.len() > 20 && records.ends_with(&found), "{format}: {} records", found.len());
            assert_eq!((summary.good_len, summary.damage_count), (0, 1), "{format}");
            let mut walker = Walker::new(Format::Plain, bucket(), damaged.len() as u64);
            read_file(&Memory::of(&damaged), &mut walker, &mut |_, _| {}).unwrap();
            assert_eq!(walker.format(), format);
        }
    }
}

#[test]
fn a_length_over_the_limit_or_the_end_is_damage_before_anything_is_taken_for_it() {
    let key = bucket().first_key();
    for length in [u64::MAX, 1 << 62, record::MAX_VALUE as u64 + 1, 1 << 20] {
        for format in [Format::Plain, Format::V1] {
            let mut bytes = format.header().to_vec();
            record::put(format.framing(), key, b"before", &mut bytes);
            let at = bytes.len();
            bytes.extend_from_slice(&key.to_le_bytes());
            bytes.extend_from_slice(&length.to_le_bytes());
            if format == Format::V1 {
                bytes.push(record::parity(key, length));
            }
            record::put(format.framing(), key, b"after", &mut bytes);
            let mut walker = Walker::new(format, bucket(), bytes.len() as u64);
            let mut taken = Vec::new();
            let step = walker.next(&bytes, &mut |_, value| {
                taken.push(value.to_vec());
                true
            });
            let bytes = (format.framing().head()) as u64;
            assert!(
                matches!(step, Step::Damaged(Damage { offset, bytes: size, .. })
                if offset == at as u64 && size == bytes),
                "{step:?}"
            );
            assert_eq!(taken, [b"before"]);
        }
    }
}

#[test]
fn values_that_look_like_records_are_found_only_where_the_record_around_them_is_damaged() {
    // A value that holds two records of this very bucket: it comes out whole.
    let key = bucket().first_key() + 1;
    for format in FORMATS {
        let inner = written(format, &[(key, vec![1; 9]), (key, vec![2; 9])]);
        let records = vec![(key + 1, inner), (key + 2, vec![3; 5])];
        let bytes = written(format, &records);
        assert_eq!(read(&bytes).0, records);
        // A block knows its place in the file: one that is the content of another is never taken for one.
        if format == Format::V2 {
            let mut plain = Vec::new();
            record::put(Framing::Plain, records[0].0, &records[0].1, &mut plain);
            let mut bytes = format.header().to_vec();
            crate::format::v2::encode_block(16, &plain, 0, &mut bytes).unwrap();
            bytes[20] ^= 1;
            assert_eq!(read(&bytes).0, []);
        }
    }
}

#[test]
fn a_search_takes_the_time_of_its_bytes() {
    // Heads of the bucket everywhere, none of which leads to another: each would be a record of 8 MiB.
    for (number, format) in [(bucket(), Format::V1), (bucket(), Format::Plain), (BucketNumber::of(0), Format::Plain)] {
        let mut bytes = vec![0xaa; 16];
        let mut head = number.first_key().to_le_bytes().to_vec();
        head.extend_from_slice(&(3_u64 << 20).to_le_bytes());
        head.push(record::parity(number.first_key(), 3 << 20));
        while bytes.len() < 12 << 20 {
            bytes.extend_from_slice(&head);
            bytes.push(0xaa);
        }
        let begun = std::time::Instant::now();
        let mut walker = Walker::new(format, number, bytes.len() as u64);
        read_file(&Memory::of(&bytes), &mut walker, &mut |_, _| {}).unwrap();
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }
}
