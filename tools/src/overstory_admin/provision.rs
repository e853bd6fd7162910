//! `overstory provision`: makes the store, the roles and the account `admin`. Run again it changes nothing that is there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use overstory_model::credential::{hash_password, random_password};
use overstory_model::permission::{
    ADMIN_ROLE, ALARM_READ, ALL, CAN, ENTITY, EVENT, HEALTHCHECK, METRICS_READ, READ, SERVICES,
};
use overstory_model::{Clock as _, SystemClock};
use overstory_runtime::Home;
use overstory_store::config::StoreConfig;
use overstory_store::open::open_web;
use overstory_store::{Account, Accounts, Role, StoreError};

/// The account that is made.
pub(crate) const ADMIN: &str = "admin";
/// The file with its password, in `etc`.
pub(crate) const PASSWORD_FILE: &str = "initial-admin-password";

/// A role and what it may do.
type RoleSpec = (&'static str, &'static str, &'static [(&'static str, u8)]);

const ROLES: [RoleSpec; 3] = [
    (ADMIN_ROLE, "may do everything", ALL),
    (
        "viewer",
        "may see everything and change nothing",
        &[(ALARM_READ, CAN), (ENTITY, READ), (HEALTHCHECK, CAN), (METRICS_READ, CAN), (SERVICES, READ)],
    ),
    ("sender", "may send events", &[(EVENT, CAN)]),
];

pub(super) async fn run(home: &Home, out: &mut impl Write) -> anyhow::Result<()> {
    let accounts = accounts(home).await?;
    provision(accounts.as_ref(), &home.config_file(PASSWORD_FILE), out).await
}

/// Opens the accounts of the prefix; makes the store when it is not there.
pub(super) async fn accounts(home: &Home) -> anyhow::Result<std::sync::Arc<dyn Accounts>> {
    let config = StoreConfig::load(home, &[])?;
    Ok(open_web(&config, home).await?.accounts)
}

async fn provision(accounts: &dyn Accounts, password_file: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    for spec in &ROLES {
        if provide_role(accounts, spec).await? {
            writeln!(out, "role {}: {}", spec.0, spec.1)?;
        }
    }
    if accounts.account(ADMIN).await?.is_some() {
        writeln!(out, "account {ADMIN} is there and stays as it is")?;
        return Ok(());
    }
    // The file comes first: were the account made and its password lost, nobody could log in. A file without an account
    // is what an interrupted run leaves.
    let password = match read_password(password_file)? {
        Some(password) => password,
        None => {
            let password = random_password();
            write_password(password_file, &password)
                .with_context(|| format!("cannot write {}", password_file.display()))?;
            password
        }
    };
    let account = Account {
        name: ADMIN.to_owned(),
        password_hash: hash_password(&password)?,
        roles: vec![ADMIN_ROLE.to_owned()],
        enabled: true,
        created: SystemClock.now().secs(),
        generation: 1,
    };
    match accounts.create_account(&account).await {
        Ok(()) => {
            writeln!(out, "account {ADMIN} with password {password}")?;
            writeln!(out, "the password is kept in {}", password_file.display())?;
            Ok(())
        }
        Err(StoreError::Conflict(_)) => bail!("account {ADMIN} was made by somebody else at this moment"),
        Err(error) => Err(error.into()),
    }
}

/// Makes a role, or adds what a new version of it may do besides; says whether it changed anything.
async fn provide_role(accounts: &dyn Accounts, (name, description, permissions): &RoleSpec) -> anyhow::Result<bool> {
    let known = accounts.role(name).await?;
    let is_new = known.is_none();
    let mut role = known.unwrap_or_else(|| Role {
        name: (*name).to_owned(),
        description: (*description).to_owned(),
        permissions: std::collections::BTreeMap::new(),
    });
    let before = role.permissions.clone();
    // The other roles are the operator's to change once they are made.
    if is_new || *name == ADMIN_ROLE {
        for (permission, bits) in *permissions {
            *role.permissions.entry((*permission).to_owned()).or_insert(0) |= bits;
        }
    }
    if !is_new && role.permissions == before {
        return Ok(false);
    }
    accounts.put_role(&role).await?;
    Ok(true)
}

fn read_password(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let password = text.trim_end_matches(['\r', '\n']);
            Ok((!password.is_empty()).then(|| password.to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_password(path: &Path, password: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{password}")?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::os::unix::fs::PermissionsExt as _;

    use overstory_model::credential::verify_password;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/store.conf"), "").unwrap();
        let home = Home::at(dir.path());
        (dir, home)
    }

    async fn provisioned(home: &Home) -> String {
        let mut out = Vec::new();
        run(home, &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn the_first_run_makes_the_account_and_later_ones_leave_it_alone() {
        let (_dir, home) = home();
        let file = home.config_file(PASSWORD_FILE);
        let said = provisioned(&home).await;
        let password = fs::read_to_string(&file).unwrap().trim().to_owned();
        assert!(said.contains(&format!("account admin with password {password}\n")), "{said}");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let first = accounts(&home).await.unwrap().account(ADMIN).await.unwrap().unwrap();
        assert!(verify_password(&password, &first.password_hash));
        assert_eq!((first.roles.as_slice(), first.enabled), (["admin".to_owned()].as_slice(), true));

        assert_eq!(provisioned(&home).await, "account admin is there and stays as it is\n");
        fs::remove_file(&file).unwrap();
        provisioned(&home).await;
        assert_eq!(accounts(&home).await.unwrap().account(ADMIN).await.unwrap().unwrap(), first);
        assert!(!file.exists());
    }

    #[tokio::test]
    async fn a_run_that_was_interrupted_is_continued_with_its_password() {
        let (_dir, home) = home();
        fs::write(home.config_file(PASSWORD_FILE), "from the first run\n").unwrap();
        provisioned(&home).await;
        let account = accounts(&home).await.unwrap().account(ADMIN).await.unwrap().unwrap();
        assert!(verify_password("from the first run", &account.password_hash));
    }

    #[tokio::test]
    async fn the_admin_role_learns_new_permissions_and_the_others_stay_as_they_were_made() {
        let (_dir, home) = home();
        let store = accounts(&home).await.unwrap();
        for name in [ADMIN_ROLE, "viewer"] {
            let permissions = [("api_own".to_owned(), 1)].into();
            store.put_role(&Role { name: name.into(), description: String::new(), permissions }).await.unwrap();
        }
        provisioned(&home).await;
        let admin = store.role(ADMIN_ROLE).await.unwrap().unwrap();
        assert_eq!(admin.permissions.len(), ALL.len() + 1);
        assert_eq!(store.role("viewer").await.unwrap().unwrap().permissions.len(), 1);
        assert_eq!(store.role("sender").await.unwrap().unwrap().permissions, [(EVENT.to_owned(), 1)].into());
    }
}
