#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use super::*;

const SERVER: &str = "[Server]\nneoport = 23100\n";

fn config(text: &str) -> Config {
    Config::parse(Path::new("etc/config.ini"), text, Vec::new()).unwrap()
}

fn read(text: &str) -> Result<LogfilesSettings, ConfigError> {
    let config = config(text);
    let settings = LogfilesSettings::read(&config)?;
    config.finish()?;
    Ok(settings)
}

#[test]
fn the_defaults_are_the_published_ones() {
    let settings = read(SERVER).unwrap();
    assert_eq!((settings.range, settings.cpu), (KeyRange::ALL, None));
    assert_eq!((settings.read_threads, settings.write_buffer), (20, 65_536));
    assert_eq!((settings.sync, settings.compress), (SyncMode::Interval, Compress::Auto));
    assert_eq!((settings.write_after.as_millis(), settings.checkpoint.as_secs()), (1000, 300));
    assert_eq!((settings.unit, settings.thresholds), (Unit::Seconds, Thresholds::default()));
    assert_eq!((settings.format_v2.of("any"), settings.delete_after.of("any")), (None, None));
    let empty = "[Performance]\n[Options_Dls]\n[Options_LogFiles]\n[Sync]\n[ChannelFormat]\n[CompressAfterDays]\n\
        [DeleteAfterDays]\n[Retention]\n[Report]\n";
    assert_eq!(read(&format!("{SERVER}{empty}")).unwrap(), settings);
}

#[test]
fn all_keys_are_read() {
    let settings = read(&format!(
        "{SERVER}cpu = 2\nminval = 0x10\nmaxval = 00000000FFFFFFFF\n\
         [Performance]\nfile_buffer_size = 5\ncheckpoint_commit_seconds = 7\nnumber_of_thread_workers = 3\n\
         compress = never\n[Options_LogFiles]\nwrite_buffer_size = 8192\n\
         [Sync]\nmode = always\nwrite_ms = 5\nmax_open_files = 9\nmax_queue_bytes = 2000000\n\
         [ChannelFormat]\n* = v2\nold_ = v1\n[CompressAfterDays]\n* = 90\naudit_ = never\n\
         [DeleteAfterDays]\nevents- = 397\n[Retention]\nunit = ms\nlevel = 9\n\
         [Report]\ndisk_free_warning = 3\ndisk_free_major = 2\ndisk_free_critical = 1\nsync_late_warning = 1\n\
         open_files_critical = 99\n"
    ))
    .unwrap();
    assert_eq!((settings.range, settings.cpu), (KeyRange { low: 16, high: 0xffff_ffff }, Some(2)));
    assert_eq!((settings.read_threads, settings.compress), (3, Compress::Never));
    assert_eq!((settings.sync, settings.write_after.as_millis()), (SyncMode::Always, 5));
    assert_eq!((settings.write_buffer, settings.checkpoint.as_secs()), (8192, 7));
    assert_eq!((settings.open_files, settings.queue_bytes), (9, 2_000_000));
    assert_eq!([settings.format_v2.of("old_1"), settings.format_v2.of("new")], [Some(&false), Some(&true)]);
    let compress = &settings.compress_after;
    assert_eq!([compress.of("audit_x"), compress.of("audit")], [Some(&None), Some(&Some(90))]);
    assert_eq!([settings.delete_after.of("events-2026"), settings.delete_after.of("e")], [Some(&Some(397)), None]);
    assert_eq!((settings.unit.per_second(), settings.level), (1000, 9));
    assert_eq!(settings.thresholds.disk_free, Levels::falling([3.0, 2.0, 1.0]));
    assert_eq!(settings.thresholds.sync_late, Levels::rising([1.0, 120.0, 600.0]));
    assert_eq!(settings.thresholds.open_files, Levels::rising([80.0, 90.0, 99.0]));
}

#[test]
fn the_section_that_the_published_node_reads_counts_before_that_of_its_samples() {
    let both = "[Options_LogFiles]\nwrite_buffer_size = 8192\n[Options_Dls]\nwrite_buffer_size = 16384\n";
    assert_eq!(read(&format!("{SERVER}{both}")).unwrap().write_buffer, 16_384);
}

#[test]
fn wrong_values_are_refused_and_named() {
    for (text, named) in [
        ("minval = 2\nmaxval = 1\n", "[Server] minval = 2: expected at most maxval"),
        ("minval = 12345678901234567\n", "1 to 16 hexadecimal digits"),
        ("cpu = x\n", "a number"),
        ("[Performance]\nnumber_of_thread_workers = 0\n", "from 1 to 256"),
        ("[Performance]\ncheckpoint_commit_seconds = 0\n", "from 1"),
        ("[Performance]\ncompress = perhaps\n", "auto, always, never"),
        ("[Options_Dls]\nwrite_buffer_size = 1\n", "from 4096 to 1048576"),
        ("[Options_LogFiles]\nbuffer = 1\n", "no such key"),
        ("[Sync]\nmode = never\n", "interval, always"),
        ("[Sync]\nwrite_ms = 0\n", "from 1 to 60000"),
        ("[ChannelFormat]\n* = v3\n", "v1, v2"),
        ("[ChannelFormat]\nbad/name = v1\n", "the beginning of a channel's name"),
        ("[CompressAfterDays]\n* = 0\n", "days from 1 to 36525, or never"),
        ("[DeleteAfterDays]\nx = soon\n", "[DeleteAfterDays] x = soon: expected a number of days"),
        ("[DeleteAfterDays]\nx =\n", "a number of days"),
        ("[Retention]\nunit = days\n", "s, ms, us, ns"),
        ("[Retention]\nlevel = 30\n", "from 1 to 19"),
        ("[Report]\ndisk_free_critical = 15\n", "at least the level below it"),
        ("[Report]\nsync_late_warning = 5000\n", "at most the level above it"),
        ("[Report]\nopen_files_major = 101\n", "from 0 to 100"),
    ] {
        let error = read(&format!("{SERVER}{text}")).unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn what_a_new_instance_begins_with_is_the_defaults() {
    let text = include_str!("../../../../etc/logfiles/config.ini");
    let settings = LogfilesSettings::read(&config(text)).unwrap();
    assert_eq!(settings, read(SERVER).unwrap());
    // The same with every key that is there as a comment, but for the examples.
    let all: String = text
        .lines()
        .map(|line| line.strip_prefix(';').filter(|line| !line.starts_with("example_")).unwrap_or(line))
        .fold(String::new(), |all, line| all + line + "\n");
    let config = config(&all);
    let mut settings = LogfilesSettings::read(&config).unwrap();
    settings.format_v2 = Rules::default();
    assert_eq!(settings, read(SERVER).unwrap());
}
