#![allow(clippy::unwrap_used, reason = "tests")]

use clap::{CommandFactory as _, Parser as _};
use overstory_swarm::key::Key;
use proptest::prelude::*;

use super::input::{self, BadInput};
use super::output::{self, escape};
use super::{Cli, Format};

const PLAIN: Format = Format { json: false, base64: false, raw: false };
const JSON: Format = Format { json: true, ..PLAIN };
const BASE64: Format = Format { base64: true, ..PLAIN };

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn what_is_looked_for_may_ignore_the_case_of_letters() {
    let parse = |options: &[&str]| {
        let front = ["swarm", "logfiles", "getrange", "c", "0"];
        Cli::try_parse_from(front.iter().chain(options))
    };
    for good in [&["--contains", "A", "--ignore-case"][..], &["--regex", "A", "--ignore-case"], &["--contains", "A"]] {
        assert!(parse(good).is_ok(), "{good:?}");
    }
    for bad in [&["--ignore-case"][..], &["--contains", "A", "--regex", "A"]] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn keys_are_decimal_hexadecimal_or_hashed() {
    assert_eq!(input::key("17", false), Ok(Key(17)));
    assert_eq!(input::key("0x00000000000000ff", false), Ok(Key(255)));
    assert_eq!(input::key("0XfF", false), Ok(Key(255)));
    assert_eq!(input::key("18446744073709551615", false), Ok(Key(u64::MAX)));
    assert_eq!(input::key("hello", true), Ok(Key(0xa430_d846_80aa_bd0b)));
    for bad in ["", "0x", "ff", "-1", "+1", "0x+1", "0x00000000000000000", "18446744073709551616", "1 "] {
        let expected = bad != "0x00000000000000000";
        assert_eq!(input::key(bad, false).is_err(), expected, "{bad:?}");
    }
}

#[test]
fn values_stay_on_their_line() {
    assert_eq!(escape("plain ä\t\n\r\\".as_bytes()), "plain ä\\t\\n\\r\\\\".as_bytes());
    assert_eq!(escape(b"\x00\x1b[31m\xff"), b"\\x00\\x1b[31m\\xff");
}

#[test]
fn wrong_records_say_what_is_wrong() {
    assert_eq!(input::record(b"17", PLAIN, false), Err(BadInput::NoTab));
    assert_eq!(input::record(b"17\ta\\q", PLAIN, false), Err(BadInput::Escape("q".to_owned())));
    assert_eq!(input::record(b"17\ta\\", PLAIN, false), Err(BadInput::Escape(String::new())));
    assert_eq!(input::record(b"17\t\\x4", PLAIN, false), Err(BadInput::Escape("x".to_owned())));
    assert_eq!(input::record(b"17\t*", BASE64, false), Err(BadInput::Base64));
    assert!(matches!(input::record(b"{}", JSON, false), Err(BadInput::Json(_))));
    assert!(matches!(input::record(br#"{"key": 1}"#, JSON, false), Err(BadInput::Json(_))));
    assert_eq!(input::record(br#"{"key": 1, "value": "a"}"#, JSON, false), Ok((Key(1), b"a".to_vec())));
}

proptest! {
    #[test]
    fn what_is_printed_can_be_read_again(key: u64, value: Vec<u8>) {
        for format in [PLAIN, JSON, BASE64] {
            let mut line = Vec::new();
            output::record(&mut line, format, None, Key(key), Some(&value)).unwrap();
            prop_assert_eq!(line.pop(), Some(b'\n'));
            prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
            prop_assert_eq!(input::record(&line, format, false), Ok((Key(key), value.clone())));
        }
    }
}

#[test]
fn lines_and_frames_of_queues_are_told_from_each_other() {
    let mut frames = Vec::new();
    for record in [&b"a\n\0b"[..], b"", &[7; 300]] {
        output::frame(&mut frames, record).unwrap();
    }
    assert!(frames.starts_with(b"\x04\0\0\0a\n\0b\0\0\0\0\x2c\x01\0\0"));
    let mut input = &frames[..];
    assert_eq!(input::frame(&mut input).unwrap().as_deref(), Some(&b"a\n\0b"[..]));
    assert_eq!(input::frame(&mut input).unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(input::frame(&mut input).unwrap().map(|record| record.len()), Some(300));
    assert_eq!(input::frame(&mut input).unwrap(), None);
    for (wrong, what) in [
        (&b"\x04\0\0"[..], "the input ends within a record"),
        (b"\x04\0\0\0abc", "the input ends within a record"),
        (b"\xff\xff\xff\xff", "more than 16777216 bytes"),
    ] {
        assert_eq!(input::frame(&mut &*wrong).unwrap_err().to_string(), what);
    }
    assert_eq!(input::value_of(b"a\\x00\\n".to_vec(), PLAIN), Ok(b"a\0\n".to_vec()));
    assert_eq!(input::value_of(br#"{"value": "a"}"#.to_vec(), JSON), Ok(b"a".to_vec()));
    assert!(input::value_of(br#"{"key": 1, "value": "a"}"#.to_vec(), JSON).is_err());
    assert_eq!(input::value_of(b"\\x00".to_vec(), Format { raw: true, ..PLAIN }), Ok(b"\\x00".to_vec()));
}

proptest! {
    #[test]
    fn what_is_printed_of_a_queue_can_be_pushed_again(value: Vec<u8>) {
        for format in [PLAIN, JSON, BASE64] {
            let mut line = Vec::new();
            output::line(&mut line, format, &value).unwrap();
            prop_assert_eq!(line.pop(), Some(b'\n'));
            prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
            prop_assert_eq!(input::value_of(line, format), Ok(value.clone()));
        }
    }
}

#[test]
fn records_of_logfiles_have_their_time_in_front() {
    let split = |line: &[u8], format| input::stamped(line, format);
    let record = |time: &str, value: &[u8]| Ok((time.to_owned(), value.to_vec()));
    assert_eq!(split(b"17\ta\\tb", PLAIN), record("17", b"a\tb"));
    assert_eq!(split(b"-1h\t", PLAIN), record("-1h", b""));
    assert_eq!(split(br#"{"timestamp": 17, "value": "a"}"#, JSON), record("17", b"a"));
    assert_eq!(split(br#"{"timestamp": "now", "base64": "AA=="}"#, JSON), record("now", b"\0"));
    assert_eq!(split(b"17", PLAIN), Err(BadInput::NoTabAfterTime));
    assert!(split(br#"{"key": 1, "value": "a"}"#, JSON).is_err());
    let mut frames = 17i64.to_le_bytes().to_vec();
    output::frame(&mut frames, b"a\n").unwrap();
    let mut input = &frames[..];
    assert_eq!(input::stamped_frame(&mut input).unwrap(), Some([&17i64.to_le_bytes()[..], b"a\n"].concat()));
    assert_eq!(input::stamped_frame(&mut input).unwrap(), None);
    for cut in 1..frames.len() {
        assert!(input::stamped_frame(&mut &frames[..cut]).is_err(), "{cut}");
    }
}

proptest! {
    #[test]
    fn what_is_printed_of_logfiles_can_be_put_again(timestamp: i64, value: Vec<u8>) {
        for format in [PLAIN, JSON, BASE64] {
            let mut line = Vec::new();
            output::stamped(&mut line, format, timestamp, &value).unwrap();
            prop_assert_eq!(line.pop(), Some(b'\n'));
            prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
            prop_assert_eq!(input::stamped(&line, format), Ok((timestamp.to_string(), value.clone())));
        }
    }
}
