use std::fs;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use clap::Parser;

use super::*;
use crate::overstory_admin::add::tests::bench;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

fn said(home: &Home, line: &str) -> Result<String, String> {
    let line = Line::try_parse_from(format!("credentials {line}").split_ascii_whitespace()).unwrap();
    let mut out = Vec::new();
    let done = run(&line.command, home, &mut out);
    let out = String::from_utf8(out).unwrap();
    done.map(|()| out.clone()).map_err(|error| format!("{out}{error:#}"))
}

/// Answers one client at the socket of an instance; gives the line that it sent.
fn node(directory: &Path, answer: &'static str) -> JoinHandle<String> {
    let config = fs::read_to_string(directory.join("etc/config.ini")).unwrap();
    let name = config.lines().find_map(|line| line.strip_prefix("unix_socket_path = ")).unwrap();
    let listener = UnixListener::bind(directory.join(name)).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        stream.read_to_string(&mut line).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        line
    })
}

#[tokio::test]
async fn nodes_are_asked_by_their_sockets_and_failures_are_told() {
    let bench = bench(&["dht-a", "dmq-b"]);
    bench.add_any("dht a").await.unwrap();
    bench.add_any("dmq b").await.unwrap();
    let directory = |name: &str| bench.dir.path().join("srv").join(name);

    let asked = node(&directory("dht-a"), "Registered credentials:\nadmin\nreader\n");
    assert_eq!(said(&bench.home, "list dht-a"), Ok("dht-a: admin reader\n".to_owned()));
    assert_eq!(asked.join().unwrap(), "list-credentials\n");
    fs::remove_file(directory("dht-a").join("dhtnode.socket")).unwrap();

    let asked = node(&directory("dht-a"), "Credentials updated.\n");
    let told = said(&bench.home, "update").unwrap_err();
    assert_eq!(told, "dht-a: Credentials updated.\n1 of 2 nodes failed", "dmq-b does not run");
    assert_eq!(asked.join().unwrap(), "update-credentials\n");

    let _refuses = node(&directory("dmq-b"), "Error updating credentials: line 2\n");
    assert_eq!(said(&bench.home, "update dmq-b"), Err("1 of 1 nodes failed".to_owned()));
    assert!(said(&bench.home, "update a").unwrap_err().contains("an instance is KIND-NAME"));
}
