use super::*;

#[test]
fn the_mark_names_group_and_process() {
    let environ = b"A=1\0SUPERVISOR_ENABLED=1\0SUPERVISOR_SERVER_URL=unix:///p/var/run/supervisor.sock\0\
                    SUPERVISOR_PROCESS_NAME=e-0\0SUPERVISOR_GROUP_NAME=e\0";
    let ours = Path::new("/p/var/run/supervisor.sock");
    assert_eq!(mark_of(environ, ours), Some(ProcessName::new("e", "e-0")));
    assert_eq!(mark_of(environ, Path::new("/q/var/run/supervisor.sock")), None);
    assert_eq!(mark_of(b"A=1\0", ours), None);
}

#[test]
fn a_socket_is_known_through_links_even_when_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("run")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("run"), dir.path().join("link")).unwrap();
    assert!(same_socket(&dir.path().join("run/s"), &dir.path().join("link/s")));
    assert!(!same_socket(&dir.path().join("run/s"), &dir.path().join("s")));
}

#[test]
fn a_stat_line_is_read_whatever_the_command_is_called() {
    let line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 1000 1";
    let stat = parse_stat(line).unwrap();
    assert_eq!((stat.parent, stat.started, stat.zombie), (7, 123_456, false));
    assert!(parse_stat("42 (x) S").is_none());
}

#[test]
fn our_own_process_is_found_with_its_ancestors() {
    let pid = i32::try_from(std::process::id()).unwrap();
    let (stats, _) = scan(Path::new("/nowhere"));
    assert_eq!(ancestors(pid, &stats)[0], pid);
    assert!(age_of(pid).unwrap() < Duration::from_secs(3600));
    assert!(started_ticks(i32::MAX).is_none());
}

/// A start reaped a program that another one had just started under a new supervisord: that supervisord had not been
/// there yet when its process id was asked for.
#[tokio::test]
async fn a_program_of_a_supervisord_that_has_just_come_up_is_no_stray() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("supervisor.sock");
    // This process plays supervisord.
    let mut program = std::process::Command::new("sleep")
        .arg("1000")
        .env("SUPERVISOR_SERVER_URL", format!("unix://{}", socket.display()))
        .env("SUPERVISOR_GROUP_NAME", "web")
        .env("SUPERVISOR_PROCESS_NAME", "web")
        .spawn()
        .unwrap();
    let pid = i32::try_from(program.id()).unwrap();
    let own_pid = i32::try_from(std::process::id()).unwrap();
    let nobody = find_confirmed(&socket, async || Ok((None, Vec::new()))).await.unwrap();
    let asked = std::cell::Cell::new(0);
    let just_up = find_confirmed(&socket, async || {
        asked.set(asked.get() + 1);
        Ok((Some(own_pid).filter(|_| asked.get() > 1), Vec::new()))
    });
    let spared = just_up.await.unwrap();
    program.kill().unwrap();
    program.wait().unwrap();
    assert_eq!(nobody.iter().map(|stray| stray.pid).collect::<Vec<_>>(), [pid]);
    assert_eq!((spared, asked.get()), (Vec::new(), 2));
}
