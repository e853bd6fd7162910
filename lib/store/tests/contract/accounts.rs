use std::collections::BTreeMap;

use overstory_model::Timestamp;
use overstory_store::{Account, ApiKey, Role, Session, StoreError};

use super::fixture::Fixture;
use super::model::NOW;

fn account(name: &str, generation: u64) -> Account {
    Account {
        name: name.to_owned(),
        password_hash: format!("$argon2id${generation}"),
        roles: vec!["admin".to_owned()],
        enabled: true,
        created: Timestamp(NOW),
        generation,
    }
}

fn is_conflict(result: Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::Conflict(_)))
}

pub(crate) async fn accounts_are_made_once_and_changed_in_turn(fixture: &Fixture) {
    let accounts = fixture.web().await.accounts;
    assert_eq!(accounts.account("root").await.unwrap(), None);
    assert!(is_conflict(accounts.update_account(&account("root", 1)).await));
    accounts.create_account(&account("root", 5)).await.unwrap();
    assert!(is_conflict(accounts.create_account(&account("root", 9)).await));
    accounts.create_account(&account("admin", 0)).await.unwrap();

    let disabled = Account { enabled: false, ..account("root", 5) };
    accounts.update_account(&disabled).await.unwrap();
    assert_eq!(accounts.account("root").await.unwrap(), Some(disabled));
    accounts.update_account(&account("root", 6)).await.unwrap();
    // Two who both saw generation 5: the second one is told.
    assert!(is_conflict(accounts.update_account(&account("root", 5)).await));
    assert!(is_conflict(accounts.update_account(&account("root", 8)).await));
    let again = fixture.web().await.accounts;
    assert_eq!(again.accounts().await.unwrap(), [account("admin", 0), account("root", 6)]);
}

pub(crate) async fn roles_are_replaced(fixture: &Fixture) {
    let accounts = fixture.web().await.accounts;
    let role = |bits| Role {
        name: "reader".to_owned(),
        description: "reads".to_owned(),
        permissions: BTreeMap::from([("api_alarm_read".to_owned(), bits)]),
    };
    assert_eq!(accounts.role("reader").await.unwrap(), None);
    accounts.put_role(&role(4)).await.unwrap();
    accounts.put_role(&role(1)).await.unwrap();
    assert_eq!(accounts.role("reader").await.unwrap(), Some(role(1)));
}

pub(crate) async fn keys_are_kept_by_their_hash(fixture: &Fixture) {
    let accounts = fixture.web().await.accounts;
    let key = ApiKey {
        key_hash: "aa".to_owned(),
        account: "root".to_owned(),
        description: "for tests".to_owned(),
        created: Timestamp(NOW),
    };
    accounts.put_api_key(&key).await.unwrap();
    assert!(is_conflict(accounts.put_api_key(&key).await));
    assert_eq!(accounts.api_key("aa").await.unwrap(), Some(key.clone()));
    assert_eq!(accounts.api_key("ab").await.unwrap(), None);
    let other = ApiKey { key_hash: "a0".to_owned(), account: "admin".to_owned(), ..key.clone() };
    accounts.put_api_key(&other).await.unwrap();
    assert_eq!(accounts.api_keys().await.unwrap(), [other, key]);
    assert!(accounts.remove_api_key("aa").await.unwrap());
    assert!(!accounts.remove_api_key("aa").await.unwrap());
}

pub(crate) async fn sessions_end(fixture: &Fixture) {
    let accounts = fixture.web().await.accounts;
    let session = |token: &str, expires| Session {
        token_hash: token.to_owned(),
        account: "root".to_owned(),
        generation: 0,
        created: Timestamp(NOW),
        expires: Timestamp(expires),
    };
    accounts.put_session(&session("a", NOW + 10)).await.unwrap();
    accounts.put_session(&session("b", NOW + 20)).await.unwrap();
    accounts.put_session(&session("c", NOW + 30)).await.unwrap();
    assert_eq!(accounts.session("a").await.unwrap(), Some(session("a", NOW + 10)));
    assert!(accounts.remove_session("c").await.unwrap());
    assert!(!accounts.remove_session("c").await.unwrap());
    assert_eq!(accounts.expire_sessions(Timestamp(NOW + 20)).await.unwrap(), 1);
    assert_eq!(accounts.session("a").await.unwrap(), None);
    assert_eq!(accounts.session("b").await.unwrap(), Some(session("b", NOW + 20)));
}
