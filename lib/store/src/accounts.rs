//! Who may use the API: accounts, their roles, API keys and sessions. Written by the web server alone.

use std::collections::BTreeMap;

use async_trait::async_trait;
use overstory_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// A named set of permissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// The name.
    #[serde(rename = "_id")]
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Permission (`api_alarm_read`) to bits: create 8, read 4, update 2, delete 1, or 1 for "can".
    pub permissions: BTreeMap<String, u8>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The login name.
    #[serde(rename = "_id")]
    pub name: String,
    /// The password's argon2 hash in PHC form; never leaves the web server.
    pub password_hash: String,
    /// Its roles' names.
    pub roles: Vec<String>,
    /// Whether it may log in.
    pub enabled: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Counts password changes; sessions of an earlier generation are void.
    pub generation: u64,
}

/// A key that stands for an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// SHA-256 of the key, in hexadecimal; the key itself is not kept.
    #[serde(rename = "_id")]
    pub key_hash: String,
    /// Whose it is.
    pub account: String,
    /// What it is for.
    pub description: String,
    /// When it was made.
    pub created: Timestamp,
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// SHA-256 of the token, in hexadecimal; the token itself is not kept.
    #[serde(rename = "_id")]
    pub token_hash: String,
    /// Whose it is.
    pub account: String,
    /// The account's generation at login.
    pub generation: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

/// The accounts.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Makes or replaces a role.
    ///
    /// # Errors
    /// The store is not available.
    async fn put_role(&self, role: &Role) -> Result<(), StoreError>;

    /// One role.
    ///
    /// # Errors
    /// The store is not available.
    async fn role(&self, name: &str) -> Result<Option<Role>, StoreError>;

    /// Makes an account.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken.
    async fn create_account(&self, account: &Account) -> Result<(), StoreError>;

    /// Replaces an account's hash, roles and switch; its generation must be the stored one plus one, or the same.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when there is no such account or it was changed meanwhile.
    async fn update_account(&self, account: &Account) -> Result<(), StoreError>;

    /// One account.
    ///
    /// # Errors
    /// The store is not available.
    async fn account(&self, name: &str) -> Result<Option<Account>, StoreError>;

    /// All accounts, by name.
    ///
    /// # Errors
    /// The store is not available.
    async fn accounts(&self) -> Result<Vec<Account>, StoreError>;

    /// Keeps a key.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it exists.
    async fn put_api_key(&self, key: &ApiKey) -> Result<(), StoreError>;

    /// Finds a key by its hash.
    ///
    /// # Errors
    /// The store is not available.
    async fn api_key(&self, key_hash: &str) -> Result<Option<ApiKey>, StoreError>;

    /// All keys, by account and hash.
    ///
    /// # Errors
    /// The store is not available.
    async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError>;

    /// Removes a key; says whether there was one.
    ///
    /// # Errors
    /// The store is not available.
    async fn remove_api_key(&self, key_hash: &str) -> Result<bool, StoreError>;

    /// Keeps a session.
    ///
    /// # Errors
    /// The store is not available.
    async fn put_session(&self, session: &Session) -> Result<(), StoreError>;

    /// Finds a session by its token's hash, ended or not.
    ///
    /// # Errors
    /// The store is not available.
    async fn session(&self, token_hash: &str) -> Result<Option<Session>, StoreError>;

    /// Removes a session; says whether there was one.
    ///
    /// # Errors
    /// The store is not available.
    async fn remove_session(&self, token_hash: &str) -> Result<bool, StoreError>;

    /// Removes sessions that ended before `now`; returns how many.
    ///
    /// # Errors
    /// The store is not available.
    async fn expire_sessions(&self, now: Timestamp) -> Result<u64, StoreError>;
}
