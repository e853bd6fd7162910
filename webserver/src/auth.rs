//! Who is calling: sessions, HTTP basic, API keys, and what their roles allow.

mod memory;
mod passwords;
mod throttle;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderMap};
use actix_web::web;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use overstory_model::credential::{self, token_hash};
use overstory_model::{Clock, Millis, permission};
use overstory_store::{Account, Accounts, Session, StoreError};

use self::memory::Memory;
use self::passwords::Passwords;
use self::throttle::Throttle;
use crate::config::AuthSettings;
use crate::error::ApiError;
use crate::shared::Shared;

/// The header of API keys.
pub const KEY_HEADER: &str = "x-canopsis-authkey";
/// The longest user name that is looked up, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// The longest token or key that is looked up, in bytes.
const MAX_TOKEN_BYTES: usize = 512;

/// A caller whose credentials were right.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The account.
    pub account: Arc<AccountView>,
    /// The hash of the session's token, for a caller that logged in.
    pub session: Option<String>,
}

/// What is remembered of an account.
#[derive(Debug, PartialEq, Eq)]
pub struct AccountView {
    /// The login name.
    pub name: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// What all its roles together allow.
    pub permissions: BTreeMap<String, u8>,
    generation: u64,
}

impl Identity {
    /// Succeeds when the caller's roles give every bit of `bits` of `permission`.
    ///
    /// # Errors
    /// 403.
    pub fn require(&self, name: &str, bits: u8) -> Result<(), ApiError> {
        let held = self.account.permissions.get(name).copied().unwrap_or(0);
        if permission::allows(held, bits) { Ok(()) } else { Err(ApiError::forbidden(name)) }
    }
}

/// What was presented.
enum Credentials {
    Basic { name: String, password: String },
    Bearer(String),
    Key(String),
}

/// Knows the callers.
pub struct Authenticator {
    settings: AuthSettings,
    accounts: Arc<dyn Accounts>,
    shared: Shared,
    clock: Arc<dyn Clock>,
    passwords: Passwords,
    throttle: Throttle,
    /// Hash of verified credentials -> account name and its generation then.
    verified: Memory<String, (String, u64)>,
    views: Memory<String, Arc<AccountView>>,
    /// Mixed into the hashes of basic credentials, so that memory holds nothing that could be tried elsewhere.
    pepper: String,
}

impl Authenticator {
    /// Prepares to know the callers.
    ///
    /// # Errors
    /// No threads can be started to check passwords on.
    pub fn new(
        settings: AuthSettings,
        accounts: Arc<dyn Accounts>,
        shared: Shared,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            passwords: Passwords::new(settings.password_checks)?,
            throttle: Throttle::new(settings.failures_allowed, settings.slowest),
            verified: Memory::new(),
            views: Memory::new(),
            pepper: credential::random_token(),
            settings,
            accounts,
            shared,
            clock,
        })
    }

    /// Finds out who sent a request.
    ///
    /// # Errors
    /// 401 when it is nobody, 429 after too many failures, 503 when the store is away.
    pub async fn identify(
        &self,
        headers: &HeaderMap,
        query: &str,
        address: Option<IpAddr>,
    ) -> Result<Identity, ApiError> {
        match credentials(headers, query)? {
            Credentials::Basic { name, password } => self.identify_basic(name, password, address).await,
            Credentials::Bearer(token) => self.identify_session(&token).await,
            Credentials::Key(key) => self.identify_key(&key).await,
        }
    }

    /// Opens a session; returns its token.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub async fn login(&self, name: &str, password: &str, address: Option<IpAddr>) -> Result<String, ApiError> {
        let account = self.check_password(name, password.to_owned(), address).await?;
        let now = self.clock.now().secs();
        let token = credential::random_token();
        let session = Session {
            token_hash: token_hash(&token),
            account: account.name,
            generation: account.generation,
            created: now,
            expires: now.plus(self.settings.session_s),
        };
        self.store(|accounts| async move { accounts.put_session(&session).await }).await?;
        tracing::info!(account = name, "logged in");
        Ok(token)
    }

    /// Ends the caller's session, if it came with one.
    ///
    /// # Errors
    /// 503 when the store is away.
    pub async fn logout(&self, identity: &Identity) -> Result<(), ApiError> {
        let Some(hash) = identity.session.clone() else { return Ok(()) };
        self.verified.forget(&hash);
        self.store(move |accounts| async move { accounts.remove_session(&hash).await }).await?;
        Ok(())
    }

    /// Removes sessions that have ended; the program calls it now and then.
    ///
    /// # Errors
    /// The store is away.
    pub async fn expire_sessions(&self) -> Result<u64, StoreError> {
        self.accounts.expire_sessions(self.clock.now().secs()).await
    }

    async fn identify_basic(
        &self,
        name: String,
        password: String,
        address: Option<IpAddr>,
    ) -> Result<Identity, ApiError> {
        let key = token_hash(&format!("{}\0{name}\0{password}", self.pepper));
        let now = self.clock.now();
        if let Some((name, generation)) = self.verified.get(&key, now)
            && let Ok(identity) = self.identity(&name, generation, None).await
        {
            return Ok(identity);
        }
        let account = self.check_password(&name, password, address).await?;
        let identity = self.identity(&name, account.generation, None).await?;
        self.verified.put(key, (name, account.generation), after(now, self.settings.basic_cache), now);
        Ok(identity)
    }

    async fn identify_session(&self, token: &str) -> Result<Identity, ApiError> {
        let hash = checked_token(token)?;
        let now = self.clock.now();
        if let Some((name, generation)) = self.verified.get(&hash, now) {
            return self.identity(&name, generation, Some(hash)).await;
        }
        let wanted = hash.clone();
        let session = self.store(move |accounts| async move { accounts.session(&wanted).await }).await?;
        let session = session.filter(|session| now.secs() < session.expires).ok_or_else(ApiError::unauthorized)?;
        let until = after(now, self.settings.cache).min(session.expires.millis());
        let identity = self.identity(&session.account, session.generation, Some(hash.clone())).await?;
        self.verified.put(hash, (session.account, session.generation), until, now);
        Ok(identity)
    }

    async fn identify_key(&self, key: &str) -> Result<Identity, ApiError> {
        let hash = checked_token(key)?;
        let now = self.clock.now();
        // A key is not of a session's kind: the two must not stand for each other.
        let remembered = format!("key {hash}");
        let name = match self.verified.get(&remembered, now) {
            Some((name, _)) => name,
            None => {
                let key = self.store(move |accounts| async move { accounts.api_key(&hash).await }).await?;
                let name = key.ok_or_else(ApiError::unauthorized)?.account;
                self.verified.put(remembered, (name.clone(), 0), after(now, self.settings.cache), now);
                name
            }
        };
        // Keys outlive password changes; they end when they are removed or the account is switched off.
        let account = self.view(&name).await?.ok_or_else(ApiError::unauthorized)?;
        Ok(Identity { account, session: None })
    }

    /// Checks a name and a password, at the price of one hash whatever the name.
    async fn check_password(&self, name: &str, password: String, address: Option<IpAddr>) -> Result<Account, ApiError> {
        let now = self.clock.now();
        if let Some(seconds) = self.throttle.wait(name, address, now) {
            return Err(ApiError::too_many_attempts(seconds));
        }
        if name.len() > MAX_NAME_BYTES || password.len() > credential::MAX_PASSWORD_BYTES {
            return Err(ApiError::unauthorized());
        }
        let wanted = name.to_owned();
        let account = self.store(move |accounts| async move { accounts.account(&wanted).await }).await?;
        let account = account.filter(|account| account.enabled);
        let hash = account.as_ref().map(|account| account.password_hash.as_str());
        let matches = self.passwords.matches(password, hash).await?;
        match account {
            Some(account) if matches => {
                self.throttle.succeeded(name, address);
                Ok(account)
            }
            _ => {
                self.throttle.failed(name, address, self.clock.now());
                tracing::warn!(?address, "login failed");
                Err(ApiError::unauthorized())
            }
        }
    }

    /// The account if it is still the one whose credentials were verified.
    async fn identity(&self, name: &str, generation: u64, session: Option<String>) -> Result<Identity, ApiError> {
        let account = self.view(name).await?.filter(|view| view.generation == generation);
        Ok(Identity { account: account.ok_or_else(ApiError::unauthorized)?, session })
    }

    /// An enabled account with what its roles allow.
    async fn view(&self, name: &str) -> Result<Option<Arc<AccountView>>, ApiError> {
        let now = self.clock.now();
        let key = name.to_owned();
        if let Some(view) = self.views.get(&key, now) {
            return Ok(Some(view));
        }
        let view = self.store(move |accounts| async move { load_view(accounts.as_ref(), &key).await }).await?;
        if let Some(view) = &view {
            self.views.put(name.to_owned(), Arc::clone(view), after(now, self.settings.cache), now);
        }
        Ok(view)
    }

    async fn store<T, F, Fut>(&self, call: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<dyn Accounts>) -> Fut,
        Fut: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.shared.store(call(Arc::clone(&self.accounts))).await
    }
}

async fn load_view(accounts: &dyn Accounts, name: &str) -> Result<Option<Arc<AccountView>>, StoreError> {
    let Some(account) = accounts.account(name).await?.filter(|account| account.enabled) else { return Ok(None) };
    let mut permissions = BTreeMap::new();
    for role in &account.roles {
        if let Some(role) = accounts.role(role).await? {
            for (permission, bits) in role.permissions {
                *permissions.entry(permission).or_insert(0) |= bits;
            }
        }
    }
    let Account { name, roles, generation, .. } = account;
    Ok(Some(Arc::new(AccountView { name, roles, permissions, generation })))
}

fn after(now: Millis, duration: Duration) -> Millis {
    Millis(now.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
}

fn checked_token(token: &str) -> Result<String, ApiError> {
    let fine = !token.is_empty() && token.len() <= MAX_TOKEN_BYTES;
    if fine { Ok(token_hash(token)) } else { Err(ApiError::unauthorized()) }
}

/// The `Authorization` header, else the key's header, else the query's `authkey`. What is there and wrong is not passed
/// over for the next.
fn credentials(headers: &HeaderMap, query: &str) -> Result<Credentials, ApiError> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let value = value.to_str().map_err(|_| ApiError::unauthorized())?;
        let (scheme, value) = value.split_once(' ').ok_or_else(ApiError::unauthorized)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Credentials::Bearer(value.trim().to_owned()));
        }
        if scheme.eq_ignore_ascii_case("basic") {
            return basic(value.trim()).ok_or_else(ApiError::unauthorized);
        }
        return Err(ApiError::unauthorized());
    }
    if let Some(value) = headers.get(KEY_HEADER) {
        let key = value.to_str().map_err(|_| ApiError::unauthorized())?;
        return Ok(Credentials::Key(key.to_owned()));
    }
    let pairs = web::Query::<Vec<(String, String)>>::from_query(query).map_err(|_| ApiError::unauthorized())?;
    let key = pairs.into_inner().into_iter().find(|(name, _)| name == "authkey").map(|(_, value)| value);
    key.map(Credentials::Key).ok_or_else(ApiError::unauthorized)
}

fn basic(encoded: &str) -> Option<Credentials> {
    if encoded.len() > 4096 {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some(Credentials::Basic { name: name.to_owned(), password: password.to_owned() })
}
