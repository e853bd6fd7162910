#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use overstory_model::Timestamp;
use overstory_node::config::Config;
use overstory_node::stats::Fields;
use overstory_swarm::batch::{Added, BatchBuilder};
use overstory_swarm::key::Key;
use overstory_swarm::legacy::dht::{Decoded, Request, decode};
use overstory_swarm::legacy::{Limits, Status, reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::cycle;
use super::progress::{Progress, Written};
use super::{Settings, last_dump, now, pause};
use crate::dump::{DataDir, DumpOptions};

fn settings(text: &str) -> Result<Settings, String> {
    let config = Config::parse(Path::new("config.ini"), text, Vec::new()).unwrap();
    Settings::read(&config).map_err(|error| error.to_string())
}

#[test]
fn the_published_keys_have_their_defaults() {
    let read = settings("[Dht]\naddress = 127.0.0.1\nport = 21000\n").unwrap();
    assert_eq!(read.node.to_string(), "127.0.0.1:21000");
    assert_eq!((read.period, read.min_wait, read.retry_wait), (secs(14_400), secs(60), secs(30)));
    assert_eq!((read.data_dir.to_str(), read.disable_direct_io, read.oneshot), (Some("data"), false, false));
    assert!(settings("[Dht]\naddress = 127.0.0.1\n").unwrap_err().contains("port"));
    assert!(settings("[Dht]\naddress = localhost\nport = 1\n").unwrap_err().contains("address"));
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_cycle_begins_a_period_after_the_last_but_never_at_once() {
    let settings = settings("[Dht]\naddress = 127.0.0.1\nport = 1\n[Dump]\nperiod_s = 100\nmin_wait_s = 20\n").unwrap();
    assert_eq!(pause(&settings, secs(30)), secs(70));
    assert_eq!(pause(&settings, secs(95)), secs(20));
    assert_eq!(pause(&settings, secs(500)), secs(20));
}

#[test]
fn a_period_below_the_least_pause_is_that_pause_for_health() {
    let between = |dump| settings(&format!("[Dht]\naddress = 127.0.0.1\nport = 1\n[Dump]\n{dump}")).unwrap().between();
    assert_eq!(between("period_s = 20\n"), Some(secs(60)));
    assert_eq!(between("period_s = 100\nmin_wait_s = 20\n"), Some(secs(100)));
}

#[test]
fn the_newest_file_tells_when_the_last_dump_was() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    assert_eq!(last_dump(&data), None);
    for (name, at) in [("old.tcm", 1_000), ("new.tcm", 2_000), ("other.tcm.backup", 3_000)] {
        let file = fs::File::create(dir.path().join(name)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + secs(at)).unwrap();
    }
    assert_eq!(last_dump(&data), Some(Timestamp(2_000)));
    // A clock that was set back.
    let file = fs::File::create(dir.path().join("future.tcm")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + secs(1 << 33)).unwrap();
    assert!(last_dump(&data).unwrap() <= now());
}

#[test]
fn stats_begin_anew_with_each_line_and_forget_channels_that_are_gone() {
    let progress = Progress::default();
    progress.add(2, 100);
    progress.done("a", Written { records: 2, bytes: 100 });
    progress.done("b", Written { records: 0, bytes: 0 });
    progress.complete(&["a".to_owned()], Duration::from_millis(7));
    let line = || {
        let mut fields = Fields::default();
        progress.stats(&mut fields);
        let mut text = String::new();
        fields.write(&mut text);
        text
    };
    let channel = "channel/a/records_written:2 channel/a/bytes_written:100";
    assert_eq!(line(), format!(" records_written:2 bytes_written:100 last_time_ms:7 {channel}"));
    assert_eq!(line(), format!(" records_written:0 bytes_written:0 last_time_ms:7 {channel}"));
}

/// A node with one channel `c` of two records; `cut` closes the connection before the records end.
async fn node(cut: bool) -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4") };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, cut));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, cut: bool) -> Option<()> {
    let mut input = Vec::new();
    loop {
        let Decoded::Request { request, consumed } = decode(&input, &Limits::DEFAULT).unwrap() else {
            if stream.read_buf(&mut input).await.ok()? == 0 {
                return None;
            }
            continue;
        };
        let mut out = Vec::new();
        Status::Ok.encode(&mut out);
        let mut over = false;
        match request {
            Request::GetVersion => reply::put_value(&mut out, b"20110401"),
            // A part of the range: the handshake of a dump must take it.
            Request::GetResponsibleRange => reply::put_range(&mut out, 5, 1 << 60),
            Request::GetChannels => {
                reply::put_value(&mut out, b"c");
                reply::put_end(&mut out);
            }
            Request::GetAll { .. } => {
                let mut builder = BatchBuilder::new(65536);
                for key in [1, 2] {
                    assert_eq!(builder.pair(&Key(key).hex16(), b"value"), Added::Yes);
                }
                reply::put_array_with(&mut out, |out| builder.finish(out));
                if !cut {
                    reply::put_end(&mut out);
                }
                over = cut;
            }
            other => panic!("not asked by a dump: {other:?}"),
        }
        input.drain(..consumed);
        stream.write_all(&out).await.ok()?;
        if over {
            return None;
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_stream_that_is_cut_never_replaces_a_good_file() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let options = DumpOptions { disable_direct_io: true };
    let progress = Progress::default();
    cycle::run(node(false).await, &data, options, &progress).await.unwrap();
    let good = fs::read(data.file("c")).unwrap();
    assert_eq!(progress.totals().records, 2);
    // The node goes away in the middle of the next dump.
    let error = cycle::run(node(true).await, &data, options, &progress).await.unwrap_err();
    assert!(format!("{error:#}").contains("cannot dump channel c"), "{error:#}");
    assert_eq!(fs::read(data.file("c")).unwrap(), good);
    assert_eq!(names(dir.path()), ["c.tcm", "deleted"]);
    // And is there again: the old file becomes the backup.
    cycle::run(node(false).await, &data, options, &progress).await.unwrap();
    assert_eq!(names(dir.path()), ["c.tcm", "c.tcm.backup", "deleted"]);
}
