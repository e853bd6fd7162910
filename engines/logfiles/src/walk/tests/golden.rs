//! The files of a published node.

use super::*;

fn golden(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/files").join(name);
    std::fs::read(path).unwrap()
}

/// A file, the first key of its bucket, and its records.
type Case = (&'static str, u64, Vec<(u64, &'static [u8])>);

fn cases() -> [Case; 3] {
    [
        (
            "dls.log_0000000057_275",
            0x5727_5000,
            vec![
                (0x5727_5806, b"line one"),
                (0x5727_5806, b"line two, same key"),
                (0x5727_5801, b"earlier key"),
                (0x5727_5807, b"written after the flush"),
            ],
        ),
        (
            "dls.log_0000000057_276",
            0x5727_6000,
            vec![(0x5727_6800, b"next bucket"), (0x5727_6801, b"next bucket, after the flush")],
        ),
        ("dls.log_0000000058_275", 0x5827_5000, vec![(0x5827_5800, b"next slot")]),
    ]
}

#[test]
fn the_published_files_are_written_and_read_byte_for_byte() {
    for (name, first, records) in cases() {
        let bytes = golden(name);
        let records: Records = records.into_iter().map(|(key, value)| (key, value.to_vec())).collect();
        assert_eq!(Format::of(&bytes), Some(Format::V1), "{name}");
        assert_eq!(written(Format::V1, &records), bytes, "{name}");
        let mut found = Records::new();
        let mut walker = Walker::new(Format::V1, BucketNumber::of(first), bytes.len() as u64);
        let summary =
            read_file(&Memory::of(&bytes), &mut walker, &mut |key, value| found.push((key, value.to_vec()))).unwrap();
        assert_eq!(found, records, "{name}");
        assert_eq!(summary.damages, [], "{name}");
    }
}

#[test]
fn the_version_without_a_header_is_the_same_without_what_version_1_added() {
    for (_, first, records) in cases() {
        let records: Records = records.into_iter().map(|(key, value)| (key, value.to_vec())).collect();
        let bytes = written(Format::Plain, &records);
        let expected: Vec<u8> = records
            .iter()
            .flat_map(|(key, value)| {
                [&key.to_le_bytes(), &(value.len() as u64).to_le_bytes(), value.as_slice()].concat()
            })
            .collect();
        assert_eq!(bytes, expected);
        let mut found = Records::new();
        let mut walker = Walker::new(Format::Plain, BucketNumber::of(first), bytes.len() as u64);
        read_file(&Memory::of(&bytes), &mut walker, &mut |key, value| found.push((key, value.to_vec()))).unwrap();
        assert_eq!(found, records);
    }
}

/// Made by another program from `docs/formats/bucket.md`.
#[test]
fn format_2_is_written_as_it_is_described() {
    let expected = [
        "0200000000000000444c534255434b544f5653424c4f434b100000000000000006582757000000000658275700000000",
        "01000000180000001800000000000000ab741380139f101a065827570000000008000000000000006c696e65206f6e65",
        "4f5653494e4445586000000000000000010000007f9fb454e141353d1000000000000000065827570000000006582757",
        "000000006000000000000000d27fc9b54f5653545241494c",
    ];
    let record = (0x5727_5806, b"line one".to_vec());
    let bytes = written(Format::V2, std::slice::from_ref(&record));
    let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, expected.concat());
    assert_eq!(read(&bytes).0, [record]);
}
