//! `overstory key`: API keys, which stand for an account until they are removed.

use std::io::Write;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use overstory_model::credential::{random_token, token_hash};
use overstory_model::{Clock as _, SystemClock};
use overstory_runtime::Home;
use overstory_store::{Accounts, ApiKey};
use serde_json::json;

use super::provision;

/// How much of a key's hash names it in lists.
const SHOWN: usize = 12;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Makes a key and prints it, once
    Add {
        /// The account that it stands for
        account: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Lists the keys by their ids; the keys themselves are not kept
    List {
        /// Writes one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Removes a key
    Remove {
        /// Its id as the list shows it, or the key itself
        id: String,
    },
}

pub(super) async fn run(command: &Command, home: &Home, out: &mut impl Write) -> anyhow::Result<()> {
    let accounts = provision::accounts(home).await?;
    execute(command, accounts.as_ref(), out).await
}

async fn execute(command: &Command, accounts: &dyn Accounts, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::Add { account, description } => {
            accounts.account(account).await?.with_context(|| format!("there is no account {account}"))?;
            let key = random_token();
            let entry = ApiKey {
                key_hash: token_hash(&key),
                account: account.clone(),
                description: description.clone(),
                created: SystemClock.now().secs(),
            };
            accounts.put_api_key(&entry).await?;
            writeln!(out, "{key}")?;
        }
        Command::List { json: as_json } => {
            for key in accounts.api_keys().await? {
                let id = id(&key);
                if *as_json {
                    let line = json!({"id": id, "account": key.account, "description": key.description,
                        "created": key.created});
                    writeln!(out, "{line}")?;
                } else {
                    writeln!(out, "{id}  {:<24} {}", key.account, key.description)?;
                }
            }
        }
        Command::Remove { id: wanted } => {
            let hash = token_hash(wanted);
            let keys = accounts.api_keys().await?;
            let is_it = |key: &&ApiKey| key.key_hash == hash || (!wanted.is_empty() && id(key) == wanted);
            let mut found = keys.iter().filter(is_it);
            let key = found.next().with_context(|| format!("there is no key {wanted}"))?;
            if found.next().is_some() {
                bail!("more than one key has the id {wanted}: give the key itself");
            }
            accounts.remove_api_key(&key.key_hash).await?;
            writeln!(out, "key {} of {} is gone", id(key), key.account)?;
        }
    }
    Ok(())
}

fn id(key: &ApiKey) -> &str {
    key.key_hash.get(..SHOWN).unwrap_or(&key.key_hash)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    async fn key(home: &Home, command: Command) -> Result<String, String> {
        let mut out = Vec::new();
        match run(&command, home, &mut out).await {
            Ok(()) => Ok(String::from_utf8(out).unwrap()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[tokio::test]
    async fn a_key_is_shown_once_listed_by_its_id_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/store.conf"), "").unwrap();
        let home = Home::at(dir.path());
        provision::run(&home, &mut Vec::new()).await.unwrap();
        let add = |account: &str| Command::Add { account: account.into(), description: "nagios".into() };
        assert_eq!(key(&home, add("nobody")).await.unwrap_err(), "there is no account nobody");
        let made = key(&home, add("admin")).await.unwrap().trim().to_owned();
        let id = token_hash(&made)[..SHOWN].to_owned();
        let listed = key(&home, Command::List { json: false }).await.unwrap();
        assert_eq!(listed, format!("{id}  admin                    nagios\n"));
        let accounts = provision::accounts(&home).await.unwrap();
        assert!(accounts.api_key(&token_hash(&made)).await.unwrap().is_some());
        let removed = key(&home, Command::Remove { id: id.clone() }).await.unwrap();
        assert_eq!(removed, format!("key {id} of admin is gone\n"));
        assert_eq!(
            key(&home, Command::Remove { id }).await.unwrap_err(),
            format!("there is no key {}", &token_hash(&made)[..SHOWN])
        );
        let second = key(&home, add("admin")).await.unwrap().trim().to_owned();
        key(&home, Command::Remove { id: second }).await.unwrap();
        assert_eq!(key(&home, Command::List { json: true }).await.unwrap(), "");
    }
}
