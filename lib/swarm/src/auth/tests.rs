#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::golden::{Line, conversation, unhex};
use crate::neo::frame::{HEADER, MAX_BODY, Step};

const ZERO: ClientKey = ClientKey([0; KEY]);

fn credentials() -> Credentials {
    let mut credentials = Credentials::default();
    credentials.insert("test", ZERO).unwrap();
    credentials.insert("admin", ZERO).unwrap();
    credentials.insert("other", ClientKey([1; KEY])).unwrap();
    credentials
}

#[test]
fn the_code_is_the_published_one() {
    let expected = "a8d52d1211ec142e79c5ed261abdc7a66a0168facb956a4f1668ba3946c7acde\
                    71857f4ca96b4506ad7f359e5f9bad5d3f54666e9afbfaafededb818530e05c5";
    assert_eq!(code(&ZERO, 1_700_000_000, [1, 2, 3, 4])[..], unhex(expected));
}

fn body(line: &Line) -> &[u8] {
    match frame::next(&line.bytes, MAX_BODY) {
        Ok(Step::Message { kind: Kind::Authentication, body, consumed }) if consumed == line.bytes.len() => body,
        other => panic!("{}: {other:?}", line.note),
    }
}

/// Replays the recorded connection: what each side reads is what the other meant, and writes the same bytes.
fn replayed(lines: &[Line], conn: u64, now: u64) -> (Result<(), AuthError>, bool) {
    let mut lines = lines.iter().filter(|line| line.conn == conn && line.bytes.len() > HEADER);
    let mut again = Vec::new();
    let timestamp = read_time(body(lines.next().unwrap())).unwrap();
    put_time(&mut again, timestamp);
    let nonce = lines.next().unwrap();
    put_nonce(&mut again, read_nonce(body(nonce)).unwrap());
    let proof = lines.next().unwrap();
    let (name, sent) = read_proof(body(proof)).unwrap();
    put_proof(&mut again, name, sent);
    let verdict = lines.next().unwrap();
    let accepted = read_verdict(body(verdict)).unwrap();
    put_verdict(&mut again, accepted);
    assert!(again.ends_with(&[&nonce.bytes[..], &proof.bytes, &verdict.bytes].concat()));
    let nonce = read_nonce(body(nonce)).unwrap();
    (verify(&credentials(), name, timestamp, nonce, sent, now), accepted)
}

#[test]
fn a_recorded_client_is_accepted() {
    let lines = conversation("dht-neo-connect");
    assert_eq!(replayed(&lines, 1, 1_795_240_294), (Ok(()), true));
    assert_eq!(replayed(&lines, 1, 1_795_240_293 + 1801), (Err(AuthError::ClockDifference(1801)), true));
}

#[test]
fn recorded_rejections_have_their_reasons() {
    let lines = conversation("neo-auth-rejected");
    let now = 1_795_240_294;
    let reasons = [
        Err(AuthError::WrongCode),
        Err(AuthError::UnknownName),
        Err(AuthError::EmptyName),
        Err(AuthError::InvalidTime(0)),
        Err(AuthError::ClockDifference(1801)),
        Err(AuthError::ClockDifference(1802)),
        Err(AuthError::InvalidTime(1 << 63)),
        Ok(()),
        Err(AuthError::LongName(101)),
    ];
    for (conn, reason) in (1..).zip(reasons) {
        assert_eq!(replayed(&lines, conn, now), (reason, reason.is_ok()), "connection {conn}");
    }
}

#[test]
fn only_the_whole_right_code_is_accepted() {
    let nonce = [9, 8, 7, 6];
    let right = code(&ZERO, 1000, nonce);
    let all = credentials();
    assert_eq!(verify(&all, b"test", 1000, nonce, &right, 1000), Ok(()));
    for bit in 0..CODE * 8 {
        let mut wrong = right;
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(verify(&all, b"test", 1000, nonce, &wrong, 1000), Err(AuthError::WrongCode), "{bit}");
    }
    assert_eq!(verify(&all, b"test", 1001, nonce, &right, 1000), Err(AuthError::WrongCode));
    assert_eq!(verify(&all, b"test", 1000, [9, 8, 7, 7], &right, 1000), Err(AuthError::WrongCode));
    assert_eq!(verify(&all, b"other", 1000, nonce, &right, 1000), Err(AuthError::WrongCode));
    assert_eq!(verify(&all, b"Test", 1000, nonce, &right, 1000), Err(AuthError::UnknownName));
    // Not even with the key that stands in for an unknown name.
    assert_eq!(verify(&Credentials::default(), b"test", 1000, nonce, &right, 1000), Err(AuthError::UnknownName));
}

#[test]
fn clocks_differ_by_half_an_hour_at_most() {
    let nonce = [0; NONCE];
    let at = |timestamp: u64, now: u64| {
        verify(&credentials(), b"test", timestamp, nonce, &code(&ZERO, timestamp, nonce), now)
    };
    assert_eq!(at(10_000, 10_000 + 1800), Ok(()));
    assert_eq!(at(10_000 + 1800, 10_000), Ok(()));
    assert_eq!(at(10_000, 10_000 + 1860), Err(AuthError::ClockDifference(1860)));
    assert_eq!(at(10_000 + 1860, 10_000), Err(AuthError::ClockDifference(1860)));
    assert_eq!(at(0, 0), Err(AuthError::InvalidTime(0)));
    assert_eq!(at(u64::MAX, u64::MAX), Err(AuthError::InvalidTime(u64::MAX)));
}

#[test]
fn messages_have_exactly_their_length() {
    for length in (0..20).filter(|length| *length != 8) {
        assert_eq!(read_time(&vec![0; length]), Err(Malformed));
    }
    for length in (0..20).filter(|length| *length != 4) {
        assert_eq!(read_nonce(&vec![0; length]), Err(Malformed));
    }
    for length in (0..20).filter(|length| *length != 1) {
        assert_eq!(read_verdict(&vec![0; length]), Err(Malformed));
    }
    let mut out = Vec::new();
    put_proof(&mut out, b"name", &[7; CODE]);
    let proof = &out[HEADER..];
    assert_eq!(read_proof(proof), Ok((&b"name"[..], &[7; CODE])));
    for cut in 0..proof.len() {
        assert_eq!(read_proof(&proof[..cut]), Err(Malformed));
    }
    assert_eq!(read_proof(&[proof, &[0]].concat()), Err(Malformed));
    let hostile = [&u64::MAX.to_le_bytes()[..], &[0; 80]].concat();
    assert_eq!(read_proof(&hostile), Err(Malformed));
}

#[test]
fn nothing_that_is_logged_is_raw_or_secret() {
    assert_eq!(printable(b"name").to_string(), "name");
    assert_eq!(printable(b"a\nb\x1b[31m\xff").to_string(), "a\\nb\\x1b[31m\\xff");
    assert_eq!(printable(&[b'x'; 900]).to_string().len(), MAX_NAME);
    assert_eq!(format!("{:?}", ClientKey([0xab; KEY])), "ClientKey(..)");
    assert_eq!(format!("{:?}", credentials()), "Credentials { clients: 3 }");
}

fn line(name: &str, digits: usize) -> String {
    format!("{name}:{}\n", "aB".repeat(digits / 2))
}

#[test]
fn a_credentials_file_has_a_name_and_a_key_a_line() {
    let file =
        [line("test", 256), "\n".into(), line("a.b-c@d", 256).replace('\n', "\r\n"), line(&"x".repeat(100), 256)]
            .concat();
    let read = Credentials::parse(file.trim_end().as_bytes()).unwrap();
    assert_eq!((read.len(), read.is_empty()), (3, false));
    assert_eq!(read.get(b"test"), Some(&ClientKey([0xab; KEY])));
    assert_eq!(read.get(b"a.b-c@d"), Some(&ClientKey([0xab; KEY])));
    assert_eq!(read.get(b""), None);
    assert!(Credentials::parse(b"").unwrap().is_empty());
    assert!(Credentials::parse(b"\n\n").unwrap().is_empty());
}

#[test]
fn a_wrong_credentials_file_tells_the_line() {
    let after = |wrong: &str| [&line("first", 256), "\n", wrong].concat();
    for (wrong, problem) in [
        ("nonsense".to_owned(), Problem::NoSeparator),
        (line("", 256), Problem::NameLength(0)),
        (line(&"x".repeat(101), 256), Problem::NameLength(101)),
        (line("a b", 256), Problem::NameCharacter),
        (line("a\tb", 256), Problem::NameCharacter),
        (line("ä", 256), Problem::NameCharacter),
        (line("short", 254), Problem::KeyLength(254)),
        (line("long", 258), Problem::KeyLength(258)),
        (line("none", 0), Problem::KeyLength(0)),
        (line("two:names", 256), Problem::KeyLength(262)),
        (line("digit", 256).replace("aB\n", "aG\n"), Problem::KeyDigit),
        (line("sign", 256).replace("aB\n", "+B\n"), Problem::KeyDigit),
        (line("first", 256), Problem::Duplicate),
    ] {
        let refused = Credentials::parse(after(&wrong).as_bytes()).unwrap_err();
        assert_eq!(refused, CredentialsError { line: 3, problem });
        assert!(refused.to_string().starts_with("line 3: "), "{refused}");
    }
    let long = vec![b'\n'; MAX_CREDENTIALS + 1];
    assert_eq!(Credentials::parse(&long).unwrap_err().problem, Problem::TooLong);
    assert!(Credentials::parse(&long[1..]).is_ok());
}

#[test]
fn a_client_has_one_key() {
    let (name, key) = Credentials::parse_single(line("me", 256).as_bytes()).unwrap();
    assert_eq!((name.as_str(), key), ("me", ClientKey([0xab; KEY])));
    let refused = |file: &str| Credentials::parse_single(file.as_bytes()).map(|_| ()).unwrap_err();
    assert_eq!(refused("\n"), CredentialsError { line: 1, problem: Problem::Missing });
    let two = [line("me", 256), line("you", 256)].concat();
    assert_eq!(refused(&two), CredentialsError { line: 2, problem: Problem::Second });
    assert_eq!(refused("me"), CredentialsError { line: 1, problem: Problem::NoSeparator });
}

#[test]
fn a_name_that_no_client_can_have_is_not_inserted() {
    let mut credentials = Credentials::default();
    assert_eq!(credentials.insert("", ZERO), Err(Problem::NameLength(0)));
    assert_eq!(credentials.insert("a:b", ZERO), Err(Problem::NameCharacter));
    assert!(credentials.is_empty());
}
