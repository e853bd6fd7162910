//! `tcmcli`: shows, checks and makes dump files (protocol §3.1, `docs/formats/tcm.md`).
//!
//! The text form has one record per line: the key as 16 hexadecimal digits, a colon, the value in base64.

#[cfg(test)]
mod tests;
mod text;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Parser};

use crate::tcm::{Item, Reader, Reason, TcmError};

/// The longest value that is read or written, in bytes.
const LONGEST: usize = 64 * 1024 * 1024;

/// Reads, writes and checks the dump files of dht nodes.
///
/// Exit codes: 0 all is well, 1 something is damaged, missing or could not be written, 2 wrong arguments.
#[derive(Debug, Parser)]
#[command(name = "tcmcli", version)]
#[command(group(ArgGroup::new("action").required(true)))]
struct Arguments {
    /// Prints the records of FILE as text, `<16-hex key>:<base64 value>` per line
    #[arg(short, long, value_name = "FILE", group = "action")]
    read: Option<PathBuf>,
    /// Makes FILE from such text on the standard input; replaces it only when all of the text is right
    #[arg(short, long, value_name = "FILE", group = "action")]
    write: Option<PathBuf>,
    /// Says of each FILE whether it is whole, and what of it is not
    #[arg(long, value_name = "FILE", num_args = 1.., group = "action")]
    verify: Option<Vec<PathBuf>>,
    /// Prints statistics of each FILE: records, lengths of values, what is damaged
    #[arg(short, long, value_name = "FILE", num_args = 1.., group = "action")]
    stats: Option<Vec<PathBuf>>,
}

/// Runs the program with its arguments, the first being its name.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let code = execute(args, &mut io::stdin().lock(), &mut io::stdout().lock(), &mut io::stderr().lock());
    ExitCode::from(code)
}

/// The program between given streams; its exit code.
fn execute(args: Vec<OsString>, input: &mut dyn io::Read, output: &mut dyn Write, errors: &mut dyn Write) -> u8 {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            let usage = error.use_stderr();
            let rendered = error.render();
            let shown = if usage { write!(errors, "{rendered}") } else { write!(output, "{rendered}") };
            return if usage || shown.is_err() { 2 } else { 0 };
        }
    };
    let mut output = BufWriter::new(output);
    let result = match arguments {
        Arguments { read: Some(file), .. } => read(&file, &mut output, errors),
        Arguments { write: Some(file), .. } => text::write(&file, &mut BufReader::new(input)).map(|()| true),
        Arguments { verify: Some(files), .. } => {
            each(&files, errors, &mut |file, errors| verify(file, &mut output, errors))
        }
        Arguments { stats: Some(files), .. } => {
            each(&files, errors, &mut |file, errors| stats(file, &mut output, errors))
        }
        Arguments { .. } => Ok(true),
    };
    let result = result.and_then(|whole| output.flush().map(|()| whole).map_err(Failure::Output));
    match result {
        Ok(true) => 0,
        Ok(false) => 1,
        // Who reads the output has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            let _nobody_reads_it = writeln!(errors, "tcmcli: {error}");
            1
        }
    }
}

/// Why the program ends early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: TcmError },
    #[error("standard input, line {line}: {what}")]
    Line { line: u64, what: &'static str },
    #[error("standard input: {0}")]
    Input(io::Error),
    #[error("standard output: {0}")]
    Output(io::Error),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// What is done with one file: whether it is whole.
type Act<'a> = &'a mut dyn FnMut(&Path, &mut dyn Write) -> Result<bool, Failure>;

/// Goes on with the next file when one cannot be read.
fn each(files: &[PathBuf], errors: &mut dyn Write, act: Act<'_>) -> Result<bool, Failure> {
    let mut whole = true;
    for file in files {
        match act(file, errors) {
            Ok(this) => whole &= this,
            Err(error @ Failure::File { .. }) => {
                whole = false;
                let _nobody_reads_it = writeln!(errors, "tcmcli: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(whole)
}

/// What a file holds.
#[derive(Debug, Default)]
struct Found {
    size: u64,
    records: u64,
    value_bytes: u64,
    shortest: Option<usize>,
    longest: usize,
    rejected: u64,
    rejected_bytes: u64,
}

/// Visits every record, and tells what is no record.
fn visit(
    file: &Path,
    errors: &mut dyn Write,
    record: &mut dyn FnMut(overstory_swarm::key::Key, &[u8]) -> io::Result<()>,
) -> Result<Found, Failure> {
    let failed = |source| Failure::File { path: file.to_owned(), source };
    let opened = File::open(file).map_err(|source| failed(TcmError::Io { offset: 0, source }))?;
    let mut reader = Reader::new(opened, LONGEST).map_err(failed)?;
    let mut found = Found { size: reader.size(), ..Found::default() };
    loop {
        match reader.next_item().map_err(failed)? {
            Item::Record { key, value } => {
                found.records += 1;
                found.value_bytes += value.len() as u64;
                found.shortest = Some(found.shortest.map_or(value.len(), |shortest| shortest.min(value.len())));
                found.longest = found.longest.max(value.len());
                record(key, value).map_err(Failure::Output)?;
            }
            Item::Rejected { offset, length, reason } => {
                found.rejected += 1;
                found.rejected_bytes += length;
                let what = text::describe(reason);
                let bytes =
                    if reason == Reason::Cut && length == 0 { String::new() } else { format!(" ({length} bytes)") };
                let _nobody_reads_it = writeln!(errors, "tcmcli: {}: offset {offset}: {what}{bytes}", file.display());
            }
            Item::End => return Ok(found),
        }
    }
}

fn read(file: &Path, output: &mut dyn Write, errors: &mut dyn Write) -> Result<bool, Failure> {
    let mut line = Vec::new();
    let found = visit(file, errors, &mut |key, value| {
        line.clear();
        text::put_line(&mut line, key, value);
        output.write_all(&line)
    })?;
    Ok(found.rejected == 0)
}

fn verify(file: &Path, output: &mut dyn Write, errors: &mut dyn Write) -> Result<bool, Failure> {
    let found = visit(file, errors, &mut |_, _| Ok(()))?;
    let state = if found.rejected == 0 { "whole" } else { "damaged" };
    writeln!(output, "{}: {state}, {} records", file.display(), found.records).map_err(Failure::Output)?;
    Ok(found.rejected == 0)
}

fn stats(file: &Path, output: &mut dyn Write, errors: &mut dyn Write) -> Result<bool, Failure> {
    let found = visit(file, errors, &mut |_, _| Ok(()))?;
    let mean = found.value_bytes.checked_div(found.records).unwrap_or(0);
    let lines = [
        ("file bytes", found.size),
        ("records", found.records),
        ("value bytes", found.value_bytes),
        ("shortest value", found.shortest.unwrap_or(0) as u64),
        ("mean value", mean),
        ("longest value", found.longest as u64),
        ("rejected", found.rejected),
        ("rejected bytes", found.rejected_bytes),
    ];
    writeln!(output, "{}", file.display()).map_err(Failure::Output)?;
    for (name, number) in lines {
        writeln!(output, "  {name:<15}{number:>16}").map_err(Failure::Output)?;
    }
    Ok(found.rejected == 0)
}
