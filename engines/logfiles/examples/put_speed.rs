//! Measures puts into the storage of a logfiles node, without the network: time per record on the node's thread, and bytes
//! to the disk next to a plain loop of writes; and puts that are answered when they are durable, 64 at once, over one and
//! many channels. `put_speed DIR [MiB [CHANNELS...]]`; with 0 MiB only the durable ones. Use a release build.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use overstory_logfiles::disk::SystemDisk;
use overstory_logfiles::storage::{Storage, StorageOptions, SyncMode};
use overstory_node::commit::Commits;

/// Records between two turns of the node's other tasks, as requests come in.
const AT_ONCE: u64 = 64;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or_else(|| anyhow::anyhow!("put_speed DIR [MiB]"))?;
    let mebibytes: u64 = args.next().map_or(Ok(1024), |text| text.parse())?;
    let mut channels: Vec<u64> = args.map(|text| text.parse()).collect::<Result<_, _>>()?;
    if channels.is_empty() {
        channels = vec![1, 8, 200];
    }
    let (dir, bytes) = (Path::new(&dir), mebibytes << 20);
    let scratch = dir.join("put-speed");
    fs::create_dir_all(&scratch)?;
    for channels in channels {
        let (what, records) =
            (format!("always, 64 at once: 1 KiB, {channels} channels"), if channels < 8 { 20_000 } else { 10_000 });
        puts(&scratch, &what, SyncMode::Always, records, 1024, channels, 1000)?;
    }
    if mebibytes == 0 {
        return Ok(fs::remove_dir_all(&scratch)?);
    }
    plain_writes(&scratch, bytes)?;
    for (what, size, channels, per_key) in [
        ("100 B, one channel", 100, 1, 1000),
        ("1 KiB, one channel", 1024, 1, 1000),
        ("1 KiB, one channel, 4,096 records a bucket", 1024, 1, 1),
        ("100 B, 200 channels", 100, 200, 1000),
    ] {
        let records = if size == 100 { bytes / 4 / 100 } else { bytes / 1024 };
        puts(&scratch, what, SyncMode::Interval, records, size, channels, per_key)?;
    }
    plain_writes(&scratch, bytes)?;
    fs::remove_dir_all(&scratch)?;
    Ok(())
}

fn plain_writes(dir: &Path, bytes: u64) -> anyhow::Result<()> {
    let path = dir.join("plain");
    let buffer = vec![7_u8; 64 << 10];
    let file = fs::File::create(&path)?;
    let begun = Instant::now();
    for at in 0..bytes / buffer.len() as u64 {
        file.write_all_at(&buffer, at * buffer.len() as u64)?;
    }
    let written = begun.elapsed();
    file.sync_data()?;
    println!("plain writes: {} with fdatasync, {} without", rate(bytes, begun.elapsed()), rate(bytes, written));
    drop(file);
    Ok(fs::remove_file(&path)?)
}

fn puts(
    dir: &Path,
    what: &str,
    sync: SyncMode,
    records: u64,
    size: usize,
    channels: u64,
    per_key: u64,
) -> anyhow::Result<()> {
    let path = dir.join("data");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let commits = Rc::new(Commits::new());
        let options = StorageOptions { sync, boot_id: "one".into(), ..StorageOptions::default() };
        let (storage, _) = Storage::open(Arc::new(SystemDisk), &path, options, Rc::clone(&commits))?;
        let storage = Rc::new(storage);
        let driven = Rc::clone(&storage);
        let drive = tokio::task::spawn_local(async move { driven.drive().await });
        let names: Vec<String> = (0..channels).map(|channel| format!("channel-{channel}")).collect();
        let value = vec![7_u8; size];
        let (begun, mut putting) = (Instant::now(), Duration::ZERO);
        let before = cpu()?;
        let mut record = 0;
        while record < records {
            let turn = Instant::now();
            for _ in 0..AT_ONCE.min(records - record) {
                let name = &names[usize::try_from(record % channels)?];
                storage.put(name, 1_700_000_000 + record / channels / per_key, &value)?;
                record += 1;
            }
            putting += turn.elapsed();
            tokio::task::yield_now().await;
            // As connections wait whose replies do.
            while commits.durable() < commits.made() {
                tokio::time::sleep(Duration::from_micros(50)).await;
            }
        }
        storage.flush().await?;
        let (written, used) = (begun.elapsed(), cpu()? - before);
        storage.close().await?;
        drive.await?;
        let bytes = records * size as u64;
        let nanos = putting.as_nanos() / u128::from(records);
        println!(
            "{what}: {nanos} ns a put, {:.0} puts/s at {:.2} us of all threads, {} to the files, {} with the final sync",
            per_second(records, written),
            1e6 / per_second(records, used),
            rate(bytes, written),
            rate(bytes, begun.elapsed()),
        );
        anyhow::Ok(())
    })?;
    Ok(fs::remove_dir_all(&path)?)
}

fn cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or_default();
    Ok(Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time())))
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn rate(bytes: u64, time: Duration) -> String {
    format!("{:.0} MB/s", bytes as f64 / 1e6 / time.as_secs_f64())
}
