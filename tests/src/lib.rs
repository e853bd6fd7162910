//! What the tests of the workspace and of the whole stack share.

pub mod http;
pub mod stack;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Waits until `condition` gives a value; tells what was waited for and the last reason when it does not in time.
///
/// # Errors
/// The deadline passed.
pub fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        let reason = match condition() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() > deadline {
            return match reason {
                Some(error) => Err(error).with_context(|| format!("{what}: not within {deadline:?}")),
                None => bail!("{what}: not within {deadline:?}"),
            };
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition with a deadline")]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}
