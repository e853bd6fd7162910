//! What reading costs without a socket: processor time per record and bytes per second, from the page cache.
//!
//! `cargo run --release -p overstory-logfiles --example read_cost [DIRECTORY]`; the directory gets 200 MB for a while.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use overstory_logfiles::bucket::{BucketNumber, KeyRange, Ranges};
use overstory_logfiles::disk::{Disk, SystemDisk};
use overstory_logfiles::filter::Filter;
use overstory_logfiles::format::{Format, v2};
use overstory_logfiles::read::{After, AsOf, BucketView, Next, ReadRequest, Reads, ReadsOptions, Shape, Views};
use overstory_logfiles::record::{self, Framing};
use overstory_node::wake::Waker;

struct Buckets(Vec<BucketView>);

impl Views for Buckets {
    fn views(&self, _: &str, _: &Ranges, after: Option<After>, max: usize, out: &mut Vec<BucketView>) {
        let left = self.0.iter().filter(|view| after.is_none_or(|(_, number)| view.number > number));
        out.extend(left.take(max).cloned());
    }
}

const TOTAL: usize = 200 << 20;

fn write(dir: &Path, format: Format, length: usize, per_bucket: usize) -> Result<(Rc<Buckets>, u64)> {
    let mut buckets = Vec::new();
    let count = TOTAL / (length * per_bucket);
    for bucket in 0..count as u64 {
        let mut bytes = format.header().to_vec();
        let mut plain = Vec::new();
        for index in 0..per_bucket as u64 {
            let key = bucket << 12 | (index & 0xfff);
            let text = format!("{{\"n\": {index}, \"component\": \"host-{:03}\", \"output\": \"", index * 7 % 1000);
            let mut value: Vec<u8> = text.into_bytes();
            let mut state = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            value.extend(
                std::iter::repeat_with(|| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    b'a' + (state >> 40 & 15) as u8
                })
                .take(length.saturating_sub(value.len())),
            );
            value.truncate(length);
            match format {
                Format::V2 => record::put(Framing::Plain, key, &value, &mut plain),
                _ => record::put(format.framing(), key, &value, &mut bytes),
            }
        }
        if !plain.is_empty() {
            v2::encode_block(bytes.len() as u64, &plain, 3, &mut bytes)?;
        }
        let number = BucketNumber::of(bucket << 12);
        let view = BucketView {
            channel: "log".into(),
            dir: dir.into(),
            number,
            format: Some(format),
            length: bytes.len() as u64,
            tail: Vec::new(),
            as_of: AsOf::default(),
        };
        let path = view.path();
        if let Some(parent) = path.parent() {
            SystemDisk.create_dirs(parent)?;
        }
        let file = SystemDisk.create(&path)?;
        file.set_len(0)?;
        file.write_all_at(&bytes, 0)?;
        buckets.push(view);
    }
    Ok((Rc::new(Buckets(buckets)), (count * per_bucket) as u64))
}

fn cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec().unsigned_abs()) + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    Ok(of(usage.user_time()) + of(usage.system_time()))
}

async fn measure(
    reads: &Reads,
    name: &str,
    buckets: &Rc<Buckets>,
    all: u64,
    make: impl Fn() -> ReadRequest,
) -> Result<()> {
    let mut best = (f64::MAX, f64::MAX, 0, 0);
    for _ in 0..5 {
        let (begun, before) = (Instant::now(), cpu()?);
        let (waker, watch) = Waker::watched();
        let views: Rc<dyn Views> = Rc::<Buckets>::clone(buckets);
        let mut scan = reads.start(views, make(), waker);
        let (mut records, mut bytes, mut out) = (0, 0, Vec::with_capacity(1 << 20));
        loop {
            match scan.poll() {
                Next::Batch(batch) => {
                    // As the node does: into the output of the connection.
                    out.clear();
                    out.extend_from_slice(&batch);
                    records += batch.records();
                    bytes += out.len();
                }
                Next::End => break,
                Next::Failed => bail!("failed"),
                Next::Wait => {
                    while !watch.take() {
                        tokio::task::yield_now().await;
                        if !watch.take() {
                            tokio::time::sleep(Duration::from_micros(50)).await;
                        } else {
                            break;
                        }
                    }
                }
            }
        }
        let (cpu, wall) = ((cpu()? - before).as_secs_f64(), begun.elapsed().as_secs_f64());
        if cpu < best.0 {
            best = (cpu, wall, records, bytes);
        }
    }
    let (cpu, wall, records, bytes) = best;
    println!(
        "{name:34} {:7.3} us CPU per record walked, {:6.2} GB/s by CPU, {:6.2} GB/s wall, {records} of {all} records, {bytes} bytes",
        cpu * 1e6 / all as f64,
        TOTAL as f64 / cpu / 1e9,
        TOTAL as f64 / wall / 1e9,
    );
    Ok(())
}

fn main() -> Result<()> {
    let root = std::env::args().nth(1).unwrap_or_else(|| "/dev/shm".to_owned());
    let root = tempfile::tempdir_in(root)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let threads = std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(1);
    let reads = Reads::new(Arc::new(SystemDisk), ReadsOptions { threads, ..ReadsOptions::default() })?;
    let local = tokio::task::LocalSet::new();
    let driven = reads.clone();
    local.spawn_local(async move { driven.drive(|told| println!("{told:?}")).await });
    local.block_on(&runtime, async {
        for (format, length, per_bucket) in [
            (Format::V1, 100, 40_960),
            (Format::V1, 100, 100),
            (Format::Plain, 100, 40_960),
            (Format::V2, 100, 40_960),
            (Format::V1, 1024, 4096),
            (Format::V2, 1024, 4096),
        ] {
            let dir = root.path().join(format!("{format}-{length}-{per_bucket}"));
            let (buckets, all) = write(&dir, format, length, per_bucket)?;
            println!("{format}, {length} bytes, {per_bucket} a bucket, {} buckets", buckets.0.len());
            let request = |shape, compress, filter| ReadRequest {
                channel: "log".into(),
                ranges: Ranges::one(KeyRange::ALL),
                filter,
                shape,
                compress,
            };
            for shape in [Shape::Legacy, Shape::Neo] {
                measure(&reads, &format!("{shape:?}"), &buckets, all, || request(shape, false, Filter::none())).await?;
            }
            if format == Format::V1 {
                measure(&reads, "Legacy compressed", &buckets, all, || request(Shape::Legacy, true, Filter::none()))
                    .await?;
                for (name, text) in [
                    ("substring, all", "component"),
                    ("substring, none", "nowhere"),
                    ("substring, 1 of 1000", "host-777"),
                ] {
                    measure(&reads, name, &buckets, all, || {
                        request(
                            Shape::Neo,
                            false,
                            Filter::substring(text.as_bytes()).unwrap_or_else(|_| Filter::none()),
                        )
                    })
                    .await?;
                }
                for pattern in ["host-7[0-9]+\"", "(?i)HOST-77", "^.*output.*$"] {
                    measure(&reads, &format!("pcre {pattern}"), &buckets, all, || {
                        request(
                            Shape::Neo,
                            false,
                            Filter::pcre(pattern.as_bytes(), false).unwrap_or_else(|_| Filter::none()),
                        )
                    })
                    .await?;
                }
            }
            std::fs::remove_dir_all(&dir)?;
        }
        Ok(())
    })
}
