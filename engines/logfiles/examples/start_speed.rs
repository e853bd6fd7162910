//! Measures the starts of a logfiles node with many buckets, and how long its catalogue's file is written anew.
//! `start_speed DIR [BUCKETS [CHANNELS]]`; use a release build. The buckets' files themselves are not made: a start does not
//! look at those that are durable.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use overstory_logfiles::bucket::BucketNumber;
use overstory_logfiles::catalogue::{Entry, Synced};
use overstory_logfiles::disk::SystemDisk;
use overstory_logfiles::format::Format;
use overstory_logfiles::recovery::{self, OpenOptions, Opened};

/// Buckets of one checkpoint.
const AT_ONCE: usize = 20_000;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or_else(|| anyhow::anyhow!("start_speed DIR [BUCKETS [CHANNELS]]"))?;
    let buckets: u64 = args.next().map_or(Ok(2_000_000), |text| text.parse())?;
    let channels: u64 = args.next().map_or(Ok(1), |text| text.parse())?;
    let dir = Path::new(&dir).join("start-speed");
    fs::create_dir_all(&dir)?;
    let mut opened = open(&dir, "nothing", 1)?;
    fill(&dir, &mut opened, buckets, channels)?;
    drop(opened);
    for _ in 0..3 {
        // Not a process of this boot: what was touched last is looked for, and is not there.
        drop(open(&dir, "after a power cut", 2)?);
    }
    open(&dir, "after a power cut", 2)?.log.close()?;
    for _ in 0..3 {
        open(&dir, "after an orderly stop", 2)?.log.close()?;
    }
    drop(open(&dir, "after an orderly stop", 2)?);
    drop(open(&dir, "after a kill", 2)?);
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn open(dir: &Path, what: &str, boot: u32) -> anyhow::Result<Opened> {
    let begin = Instant::now();
    let opened = recovery::open(Arc::new(SystemDisk), dir, &OpenOptions { boot_id: format!("boot-{boot}") })?;
    let (took, totals) = (begin.elapsed(), opened.catalogue.totals());
    let size = fs::metadata(dir.join(".catalogue"))?.len() >> 20;
    println!("{what}: {took:.2?} for {} buckets in {size} MiB, {:?}", totals.buckets, opened.report.end);
    Ok(opened)
}

fn fill(dir: &Path, opened: &mut Opened, buckets: u64, channels: u64) -> anyhow::Result<()> {
    let entry = Entry { format: Some(Format::V1), counted: true, length: 100_016, records: 1000, bytes: 83_000 };
    let mut due = Vec::with_capacity(AT_ONCE);
    let mut longest = std::time::Duration::ZERO;
    for channel in 0..channels {
        let name: Arc<str> = format!("channel-{channel:03}").into();
        for at in 0..buckets / channels {
            let number = BucketNumber::of(at << 12);
            if at & 0xfff == 0 {
                fs::create_dir_all(dir.join(&*name).join(number.slot().to_string()))?;
            }
            opened.log.touch(&name, number, &Entry::EMPTY)?;
            due.push(Synced { channel: Arc::clone(&name), number, entry, more: false });
            if due.len() == AT_ONCE {
                let begin = Instant::now();
                opened.log.checkpoint(&due)?;
                longest = longest.max(begin.elapsed());
                due.clear();
            }
        }
    }
    opened.log.checkpoint(&due)?;
    println!("the longest of the checkpoints: {longest:.2?}");
    Ok(())
}
