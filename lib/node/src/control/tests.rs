#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::cell::RefCell;

use overstory_swarm::auth::Credentials;
use tokio::task::LocalSet;

use super::commands::ProgramCommands;
use super::credentials::CredentialCommands;
use super::*;
use crate::config::Config;
use crate::logs::{LogSettings, Logs};

const KEY: &str = "00";

fn credentials(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name}:{}\n", KEY.repeat(128))).collect()
}

async fn ask(path: &Path, text: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Runs `body` beside a socket that serves `commands`.
async fn beside<Fut: Future>(path: &Path, commands: impl Commands, body: impl FnOnce(PathBuf) -> Fut) {
    let socket = ControlSocket::bind(path, None).unwrap();
    LocalSet::new()
        .run_until(async {
            let serving = tokio::task::spawn_local(socket.serve(commands));
            body(path.to_owned()).await;
            serving.abort();
            let _ = serving.await;
        })
        .await;
    assert!(!path.exists(), "its file goes with the socket");
}

#[tokio::test]
async fn credentials_are_listed_and_updated_and_a_wrong_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    fs::write(&file, credentials(&["b", "a"])).unwrap();
    let known = Rc::new(RefCell::new(Credentials::default()));
    let commands = CredentialCommands { path: file.clone(), credentials: Rc::clone(&known) };
    beside(&dir.path().join("node.socket"), commands, |socket| async move {
        assert_eq!(ask(&socket, "list-credentials\n").await, "Registered credentials:\n");
        assert_eq!(ask(&socket, "update-credentials\n").await, "Credentials updated.\n");
        assert_eq!(ask(&socket, "list-credentials\n").await, "Registered credentials:\na\nb\n");
        fs::write(&file, "c:12\n").unwrap();
        let answer = ask(&socket, "update-credentials\n").await;
        assert!(answer.starts_with("Error updating credentials: ") && answer.ends_with('\n'), "{answer}");
        assert!(answer.contains("line 1") && !answer.contains(":12"), "{answer}");
        // Everybody was locked out by a file that was emptied by accident.
        fs::write(&file, "\n").unwrap();
        let answer = ask(&socket, "update-credentials\n").await;
        assert!(answer.starts_with("Error updating credentials: ") && answer.contains("names no client"), "{answer}");
        assert_eq!(known.borrow().len(), 2);
        assert_eq!(ask(&socket, "list-credentials all\n").await, "Error: No command arguments expected\n");
        assert_eq!(ask(&socket, "nonsense\nlist-credentials x\n").await, {
            "Command not found\nError: No command arguments expected\n"
        });
    })
    .await;
}

#[tokio::test]
async fn files_are_reopened_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("root.log");
    let text = format!("[LOG.Root]\nfile = {}\n", file.display());
    let config = Config::parse(Path::new("c"), &text, Vec::new()).unwrap();
    let logs = Logs::start(&LogSettings::read(&config).unwrap(), "dhtnode", &[]).unwrap();
    let commands = ProgramCommands { name: "dhtnode", logs };
    beside(&dir.path().join("unix.socket"), commands, |socket| async move {
        fs::rename(&file, dir.path().join("root.log.1")).unwrap();
        assert_eq!(ask(&socket, &format!("reopen_files {}\n", file.display())).await, "ACK\n");
        assert!(file.exists());
        assert_eq!(ask(&socket, "reopen_files other.log\n").await, "ERROR: no log file is called 'other.log'\n");
        assert_eq!(ask(&socket, "reopen_files\n").await, "ERROR: no file named\n");
        assert!(ask(&socket, "show_version\n").await.starts_with("dhtnode version "));
        assert_eq!(ask(&socket, "\n").await, "Command not found\n");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_says_nothing_and_one_that_says_too_much_hold_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let commands = CredentialCommands { path: "none".into(), credentials: Rc::default() };
    beside(&dir.path().join("s"), commands, |socket| async move {
        let silent = UnixStream::connect(&socket).await.unwrap();
        let mut endless = UnixStream::connect(&socket).await.unwrap();
        let flood = vec![b'x'; 1 << 20];
        // It is closed in the middle, so that the rest cannot be written.
        let _ = endless.write_all(&flood).await;
        assert_eq!(ask(&socket, "list-credentials\n").await, "Registered credentials:\n");
        let mut answer = Vec::new();
        let _ = endless.read_to_end(&mut answer).await;
        assert!(answer.is_empty());
        drop(silent);
    })
    .await;
}

#[test]
fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind");
    let first = ControlSocket::bind(&path, Some(0o600)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(ControlSocket::bind(&path, None).unwrap_err().to_string().contains("another process serves it"));
    assert!(path.exists());
    drop(first);
    assert!(!path.exists());
    fs::write(&path, "mine").unwrap();
    assert!(ControlSocket::bind(&path, None).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}
