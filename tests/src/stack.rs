//! A whole installation in a prefix of its own, made by the installer as an operator makes it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Client;
use crate::repository;

/// An installation, removed with everything that it started when it is dropped.
#[derive(Debug)]
pub struct Stack {
    directory: TempDir,
    /// Installations are heavy and share the system user: the tests of one machine take turns.
    _turn: File,
}

impl Stack {
    /// Installs into an empty prefix, with `options` besides. The executable is the one built for the tests.
    ///
    /// # Errors
    /// The installer failed; its output is in the error.
    pub fn install(options: &[&str]) -> anyhow::Result<Self> {
        let turn = File::create(std::env::temp_dir().join("overstory-stack-tests.lock"))?;
        turn.lock()?;
        let directory = tempfile::Builder::new().prefix("overstory-stack-").tempdir()?;
        // The system user has to pass through it.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let stack = Self { directory, _turn: turn };
        let output = stack.installer(options)?;
        ensure!(
            output.status.success(),
            "build-install.sh {options:?}: {}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(stack)
    }

    /// Calls the installer for this prefix.
    ///
    /// # Errors
    /// It cannot be called.
    pub fn installer(&self, options: &[&str]) -> anyhow::Result<Output> {
        let output = Command::new(repository().join("build-install.sh"))
            .arg("--prefix")
            .arg(self.prefix())
            .arg("--no-deps")
            .arg("--executable")
            .arg(executable()?)
            .args(options)
            .stdin(Stdio::null())
            .output()?;
        Ok(output)
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> PathBuf {
        self.directory.path().join("prefix")
    }

    /// A program of the prefix, ready to be called.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.prefix().join("bin").join(program));
        command.stdin(Stdio::null());
        command
    }

    /// Calls a program and returns what it printed.
    ///
    /// # Errors
    /// It cannot be called or ends with another code than 0.
    pub fn call(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(program).args(arguments).output()?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{program} {arguments:?}: {}\n{stdout}\n{stderr}", output.status);
        Ok(stdout.into_owned())
    }

    /// Where the web server listens, from its command.
    ///
    /// # Errors
    /// The file does not say.
    pub fn web_address(&self) -> anyhow::Result<String> {
        let text = fs::read_to_string(self.prefix().join("etc/supervisord.d/webserver.conf"))?;
        let after = text.split("--listen").nth(1).context("no --listen in webserver.conf")?;
        Ok(after.trim_start_matches(['=', ' ']).split_whitespace().next().context("no address")?.to_owned())
    }

    /// A client logged in as the first administrator.
    ///
    /// # Errors
    /// The web server does not answer or refuses.
    pub fn admin(&self) -> anyhow::Result<Client> {
        let password = fs::read_to_string(self.prefix().join("etc/initial-admin-password"))?;
        Client::login(&self.web_address()?, "admin", password.trim_end())
    }

    /// The programs as `hypcontrol status --json` gives them, one object each.
    ///
    /// # Errors
    /// The output is not what is documented.
    pub fn status(&self) -> anyhow::Result<Value> {
        let output = self.command("hypcontrol").args(["status", "--json"]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().with_context(|| {
            format!("hypcontrol status printed nothing: {}", String::from_utf8_lossy(&output.stderr))
        })?;
        Ok(serde_json::from_str(last)?)
    }

    /// The processes that belong to this installation: id and command line.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn processes(&self) -> anyhow::Result<Vec<(u32, String)>> {
        processes_of(&self.prefix())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        match self.installer(&["--uninstall", "--purge", "--yes"]) {
            Ok(output) if output.status.success() => {}
            Ok(output) => eprintln!(
                "uninstall failed: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(error) => eprintln!("uninstall failed: {error:#}"),
        }
    }
}

impl Stack {
    /// Prints the ends of the logs, for a test that failed.
    fn show_logs(&self) {
        let Ok(entries) = fs::read_dir(self.prefix().join("var/log")) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()) {
            let text = fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            eprintln!("--- {}", path.display());
            lines.iter().skip(lines.len().saturating_sub(15)).for_each(|line| eprintln!("{line}"));
        }
    }
}

/// The processes whose command line or environment names `prefix`.
///
/// # Errors
/// `/proc` cannot be read.
pub fn processes_of(prefix: &Path) -> anyhow::Result<Vec<(u32, String)>> {
    let wanted = prefix.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end while it is looked at.
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let environment = String::from_utf8_lossy(&read("environ")).into_owned();
        if pid != std::process::id() && (line.contains(&wanted) || environment.contains(&wanted)) {
            found.push((pid, line));
        }
    }
    Ok(found)
}

/// The executable that the tests install: built from the same sources with the same profile as the test itself.
fn executable() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test.parent().and_then(Path::parent).context("where am I?")?.join("overstory");
    ensure!(path.is_file(), "{} is not there: cargo build -p overstory", path.display());
    Ok(path)
}
