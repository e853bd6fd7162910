#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed unwrap is a failed test")]

use std::io::Write;

use serde_json::Value;

use super::*;
use crate::bucket::BucketNumber;
use crate::disk::{Disk, SystemDisk};
use crate::format::{BucketWriter, Format};

const FORMATS: [Format; 3] = [Format::Plain, Format::V1, Format::V2];

type Records = Vec<(u64, Vec<u8>)>;

/// A data directory with one channel and one bucket.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn path(&self, number: BucketNumber) -> PathBuf {
        self.data().join("log").join(number.to_string())
    }

    fn write(&self, number: BucketNumber, bytes: &[u8]) -> PathBuf {
        let path = self.path(number);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn bytes(&self, format: Format, records: &Records) -> Vec<u8> {
        let path = self.dir.path().join("new");
        let file = SystemDisk.create(&path).unwrap();
        file.set_len(0).unwrap();
        let mut writer = BucketWriter::new(&*file, format, 3).unwrap();
        records.iter().for_each(|(key, value)| writer.push(*key, value).unwrap());
        writer.finish().unwrap();
        fs::read(path).unwrap()
    }

    /// The exit code and the output.
    fn check(&self, args: &[&str]) -> (u8, String) {
        run_with(args, &self.data())
    }
}

fn run_with(args: &[&str], path: &Path) -> (u8, String) {
    let args = ["logfiles_check"].iter().chain(args).map(OsString::from).chain([path.as_os_str().to_owned()]);
    let mut out = Vec::new();
    let code = execute(&parse(args.collect()).unwrap(), &mut out, false);
    (code, String::from_utf8(out).unwrap())
}

fn number() -> BucketNumber {
    BucketNumber::of(0x5727_5806)
}

fn records() -> Records {
    (0..9).map(|low| (number().first_key() + low, format!("the record number {low}").into_bytes())).collect()
}

/// Where record 4 begins, in a format with records one by one.
fn fourth(format: Format) -> usize {
    format.header().len() + 4 * (format.framing().head() + 19)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn read(path: &Path) -> Records {
    let bytes = fs::read(path).unwrap();
    let mut records = Records::new();
    let Some(format) = Format::of(&bytes) else { return records };
    let mut walker = crate::walk::Walker::new(format, number(), bytes.len() as u64);
    let file = SystemDisk.open(path).unwrap();
    crate::walk::read_file(&*file, &mut walker, &mut |key, value| records.push((key, value.to_vec()))).unwrap();
    records
}

#[test]
fn files_without_damage_are_told_of_in_a_line() {
    let place = Place::new();
    assert_eq!(run_with(&[], &place.dir.path().join("none")).0, 4);
    fs::create_dir(place.data()).unwrap();
    assert_eq!(
        place.check(&[]),
        (0, "0 files, 0 records of 0 bytes: 0 damages of 0 bytes in 0 files, 0 mended\n".into())
    );
    for (at, format) in FORMATS.into_iter().enumerate() {
        place.write(BucketNumber::of(number().first_key() + 4096 * at as u64), &place.bytes(format, &vec![]));
    }
    place.write(number(), &place.bytes(Format::V1, &records()));
    place.write(BucketNumber::of(0), b"short");
    fs::write(place.path(number()).with_extension("tmp"), "left by others").unwrap();
    let line = "4 files, 9 records of 171 bytes: 0 damages of 0 bytes in 0 files, 0 mended; 1 other files left alone\n";
    let expected = (0, line.to_owned());
    assert_eq!(place.check(&[]), expected);
    assert_eq!(place.check(&["--check"]), expected);
    assert_eq!(place.check(&["--repair", "--write"]), expected);
}

#[test]
fn any_level_of_directories_is_taken_and_a_channel_may_be_called_like_a_slot() {
    let place = Place::new();
    let path = place.write(number(), &place.bytes(Format::V1, &records()));
    let slot = path.parent().unwrap();
    let other = place.data().join("0000000057/0000000057/275");
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::copy(&path, &other).unwrap();
    fs::create_dir_all(place.data().join(".damaged/log/0000000057")).unwrap();
    for path in [&path, slot, slot.parent().unwrap(), &other, other.ancestors().nth(2).unwrap()] {
        let (code, out) = run_with(&[], path);
        assert!(code == 0 && out.starts_with("1 files, 9 records"), "{}: {out}", path.display());
    }
    assert!(place.check(&[]).1.starts_with("2 files, 18 records"));
    fs::write(slot.join("log"), "x").unwrap();
    assert_eq!(run_with(&[], &slot.join("log")).0, 4);
}

#[test]
fn damage_is_told_with_its_place_and_nothing_is_changed_unless_it_is_said() {
    let place = Place::new();
    let mut bytes = place.bytes(Format::V1, &records());
    let at = fourth(Format::V1);
    bytes[at + 9] ^= 1;
    let path = place.write(number(), &bytes);
    let name = path.canonicalize().unwrap().display().to_string();
    let damage = format!("{name}: offset {at}, 36 bytes: the parity of a record's head is wrong\n");
    let totals = "1 files, 8 records of 152 bytes: 1 damages of 36 bytes in 1 files, 0 mended; nothing was changed\n";
    assert_eq!(place.check(&[]), (1, format!("{damage}{totals}")));
    let cut = format!("{name}: would be cut to {at} bytes, {} less\n", bytes.len() - at);
    assert_eq!(place.check(&["-r"]), (1, format!("{damage}{cut}{totals}")));
    let salvage = format!("{name}: would be written anew with 8 records\n");
    assert_eq!(place.check(&["--salvage"]), (1, format!("{damage}{salvage}{totals}")));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(files(&place.data()), [path]);
}

#[test]
fn a_repair_cuts_and_a_salvage_keeps_what_is_behind() {
    for format in [Format::Plain, Format::V1] {
        for (option, expected) in [
            ("--repair", records()[..4].to_vec()),
            ("--salvage", records().into_iter().filter(|(key, _)| *key != number().first_key() + 4).collect()),
        ] {
            let place = Place::new();
            let mut bytes = place.bytes(format, &records());
            let at = fourth(format);
            bytes[at + 9] ^= 1;
            let path = place.write(number(), &bytes);
            let before = fs::metadata(path.parent().unwrap()).unwrap().modified().unwrap();
            let (code, out) = place.check(&[option, "--write"]);
            assert_eq!(code, 3, "{out}");
            assert_eq!(read(&path), expected);
            assert_eq!(fs::read(&path).unwrap(), place.bytes(format, &expected), "{option}");
            assert_eq!(place.check(&[]).0, 0);
            // What was there can be had again.
            let backups = files(&place.data().join(".damaged"));
            let backup = fs::read(&backups[0]).unwrap();
            let kept = if option == "--repair" { &bytes[at..] } else { &bytes[..] };
            assert_eq!((backups.len(), backup.as_slice()), (1, kept));
            assert!(out.contains(&format!("backup: {}", backups[0].canonicalize().unwrap().display())), "{out}");
            // Nothing else is left, and the time of the directory tells the node.
            assert_eq!(files(&place.data().join("log")), std::slice::from_ref(&path));
            assert!(fs::metadata(path.parent().unwrap()).unwrap().modified().unwrap() > before);
        }
    }
}

#[test]
fn a_wrong_header_is_set_right_and_costs_no_record() {
    for format in [Format::V1, Format::V2] {
        for option in ["--repair", "--salvage"] {
            let place = Place::new();
            let good = place.bytes(format, &records());
            let mut bytes = good.clone();
            bytes[9] ^= 4;
            let path = place.write(number(), &bytes);
            assert_eq!(place.check(&[option, "--write"]).0, 3);
            assert_eq!(fs::read(&path).unwrap(), good);
            // With damage behind it.
            bytes.truncate(good.len() - 3);
            fs::write(&path, &bytes).unwrap();
            assert_eq!(place.check(&[option, "--write"]).0, 3);
            let expected = if format == Format::V1 { records()[..8].to_vec() } else { records() };
            assert_eq!(read(&path), expected, "{format} {option}");
            assert_eq!(place.check(&[]).0, 0);
        }
    }
}

#[test]
fn backups_are_never_written_over_and_without_one_nothing_is_changed() {
    let place = Place::new();
    let mut bytes = place.bytes(Format::V1, &records());
    bytes[fourth(Format::V1)] ^= 1;
    let path = place.write(number(), &bytes);
    let backups = place.dir.path().join("backups");
    let option = format!("--backup-dir={}", backups.display());
    for count in 1..4 {
        fs::write(&path, &bytes).unwrap();
        assert_eq!(place.check(&["-r", "--write", &option]).0, 3);
        assert_eq!(files(&backups).len(), count);
    }
    assert!(!place.data().join(".damaged").exists());
    // A file is in the way of the directory.
    fs::write(&path, &bytes).unwrap();
    fs::write(place.dir.path().join("file"), "").unwrap();
    let option = format!("--backup-dir={}", place.dir.path().join("file/sub").display());
    for action in ["--repair", "--salvage"] {
        assert_eq!(place.check(&[action, "--write", &option]).0, 4);
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(files(&place.data().join("log")), std::slice::from_ref(&path));
    }
}

#[test]
fn backups_do_not_go_among_the_channels_of_what_is_checked() {
    let place = Place::new();
    let mut bytes = place.bytes(Format::V1, &records());
    bytes[fourth(Format::V1)] ^= 1;
    let path = place.write(number(), &bytes);
    let (data, slot) = (place.data(), path.parent().unwrap());
    let link = place.dir.path().join("link");
    std::os::unix::fs::symlink(data.join("log"), &link).unwrap();
    let before = files(place.dir.path());
    let run = |backups: &Path, checked: &Path| {
        run_with(&["--repair", "--write", "--backup-dir", backups.to_str().unwrap()], checked)
    };
    for backups in [
        data.clone(),
        data.join("log"),
        data.join("other/deep"),
        data.join(".hidden"),
        slot.to_path_buf(),
        data.join("none/../log"),
        data.join(".damaged/../log"),
        data.join("../data/log"),
        link.clone(),
        link.join("new"),
    ] {
        for checked in [&data, slot.parent().unwrap(), slot, &path, &link.join("0000000057").join("275")] {
            assert_eq!(run(&backups, checked), (2, String::new()), "{} {}", backups.display(), checked.display());
        }
    }
    assert_eq!(files(place.dir.path()), before);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let refusal = backup::refusal(&data.join("log"), std::slice::from_ref(&data)).unwrap();
    assert!(refusal.contains("log: backups do not go among the channels of the data directory "), "{refusal}");
    for backups in
        [data.join(".damaged"), data.join(".damaged/deep"), link.join("../../next"), place.data().with_extension("old")]
    {
        fs::write(&path, &bytes).unwrap();
        assert_eq!(run(&backups, &data).0, 3, "{}", backups.display());
    }
}

#[test]
fn a_data_directory_that_a_node_holds_is_read_and_not_written() {
    let place = Place::new();
    let mut bytes = place.bytes(Format::V1, &records());
    bytes[fourth(Format::V1)] ^= 1;
    let path = place.write(number(), &bytes);
    let lock = fs::File::create(place.data().join(data_lock::FILE)).unwrap();
    lock.lock().unwrap();
    assert_eq!(place.check(&["--repair", "--write"]).0, 4);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert!(!place.data().join(".damaged").exists());
    assert_eq!(place.check(&["--repair"]).0, 1);
    drop(lock);
    assert_eq!(place.check(&["--repair", "--write"]).0, 3);
}

#[test]
fn compressed_files_of_a_cron_are_read_and_never_changed() {
    let place = Place::new();
    let path = place.write(number(), b"").with_extension("gz");
    fs::remove_file(place.path(number())).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&place.bytes(Format::V1, &records())).unwrap();
    let good = encoder.finish().unwrap();
    fs::write(&path, &good).unwrap();
    assert_eq!(place.check(&[]).0, 0);
    for cut in [good.len() - 3, 12, 3] {
        fs::write(&path, &good[..cut]).unwrap();
        let (code, out) = place.check(&["--salvage", "--write"]);
        assert!(code == 1 && out.contains("275.gz: offset 0"), "{code}: {out}");
    }
    let mut damaged = good.clone();
    damaged[good.len() - 6] ^= 1;
    fs::write(&path, &damaged).unwrap();
    assert_eq!(place.check(&["--repair", "--write"]).0, 1);
    assert_eq!(fs::read(&path).unwrap(), damaged);
}

#[test]
fn the_report_as_json_says_the_same() {
    let place = Place::new();
    let mut bytes = place.bytes(Format::V1, &records());
    let at = fourth(Format::V1);
    bytes[at + 9] ^= 1;
    place.write(number(), &bytes);
    place.write(BucketNumber::of(0x5727_6000), &bytes);
    let (code, out) = place.check(&["--repair", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["exit_code"]), (1, &Value::from(1)));
    let first = &report["damaged"][0];
    assert_eq!((&first["channel"], &first["bucket"]), (&"log".into(), &"0000000057/275".into()));
    assert_eq!((&first["format"], &first["records"]), (&"v1".into(), &8.into()));
    assert_eq!(first["damages"][0]["offset"], at);
    assert_eq!(first["action"], serde_json::json!({"kind": "cut", "done": false, "cut_at": at}));
    assert_eq!(report["damaged"].as_array().unwrap().len(), 2);
    assert_eq!(report["totals"]["damaged_files"], 2);
    // In a file, with the lines for people beside it.
    let path = place.dir.path().join("report.json");
    let (code, out) = place.check(&["--salvage", "--write", &format!("--json={}", path.display())]);
    assert!(code == 3 && out.contains("written anew with 8 records"), "{out}");
    let report: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((&report["damaged"][0]["action"]["done"], &report["exit_code"]), (&true.into(), &3.into()));
    assert_eq!(place.check(&[&format!("--json={}", place.dir.path().join("none/report").display())]).0, 4);
    fs::remove_dir_all(place.data()).unwrap();
    let (_, out) = place.check(&["--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["problems"].as_array().unwrap().len(), 1);
}

#[test]
fn wrong_usage_is_told_apart_from_damage() {
    let code = |args: &[&str]| {
        let args = ["logfiles_check"].iter().chain(args).map(OsString::from).collect();
        format!("{:?}", run(args))
    };
    let expected = format!("{:?}", ExitCode::from(2));
    let usages: [&[&str]; 6] =
        [&[], &["-r"], &["-c", "-r", "x"], &["-r", "--salvage", "x"], &["--write", "x"], &["--wrong", "x"]];
    for args in usages {
        assert_eq!(code(args), expected, "{args:?}");
    }
    assert_eq!(code(&["--help"]), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(code(&["/nonexistent/0000000057/275"]), format!("{:?}", ExitCode::from(4)));
}

/// What a flipped bit does is the same for the checker and for a reader, in every place; and a salvage keeps what the
/// reader sees.
#[test]
fn checker_and_reader_agree_on_every_flipped_bit() {
    let place = Place::new();
    let records: Records = records().into_iter().take(3).collect();
    for format in FORMATS {
        let bytes = place.bytes(format, &records);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let path = place.write(number(), &damaged);
            let seen = read(&path);
            let (code, out) = place.check(&[]);
            if code == 0 {
                assert!(out.contains("3 records"), "{format}, {at}: {out}");
                assert_eq!(seen.len(), 3, "{format}, {at}");
                continue;
            }
            assert_eq!(code, 1, "{format}, {at}: {out}");
            assert!(out.contains(&format!(" {} records of ", seen.len())), "{format}, {at}: {out}");
            assert!(seen.iter().all(|record| records.contains(record)), "{format}, {at}");
            if at % 5 == 0 {
                assert_eq!(place.check(&["--salvage", "--write"]).0, 3, "{format}, {at}");
                assert_eq!(read(&path), seen, "{format}, {at}");
                assert_eq!(place.check(&[]).0, 0, "{format}, {at}");
            }
        }
    }
}

#[test]
fn what_root_repairs_is_still_the_owners() {
    use std::os::unix::fs::{MetadataExt, chown};
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    for action in ["--salvage", "--repair"] {
        let place = Place::new();
        let mut bytes = place.bytes(Format::V1, &records());
        bytes[fourth(Format::V1)] ^= 0xff;
        let path = place.write(number(), &bytes);
        let all = || {
            let mut paths = vec![place.data()];
            let mut at = 0;
            while let Some(path) = paths.get(at).cloned() {
                at += 1;
                if path.is_dir() {
                    paths.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                }
            }
            paths
        };
        all().iter().for_each(|path| chown(path, Some(61_001), Some(61_002)).unwrap());
        assert_eq!(place.check(&[action, "--write"]).0, 3);
        let all = all();
        assert!(all.contains(&path) && all.contains(&place.data().join(data_lock::FILE)) && all.len() >= 9, "{all:?}");
        for path in all {
            let owner = fs::metadata(&path).unwrap();
            assert_eq!((owner.uid(), owner.gid()), (61_001, 61_002), "{}", path.display());
        }
        // A backup elsewhere is the caller's.
        fs::write(&path, &bytes).unwrap();
        let elsewhere = place.dir.path().join("elsewhere/deep");
        assert_eq!(place.check(&[action, "--write", "--backup-dir", elsewhere.to_str().unwrap()]).0, 3);
        assert_eq!(fs::metadata(elsewhere).unwrap().uid(), 0);
    }
}

#[test]
fn a_link_is_never_followed_and_what_it_leads_to_stays_as_it_is() {
    use std::os::unix::fs::symlink;
    for (at, action) in ["--repair", "--salvage"].into_iter().enumerate() {
        let place = Place::new();
        let mut bytes = place.bytes(Format::V1, &records());
        bytes[fourth(Format::V1)] ^= 1;
        let outside = place.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let secret = outside.join("275");
        fs::write(&secret, &bytes).unwrap();
        let path = place.path(number());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A bucket, a slot, a channel, an archive.
        symlink(&secret, &path).unwrap();
        symlink(&secret, path.with_extension("gz")).unwrap();
        symlink(&outside, place.data().join("log/0000000058")).unwrap();
        symlink(&outside, place.data().join("other")).unwrap();
        nix::unistd::mkfifo(&path.with_file_name("276"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (code, out) = place.check(&[action, "--write"]);
        assert!(code == 4 && out.starts_with("0 files, ") && out.ends_with("; 5 problems\n"), "{code}: {out}");
        let alias = place.dir.path().join("alias");
        symlink(place.data().join("log"), &alias).unwrap();
        for named in [&path, &alias, &place.dir.path().join("alias/")] {
            assert_eq!(run_with(&[action, "--write"], named).0, 4);
        }
        assert_eq!((fs::read(&secret).unwrap(), files(&outside).len()), (bytes.clone(), 1));
        assert!(!place.data().join(".damaged").exists());
        // Names in the way of what is made: backups, the new file, the mark, the lock.
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bytes).unwrap();
        let beside = |suffix| PathBuf::from(format!("{}.{suffix}", path.display()));
        symlink(&secret, beside("salvage")).unwrap();
        symlink(&secret, beside("repair")).unwrap();
        let backups = [place.data().join(".damaged"), place.data().join(".damaged/log")];
        let link = &backups[at];
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&outside, link).unwrap();
        assert_eq!(place.check(&[action, "--write"]).0, 4);
        assert_eq!((fs::read(&path).unwrap(), files(&outside).len()), (bytes.clone(), 1));
        fs::remove_file(link).unwrap();
        let dir = place.data().join(".damaged/log/0000000057");
        fs::create_dir_all(&dir).unwrap();
        let label = if at == 0 { format!("275.from-{}", fourth(Format::V1)) } else { "275.whole".to_owned() };
        symlink(outside.join("new"), dir.join(&label)).unwrap();
        let (_, out) = place.check(&[action, "--write"]);
        assert!(out.contains(&format!("{label}.1\n")), "{out}");
        assert_ne!(fs::read(&path).unwrap(), bytes);
        assert_eq!((fs::read(&secret).unwrap(), files(&outside).len()), (bytes.clone(), 1));
        // The lock is no link either.
        fs::write(&path, &bytes).unwrap();
        fs::remove_file(place.data().join(data_lock::FILE)).unwrap();
        symlink(&secret, place.data().join(data_lock::FILE)).unwrap();
        assert_eq!(place.check(&[action, "--write"]).0, 4);
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_lock_that_is_a_pipe_is_not_waited_for() {
    let place = Place::new();
    let mut bytes = place.bytes(Format::V1, &records());
    bytes[fourth(Format::V1)] ^= 1;
    let path = place.write(number(), &bytes);
    nix::unistd::mkfifo(&place.data().join(data_lock::FILE), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(place.check(&["--salvage", "--write"]).0, 4);
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn the_report_as_json_is_json_whatever_the_directory_is_called() {
    use std::os::unix::ffi::OsStringExt;
    let place = Place::new();
    let mut bytes = place.bytes(Format::V1, &records());
    bytes[fourth(Format::V1)] ^= 1;
    place.write(number(), &bytes);
    // A name of Latin-1.
    let data = place.dir.path().join(OsString::from_vec(b"donn\xe9es".to_vec()));
    fs::rename(place.data(), &data).unwrap();
    for action in [&["--json"][..], &["--json", "--salvage", "--write"]] {
        let (_, out) = run_with(action, &data);
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["damaged"][0]["bucket"], "0000000057/275", "{out}");
        assert!(report["damaged"][0]["path"].as_str().unwrap().ends_with("donn\u{fffd}es/log/0000000057/275"));
    }
}

#[test]
fn a_file_of_several_names_is_not_cut_under_the_others() {
    let place = Place::new();
    let mut damaged = place.bytes(Format::V1, &records());
    damaged[fourth(Format::V1)] ^= 1;
    let mut header = place.bytes(Format::V1, &records());
    header[3] ^= 1;
    for (bytes, repaired, kept) in [(damaged, 4, 8), (header, 3, 9)] {
        let path = place.write(number(), &bytes);
        // As `cp -al` makes a snapshot.
        let snapshot = place.dir.path().join("snapshot");
        fs::hard_link(&path, &snapshot).unwrap();
        assert_eq!(place.check(&["--repair", "--write"]).0, repaired);
        assert_eq!(fs::read(&path).unwrap() == bytes, repaired == 4);
        place.check(&["--salvage", "--write"]);
        assert_eq!((place.check(&[]).0, read(&path).len()), (0, kept));
        assert_eq!(fs::read(&snapshot).unwrap(), bytes);
        fs::remove_file(&snapshot).unwrap();
    }
}

#[test]
fn what_an_interrupted_run_left_is_taken_away_by_the_next() {
    let place = Place::new();
    let path = place.write(number(), &place.bytes(Format::V1, &records()));
    let left = ["repair", "salvage"].map(|suffix| PathBuf::from(format!("{}.{suffix}", path.display())));
    left.iter().for_each(|path| fs::write(path, "half").unwrap());
    assert!(place.check(&["--repair"]).1.contains("2 other files left alone"));
    assert!(left.iter().all(|path| path.exists()));
    place.check(&["--repair", "--write"]);
    assert!(!left.iter().any(|path| path.exists()));
    assert_eq!(read(&path), records());
}

#[test]
fn a_file_that_is_named_several_times_is_read_once() {
    let place = Place::new();
    let path = place.write(number(), &place.bytes(Format::V1, &records()));
    let (data, slot) = (place.data(), path.parent().unwrap().to_owned());
    let names = [&data, &slot, &path].map(|path| path.to_str().unwrap());
    for [first, second] in [[names[0], names[0]], [names[0], names[2]], [names[2], names[0]], [names[1], names[2]]] {
        let (code, out) = run_with(&[first, second], &path);
        assert!(code == 0 && out.starts_with("1 files, 9 records"), "{first} {second}: {out}");
    }
}

#[test]
fn a_data_directory_may_be_named_by_a_link() {
    let place = Place::new();
    place.write(number(), &place.bytes(Format::V1, &records()));
    let link = place.dir.path().join("link");
    std::os::unix::fs::symlink(place.data(), &link).unwrap();
    assert!(run_with(&[], &link).1.starts_with("1 files, 9 records"));
}

#[test]
fn names_that_are_none_of_the_nodes_are_counted() {
    let place = Place::new();
    place.write(number(), &place.bytes(Format::V1, &records()));
    for dir in ["bad name!/0000000057", "log/notaslot", ".hidden/log", "log/0000000057/dir"] {
        fs::create_dir_all(place.data().join(dir)).unwrap();
    }
    fs::write(place.data().join("bad name!/0000000057/275"), "not read").unwrap();
    for file in ["readme.txt", "checkpoint.dat", ".catalogue", "log/note"] {
        fs::write(place.data().join(file), "text").unwrap();
    }
    let (code, out) = place.check(&[]);
    let left = "2 other files left alone; 3 other directories left alone\n";
    assert!(code == 0 && out.starts_with("1 files, ") && out.ends_with(left), "{code}: {out}");
    let (_, out) = place.check(&["--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["totals"]["other_files"], &report["totals"]["other_directories"]), (&2.into(), &3.into()));
}
