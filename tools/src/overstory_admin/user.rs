//! `overstory user`: the accounts of the API. What is changed shows in the web server within a few seconds.

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use overstory_model::credential::{MAX_PASSWORD_BYTES, hash_password, random_password};
use overstory_model::{Clock as _, SystemClock};
use overstory_runtime::Home;
use overstory_store::{Account, Accounts, StoreError};
use serde_json::json;

use super::provision;

/// The longest login name, in bytes.
const MAX_NAME_BYTES: usize = 255;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Makes an account
    Add {
        /// Its name
        name: String,
        /// A role; may be given more than once
        #[arg(long = "role", value_name = "ROLE", default_value = "viewer")]
        roles: Vec<String>,
        #[command(flatten)]
        password: Password,
    },
    /// Gives an account another password and ends its sessions
    Passwd {
        /// Its name
        name: String,
        #[command(flatten)]
        password: Password,
    },
    /// Lists the accounts
    List {
        /// Writes one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Keeps an account from logging in and ends its sessions
    Disable {
        /// Its name
        name: String,
    },
    /// Lets an account log in again
    Enable {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Password {
    /// Reads the password from a file, `-` for standard input; without it one is made and printed
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Password {
    /// The password, and whether it was made here.
    fn get(&self) -> anyhow::Result<(String, bool)> {
        match &self.password_file {
            None => Ok((random_password(), true)),
            Some(path) => Ok((read_password(path)?, false)),
        }
    }
}

/// Reads the first line of a file, or of standard input for `-`.
pub(crate) fn read_password(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let limit = MAX_PASSWORD_BYTES as u64 + 2;
    if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_string(&mut text).context("cannot read standard input")?;
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        file.take(limit).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

pub(super) async fn run(command: &Command, home: &Home, out: &mut impl Write) -> anyhow::Result<()> {
    let accounts = provision::accounts(home).await?;
    execute(command, accounts.as_ref(), out).await
}

async fn execute(command: &Command, accounts: &dyn Accounts, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::Add { name, roles, password } => add(accounts, name, roles, password, out).await,
        Command::Passwd { name, password } => {
            let (password, made) = password.get()?;
            let mut account = existing(accounts, name).await?;
            account.password_hash = hash_password(&password)?;
            account.generation += 1;
            update(accounts, &account).await?;
            say(out, name, "has a new password", made.then_some(password.as_str()))
        }
        Command::List { json } => list(accounts, *json, out).await,
        Command::Disable { name } => {
            let mut account = existing(accounts, name).await?;
            account.enabled = false;
            account.generation += 1;
            update(accounts, &account).await?;
            say(out, name, "cannot log in any more", None)
        }
        Command::Enable { name } => {
            let mut account = existing(accounts, name).await?;
            account.enabled = true;
            update(accounts, &account).await?;
            say(out, name, "can log in", None)
        }
    }
}

async fn add(
    accounts: &dyn Accounts,
    name: &str,
    roles: &[String],
    password: &Password,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    // A colon ends the name in HTTP basic authentication.
    let fits = |c: char| !c.is_control() && !c.is_whitespace() && c != ':';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(fits) {
        bail!("a name has 1 to {MAX_NAME_BYTES} bytes, no blanks and no colon");
    }
    for role in roles {
        if accounts.role(role).await?.is_none() {
            bail!("there is no role {role}");
        }
    }
    let (password, made) = password.get()?;
    let account = Account {
        name: name.to_owned(),
        password_hash: hash_password(&password)?,
        roles: roles.to_vec(),
        enabled: true,
        created: SystemClock.now().secs(),
        generation: 1,
    };
    match accounts.create_account(&account).await {
        Ok(()) => say(out, name, "was made", made.then_some(password.as_str())),
        Err(StoreError::Conflict(_)) => bail!("there is an account {name} already"),
        Err(error) => Err(error.into()),
    }
}

async fn existing(accounts: &dyn Accounts, name: &str) -> anyhow::Result<Account> {
    accounts.account(name).await?.with_context(|| format!("there is no account {name}"))
}

async fn update(accounts: &dyn Accounts, account: &Account) -> anyhow::Result<()> {
    match accounts.update_account(account).await {
        Err(StoreError::Conflict(_)) => bail!("account {} was changed at this moment, try again", account.name),
        other => Ok(other?),
    }
}

async fn list(accounts: &dyn Accounts, as_json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    for account in accounts.accounts().await? {
        let Account { name, roles, enabled, created, .. } = account;
        if as_json {
            writeln!(out, "{}", json!({"name": name, "roles": roles, "enabled": enabled, "created": created}))?;
        } else {
            let state = if enabled { "enabled" } else { "disabled" };
            writeln!(out, "{name:<24} {state:<9} {}", roles.join(", "))?;
        }
    }
    Ok(())
}

fn say(out: &mut impl Write, name: &str, what: &str, made: Option<&str>) -> anyhow::Result<()> {
    match made {
        Some(password) => writeln!(out, "account {name} {what}: {password}")?,
        None => writeln!(out, "account {name} {what}")?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use clap::Parser;
    use overstory_model::credential::verify_password;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    async fn user(home: &Home, line: &str) -> Result<String, String> {
        let line = Line::try_parse_from(std::iter::once("user").chain(line.split(' '))).unwrap();
        let mut out = Vec::new();
        match run(&line.command, home, &mut out).await {
            Ok(()) => Ok(String::from_utf8(out).unwrap()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[tokio::test]
    async fn accounts_are_made_changed_listed_and_switched_off() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/store.conf"), "").unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "a good password\n").unwrap();
        let home = Home::at(dir.path());
        provision::run(&home, &mut Vec::new()).await.unwrap();

        let made =
            user(&home, &format!("add eve --role viewer --role sender --password-file {}", file.display())).await;
        assert_eq!(made.unwrap(), "account eve was made\n");
        assert_eq!(user(&home, "add eve").await.unwrap_err(), "there is an account eve already");
        assert_eq!(user(&home, "add bob --role boss").await.unwrap_err(), "there is no role boss");
        assert_eq!(user(&home, "add a:b").await.unwrap_err(), "a name has 1 to 255 bytes, no blanks and no colon");
        assert_eq!(user(&home, "passwd bob").await.unwrap_err(), "there is no account bob");

        let accounts = provision::accounts(&home).await.unwrap();
        let eve = accounts.account("eve").await.unwrap().unwrap();
        assert!(verify_password("a good password", &eve.password_hash));
        let said = user(&home, "passwd eve").await.unwrap();
        let password = said.trim().rsplit(' ').next().unwrap();
        let eve = accounts.account("eve").await.unwrap().unwrap();
        assert!(verify_password(password, &eve.password_hash), "{said}");
        assert_eq!(eve.generation, 2);

        user(&home, "disable eve").await.unwrap();
        let expected = "admin                    enabled   admin\neve                      disabled  viewer, sender\n";
        assert_eq!(user(&home, "list").await.unwrap(), expected);
        user(&home, "enable eve").await.unwrap();
        let eve = accounts.account("eve").await.unwrap().unwrap();
        assert_eq!((eve.enabled, eve.generation), (true, 3));
        std::fs::write(&file, "short\n").unwrap();
        let refused = user(&home, &format!("passwd eve --password-file {}", file.display())).await.unwrap_err();
        assert_eq!(refused, "a password has 8 to 1024 bytes");
    }
}
