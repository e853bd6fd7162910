//! The whole reading against a machine made of files.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use super::*;
use crate::read::filesystem::Space;

/// A machine: its `/proc` and `/sys` in a directory, its disks by hand.
struct Machine {
    directory: tempfile::TempDir,
    seconds: u64,
}

#[derive(Debug, Default, Clone)]
struct FakeMounts(std::rc::Rc<std::cell::RefCell<BTreeMap<PathBuf, Space>>>);

impl Mounts for FakeMounts {
    fn list(&mut self) -> Vec<PathBuf> {
        self.0.borrow().keys().cloned().collect()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.borrow().get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

const STAT: &str = "cpu  100 20 30 1000 50 5 10 15 7 3\ncpu0 50 10 15 500 25 2 5 8 0 0\ncpu1 50 10 15 500 25 3 5 7 0 0\n\
    intr 1 2 3\nctxt 9\nbtime 1\nprocesses 1000\nprocs_running 3\nprocs_blocked 1\n";
const MEMINFO: &str = "MemTotal:       1000 kB\nMemFree:         200 kB\nMemAvailable:    500 kB\nBuffers:          50 kB\n\
    Cached:          250 kB\nSwapCached:       10 kB\nSwapTotal:       400 kB\nSwapFree:        290 kB\n\
    SReclaimable:     60 kB\nSUnreclaim:       40 kB\n";
const NET: &str = "Inter-|   Receive                                                |  Transmit\n \
    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n";
const DISKS: &str = " 254 0 vda 100 10 2000 300 50 5 4000 200 2 500 700 0 0 0 0\n 254 1 vda1 1 1 1 1 1 1 1 1 0 1 1\n \
    7 0 loop0 5 0 0 0 0 0 0 0 0 0 0\n 253 0 zram0 0 0 0 0 0 0 0 0 0 0 0\n";

impl Machine {
    fn new() -> Self {
        let machine = Self { directory: tempfile::tempdir().unwrap(), seconds: 0 };
        machine.put("proc/stat", STAT);
        machine.put("proc/meminfo", MEMINFO);
        machine.put("proc/loadavg", "1.50 2.25 3.00 2/345 6789\n");
        machine.put("proc/uptime", "1234.56 789.01\n");
        machine.put("proc/vmstat", "nr_free_pages 1\npswpin 10\npswpout 20\npgfault 3\n");
        machine.put("proc/net/dev", &format!("{NET}{}", interface("eth0", 1000, 500)));
        machine.put("proc/diskstats", DISKS);
        machine.put("sys/class/block/vda1/partition", "1\n");
        for process in ["1", "42", "4242"] {
            machine.put(&format!("proc/{process}/stat"), "");
        }
        machine
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.directory.path().join(path)).unwrap();
    }

    fn collector(&self, collect: &Collect) -> Collector<FakeMounts> {
        self.collector_with(collect, FakeMounts::default())
    }

    fn collector_with(&self, collect: &Collect, mounts: FakeMounts) -> Collector<FakeMounts> {
        let root = self.directory.path();
        Collector::new(&Roots { proc: root.join("proc"), sys: root.join("sys") }, collect, mounts)
    }

    /// One tick, ten seconds after the one before; the samples by name.
    fn tick(&mut self, collector: &mut Collector<FakeMounts>) -> (Readings, BTreeMap<String, f64>) {
        self.seconds += 10;
        let readings = collector.tick(Duration::from_secs(self.seconds));
        let items: Vec<serde_json::Value> = serde_json::from_str(&format!("[{}]", collector.batch().items())).unwrap();
        let count = items.len();
        let samples: BTreeMap<String, f64> = items
            .iter()
            .map(|item| (item["metric"].as_str().unwrap().to_owned(), item["value"].as_f64().unwrap()))
            .collect();
        assert_eq!(samples.len(), count, "no metric twice");
        (readings, samples)
    }
}

fn interface(name: &str, received: u64, sent: u64) -> String {
    format!("  {name}: {received} 10 1 2 0 0 0 0 {sent} 20 3 4 0 0 0 0\n")
}

fn ten_seconds_later() -> String {
    // 200 ticks: 100 user, 20 system, 60 idle, 20 wait; 50 processes more.
    STAT.replace("cpu  100 20 30 1000 50", "cpu  200 20 50 1060 70").replace("processes 1000", "processes 1050")
}

#[test]
fn a_tick_shows_the_host_under_the_names_of_collectd() {
    let mut machine = Machine::new();
    let mounts = FakeMounts::default();
    let space = Space { id: 1, block: 4096, blocks: 100, free: 40, available: 30, inodes: 1000, inodes_free: 900 };
    mounts.0.borrow_mut().insert("/".into(), space);
    mounts.0.borrow_mut().insert("/var/lib".into(), space);
    let mut collector = machine.collector_with(&Collect::default(), mounts);
    let (_, first) = machine.tick(&mut collector);
    assert!(!first.contains_key("cpu/percent-user"), "a share needs two readings");
    machine.put("proc/stat", &ten_seconds_later());
    machine.put("proc/net/dev", &format!("{NET}{}", interface("eth0", 2000, 500)));
    machine.put("proc/diskstats", &DISKS.replace("100 10 2000 300", "110 30 4000 350"));
    machine.put("proc/vmstat", "nr_free_pages 1\npswpin 110\npswpout 20\npgfault 3\n");
    let (readings, samples) = machine.tick(&mut collector);
    for (name, value) in [
        ("cpu/percent-active", 60.0),
        ("cpu/percent-user", 50.0),
        ("cpu/percent-system", 10.0),
        ("cpu/percent-idle", 30.0),
        ("cpu/percent-wait", 10.0),
        ("cpu/percent-steal", 0.0),
        ("memory/memory-used", 400.0 * 1024.0),
        ("memory/percent-used", 40.0),
        ("memory/percent-available", 50.0),
        ("memory/memory-slab_recl", 60.0 * 1024.0),
        ("swap/swap-used", 100.0 * 1024.0),
        ("swap/percent-used", 25.0),
        ("swap/swap_io-in", 10.0),
        ("swap/swap_io-out", 0.0),
        ("load/load/shortterm", 1.5),
        ("load/load/longterm", 3.0),
        ("df-root/df_complex-used", 60.0 * 4096.0),
        ("df-root/df_complex-reserved", 10.0 * 4096.0),
        ("df-root/percent_bytes-free", 30.0),
        ("df-var-lib/percent_inodes-used", 10.0),
        ("interface-eth0/if_octets/rx", 100.0),
        ("interface-eth0/if_octets/tx", 0.0),
        ("disk-vda/disk_ops/read", 1.0),
        ("disk-vda/disk_octets/read", 102_400.0),
        ("disk-vda/disk_merged/read", 2.0),
        ("disk-vda/disk_time/read", 5.0),
        ("disk-vda/disk_time/write", 0.0),
        ("disk-vda/pending_operations", 2.0),
        ("uptime/uptime", 1234.0),
        ("processes/ps_count/processes", 3.0),
        ("processes/ps_count/threads", 345.0),
        ("processes/ps_state-running", 3.0),
        ("processes/fork_rate", 5.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
    assert_eq!(samples.len(), 73);
    for absent in ["disk-loop0/", "disk-vda1/", "disk-zram0/", "cpu-0/"] {
        assert!(!samples.keys().any(|name| name.starts_with(absent)), "{absent}");
    }
    assert_eq!((readings.cpu, readings.memory, readings.load_per_core), (Some(60.0), Some(50.0), Some(0.75)));
    assert_eq!(readings.disks.len(), 2);
    let full = readings.disks[0].full.unwrap();
    assert!((full.space - 60.0 / 90.0 * 100.0).abs() < 1e-9, "what is kept for root counts as full");
}

#[test]
fn cores_and_partitions_are_shown_on_demand() {
    let mut machine = Machine::new();
    let collect = Collect { cpu_per_core: true, partitions: true, ..Collect::default() };
    let mut collector = machine.collector(&collect);
    machine.tick(&mut collector);
    machine.put("proc/stat", &STAT.replace("cpu1 50 10 15 500", "cpu1 60 10 15 590"));
    let (_, samples) = machine.tick(&mut collector);
    assert_eq!(samples["cpu-1/percent-user"], 10.0);
    assert_eq!(samples["cpu-1/percent-active"], 10.0);
    assert!(!samples.contains_key("cpu-0/percent-user"), "no time passed on it");
    assert!(samples.contains_key("disk-vda1/disk_ops/read"));
}

#[test]
fn what_is_switched_off_is_not_shown_but_still_watched() {
    let mut machine = Machine::new();
    let collect = Collect {
        cpu: false,
        memory: false,
        swap: false,
        load: false,
        filesystems: false,
        disks: false,
        network: false,
        uptime: false,
        processes: false,
        ..Collect::default()
    };
    let mut collector = machine.collector(&collect);
    machine.tick(&mut collector);
    machine.put("proc/stat", &ten_seconds_later());
    let (readings, samples) = machine.tick(&mut collector);
    assert_eq!(samples.len(), 0);
    assert_eq!((readings.cpu, readings.memory), (Some(60.0), Some(50.0)));
}

#[test]
fn a_file_that_cannot_be_read_costs_only_its_own_metrics() {
    for (file, prefix) in [
        ("proc/stat", "cpu"),
        ("proc/meminfo", "memory"),
        ("proc/vmstat", "swap/swap_io"),
        ("proc/loadavg", "load"),
        ("proc/uptime", "uptime"),
        ("proc/net/dev", "interface"),
        ("proc/diskstats", "disk"),
    ] {
        let mut machine = Machine::new();
        machine.remove(file);
        let mut collector = machine.collector(&Collect::default());
        machine.tick(&mut collector);
        let (_, samples) = machine.tick(&mut collector);
        assert!(samples.len() > 20, "{file}: {}", samples.len());
        assert!(!samples.keys().any(|name| name.starts_with(prefix)), "{file}");
    }
    let machine = tempfile::tempdir().unwrap();
    let roots = Roots { proc: machine.path().join("proc"), sys: machine.path().join("sys") };
    let readings = Collector::new(&roots, &Collect::default(), FakeMounts::default()).tick(Duration::ZERO);
    assert_eq!(readings, Readings::default());
}

#[test]
fn nonsense_in_a_file_makes_no_metric_and_no_panic() {
    for text in ["", "\n", "cpu", "cpu  x y z", "a b c d e f g h i j k l m n", ":", "x: 1", "\u{0}\u{ff}", "-1 -2 -3"] {
        let mut machine = Machine::new();
        for file in ["stat", "meminfo", "vmstat", "loadavg", "uptime", "net/dev", "diskstats"] {
            machine.put(&format!("proc/{file}"), text);
        }
        let mut collector = machine.collector(&Collect { cpu_per_core: true, ..Collect::default() });
        machine.tick(&mut collector);
        let (readings, _) = machine.tick(&mut collector);
        assert_eq!((readings.cpu, readings.memory), (None, None), "{text}");
    }
}

#[test]
fn interfaces_that_come_go_and_start_again_make_no_wrong_rate() {
    let mut machine = Machine::new();
    let mut collector = machine.collector(&Collect::default());
    let rx =
        |samples: &BTreeMap<String, f64>, name: &str| samples.get(&format!("interface-{name}/if_octets/rx")).copied();
    machine.tick(&mut collector);
    machine.put("proc/net/dev", &format!("{NET}{}{}", interface("tun0", 5000, 0), interface("eth0", 1100, 500)));
    let (_, samples) = machine.tick(&mut collector);
    assert_eq!((rx(&samples, "eth0"), rx(&samples, "tun0")), (Some(10.0), None), "a new one has no rate yet");
    machine.put("proc/net/dev", &format!("{NET}{}", interface("eth0", 1200, 500)));
    let (_, samples) = machine.tick(&mut collector);
    assert_eq!((rx(&samples, "eth0"), rx(&samples, "tun0")), (Some(10.0), None));
    machine.put("proc/net/dev", &format!("{NET}{}{}", interface("tun0", 100, 0), interface("eth0", 50, 500)));
    let (_, samples) = machine.tick(&mut collector);
    assert_eq!((rx(&samples, "eth0"), rx(&samples, "tun0")), (None, None), "eth0 started again, tun0 is another");
    machine.put("proc/net/dev", &format!("{NET}{}{}", interface("tun0", 200, 0), interface("eth0", 60, 500)));
    let (_, samples) = machine.tick(&mut collector);
    assert_eq!((rx(&samples, "eth0"), rx(&samples, "tun0")), (Some(1.0), Some(10.0)));
}

#[test]
fn a_counter_of_32_bits_that_wraps_keeps_its_rate() {
    let mut machine = Machine::new();
    let mut collector = machine.collector(&Collect::default());
    machine.put("proc/net/dev", &format!("{NET}{}", interface("eth0", (1 << 32) - 400, 0)));
    machine.tick(&mut collector);
    machine.put("proc/net/dev", &format!("{NET}{}", interface("eth0", 600, 0)));
    let (_, samples) = machine.tick(&mut collector);
    assert_eq!(samples["interface-eth0/if_octets/rx"], 100.0);
}

#[test]
fn rates_follow_the_time_that_really_passed() {
    let mut machine = Machine::new();
    let mut collector = machine.collector(&Collect::default());
    machine.tick(&mut collector);
    // The machine slept: the next tick is an hour late.
    machine.seconds += 3590;
    machine.put("proc/net/dev", &format!("{NET}{}", interface("eth0", 1000 + 7200, 500)));
    let (_, samples) = machine.tick(&mut collector);
    assert_eq!(samples["interface-eth0/if_octets/rx"], 2.0);
    let before = collector.last.unwrap();
    collector.tick(before);
    assert!(!collector.batch().items().contains("if_octets"), "no time passed, no rate");
}

#[test]
fn disks_are_found_while_the_connector_runs() {
    let mut machine = Machine::new();
    let mounts = FakeMounts::default();
    let space = Space { block: 1, blocks: 10, free: 5, available: 5, ..Space::default() };
    mounts.0.borrow_mut().insert("/".into(), space);
    let collect = Collect { ignore_mounts: vec!["/boot*".to_owned()], ..Collect::default() };
    let mut collector = machine.collector_with(&collect, mounts.clone());
    assert_eq!(machine.tick(&mut collector).0.disks.len(), 1);
    mounts.0.borrow_mut().insert("/srv".into(), space);
    mounts.0.borrow_mut().insert("/boot/efi".into(), space);
    assert_eq!(machine.tick(&mut collector).0.disks.len(), 1, "looked for once a minute");
    machine.seconds += 60;
    let (readings, samples) = machine.tick(&mut collector);
    assert_eq!(readings.disks.len(), 2);
    assert!(!samples.contains_key("df-srv/percent_inodes-used"), "inodes without a limit");
    // Another file system shows at the mount point when the first is gone.
    mounts.0.borrow_mut().insert("/srv".into(), Space { id: 7, ..space });
    let (readings, samples) = machine.tick(&mut collector);
    assert_eq!(readings.disks[1].full, None);
    assert!(!samples.contains_key("df-srv/df_complex-used"), "the numbers of another");
    let (readings, _) = machine.tick(&mut collector);
    assert!(readings.disks[1].full.is_some(), "in the new list it stands for itself");
    mounts.0.borrow_mut().remove(Path::new("/srv"));
    let (readings, _) = machine.tick(&mut collector);
    assert_eq!(readings.disks[1].full, None, "it cannot be asked");
    assert_eq!(machine.tick(&mut collector).0.disks.len(), 1, "and is found gone in the next tick");
}

#[test]
fn a_container_of_version_2_is_measured_against_its_limits() {
    let mut machine = Machine::new();
    machine.put("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    machine.put("sys/fs/cgroup/cpu.max", "50000 100000\n");
    machine.put("sys/fs/cgroup/cpu.stat", "usage_usec 0\nuser_usec 0\nsystem_usec 0\n");
    machine.put("sys/fs/cgroup/memory.max", "512000\n");
    machine.put("sys/fs/cgroup/memory.current", "400000\n");
    machine.put("sys/fs/cgroup/memory.stat", "anon 300000\nfile 144000\n");
    let mut collector = machine.collector(&Collect::default());
    assert_eq!(collector.limits(), Limits { cpus: Some(0.5), memory: Some(512_000) });
    // The number of cores is known from the second tick on, the shares from the third.
    machine.tick(&mut collector);
    machine.tick(&mut collector);
    // Half a core for ten seconds would be 5,000,000 microseconds.
    machine.put("sys/fs/cgroup/cpu.stat", "usage_usec 4000000\nuser_usec 3000000\nsystem_usec 1000000\n");
    machine.put("proc/stat", &ten_seconds_later());
    let (readings, samples) = machine.tick(&mut collector);
    assert_eq!(samples["cpu/percent-active"], 80.0);
    assert_eq!(samples["cpu/percent-user"], 60.0);
    assert_eq!(samples["cpu/percent-idle"], 20.0);
    assert_eq!(samples["cpu/count-limit"], 0.5);
    assert!(!samples.contains_key("cpu/percent-wait"), "the host's");
    assert_eq!(samples["memory/percent-used"], 50.0);
    assert_eq!(samples["memory/memory-limit"], 512_000.0);
    assert_eq!((readings.cpu, readings.memory, readings.load_per_core), (Some(80.0), Some(50.0), Some(3.0)));
    machine.put("sys/fs/cgroup/cpu.max", "max 100000\n");
    machine.put("sys/fs/cgroup/memory.max", "max\n");
    collector.refresh_limits();
    assert_eq!(collector.limits(), Limits::default());
}

#[test]
fn a_container_of_version_1_is_measured_against_its_limits() {
    let mut machine = Machine::new();
    machine.put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "100000\n");
    machine.put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    machine.put("sys/fs/cgroup/cpu,cpuacct/cpuacct.usage", "0\n");
    machine.put("sys/fs/cgroup/memory/memory.limit_in_bytes", "512000\n");
    machine.put("sys/fs/cgroup/memory/memory.usage_in_bytes", "400000\n");
    machine.put("sys/fs/cgroup/memory/memory.stat", "cache 1\nrss 300000\ntotal_cache 144000\ntotal_rss 1\n");
    let mut collector = machine.collector(&Collect::default());
    machine.tick(&mut collector);
    machine.tick(&mut collector);
    machine.put("sys/fs/cgroup/cpu,cpuacct/cpuacct.usage", "5000000000\n");
    let (readings, samples) = machine.tick(&mut collector);
    assert_eq!((readings.cpu, readings.memory), (Some(50.0), Some(50.0)));
    assert!(!samples.contains_key("cpu/percent-user"), "version 1 does not tell");
}

#[test]
fn limits_above_the_host_or_none_at_all_change_nothing() {
    let mut machine = Machine::new();
    machine.put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    machine.put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    machine.put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_eq!(machine.collector(&Collect::default()).limits(), Limits::default());
    machine.put("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    machine.put("sys/fs/cgroup/cpu.max", "800000 100000\n");
    machine.put("sys/fs/cgroup/memory.max", "1000000000\n");
    let mut collector = machine.collector(&Collect::default());
    machine.tick(&mut collector);
    machine.put("proc/stat", &ten_seconds_later());
    let (readings, samples) = machine.tick(&mut collector);
    assert_eq!((readings.cpu, readings.memory), (Some(60.0), Some(50.0)));
    assert!(samples.contains_key("cpu/percent-wait"));
    let off = machine.collector(&Collect { container_limits: false, ..Collect::default() });
    assert_eq!(off.limits(), Limits::default());
}

#[test]
fn this_machine_can_be_read() {
    let mut collector = Collector::new(&Roots::default(), &Collect::default(), crate::read::filesystem::SystemMounts);
    collector.tick(Duration::from_secs(1));
    let readings = collector.tick(Duration::from_secs(2));
    assert!(readings.memory.is_some_and(|memory| memory > 0.0 && memory < 100.0));
    assert!(readings.load_per_core.is_some());
    assert!(collector.batch().samples() > 20);
}
