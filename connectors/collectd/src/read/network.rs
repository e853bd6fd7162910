//! `/proc/net/dev`: what each interface received and sent.

use std::path::Path;

use super::devices::Devices;
use super::per_second;
use crate::batch::Batch;
use crate::procfs::{KeptFile, next_number};

/// Each rate and the column of the file that it is made of.
const RATES: [(&str, usize); 8] = [
    ("if_octets/rx", 0),
    ("if_octets/tx", 8),
    ("if_packets/rx", 1),
    ("if_packets/tx", 9),
    ("if_errors/rx", 2),
    ("if_errors/tx", 10),
    ("if_dropped/rx", 3),
    ("if_dropped/tx", 11),
];
const COLUMNS: usize = 12;

/// The network interfaces.
#[derive(Debug)]
pub(crate) struct Network {
    file: KeptFile,
    interfaces: Devices<COLUMNS>,
}

impl Network {
    pub(crate) fn new(proc: &Path, ignored: Vec<String>) -> Self {
        // `net` is a link to that of the reading process, so the descriptor shows the connector's own namespace.
        Self { file: KeptFile::new(proc.join("net/dev")), interfaces: Devices::new("interface", ignored) }
    }

    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>, batch: &mut Batch, elapsed: f64) {
        let Some(text) = self.file.read(buffer) else { return };
        self.interfaces.begin();
        // Two lines of headings; a name may hold colons (aliases), the counts never do.
        for (name, counts) in text.lines().skip(2).filter_map(|line| line.rsplit_once(':')) {
            let Some(interface) = self.interfaces.get(name.trim(), |_| true) else { continue };
            let mut words = counts.split_ascii_whitespace();
            let now: [u64; COLUMNS] = std::array::from_fn(|_| next_number(&mut words));
            if let Some(last) = interface.last.replace(now) {
                for (metric, column) in RATES {
                    batch.rate(&interface.prefix, metric, per_second(last[column], now[column], elapsed));
                }
            }
        }
        self.interfaces.end();
    }
}
