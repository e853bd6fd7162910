//! Accounts, roles, keys and sessions.

use async_trait::async_trait;
use mongodb::bson::doc;
use overstory_model::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bulk::raw;
use super::documents::int;
use super::entities::collect;
use super::failure::{parse, within};
use super::{MongoDb, name};
use crate::accounts::{Account, Accounts, ApiKey, Role, Session};
use crate::error::StoreError;

#[async_trait]
impl Accounts for MongoDb {
    async fn put_role(&self, role: &Role) -> Result<(), StoreError> {
        self.replace(name::ROLES, &role.name, role).await
    }

    async fn role(&self, name: &str) -> Result<Option<Role>, StoreError> {
        self.find(name::ROLES, name).await
    }

    async fn create_account(&self, account: &Account) -> Result<(), StoreError> {
        self.insert(name::ACCOUNTS, account).await
    }

    async fn update_account(&self, account: &Account) -> Result<(), StoreError> {
        let now = int(account.generation);
        let generations = vec![now, now.saturating_sub(1)];
        let same = doc! { "_id": &account.name, "generation": { "$in": generations } };
        let accounts = self.raw_collection(name::ACCOUNTS);
        let account_document = raw(account)?;
        let result = within(async { accounts.replace_one(same, account_document).await }).await?;
        if result.matched_count == 1 {
            return Ok(());
        }
        Err(StoreError::Conflict(format!("account {} is gone or was changed", account.name)))
    }

    async fn account(&self, name: &str) -> Result<Option<Account>, StoreError> {
        self.find(name::ACCOUNTS, name).await
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        let accounts = self.collection(name::ACCOUNTS);
        collect("accounts", async { accounts.find(doc! {}).sort(doc! { "_id": 1 }).await }).await
    }

    async fn put_api_key(&self, key: &ApiKey) -> Result<(), StoreError> {
        self.insert(name::API_KEYS, key).await
    }

    async fn api_key(&self, key_hash: &str) -> Result<Option<ApiKey>, StoreError> {
        self.find(name::API_KEYS, key_hash).await
    }

    async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let keys = self.collection(name::API_KEYS);
        collect("api_key", async { keys.find(doc! {}).sort(doc! { "account": 1, "_id": 1 }).await }).await
    }

    async fn remove_api_key(&self, key_hash: &str) -> Result<bool, StoreError> {
        self.remove(name::API_KEYS, key_hash).await
    }

    async fn put_session(&self, session: &Session) -> Result<(), StoreError> {
        self.replace(name::SESSIONS, &session.token_hash, session).await
    }

    async fn session(&self, token_hash: &str) -> Result<Option<Session>, StoreError> {
        self.find(name::SESSIONS, token_hash).await
    }

    async fn remove_session(&self, token_hash: &str) -> Result<bool, StoreError> {
        self.remove(name::SESSIONS, token_hash).await
    }

    async fn expire_sessions(&self, now: Timestamp) -> Result<u64, StoreError> {
        let sessions = self.collection(name::SESSIONS);
        let ended = doc! { "expires": { "$lt": now.0 } };
        within(async { sessions.delete_many(ended).await }).await.map(|result| result.deleted_count)
    }
}

impl MongoDb {
    async fn find<T: DeserializeOwned>(&self, collection: &'static str, id: &str) -> Result<Option<T>, StoreError> {
        let documents = self.collection(collection);
        let found = within(async { documents.find_one(doc! { "_id": id }).await }).await?;
        found.map(|document| parse(collection, document)).transpose()
    }

    async fn insert(&self, collection: &str, value: &(impl Serialize + Sync)) -> Result<(), StoreError> {
        let (documents, document) = (self.raw_collection(collection), raw(value)?);
        within(async { documents.insert_one(document).await }).await.map(drop)
    }

    async fn replace(&self, collection: &str, id: &str, value: &(impl Serialize + Sync)) -> Result<(), StoreError> {
        let (documents, document) = (self.raw_collection(collection), raw(value)?);
        within(async { documents.replace_one(doc! { "_id": id }, document).upsert(true).await }).await.map(drop)
    }

    async fn remove(&self, collection: &str, id: &str) -> Result<bool, StoreError> {
        let documents = self.collection(collection);
        let result = within(async { documents.delete_one(doc! { "_id": id }).await }).await?;
        Ok(result.deleted_count > 0)
    }
}
