//! `service NAME logs`: the end of a service's logs, and what is added to them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use overstory_supervisor::logs::{Follower, last_lines};

/// How often it is looked whether something was added.
const POLL: Duration = Duration::from_millis(200);

/// Writes the last `lines` of each log and, when `follow`, what is added until the writer or the user ends it. With
/// more than one log each line begins with the process' name.
pub(super) async fn show(
    logs: &[(String, PathBuf)],
    lines: usize,
    follow: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let width = logs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let label = |name: &str| if logs.len() > 1 { format!("{name:width$} | ") } else { String::new() };
    // Opened first, so that a line that is added in between is shown rather than missed.
    let mut followers: Vec<_> = logs.iter().map(|(name, path)| (label(name), Follower::from_end(path))).collect();
    for (name, path) in logs {
        let label = label(name);
        last_lines(path, lines).iter().try_for_each(|line| writeln!(out, "{label}{line}"))?;
    }
    out.flush()?;
    if follow {
        loop {
            for (label, follower) in &mut followers {
                follower.next_lines().iter().try_for_each(|line| writeln!(out, "{label}{line}"))?;
            }
            out.flush()?;
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_of_several_logs_tell_whose_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let logs: Vec<_> = ["e-0", "engine-1"].map(|n| (n.to_owned(), dir.path().join(n))).into();
        for (name, path) in &logs {
            std::fs::write(path, format!("one\n{name} two\n")).unwrap();
        }
        let mut out = Vec::new();
        show(&logs, 1, false, &mut out).await.unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "e-0      | e-0 two\nengine-1 | engine-1 two\n");
    }
}
