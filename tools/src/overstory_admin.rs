//! `overstory`: what operators do rarely, one subcommand each.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use overstory_runtime::{Home, program};
use overstory_supervisor::privileges;

mod add;
mod credentials;
mod dead;
mod instance;
mod key;
mod list;
pub(crate) mod provision;
mod remove;
mod store;
pub(crate) mod user;

/// Looks after an installation.
#[derive(Debug, Parser)]
#[command(name = "overstory", version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Adds an instance of a node
    #[command(subcommand)]
    Add(add::Command),
    /// The clients that running nodes know
    #[command(subcommand)]
    Credentials(credentials::Command),
    /// Messages that could not be worked on
    #[command(subcommand)]
    Dead(dead::Command),
    /// Keys that stand for accounts of the API
    #[command(subcommand)]
    Key(key::Command),
    /// Lists the instances that were added
    List(list::Args),
    /// Makes the store, the roles and the account `admin`, where they are missing
    Provision,
    /// Removes an instance of a node; its data is kept unless told otherwise
    #[command(subcommand)]
    Remove(remove::Command),
    /// The store: what is in it, whether it is sound, moving it
    #[command(subcommand)]
    Store(store::Command),
    /// Accounts of the API
    #[command(subcommand)]
    User(user::Command),
}

/// Runs `overstory`; `args[0]` is the program's name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    program::end_quietly_on_closed_pipe();
    match Args::try_parse_from(args) {
        Ok(args) => match execute(&args.command, &Home::find()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("overstory: {}", program::chain(error.as_ref()));
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            // Help and version are asked for, the rest is wrong usage.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { 2 } else { 0 })
        }
    }
}

fn execute(command: &Command, home: &Home) -> anyhow::Result<()> {
    privileges::become_owner(home.root()).with_context(|| format!("no installation at {}", home.root().display()))?;
    match command {
        Command::Add(command) => program::block_on(add::run(command, home, &mut io::stdout())),
        Command::Credentials(command) => credentials::run(command, home, &mut io::stdout()),
        Command::List(args) => program::block_on(list::run(args, home, &mut io::stdout())),
        Command::Remove(command) => program::block_on(remove::run(command, home, &mut io::stdout())),
        Command::Dead(command) => dead::run(command, home, &mut io::stdout()),
        Command::Key(command) => program::block_on(key::run(command, home, &mut io::stdout())),
        Command::Provision => program::block_on(provision::run(home, &mut io::stdout())),
        Command::Store(command) => program::block_on(store::run(command, home, &mut io::stdout())),
        Command::User(command) => program::block_on(user::run(command, home, &mut io::stdout())),
    }
}
