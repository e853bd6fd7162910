//! Nodes of the executable that is tested, records that tell whether they are right, and dump files read plainly.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use overstory_testkit::node::{DHT, NodeInstance, PATIENCE};

use super::client::Legacy;

/// Key and value of each record.
pub(crate) type Records = BTreeMap<u64, Vec<u8>>;

/// An instance of a dht node.
pub(crate) fn instance() -> NodeInstance {
    NodeInstance::new(Path::new(env!("CARGO_BIN_EXE_overstory")), DHT)
}

/// A value that tells its key and which of several it is; 12 to 300 bytes.
pub(crate) fn value(key: u64, generation: u32) -> Vec<u8> {
    let mut value = generation.to_le_bytes().to_vec();
    value.extend(key.to_le_bytes());
    let filler = usize::try_from(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap() % 289;
    let first = usize::from(value[4]);
    value.extend((0..filler).map(|index| u8::try_from((index * 7 + first) % 256).unwrap()));
    value
}

/// Which of the values this is; panics if it is none of this key.
pub(crate) fn generation(key: u64, stored: &[u8]) -> u32 {
    let generation = u32::from_le_bytes(stored[..4].try_into().unwrap());
    assert!(stored == value(key, generation), "the value of key {key:x} is a value of it");
    generation
}

/// Records of one generation.
pub(crate) fn records(keys: impl IntoIterator<Item = u64>, generation: u32) -> Records {
    keys.into_iter().map(|key| (key, value(key, generation))).collect()
}

/// Puts records, many in flight; all must be taken.
pub(crate) fn put_all(node: &NodeInstance, channel: &str, records: &Records) {
    Legacy::to(node).put_all(channel, records);
}

/// Every record of a channel, by GetAll; each comes once.
pub(crate) fn get_all(node: &NodeInstance, channel: &str) -> Records {
    Legacy::to(node).get_all(channel)
}

/// Reads a dump file as plainly as it can be read, and panics unless it is complete.
pub(crate) fn read_dump(file: &Path) -> Records {
    let bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(bytes.len() % 512, 0, "{}", file.display());
    let mut plain = Plain { rest: &bytes, file };
    assert_eq!(plain.number(), 0, "the version");
    let mut records = Records::new();
    loop {
        let length = plain.number();
        if length == 0 {
            break;
        }
        let key = u64::from_str_radix(std::str::from_utf8(plain.bytes(length)).unwrap(), 16).unwrap();
        let length = plain.number();
        let twice = records.insert(key, plain.bytes(length).to_vec());
        assert!(twice.is_none(), "key {key:x} comes once in {}", file.display());
    }
    assert!(plain.rest.iter().all(|byte| *byte == 0), "nothing but padding follows the end mark");
    records
}

struct Plain<'a> {
    rest: &'a [u8],
    file: &'a Path,
}

impl<'a> Plain<'a> {
    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let cut = self.rest.split_at_checked(length);
        let (bytes, rest) = cut.unwrap_or_else(|| panic!("{} is not complete", self.file.display()));
        self.rest = rest;
        bytes
    }

    fn number(&mut self) -> usize {
        usize::try_from(u64::from_le_bytes(self.bytes(8).try_into().unwrap())).unwrap()
    }
}

/// Makes a dump file as any writer of the format would.
pub(crate) fn dump_bytes(records: &Records) -> Vec<u8> {
    let mut bytes = 0u64.to_le_bytes().to_vec();
    for (key, value) in records {
        bytes.extend(record_bytes(*key, value));
    }
    bytes.extend([0; 8]);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A record of a dump file.
pub(crate) fn record_bytes(key: u64, value: &[u8]) -> Vec<u8> {
    let key = format!("{key:016x}");
    let lengths = [16u64.to_le_bytes(), (value.len() as u64).to_le_bytes()];
    [&lengths[0][..], key.as_bytes(), &lengths[1], value].concat()
}

/// Files of the data directory that are being written, or were.
pub(crate) fn unfinished(node: &NodeInstance) -> Vec<String> {
    let entries = fs::read_dir(node.path("data")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".dumping")).collect()
}

/// Waits, without a pause, until this file or one that comes after it is being written; or until `over`.
pub(crate) fn await_dump(node: &NodeInstance, file: &str, mut over: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !over() && !unfinished(node).iter().any(|found| **found >= *file) {
        assert!(Instant::now() < deadline, "no dump gets as far as {file}");
        std::thread::yield_now();
    }
}
