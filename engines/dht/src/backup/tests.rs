#![allow(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use std::sync::mpsc::sync_channel;

use flate2::read::GzDecoder;

use super::date::Local;
use super::*;

struct Place {
    temp: tempfile::TempDir,
    options: BackupOptions,
}

impl Place {
    fn new(files: &[&str]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("data");
        fs::create_dir(&data).unwrap();
        for file in files {
            fs::write(data.join(file), format!("content of {file} ").repeat(1000)).unwrap();
        }
        let options = BackupOptions { data, directory: temp.path().join("backup-data"), keep_days: 3 };
        Self { temp, options }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.options.directory).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn date(text: &str) -> Date {
    text.parse().unwrap()
}

#[test]
fn dumps_alone_are_copied_and_come_back() {
    let place = Place::new(&["a.tcm", "b.tcm", "a.tcm.backup", "c.tcm.abcdef.dumping", "other"]);
    let report = back_up(&place.options, date("2026-11-21"));
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(place.names(), ["a.2026-11-21.tcm.gz", "b.2026-11-21.tcm.gz"]);
    assert_eq!((report.files, report.removed), (2, 0));
    assert!(report.compressed < report.bytes / 10);
    let mut text = String::new();
    let file = File::open(place.options.directory.join("b.2026-11-21.tcm.gz")).unwrap();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    assert_eq!(text, "content of b.tcm ".repeat(1000));
    // Once more on the same day.
    assert_eq!(back_up(&place.options, date("2026-11-21")).files, 2);
    assert_eq!(place.names().len(), 2);
}

#[test]
fn old_copies_go_and_nothing_else() {
    let place = Place::new(&["a.tcm"]);
    fs::create_dir(&place.options.directory).unwrap();
    let others = [
        "a.2026-11-18.tcm.gz",
        "a.2026-11-19.tcm.gz",
        "a.2025-01-01.tcm.gz.unfinished",
        "gone.2020-02-29.tcm.gz",
        "a.2020-13-01.tcm.gz",
        "a.20200101.tcm.gz",
        "a.2020-01-01.tcm",
        "a.b.2020-01-01.tcm.gz",
        "notes.txt",
        "a.2027-01-01.tcm.gz",
    ];
    for other in others {
        fs::write(place.options.directory.join(other), b"x").unwrap();
    }
    let report = back_up(&place.options, date("2026-11-21"));
    assert!(report.failures.is_empty());
    assert_eq!(report.removed, 2);
    assert_eq!(
        place.names(),
        [
            "a.2020-01-01.tcm",
            "a.2020-13-01.tcm.gz",
            "a.20200101.tcm.gz",
            "a.2026-11-19.tcm.gz",
            "a.2026-11-21.tcm.gz",
            "a.2027-01-01.tcm.gz",
            "a.b.2020-01-01.tcm.gz",
            "notes.txt",
        ]
    );
}

#[test]
fn a_failed_copy_is_told_and_keeps_the_old_ones() {
    let place = Place::new(&["a.tcm", "b.tcm"]);
    fs::create_dir(&place.options.directory).unwrap();
    fs::write(place.options.directory.join("a.2020-01-01.tcm.gz"), b"old").unwrap();
    // A directory stands in the way of one copy.
    fs::create_dir_all(place.options.directory.join("a.2026-11-21.tcm.gz/x")).unwrap();
    let report = back_up(&place.options, date("2026-11-21"));
    assert_eq!((report.files, report.failures.len(), report.removed), (1, 1, 0));
    assert!(report.failures[0].to_string().contains("a.2026-11-21.tcm.gz"), "{}", report.failures[0]);
    assert_eq!(place.names(), ["a.2020-01-01.tcm.gz", "a.2026-11-21.tcm.gz", "b.2026-11-21.tcm.gz"]);

    let missing = BackupOptions { data: place.temp.path().join("nowhere"), ..place.options.clone() };
    let report = back_up(&missing, date("2026-11-21"));
    assert_eq!((report.files, report.failures.len()), (0, 1));
}

#[test]
fn a_backup_runs_beside() {
    let place = Place::new(&["a.tcm"]);
    let (send, receive) = sync_channel(1);
    let thread = spawn(place.options.clone(), date("2026-11-21"), move |report| send.send(report).unwrap()).unwrap();
    assert_eq!(receive.recv().unwrap().files, 1);
    thread.join().unwrap();
}

#[test]
fn dates_and_schedules_are_read_and_counted() {
    assert_eq!(date("1970-01-01").days(), 0);
    assert_eq!(date("2000-03-01").days() - date("2000-02-28").days(), 2);
    assert_eq!(date("2026-11-21").days(), 20_778);
    assert_eq!(date("2026-11-21").to_string(), "2026-11-21");
    for bad in ["", "2026-1-21", "2026-11-32", "2026-00-01", "2026/11/21", "2026-11-211", "+026-11-21"] {
        assert!(bad.parse::<Date>().is_err(), "{bad}");
    }
    for bad in ["", "24:00", "12:60", "1:30", "01:3", "01-30", "+1:30"] {
        assert!(bad.parse::<Schedule>().is_err(), "{bad}");
    }
    let schedule: Schedule = "03:30".parse().unwrap();
    let at = |hour: u32, minute: u32| Local::new(2026, 11, 21, hour * 3600 + minute * 60);
    assert_eq!(next_run(schedule, at(3, 29)), 60);
    assert_eq!(next_run(schedule, at(3, 30)), 86_400);
    assert_eq!(next_run(schedule, at(4, 0)), 86_400 - 1800);
    let local = Local::at(1_795_219_200);
    assert!((date("2026-11-20")..=date("2026-11-22")).contains(&Date::of(local)));
}
