//! A real supervisord in a prefix of its own.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Is a prefix with a configured supervisord that is not started yet: starting it is what most tests are about.
/// Dropped, it ends the supervisord, everything that it started, and what a killed one left behind.
#[derive(Debug)]
pub struct SupervisordPrefix {
    dir: TempDir,
}

impl SupervisordPrefix {
    /// Makes the prefix, with no programs.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new() -> io::Result<Self> {
        // Short: the path of a unix socket has 107 bytes.
        let dir = tempfile::Builder::new().prefix("ov-sup-").tempdir_in("/tmp")?;
        let prefix = Self { dir };
        for folder in ["bin", "etc/supervisord.d", "etc/secrets", "var/run", "var/log", "var/lib", "var/spool", "tmp"] {
            fs::create_dir_all(prefix.path().join(folder))?;
        }
        let conf = "[unix_http_server]\nfile=%(here)s/../var/run/supervisor.sock\nchmod=0700\n\
             [supervisord]\nlogfile=%(here)s/../var/log/supervisord.log\npidfile=%(here)s/../var/run/supervisord.pid\n\
             childlogdir=%(here)s/../var/log\nnodaemon=false\nminfds=256\nminprocs=32\n\
             [rpcinterface:supervisor]\n\
             supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
             [include]\nfiles = supervisord.d/*.conf\n";
        fs::write(prefix.path().join("etc/supervisord.conf"), conf)?;
        Ok(prefix)
    }

    /// The prefix.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The socket of its supervisord.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path().join("var/run/supervisor.sock")
    }

    /// Defines a program that runs `script` with `sh`; `keys` are further lines of its section. Its log is
    /// `var/log/NAME.log`, or `NAME-NUMBER.log` when `keys` have `numprocs`.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn program(&self, name: &str, script: &str, keys: &[&str]) -> io::Result<()> {
        let file = self.path().join("bin").join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        let command = format!("command=%(here)s/../../bin/{name} %(process_num)d");
        self.section(name, &[&[command.as_str()], keys].concat())
    }

    /// Defines a program by the lines of its section, which name the command.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn section(&self, name: &str, keys: &[&str]) -> io::Result<()> {
        let has = |key: &str| keys.iter().any(|line| line.split('=').next().is_some_and(|k| k.trim() == key));
        let mut text = format!("[program:{name}]\nautostart=false\nredirect_stderr=true\n");
        let several = has("numprocs");
        for (key, line) in [
            ("process_name", if several { "%(program_name)s-%(process_num)d" } else { "%(program_name)s" }),
            (
                "stdout_logfile",
                if several {
                    "%(here)s/../../var/log/%(program_name)s-%(process_num)d.log"
                } else {
                    "%(here)s/../../var/log/%(program_name)s.log"
                },
            ),
        ] {
            if !has(key) {
                let _ = writeln!(text, "{key}={line}");
            }
        }
        keys.iter().for_each(|line| _ = writeln!(text, "{line}"));
        self.write(&format!("etc/supervisord.d/{name}.conf"), &text)
    }

    /// Writes a file of the prefix.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.path().join(file), text)
    }

    /// Reads a file of the prefix; empty when there is none.
    #[must_use]
    pub fn read(&self, file: &str) -> String {
        fs::read(self.path().join(file)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The process id of the supervisord, when one has written it.
    #[must_use]
    pub fn supervisord_pid(&self) -> Option<i32> {
        self.read("var/run/supervisord.pid").trim().parse().ok()
    }

    /// Every process, by id, that a supervisord of this prefix has started and that is still there.
    #[must_use]
    pub fn children(&self) -> Vec<i32> {
        let mark = format!("SUPERVISOR_SERVER_URL=unix://{}", self.socket().display());
        let numbered = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = numbered.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|b| *b == 0).any(|variable| variable == mark.as_bytes()) && is_live(*pid)
        })
        .collect()
    }

    /// Ends a process with SIGKILL.
    pub fn kill_hard(pid: i32) {
        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
    }
}

impl Drop for SupervisordPrefix {
    fn drop(&mut self) {
        let ours = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&*self.path().to_string_lossy())
        };
        if let Some(pid) = self.supervisord_pid().filter(ours) {
            Self::kill_hard(pid);
        }
        // A child may have started another between the look and the kill.
        for _ in 0..3 {
            self.children().into_iter().for_each(Self::kill_hard);
        }
    }
}

/// Whether a process is there and has not ended.
#[must_use]
pub fn is_live(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
