//! `logfiles_check`: looks for damage in bucket files, and cuts it off or out.
//!
//! It reads with the node's own [`Walker`](crate::walk::Walker): what is damaged here is what the node passes over.

mod backup;
mod find;
mod inspect;
mod mend;
mod owner;
mod progress;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use nix::fcntl::OFlag;
use overstory_node::data_lock;
use overstory_runtime::{program, terminal};

use backup::Backups;
use find::{Bucket, Kind};
use inspect::Inspection;
use progress::Progress;
use report::Report;

/// Checks bucket files of the logfiles node for damage, and repairs them.
#[derive(Debug, Parser)]
#[command(name = "logfiles_check", version, arg_required_else_help = true)]
#[command(
    after_help = "All formats are known. Values have a checksum in format 2 only: elsewhere a wrong byte in a value cannot be seen.\n\
    Files name.gz, as left by the published node's cron, are checked for being readable and never changed.\n\n\
    Exit codes:\n  \
    0  no damage\n  \
    1  damage was found and is still there (always so without --write)\n  \
    2  wrong usage\n  \
    3  damage was found, and all of it repaired or salvaged\n  \
    4  something could not be read, written or backed up, or a running node holds the data directory"
)]
struct Args {
    /// Bucket files, directories of channels, or data directories
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Checks only; this is what is done if nothing else is said
    #[arg(short, long, group = "action")]
    check: bool,
    /// Cuts a damaged file at its first damage: all records behind it are lost
    #[arg(short, long, group = "action")]
    repair: bool,
    /// Writes a damaged file anew with all intact records, those behind a damage as well
    #[arg(long, group = "action")]
    salvage: bool,
    /// Changes files; without it --repair and --salvage only say what they would do
    #[arg(long, conflicts_with = "check")]
    write: bool,
    /// Where what is cut off, or a file that is written anew, is kept, outside of the data directory; nothing is done if
    /// it cannot be [default: .damaged in the data directory]
    #[arg(long, value_name = "DIR")]
    backup_dir: Option<PathBuf>,
    /// Writes a report as JSON to a file, or in place of the lines to the standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    json: Option<Option<PathBuf>>,
}

/// What is done about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Check,
    Repair,
    Salvage,
}

/// Runs `logfiles_check`; `args[0]` is the program's name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    program::end_quietly_on_closed_pipe();
    match parse(args) {
        Ok(args) => ExitCode::from(execute(&args, &mut io::stdout().lock(), terminal::stderr_is_terminal())),
        Err(error) => {
            // Help and version are asked for, the rest is wrong usage.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { report::WRONG_USAGE } else { 0 })
        }
    }
}

fn parse(args: Vec<OsString>) -> Result<Args, clap::Error> {
    let args = Args::try_parse_from(args)?;
    if args.write && args.action() == Action::Check {
        let message = "--write needs --repair or --salvage";
        return Err(
            <Args as clap::CommandFactory>::command().error(clap::error::ErrorKind::MissingRequiredArgument, message)
        );
    }
    Ok(args)
}

/// Gives the exit code.
fn execute(args: &Args, out: &mut dyn Write, show_progress: bool) -> u8 {
    if let Some(refusal) = args.backup_dir.as_ref().and_then(|dir| backup::refusal(dir, &args.paths)) {
        eprintln!("logfiles_check: {refusal}");
        return report::WRONG_USAGE;
    }
    let mut report = match Report::new(args, out) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("logfiles_check: {error:#}");
            return report::FAILED;
        }
    };
    // Files may be named several times, alone and with their directory.
    let mut seen = HashSet::new();
    let is_one = args.paths.len() < 2;
    let total = if show_progress { Some(total(&args.paths)) } else { None };
    let mut check = Check {
        action: args.action(),
        write: args.write,
        backups: Backups::new(args.backup_dir.clone()),
        progress: Progress::new(total),
        locks: HashMap::new(),
    };
    for path in &args.paths {
        find::each(path, &mut |found| match found {
            find::Found::Bucket(bucket) if is_one || seen.insert(bucket.path.clone()) => {
                check.bucket(&bucket, &mut report);
            }
            find::Found::Bucket(_) => {}
            find::Found::Other => report.other(),
            find::Found::OtherDirectory => report.other_directory(),
            find::Found::Problem(path, error) => report.problem(&path, &error),
        });
    }
    check.progress.clear();
    report.finish()
}

/// The bytes of all files that will be read.
fn total(paths: &[PathBuf]) -> u64 {
    let mut total = 0;
    for path in paths {
        find::each(path, &mut |found| {
            if let find::Found::Bucket(bucket) = found {
                total += fs::symlink_metadata(&bucket.path).map_or(0, |metadata| metadata.len());
            }
        });
    }
    total
}

impl Args {
    const fn action(&self) -> Action {
        if self.repair {
            Action::Repair
        } else if self.salvage {
            Action::Salvage
        } else {
            Action::Check
        }
    }
}

/// What is needed for every file.
struct Check {
    action: Action,
    write: bool,
    backups: Backups,
    progress: Progress,
    /// The data directories that are held, or why they are not.
    locks: HashMap<PathBuf, Result<Option<fs::File>, String>>,
}

impl Check {
    fn bucket(&mut self, bucket: &Bucket, report: &mut Report<'_>) {
        // Held before the file is read: nobody else changes it between that and the repair.
        let refused = if self.write { self.lock(&bucket.data_dir) } else { None };
        if self.write && refused.is_none() {
            mend::tidy(bucket);
        }
        self.progress.file(bucket);
        let inspection = match inspect::inspect(bucket, &self.progress) {
            Ok(inspection) => inspection,
            Err(error) => {
                self.progress.clear();
                return report.problem(&bucket.path, &error.to_string());
            }
        };
        if inspection.is_clean() {
            return report.clean(bucket, &inspection);
        }
        self.progress.clear();
        let plan = mend::plan(&inspection, self.action);
        match (plan, refused) {
            (Some(plan), None) if self.write => {
                let done = mend::mend(bucket, &inspection, plan, &self.backups);
                match done {
                    Ok(backup) => report.damaged(bucket, &inspection, Some((plan, Some(backup)))),
                    Err(error) => {
                        report.damaged(bucket, &inspection, None);
                        report.problem(&bucket.path, &error.to_string());
                    }
                }
            }
            (plan, refused) => {
                report.damaged(bucket, &inspection, plan.filter(|_| refused.is_none()).map(|plan| (plan, None)));
                if let Some(refused) = refused.filter(|_| plan.is_some()) {
                    report.problem(&bucket.path, &refused);
                }
            }
        }
    }

    /// Why files of a data directory must not be changed.
    fn lock(&mut self, data_dir: &Path) -> Option<String> {
        let lock = self.locks.entry(data_dir.to_path_buf()).or_insert_with(|| lock(data_dir));
        lock.as_ref().err().cloned()
    }
}

/// Keeps nodes out of a data directory. None: the file system has no locks.
fn lock(data_dir: &Path) -> Result<Option<fs::File>, String> {
    let path = data_dir.join(data_lock::FILE);
    let made = match fs::File::options().create_new(true).append(true).open(&path) {
        Ok(file) => owner::give(&path, data_dir).map(|()| file),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Without waiting for who reads from a pipe.
            let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
            fs::File::options().append(true).custom_flags(flags.bits()).open(&path)
        }
        failed => failed,
    };
    let file = made.map_err(|error| format!("not changed: {}: {error}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => {
            Err(format!("not changed: a running node holds {}; stop it first", data_dir.display()))
        }
        Err(fs::TryLockError::Error(_)) => Ok(None),
    }
}

impl Inspection {
    fn is_clean(&self) -> bool {
        self.summary.damage_count == 0
    }
}

impl Bucket {
    fn is_gzip(&self) -> bool {
        self.kind == Kind::Gzip
    }
}
