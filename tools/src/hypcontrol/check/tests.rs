use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn prefix() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["var/log", "var/run", "var/lib", "var/spool", "tmp", "etc/secrets"] {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    dir
}

#[test]
fn a_prefix_in_order_has_nothing_to_say_but_ok() {
    let dir = prefix();
    let findings = machine::check_permissions(dir.path());
    assert!(findings.iter().all(|f| f.level == Level::Ok), "{findings:#?}");
    assert_ne!(machine::check_disk(&dir.path().join("var")).message, "");
    assert!(machine::check_memory(true).is_some());
}

#[test]
fn readable_secrets_and_missing_folders_come_with_a_remedy() {
    let dir = prefix();
    std::fs::remove_dir(dir.path().join("tmp")).unwrap();
    let secret = dir.path().join("etc/secrets/amqp");
    std::fs::write(&secret, "x").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o640)).unwrap();
    let findings = machine::check_permissions(dir.path());
    assert_eq!(findings.len(), 2, "{findings:#?}");
    assert!(findings[0].remedy.starts_with("mkdir -p "), "{}", findings[0].remedy);
    assert_eq!(findings[1].remedy, format!("chmod 600 {}", secret.display()));
    assert!(findings[1].message.ends_with("can be read by others (mode 640)"), "{}", findings[1].message);
}

#[test]
fn a_store_or_spool_that_cannot_be_written_is_found() {
    let dir = prefix();
    for (path, mode) in [("var/lib/store", 0o500), ("var/spool/webserver", 0o500), ("var/spool/engines", 0o700)] {
        let path = dir.path().join(path);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let findings = machine::check_permissions(dir.path());
    assert_eq!(findings.len(), 2, "{findings:#?}");
    assert!(findings[0].message.ends_with("var/lib/store has mode 500"), "{}", findings[0].message);
    assert!(findings[1].message.ends_with("var/spool/webserver has mode 500"), "{}", findings[1].message);
}

#[test]
fn a_nodes_keys_and_data_are_looked_at() {
    let dir = prefix();
    let node = dir.path().join("srv/dht-a");
    std::fs::create_dir_all(node.join("etc")).unwrap();
    std::fs::create_dir_all(node.join("data")).unwrap();
    std::fs::write(node.join("etc/credentials"), "admin:00").unwrap();
    for (path, mode) in [("etc/credentials", 0o644), ("data", 0o500)] {
        std::fs::set_permissions(node.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let findings = machine::check_permissions(dir.path());
    let messages: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
    assert!(messages[0].ends_with("srv/dht-a/data has mode 500"), "{messages:?}");
    assert!(messages[1].ends_with("srv/dht-a/etc/credentials can be read by others (mode 644)"), "{messages:?}");
}

#[test]
fn a_finding_is_written_with_what_to_do() {
    let finding = Finding::failure("ports", "web cannot listen", "change [server] port");
    assert_eq!(finding.text(), "FAIL  ports: web cannot listen\n      to do: change [server] port");
    assert_eq!(Finding::ok("disk", "fine").text(), "ok    disk: fine");
}
