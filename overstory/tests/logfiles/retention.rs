//! What the node does with old buckets: compressed they are still read, deleted they are gone, and nothing else is touched.

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use overstory_client::dls::{Filter, Order};
use overstory_client::{ClientConfig, DlsClient, Identity, Registry};
use overstory_replay::system_time;
use overstory_swarm::auth::ClientKey;
use overstory_testkit::node::{NodeInstance, until};

use super::client::{Legacy, Record};
use super::rig::{Mode, check, instance};

const DAY: u64 = 86_400;

/// Two buckets of so many days ago, large enough for being worth it; the same ones however often they are asked for.
fn records(days: u64) -> Vec<Record> {
    static NOW: LazyLock<u64> = LazyLock::new(system_time);
    let first = (*NOW - days * DAY) & !0x1fff;
    let value = |number: u64| format!("{days} days ago, record {number} {}", "text ".repeat(20)).into_bytes();
    (0..4000).map(|number| (first + number * 2, value(number))).collect()
}

fn path(node: &NodeInstance, channel: &str, key: u64) -> std::path::PathBuf {
    node.path(&format!("data/{channel}/{:010x}/{:03x}", key >> 24, key >> 12 & 0xfff))
}

/// The format that the first bytes of a bucket tell; nothing if there is none.
fn format(node: &NodeInstance, channel: &str, key: u64) -> Option<u8> {
    let bytes = fs::read(path(node, channel, key)).ok()?;
    assert_eq!(bytes[8..16], *b"DLSBUCKT");
    Some(bytes[0])
}

#[test]
fn old_buckets_are_compressed_and_older_ones_deleted_by_the_node() {
    let node = instance(Mode::Always);
    let process = node.start();
    let mut client = Legacy::to(&node);
    let ages = [1, 20, 200];
    for channel in ["kept", "log-a"] {
        ages.iter().for_each(|days| client.put_all(channel, &records(*days)));
    }
    let all: Vec<Record> = [200, 20, 1].into_iter().flat_map(records).collect();
    assert!(client.all("log-a") == all);
    let length = fs::metadata(path(&node, "log-a", records(20)[0].0)).unwrap().len();
    assert_eq!(process.stop(), Some(0));
    node.set("CompressAfterDays", "log-", "10").set("DeleteAfterDays", "log-", "100");
    let process = node.start();
    let mut client = Legacy::to(&node);
    let (old, older) = (records(20), records(200));
    let left = &all[4000..];
    until("it is compressed and deleted", || {
        // No answer misses a bucket that is just being rewritten.
        assert!(client.all("log-a").ends_with(left));
        let compressed = [old[0].0, old[3999].0].iter().all(|key| format(&node, "log-a", *key) == Some(2));
        compressed && [older[0].0, older[3999].0].iter().all(|key| format(&node, "log-a", *key).is_none())
    });
    assert!(fs::metadata(path(&node, "log-a", old[0].0)).unwrap().len() < length / 3);
    assert!(client.all("log-a") == left && client.all("kept") == all);
    let bytes: usize = left.iter().map(|(_, value)| value.len()).sum();
    until("it is counted", || client.channel_size("log-a") == (8000, bytes as u64));
    assert_eq!(format(&node, "log-a", records(1)[0].0), Some(1), "what is young is as it was");
    assert_eq!(format(&node, "kept", old[0].0), Some(1), "and so are other channels");
    // A compressed bucket takes records that come late.
    client.put_all("log-a", &[(old[0].0, b"late".to_vec())]);
    assert_eq!(client.all("log-a").len(), 8001);
    assert_eq!(check(&node, &[]).0, 0);
    process.kill();
    let process = node.start();
    let mut client = Legacy::to(&node);
    assert_eq!((client.all("log-a").len(), client.all("kept") == all), (8001, true));
    assert_eq!(client.channel_size("log-a").0, 8001);
    assert_eq!(process.stop(), Some(0));
}

/// A published node's cron left `275.gz`: the node takes them in.
#[test]
fn what_the_published_systems_cron_has_compressed_is_read_again() {
    let node = instance(Mode::Interval);
    let process = node.start();
    let all = records(20);
    Legacy::to(&node).put_all("c", &all);
    assert_eq!(process.stop(), Some(0));
    let file = path(&node, "c", all[0].0);
    assert!(std::process::Command::new("gzip").arg(&file).status().unwrap().success());
    fs::remove_file(node.path("data/.catalogue")).unwrap();
    let process = node.start();
    let mut client = Legacy::to(&node);
    until("it is taken in", || client.all("c").len() == all.len());
    assert!(client.all("c") == all);
    assert_eq!(process.stop(), Some(0));
}

/// The client reads all formats of both modes, in the order of time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_reads_every_format_in_the_order_of_time() {
    for mode in Mode::ALL {
        let node = instance(mode);
        let plain = node.path("data/c/0000000000");
        fs::create_dir_all(&plain).unwrap();
        let mut bytes = Vec::new();
        for (key, value) in [(0x2005u64, b"5"), (0x2001, b"1")] {
            bytes.extend([key.to_le_bytes(), 1u64.to_le_bytes()].concat());
            bytes.extend(value);
        }
        fs::write(plain.join("002"), bytes).unwrap();
        let process = node.start();
        for legacy in [false, true] {
            let mut registry = Registry::new();
            registry.add(if legacy { node.legacy } else { node.neo }).unwrap();
            let identity = Identity { name: "test".to_owned(), key: ClientKey([0; 128]) };
            let config = if legacy { ClientConfig::legacy(registry) } else { ClientConfig::neo(registry, identity) };
            let config = ClientConfig { connect_timeout: Duration::from_secs(20), ..config };
            let client = DlsClient::connect(config).await.unwrap();
            let channel = |name: &str| if legacy { name.to_owned() } else { format!("{name}-neo") };
            for name in ["c", "v2_c"] {
                let name = channel(name);
                let times = (0..600i64).map(|number| number * 7919 % 600 * 50);
                for time in times {
                    client.put(&name, time, time.to_string().as_bytes()).await.unwrap();
                }
                let mut records = client.get_all(&name, Filter::None, Order::ByTime).unwrap();
                let mut found = Vec::new();
                while let Some(batch) = records.next().await {
                    found.extend(batch.unwrap().records().map(|(time, value)| (time, value.to_vec())));
                }
                let mut expected: Vec<_> =
                    (0..600i64).map(|number| (number * 50, (number * 50).to_string().into_bytes())).collect();
                if name == "c" {
                    expected.extend([(0x2001, b"1".to_vec()), (0x2005, b"5".to_vec())]);
                }
                expected.sort();
                assert!(found == expected, "{name}, {}: {}", mode.name(), found.len());
            }
        }
        assert_eq!(process.stop(), Some(0));
        assert_eq!(check(&node, &[]).0, 0);
    }
}
