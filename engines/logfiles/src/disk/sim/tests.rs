#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use super::*;
use crate::disk::SystemDisk;

fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.create(path).unwrap();
    file.write_all_at(bytes, file.len().unwrap()).unwrap();
    file
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap()];
    let count = file.read_at(&mut bytes, 0)?;
    assert_eq!(count, bytes.len());
    Ok(bytes)
}

/// What every disk does.
fn contract(disk: &dyn Disk, root: &Path) {
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    let (dir, file, other) = (root.join("a/b"), root.join("a/b/file"), root.join("a/other"));
    assert_eq!(kind(disk.open(&file).map(|_| ())), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.create(&file).map(|_| ())), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.stat(&dir).map(|_| ())), io::ErrorKind::NotFound);
    disk.create_dirs(&dir).unwrap();
    disk.create_dirs(&dir).unwrap();
    let open = write(disk, &file, b"hello");
    open.write_all_at(b"LL", 2).unwrap();
    open.write_all_at(b"!", 7).unwrap();
    assert_eq!(read(disk, &file).unwrap(), b"heLLo\0\0!");
    let mut part = [0; 4];
    assert_eq!(open.read_at(&mut part, 6).unwrap(), 2);
    assert_eq!(open.read_at(&mut part, 100).unwrap(), 0);
    open.set_len(3).unwrap();
    open.sync().unwrap();
    disk.sync_dir(&dir).unwrap();
    assert_eq!((open.len().unwrap(), disk.stat(&file).unwrap().length), (3, 3));
    assert!(disk.stat(&dir).unwrap().is_dir && !disk.stat(&file).unwrap().is_dir);
    assert_eq!(disk.list(&dir).unwrap(), [Named { name: "file".into(), is_dir: false, is_file: true }]);
    assert_eq!(
        disk.list(root.join("a").as_path()).unwrap(),
        [Named { name: "b".into(), is_dir: true, is_file: false }]
    );
    assert_eq!(kind(disk.remove_dir(&dir)), io::ErrorKind::DirectoryNotEmpty);
    write(disk, &other, b"goes");
    disk.rename(&file, &other).unwrap();
    assert_eq!(read(disk, &other).unwrap(), b"heL");
    assert_eq!(kind(disk.rename(&file, &other)), io::ErrorKind::NotFound);
    disk.remove_dir(&dir).unwrap();
    disk.remove(&other).unwrap();
    assert_eq!(kind(disk.remove(&other)), io::ErrorKind::NotFound);
    // What is open stays readable.
    assert_eq!(open.read_at(&mut part, 0).unwrap(), 3);
    disk.create_dirs(&root.join("x/y")).unwrap();
    write(disk, &root.join("x/y/z"), b"moves");
    disk.rename(&root.join("x"), &root.join("w")).unwrap();
    assert_eq!(read(disk, &root.join("w/y/z")).unwrap(), b"moves");
}

#[test]
fn it_does_what_the_disk_of_the_machine_does() {
    let dir = tempfile::tempdir().unwrap();
    contract(&SystemDisk, dir.path());
    contract(&SimDisk::new(), Path::new("/data"));
}

#[test]
fn what_was_not_synced_is_forgotten_in_a_power_cut() {
    let disk = SimDisk::new();
    let (dir, path) = (Path::new("/data"), Path::new("/data/file"));
    disk.create_dirs(dir).unwrap();
    let file = write(&disk, path, b"first");
    file.sync().unwrap();
    assert!(disk.crash(Crash::Loses, 0).files().is_empty(), "its name is not durable");
    disk.sync_dir(dir).unwrap();
    assert!(disk.crash(Crash::Loses, 0).files().is_empty(), "its directory's name is not durable");
    disk.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(b"second", 5).unwrap();
    assert_eq!(read(&disk.crash(Crash::Loses, 0), path).unwrap(), b"first");
    assert_eq!(read(&disk.crash(Crash::Keeps, 0), path).unwrap(), b"firstsecond");
    assert_eq!(read(&disk.kill(), path).unwrap(), b"firstsecond");
    assert_eq!(read(&disk.kill().crash(Crash::Loses, 0), path).unwrap(), b"first");
    for seed in 0..100 {
        let length = read(&disk.crash(Crash::Any, seed), path).unwrap().len();
        assert!((5..=11).contains(&length));
    }
    disk.rename(path, Path::new("/data/other")).unwrap();
    let names: Vec<_> = (0..100).map(|seed| disk.crash(Crash::Any, seed).files()[0].0.clone()).collect();
    assert!(names.iter().any(|name| name == "/data/file") && names.iter().any(|name| name == "/data/other"));
    assert_eq!(disk.crash(Crash::Any, 7).files(), disk.crash(Crash::Any, 7).files());
}

#[test]
fn it_fills_up_and_has_room_again() {
    let disk = SimDisk::new();
    let file = write(&disk, Path::new("/file"), b"0123");
    disk.set_free(Some(4));
    let full = file.write_all_at(b"456789", 4).unwrap_err();
    assert_eq!((full.kind(), file.len().unwrap()), (io::ErrorKind::StorageFull, 8));
    file.write_all_at(b"abcdefgh", 0).unwrap();
    file.set_len(4).unwrap();
    file.write_all_at(b"ijkl", 4).unwrap();
    assert_eq!(file.write_all_at(b"m", 8).unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.remove(Path::new("/file")).unwrap();
    write(&disk, Path::new("/other"), b"12345678");
}

#[test]
fn calls_fail_as_asked_and_the_power_goes_in_the_middle_of_a_write() {
    let disk = SimDisk::new();
    let file = write(&disk, Path::new("/file"), b"0123");
    disk.fail(Call::Sync, 1, 2, io::ErrorKind::TimedOut);
    let synced: Vec<_> = (0..4).map(|_| file.sync().is_ok()).collect();
    assert_eq!(synced, [true, false, false, true]);
    // What a failed one has not made durable no later one does.
    disk.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(b"abcd", 0).unwrap();
    disk.fail(Call::Sync, 0, 1, io::ErrorKind::TimedOut);
    assert!(file.sync().is_err() && file.sync().is_ok());
    assert_eq!(disk.crash(Crash::Loses, 0).files()[0].1, b"0123");
    file.write_all_at(b"0123", 0).unwrap();
    disk.cut_after(2);
    file.sync().unwrap();
    assert!(file.write_all_at(b"4567", 4).is_err() && disk.is_cut());
    assert!(file.len().is_ok() && disk.open(Path::new("/file")).is_err());
    assert_eq!(disk.kill().files()[0].1, b"012345");
}
