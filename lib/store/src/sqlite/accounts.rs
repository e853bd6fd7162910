//! Accounts, roles, keys and sessions, in `control.db`.

use async_trait::async_trait;
use overstory_model::Timestamp;
use rusqlite::{Connection, ToSql, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ControlDb;
use super::failure::damaged;
use super::sql::collect;
use crate::accounts::{Account, Accounts, ApiKey, Role, Session};
use crate::error::StoreError;

#[async_trait]
impl Accounts for ControlDb {
    async fn put_role(&self, role: &Role) -> Result<(), StoreError> {
        let (name, doc) = (role.name.clone(), document(role)?);
        self.write(move |connection| change(connection, "INSERT OR REPLACE INTO roles VALUES (?, ?)", &[&name, &doc]))
            .await
            .map(drop)
    }

    async fn role(&self, name: &str) -> Result<Option<Role>, StoreError> {
        let name = name.to_owned();
        self.read(move |connection| find(connection, "roles", "SELECT doc FROM roles WHERE name = ?", &name)).await
    }

    async fn create_account(&self, account: &Account) -> Result<(), StoreError> {
        let (account, doc) = (account.clone(), document(account)?);
        self.write(move |connection| {
            let sql = "INSERT INTO accounts VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
            match change(connection, sql, &[&account.name, &account.generation, &doc])? {
                0 => Err(StoreError::Conflict(format!("there is an account {}", account.name))),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn update_account(&self, account: &Account) -> Result<(), StoreError> {
        let (account, doc) = (account.clone(), document(account)?);
        self.write(move |connection| {
            let sql = "UPDATE accounts SET generation = ?2, doc = ?3 WHERE name = ?1 AND generation IN (?2, ?2 - 1)";
            match change(connection, sql, &[&account.name, &account.generation, &doc])? {
                0 => Err(StoreError::Conflict(format!("account {} is gone or was changed", account.name))),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn account(&self, name: &str) -> Result<Option<Account>, StoreError> {
        let name = name.to_owned();
        self.read(move |connection| find(connection, "accounts", "SELECT doc FROM accounts WHERE name = ?", &name))
            .await
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT doc, name FROM accounts ORDER BY name")?;
            collect(statement.query([])?, |row| {
                let (doc, name): (String, String) = (row.get(0)?, row.get(1)?);
                serde_json::from_str(&doc).map_err(|error| damaged("accounts", name, &error))
            })
        })
        .await
    }

    async fn put_api_key(&self, key: &ApiKey) -> Result<(), StoreError> {
        let (key, doc) = (key.clone(), document(key)?);
        self.write(move |connection| {
            let sql = "INSERT INTO api_keys VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
            match change(connection, sql, &[&key.key_hash, &key.account, &doc])? {
                0 => Err(StoreError::Conflict("there is such a key".to_owned())),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn api_key(&self, key_hash: &str) -> Result<Option<ApiKey>, StoreError> {
        let hash = key_hash.to_owned();
        self.read(move |connection| find(connection, "api_keys", "SELECT doc FROM api_keys WHERE key_hash = ?", &hash))
            .await
    }

    async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT doc, key_hash FROM api_keys ORDER BY account, key_hash";
            collect(connection.prepare_cached(sql)?.query([])?, |row| {
                let (doc, hash): (String, String) = (row.get(0)?, row.get(1)?);
                serde_json::from_str(&doc).map_err(|error| damaged("api_keys", hash, &error))
            })
        })
        .await
    }

    async fn remove_api_key(&self, key_hash: &str) -> Result<bool, StoreError> {
        let hash = key_hash.to_owned();
        self.write(move |connection| Ok(change(connection, "DELETE FROM api_keys WHERE key_hash = ?", &[&hash])? > 0))
            .await
    }

    async fn put_session(&self, session: &Session) -> Result<(), StoreError> {
        let (session, doc) = (session.clone(), document(session)?);
        self.write(move |connection| {
            let sql = "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?)";
            change(connection, sql, params![session.token_hash, session.account, session.expires.0, doc])
        })
        .await
        .map(drop)
    }

    async fn session(&self, token_hash: &str) -> Result<Option<Session>, StoreError> {
        let hash = token_hash.to_owned();
        let sql = "SELECT doc FROM sessions WHERE token_hash = ?";
        self.read(move |connection| find(connection, "sessions", sql, &hash)).await
    }

    async fn remove_session(&self, token_hash: &str) -> Result<bool, StoreError> {
        let hash = token_hash.to_owned();
        self.write(move |connection| Ok(change(connection, "DELETE FROM sessions WHERE token_hash = ?", &[&hash])? > 0))
            .await
    }

    async fn expire_sessions(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(move |connection| change(connection, "DELETE FROM sessions WHERE expires < ?", &[&now.0])).await
    }
}

fn document(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed(Box::new(error)))
}

/// Runs a statement; returns how many rows it changed.
fn change(connection: &Connection, sql: &str, values: &[&dyn ToSql]) -> Result<u64, StoreError> {
    Ok(connection.prepare_cached(sql)?.execute(values)? as u64)
}

fn find<T: DeserializeOwned>(
    connection: &Connection,
    collection: &'static str,
    sql: &str,
    key: &str,
) -> Result<Option<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let doc = row.get_ref(0)?.as_str().unwrap_or_default();
    serde_json::from_str(doc).map(Some).map_err(|error| damaged(collection, key, &error))
}
