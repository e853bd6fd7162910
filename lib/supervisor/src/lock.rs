//! Waiting for a lock that another process holds, knowing who that is.

use std::path::Path;
use std::time::Duration;

use overstory_runtime::lock::{FileLock, LockError};

/// How often a held lock is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Takes the lock on `path`. While another process holds it, `on_wait` is told once who that is.
///
/// # Errors
/// When the file cannot be opened or locked.
pub async fn acquire(path: &Path, on_wait: impl FnOnce(&str) + Send) -> std::io::Result<FileLock> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut on_wait = Some(on_wait);
    loop {
        match FileLock::try_acquire(path) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Io(error)) => return Err(error),
            Err(LockError::Held { holder }) => {
                // A holder that has just got the lock has not written its number yet.
                if let Some(pid) = holder
                    && let Some(tell) = on_wait.take()
                {
                    tell(&describe(pid));
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn describe(pid: u32) -> String {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = command.split(|b| *b == 0).filter(|w| !w.is_empty()).take(4);
    let words: Vec<_> = words.map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    if words.is_empty() { format!("process {pid}") } else { format!("{} (process {pid})", words.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_and_learns_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("var/run/x.lock");
        let first = acquire(&path, |_| ()).await.unwrap();
        let (told, holder) = tokio::sync::oneshot::channel();
        let second = acquire(&path, |name| told.send(name.to_owned()).unwrap());
        tokio::pin!(second);
        tokio::select! {
            biased;
            _ = &mut second => panic!("both hold the lock"),
            name = holder => assert!(name.unwrap().contains(&std::process::id().to_string())),
        }
        drop(first);
        second.await.unwrap();
    }
}
