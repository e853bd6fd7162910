//! `/proc/diskstats`: what each block device read and wrote.

use std::path::{Path, PathBuf};

use super::devices::Devices;
use super::per_second;
use crate::batch::Batch;
use crate::procfs::{KeptFile, next_number};

/// Sectors are of this size here, whatever the device's own are.
const SECTOR_BYTES: f64 = 512.0;
const COLUMNS: usize = 11;

/// The block devices.
#[derive(Debug)]
pub(crate) struct Disks {
    file: KeptFile,
    devices: Devices<COLUMNS>,
    partitions: bool,
    /// `/sys/class/block`, which tells partitions from whole devices.
    classes: PathBuf,
}

impl Disks {
    pub(crate) fn new(proc: &Path, sys: &Path, ignored: Vec<String>, partitions: bool) -> Self {
        Self {
            file: KeptFile::new(proc.join("diskstats")),
            devices: Devices::new("disk", ignored),
            partitions,
            classes: sys.join("class/block"),
        }
    }

    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>, batch: &mut Batch, elapsed: f64) {
        let Some(text) = self.file.read(buffer) else { return };
        self.devices.begin();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(name) = words.nth(2) else { continue };
            let (partitions, classes) = (self.partitions, &self.classes);
            let wanted = |name: &str| partitions || !classes.join(name.replace('/', "!")).join("partition").exists();
            let Some(device) = self.devices.get(name, wanted) else { continue };
            let now: [u64; COLUMNS] = std::array::from_fn(|_| next_number(&mut words));
            // A device that was never used since the machine started has nothing to tell.
            if now[0] == 0 && now[4] == 0 {
                continue;
            }
            let Some(last) = device.last.replace(now) else { continue };
            let rate = |column: usize| per_second(last[column], now[column], elapsed);
            // The mean time of an operation that ended in this tick, in milliseconds; none ended: no time.
            let mean = |time: usize, operations: usize| {
                let (time, operations) = (rate(time)?, rate(operations)?);
                Some(if operations > 0.0 { time / operations } else { 0.0 })
            };
            for (metric, value) in [
                ("disk_octets/read", rate(2).map(|sectors| sectors * SECTOR_BYTES)),
                ("disk_octets/write", rate(6).map(|sectors| sectors * SECTOR_BYTES)),
                ("disk_ops/read", rate(0)),
                ("disk_ops/write", rate(4)),
                ("disk_merged/read", rate(1)),
                ("disk_merged/write", rate(5)),
                ("disk_time/read", mean(3, 0)),
                ("disk_time/write", mean(7, 4)),
                ("disk_io_time/io_time", rate(9)),
                ("disk_io_time/weighted_io_time", rate(10)),
            ] {
                batch.rate(&device.prefix, metric, value);
            }
            batch.count(&device.prefix, "pending_operations", now[8]);
        }
        self.devices.end();
    }
}
