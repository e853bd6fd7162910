#![allow(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use std::fs;

use super::*;

/// Exit code, standard output and standard error of a run.
fn run_with(args: &[&str], input: &[u8]) -> (u8, String, String) {
    let args = std::iter::once("tcmcli").chain(args.iter().copied()).map(OsString::from).collect();
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let code = execute(args, &mut &*input, &mut output, &mut errors);
    (code, String::from_utf8(output).unwrap(), String::from_utf8(errors).unwrap())
}

const TEXT: &str =
    "deadbeef00000abc:AAECAwQFBgcICQoLDA0ODw==\n0000000000000001:dg==\n0000000000000002:aGVsbG8gd29ybGQ=\n";
const GOLDEN: &[u8] = include_bytes!("../../../../tests/vectors/files/chan-1.direct.tcm");

#[test]
fn a_file_of_the_published_node_becomes_text_and_the_same_file_again() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("chan-1.tcm");
    let name = path.to_str().unwrap();
    fs::write(&path, GOLDEN).unwrap();
    assert_eq!(run_with(&["-r", name], b""), (0, TEXT.into(), String::new()));
    fs::write(&path, b"what was there before").unwrap();
    assert_eq!(run_with(&["-w", name], TEXT.as_bytes()), (0, String::new(), String::new()));
    assert_eq!(fs::read(&path).unwrap(), GOLDEN);
    // Without the last end of line, and with upper case.
    assert_eq!(run_with(&["-w", name], TEXT.trim_end().replace("deadbeef", "DEADBEEF").as_bytes()).0, 0);
    assert_eq!(fs::read(&path).unwrap(), GOLDEN);
    assert_eq!(run_with(&["-w", name], b"").0, 0);
    assert_eq!(fs::read(&path).unwrap(), [0; 512]);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[test]
fn wrong_text_names_its_line_and_leaves_the_file() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("c.tcm");
    fs::write(&path, GOLDEN).unwrap();
    let cases = [
        ("nonsense", "expected <16 hexadecimal digits>:<base64 value>"),
        ("", "expected <16 hexadecimal digits>:<base64 value>"),
        ("000000000000000g:dg==", "expected <16 hexadecimal digits>:<base64 value>"),
        ("0000000000000001;dg==", "expected <16 hexadecimal digits>:<base64 value>"),
        ("0000000000000001", "expected <16 hexadecimal digits>:<base64 value>"),
        ("0000000000000001:", "the value is empty"),
        ("0000000000000001:dg", "the value is not base64"),
        ("0000000000000001:dg==\r", "the value is not base64"),
    ];
    for (bad, what) in cases {
        let text = format!("0000000000000001:dg==\n{bad}\n0000000000000002:dg==\n");
        let (code, output, errors) = run_with(&["-w", path.to_str().unwrap()], text.as_bytes());
        assert_eq!((code, &*output), (1, ""));
        assert_eq!(errors, format!("tcmcli: standard input, line 2: {what}\n"));
        assert_eq!(fs::read(&path).unwrap(), GOLDEN);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}

#[test]
fn damage_is_told_with_its_offset() {
    let place = tempfile::tempdir().unwrap();
    let name = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    fs::write(name("whole.tcm"), GOLDEN).unwrap();
    fs::write(name("cut.tcm"), &GOLDEN[..100]).unwrap();
    fs::write(name("old.tcm"), [9; 512]).unwrap();
    let (cut, whole) = (name("cut.tcm"), name("whole.tcm"));
    let (code, output, errors) = run_with(&["--verify", &cut, &name("old.tcm"), &name("none.tcm"), &whole], b"");
    assert_eq!(code, 1);
    assert_eq!(output, format!("{cut}: damaged, 2 records\n{whole}: whole, 3 records\n"));
    let errors: Vec<&str> = errors.lines().collect();
    assert_eq!(errors.len(), 3);
    assert_eq!(errors[0], format!("tcmcli: {cut}: offset 89: cut short, the end mark is missing (11 bytes)"));
    assert!(errors[1].contains("old.tcm: unsupported version"), "{}", errors[1]);
    assert!(errors[2].contains("none.tcm: cannot read at offset 0: No such file"), "{}", errors[2]);
    assert_eq!(run_with(&["--verify", &whole], b"").0, 0);
    // What is whole is printed all the same.
    let (code, output, _) = run_with(&["-r", &cut], b"");
    assert_eq!((code, output.lines().count()), (1, 2));
}

#[test]
fn statistics_of_a_channel() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("c.tcm");
    fs::write(&path, GOLDEN).unwrap();
    let (code, output, errors) = run_with(&["--stats", path.to_str().unwrap()], b"");
    assert_eq!((code, &*errors), (0, ""));
    let numbers: Vec<u64> =
        output.lines().skip(1).map(|line| line.split_whitespace().next_back().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, [512, 3, 28, 1, 9, 16, 0, 0]);
}

#[test]
fn wrong_arguments_end_with_code_2() {
    for args in [&[][..], &["-r"], &["-r", "a", "-w", "b"], &["--verify"], &["--unknown"], &["a"]] {
        let (code, output, errors) = run_with(args, b"");
        assert_eq!((code, &*output), (2, ""), "{args:?}");
        assert!(errors.contains("error:"), "{errors}");
    }
    assert_eq!(run_with(&["--help"], b"").0, 0);
}

#[test]
fn a_file_that_cannot_be_made_is_told() {
    let (code, _, errors) = run_with(&["-w", "/nowhere/at/all.tcm"], TEXT.as_bytes());
    assert_eq!(code, 1);
    assert!(errors.starts_with("tcmcli: cannot write /nowhere/at/all.tcm: No such file"), "{errors}");
}
