//! What was found: lines for people, or JSON.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::Args;
use super::find::Bucket;
use super::inspect::Inspection;
use super::mend::Plan;

const CLEAN: u8 = 0;
const DAMAGED: u8 = 1;
pub(super) const WRONG_USAGE: u8 = 2;
const MENDED: u8 = 3;
pub(super) const FAILED: u8 = 4;

/// The most problems that are told one by one in the JSON.
const MAX_PROBLEMS: usize = 1000;

/// Tells what was found, as it is found.
pub(super) struct Report<'a> {
    out: &'a mut dyn Write,
    /// Lines go to the output; otherwise the JSON does.
    lines: bool,
    /// The file for the JSON.
    file: Option<BufWriter<File>>,
    totals: Totals,
    problems: Vec<String>,
    write: bool,
    /// The JSON is not whole.
    failed: bool,
}

#[derive(Debug, Default, Serialize)]
struct Totals {
    files: u64,
    compressed_files: u64,
    other_files: u64,
    other_directories: u64,
    damaged_files: u64,
    mended_files: u64,
    records: u64,
    bytes: u64,
    damages: u64,
    damaged_bytes: u64,
    problems: u64,
}

#[derive(Serialize)]
struct FileReport<'a> {
    /// What is no UTF-8 in a path is replaced: JSON is text.
    path: Cow<'a, str>,
    channel: &'a str,
    bucket: String,
    format: Option<String>,
    length: u64,
    records: u64,
    bytes: u64,
    damage_count: u64,
    damaged_bytes: u64,
    damages: Vec<DamageReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<ActionReport<'a>>,
}

#[derive(Serialize)]
struct DamageReport {
    offset: u64,
    bytes: u64,
    why: &'static str,
}

#[derive(Serialize)]
struct ActionReport<'a> {
    kind: &'static str,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct End<'a> {
    problems: &'a [String],
    totals: &'a Totals,
    exit_code: u8,
}

impl<'a> Report<'a> {
    /// Begins a report.
    ///
    /// # Errors
    /// The file for the JSON cannot be made.
    pub(super) fn new(args: &Args, out: &'a mut dyn Write) -> anyhow::Result<Self> {
        let file = match args.json.as_ref().and_then(Option::as_ref) {
            Some(path) => {
                Some(BufWriter::new(File::create(path).with_context(|| format!("the report {}", path.display()))?))
            }
            None => None,
        };
        let lines = file.is_some() || args.json.is_none();
        let mut report = Self {
            out,
            lines,
            file,
            totals: Totals::default(),
            problems: Vec::new(),
            write: args.write,
            failed: false,
        };
        report.json("{\"damaged\":[");
        Ok(report)
    }

    /// A file without damage.
    pub(super) fn clean(&mut self, bucket: &Bucket, inspection: &Inspection) {
        self.totals.files += 1;
        self.totals.compressed_files += u64::from(bucket.is_gzip());
        self.totals.records += inspection.summary.records;
        self.totals.bytes += inspection.summary.bytes;
    }

    /// A file of a name that is not for the node.
    pub(super) fn other(&mut self) {
        self.totals.other_files += 1;
    }

    /// A directory of a name that is not for the node.
    pub(super) fn other_directory(&mut self) {
        self.totals.other_directories += 1;
    }

    /// Something that could not be read or written.
    pub(super) fn problem(&mut self, path: &Path, error: &str) {
        let problem = format!("{}: {error}", path.display());
        eprintln!("logfiles_check: {problem}");
        self.totals.problems += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// A damaged file, and what was or would be done with it; a backup is there if it was done.
    pub(super) fn damaged(
        &mut self,
        bucket: &Bucket,
        inspection: &Inspection,
        action: Option<(Plan, Option<PathBuf>)>,
    ) {
        self.clean(bucket, inspection);
        let summary = &inspection.summary;
        let is_first = self.totals.damaged_files == 0;
        let mended = matches!(&action, Some((_, Some(_))));
        self.totals.damaged_files += 1;
        self.totals.mended_files += u64::from(mended);
        self.totals.damages += summary.damage_count;
        self.totals.damaged_bytes += summary.damaged_bytes;
        for damage in &summary.damages {
            let (path, offset, bytes) = (bucket.path.display(), damage.offset, damage.bytes);
            self.line(&format!("{path}: offset {offset}, {bytes} bytes: {}", damage.why));
        }
        let more = summary.damage_count - summary.damages.len() as u64;
        if more > 0 {
            self.line(&format!("{}: and {more} more", bucket.path.display()));
        }
        if let Some((plan, backup)) = &action {
            self.action(bucket, inspection, *plan, backup.as_deref());
        }
        let file = FileReport {
            path: bucket.path.to_string_lossy(),
            channel: &bucket.channel,
            bucket: bucket.number.to_string(),
            format: inspection.format.map(|format| format.to_string()),
            length: summary.end,
            records: summary.records,
            bytes: summary.bytes,
            damage_count: summary.damage_count,
            damaged_bytes: summary.damaged_bytes,
            damages: summary
                .damages
                .iter()
                .map(|damage| DamageReport { offset: damage.offset, bytes: damage.bytes, why: damage.why })
                .collect(),
            action: action.as_ref().map(|(plan, backup)| ActionReport {
                kind: match plan {
                    Plan::Header => "header",
                    Plan::Cut(_) => "cut",
                    Plan::Rewrite(_) => "salvage",
                },
                done: backup.is_some(),
                cut_at: if let Plan::Cut(offset) = plan { Some(*offset) } else { None },
                backup: backup.as_ref().map(|path| path.to_string_lossy()),
            }),
        };
        let text = serde_json::to_string(&file).unwrap_or_default();
        self.json(&format!("{}{text}", if is_first { "\n" } else { ",\n" }));
    }

    fn action(&mut self, bucket: &Bucket, inspection: &Inspection, plan: Plan, backup: Option<&Path>) {
        let (path, end) = (bucket.path.display(), inspection.summary.end);
        let verb = if backup.is_some() { "" } else { "would be " };
        let what = match plan {
            Plan::Header => "set right: its header".to_owned(),
            Plan::Cut(offset) => format!("cut to {offset} bytes, {} less", end - offset),
            Plan::Rewrite(_) => format!("written anew with {} records", inspection.summary.records),
        };
        let backup = backup.map(|path| format!("; backup: {}", path.display())).unwrap_or_default();
        self.line(&format!("{path}: {verb}{what}{backup}"));
    }

    /// Ends the report and gives the exit code.
    pub(super) fn finish(mut self) -> u8 {
        let totals = &self.totals;
        let code = if totals.problems > 0 {
            FAILED
        } else if totals.damaged_files > totals.mended_files {
            DAMAGED
        } else if totals.mended_files > 0 {
            MENDED
        } else {
            CLEAN
        };
        let mut line = format!(
            "{} files, {} records of {} bytes: {} damages of {} bytes in {} files, {} mended",
            totals.files,
            totals.records,
            totals.bytes,
            totals.damages,
            totals.damaged_bytes,
            totals.damaged_files,
            totals.mended_files
        );
        for (count, what) in [
            (totals.other_files, "other files left alone"),
            (totals.other_directories, "other directories left alone"),
            (totals.problems, "problems"),
        ] {
            if count > 0 {
                line.push_str(&format!("; {count} {what}"));
            }
        }
        if totals.damaged_files > 0 && !self.write {
            line.push_str("; nothing was changed");
        }
        self.line(&line);
        let end = End { problems: &self.problems, totals: &self.totals, exit_code: code };
        let text = serde_json::to_string(&end).unwrap_or_default();
        self.json(&format!("\n],{}\n", text.strip_prefix('{').unwrap_or_default()));
        self.failed |= self.file.as_mut().is_some_and(|file| file.flush().is_err()) || self.out.flush().is_err();
        if self.failed {
            eprintln!("logfiles_check: the report could not be written");
            return FAILED;
        }
        code
    }

    fn line(&mut self, line: &str) {
        if self.lines {
            let _ = writeln!(self.out, "{line}");
        }
    }

    fn json(&mut self, text: &str) {
        let written = match &mut self.file {
            Some(file) => file.write_all(text.as_bytes()),
            None if self.lines => Ok(()),
            None => self.out.write_all(text.as_bytes()),
        };
        // What is lost of it is told when it ends.
        self.failed |= written.is_err();
    }
}
