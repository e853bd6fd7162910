//! Tests of the configuration.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use super::sections::{OperationSection, ReportSection, ServerSection, StatsSection};
use super::*;

fn config(text: &str, overrides: &[&str]) -> Result<Config, ConfigError> {
    let overrides = overrides.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    Config::parse(Path::new("etc/config.ini"), text, overrides)
}

const SERVER: &str = "[Server]\naddress = 127.0.0.1\nport = 21000\nunix_socket_path = dhtnode.socket\n";

#[test]
fn errors_name_file_line_section_key_value_and_what_is_allowed() {
    for (text, overrides, expected) in [
        ("[Server]\naddress = here\n", &[][..], "etc/config.ini:2: [Server] address = here: expected an IPv4 address"),
        ("[Server]\n", &[], "etc/config.ini: [Server] address is missing: an IPv4 address"),
        (
            "[Server]\naddress = 127.0.0.1\nport = 70000\n",
            &[],
            "etc/config.ini:3: [Server] port = 70000: expected a number from 0 to 65535",
        ),
        (SERVER, &["Server.port=x"], "-O: [Server] port = x: expected a number from 0 to 65535"),
        (
            "[Server]\naddress = 127.0.0.1\nprot = 24000\n",
            &[],
            "etc/config.ini: [Server] port is missing: a number from 0 to 65535 (is 'prot' in line 3 meant to be it?)",
        ),
        (
            "[Server]\naddress = 127.0.0.1\nport = 1\n",
            &[],
            "etc/config.ini: [Server] unix_socket_path is missing: the path of a socket",
        ),
        (SERVER, &["Server.data_dir ="], "-O: [Server] data_dir = : expected a directory"),
        (SERVER, &["Server.legacy = maybe"], "-O: [Server] legacy = maybe: expected true or false"),
    ] {
        let config = config(text, overrides).unwrap();
        assert_eq!(ServerSection::read(&config).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_published_server_section_gets_the_published_defaults() {
    let server = ServerSection::read(&config(SERVER, &[]).unwrap()).unwrap();
    assert_eq!((server.connection_limit, server.backlog), (5000, 2048));
    assert_eq!(server.data_dir, Path::new("data"));
    assert!(server.legacy && server.legacy_address.is_loopback());
}

#[test]
fn an_override_stands_over_the_file_and_the_last_one_counts() {
    let config = config(SERVER, &["Server.port = 1", "Server.port=2", "LOG.Root.level = warn"]).unwrap();
    assert_eq!(ServerSection::read(&config).unwrap().port, 2);
    assert_eq!(config.section("LOG.Root").text("level"), Some("warn"));
    assert_eq!(config.section_names(|name| name.starts_with("LOG")), ["LOG.Root"]);
}

#[test]
fn an_override_needs_section_key_and_value() {
    for text in ["port = 1", "Server.port", ".port = 1", "Server. = 1", ""] {
        assert!(matches!(text.parse::<Override>(), Err(ConfigError::BadOverride(_))), "{text}");
    }
}

#[test]
fn what_the_node_writes_itself_cannot_be_overridden() {
    for key in ["minval", "maxval"] {
        let error = config(SERVER, &[&format!("Server.{key} = 0")]).unwrap_err();
        assert!(error.to_string().contains("change the file"), "{error}");
        assert!(!error.is_unreadable());
    }
}

#[test]
fn what_nobody_reads_is_told_with_its_line() {
    let text = format!("{SERVER}prot = 1\n[STATS]\ninterval = 5\n[Sever]\na = 1\n");
    let config = config(&text, &["Server.x = 1"]).unwrap();
    ServerSection::read(&config).unwrap();
    assert_eq!(StatsSection::read(&config).unwrap().interval.as_secs(), 5);
    assert_eq!(
        config.finish().unwrap_err().to_string(),
        "etc/config.ini:5: [Server] prot: no such key\netc/config.ini:8: [Sever]: no such section\n-O: [Server] x: no such key"
    );
}

#[test]
fn a_section_is_named_by_its_directory_and_its_levels_are_in_order() {
    let report = ReportSection::read(&config("", &[]).unwrap(), "dht-a").unwrap();
    assert_eq!((report.instance.as_str(), report.enabled), ("dht-a", true));
    assert_eq!(report.thresholds, sections::Thresholds::default());
    let wrong = config("[Report]\nmemory_warning = 99\n", &[]).unwrap();
    let error = ReportSection::read(&wrong, "x").unwrap_err().to_string();
    assert_eq!(error, "etc/config.ini:2: [Report] memory_warning = 99: expected at most the level above it");
    assert!(ReportSection::read(&config("[Report]\ninstance = a/b\n", &[]).unwrap(), "x").is_err());
}

#[test]
fn operation_takes_octal_modes() {
    let text = "[UNIX_SOCKET]\npath = x.sock\nmode = 660\n[PidLock]\npath = run.pid\n";
    let operation = OperationSection::read(&config(text, &[]).unwrap()).unwrap();
    assert_eq!(operation.socket_mode, Some(0o660));
    assert!(operation.version_log && operation.pid_lock.is_some());
    assert!(!operation.console && operation.admin.is_none());
    assert!(OperationSection::read(&config("[UNIX_SOCKET]\nmode = 888\n", &[]).unwrap()).is_err());
}

#[test]
fn a_file_that_cannot_be_read_is_told_apart() {
    assert!(Config::load(Path::new("/nowhere/config.ini"), Vec::new()).unwrap_err().is_unreadable());
    assert!(config("nonsense", &[]).unwrap_err().is_unreadable());
}

#[test]
fn a_neo_port_is_configured_and_another() {
    let of = |text: &str, port| {
        let config = Config::parse(Path::new("etc/config.ini"), text, Vec::new()).unwrap();
        sections::neo_port(&config, port)
    };
    let text = "[Server]\nneoport = 22001\n";
    assert_eq!(of(text, 22_000).unwrap(), 22_001);
    assert!(of(text, 22_001).is_err() && of("[Server]\nport = 5\n", 5).is_err());
}
