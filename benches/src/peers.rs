//! The peers' packages.

use std::process::Command;

/// What the benches compare with.
const PACKAGES: [&str; 6] =
    ["rabbitmq-server", "collectd-core", "librabbitmq4", "libyajl2", "python3-venv", "redis-server"];

/// Installs the peers from Debian's packages without starting any of them.
pub(crate) fn install() -> anyhow::Result<()> {
    let status = Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Installed services stay stopped.
        .env("RUNLEVEL", "1")
        .args(["install", "--yes", "--no-install-recommends"])
        .args(PACKAGES)
        .status()?;
    anyhow::ensure!(status.success(), "apt-get install {} failed", PACKAGES.join(" "));
    Ok(())
}
