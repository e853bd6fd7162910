//! `send_event`: sends events to the API from the command line, a file or standard input.
//!
//! Exit codes: 0 every event was taken, 1 one was not or the server could not be reached, 2 wrong usage.

mod http;
mod input;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Parser};
use overstory_runtime::{Home, program};
use serde_json::{Map, Value};

use crate::overstory_admin::{provision, user};
use http::{Credentials, Server};

/// What is read of a file or of standard input at most, in bytes.
const MAX_INPUT_BYTES: u64 = 256 << 20;
/// Wrong usage.
const USAGE: u8 = 2;

/// Sends events to the API.
///
/// Events are JSON objects: one, an array of them, or one per line. What is said by flags fills in what they leave out.
#[derive(Debug, Parser)]
#[command(name = "send_event", version)]
struct Cli {
    /// The web server; the one of this installation if not given
    #[arg(short = 's', long = "url", value_name = "HOST:PORT")]
    url: Option<String>,
    /// API key (other users of this machine can see it in the list of processes)
    #[arg(short = 'a', long, value_name = "KEY", conflicts_with_all = ["authkey_file", "user"])]
    authkey: Option<String>,
    /// File with an API key, `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    authkey_file: Option<PathBuf>,
    /// Account
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// File with its password, `-` for standard input
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// File with events, `-` for standard input
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "json")]
    file: Option<PathBuf>,
    /// Events
    #[arg(short = 'j', long, value_name = "JSON")]
    json: Option<String>,
    #[command(flatten)]
    fields: Fields,
}

/// Fields of an event.
#[derive(Debug, Default, Args)]
struct Fields {
    /// Kind of source [default: Cli]
    #[arg(long)]
    connector: Option<String>,
    /// Instance of the source [default: Send_event]
    #[arg(long)]
    connector_name: Option<String>,
    /// Component
    #[arg(long)]
    component: Option<String>,
    /// Resource of the component
    #[arg(long)]
    resource: Option<String>,
    /// 0 ok, 1 minor, 2 major, 3 critical
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=3))]
    state: Option<u8>,
    /// One line for operators
    #[arg(long)]
    output: Option<String>,
    /// Type of event [default: check]
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
}

impl Fields {
    /// What was said, without the defaults.
    fn said(&self) -> Map<String, Value> {
        let texts = [
            ("connector", &self.connector),
            ("connector_name", &self.connector_name),
            ("component", &self.component),
            ("resource", &self.resource),
            ("output", &self.output),
            ("event_type", &self.kind),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.clone()?.into())));
        texts.chain(self.state.map(|state| ("state".to_owned(), state.into()))).collect()
    }
}

/// Runs `send_event`; `args[0]` is the program's name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    program::end_quietly_on_closed_pipe();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for, the rest is wrong usage.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    if cli.json.is_none() && cli.file.is_none() && cli.fields.said().is_empty() && io::stdin().is_terminal() {
        eprintln!("send_event: no event: give -j, -f, flags such as --component, or write to standard input (--help)");
        return ExitCode::from(USAGE);
    }
    let batches = match read_events(&cli) {
        Ok(batches) => batches,
        Err(error) => {
            eprintln!("send_event: {}", program::chain(error.as_ref()));
            return ExitCode::from(USAGE);
        }
    };
    match program::block_on(send(&cli, batches)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("send_event: {}", program::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// The events as bodies of requests.
fn read_events(cli: &Cli) -> anyhow::Result<Vec<Value>> {
    let said = cli.fields.said();
    let text = match (&cli.json, &cli.file) {
        (Some(json), _) => json.clone(),
        (None, Some(path)) if path.as_os_str() == "-" => read_all(&mut io::stdin().lock())?,
        (None, Some(path)) => {
            let mut file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            read_all(&mut file).with_context(|| format!("cannot read {}", path.display()))?
        }
        (None, None) if said.is_empty() => read_all(&mut io::stdin().lock())?,
        (None, None) => "{}".to_owned(),
    };
    input::batches(&text, &said)
}

fn read_all(from: &mut dyn io::Read) -> anyhow::Result<String> {
    let mut text = String::new();
    from.take(MAX_INPUT_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_INPUT_BYTES {
        bail!("more than {MAX_INPUT_BYTES} bytes");
    }
    Ok(text)
}

/// Sends the batches in order; whether every event was taken.
async fn send(cli: &Cli, batches: Vec<Value>) -> anyhow::Result<bool> {
    let home = Home::find();
    let server = match &cli.url {
        Some(url) => Server::parse(url)?,
        None => Server::of_installation(&home),
    };
    let credentials = credentials(cli, &home)?;
    let mut all_sent = true;
    for batch in batches {
        let answer = http::post_events(&server, &credentials, &batch).await?;
        writeln!(io::stdout(), "{}", answer.body.trim_end())?;
        all_sent &= answer.all_sent();
        if answer.status != 200 {
            // What follows would meet the same.
            bail!("the web server at {server} answered with status {}", answer.status);
        }
    }
    Ok(all_sent)
}

fn credentials(cli: &Cli, home: &Home) -> anyhow::Result<Credentials> {
    if let Some(key) = &cli.authkey {
        return Ok(Credentials::Key(key.clone()));
    }
    if let Some(path) = &cli.authkey_file {
        return Ok(Credentials::Key(user::read_password(path)?));
    }
    if let (Some(name), Some(path)) = (&cli.user, &cli.password_file) {
        return Ok(Credentials::Basic { name: name.clone(), password: user::read_password(path)? });
    }
    let path = home.config_file(provision::PASSWORD_FILE);
    // The account of an installation is not handed to another machine's server.
    if cli.url.is_none()
        && let Ok(password) = user::read_password(&path)
    {
        eprintln!("send_event: as {} with the password in {}", provision::ADMIN, path.display());
        return Ok(Credentials::Basic { name: provision::ADMIN.to_owned(), password });
    }
    bail!("no credentials: give --authkey-file, -a, or --user with --password-file (`overstory key add` makes a key)")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn wrong_usage_is_refused_before_anything_is_sent() {
        for line in [
            "--state 4",
            "--user admin",
            "--password-file x",
            "-a key --user admin --password-file x",
            "-j {} -f file",
            "--no-such-flag",
            "-j nonsense",
            "-f /nonexistent/file",
        ] {
            let arguments = std::iter::once("send_event").chain(line.split(' ')).map(OsString::from).collect();
            assert_eq!(run(arguments), ExitCode::from(USAGE), "{line}");
        }
    }

    #[test]
    fn flags_make_an_event() {
        let cli = Cli::parse_from(["send_event", "--component", "h", "--state", "2", "--output", "down"]);
        let batches = read_events(&cli).unwrap();
        let expected = serde_json::json!([{"component": "h", "state": 2, "output": "down", "connector": "Cli",
            "connector_name": "Send_event", "event_type": "check"}]);
        assert_eq!(batches, [expected]);
    }
}
