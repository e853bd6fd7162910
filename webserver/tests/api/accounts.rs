use overstory_model::Timestamp;
use overstory_model::credential::{hash_password, token_hash};
use overstory_store::ApiKey;
use serde_json::json;

use crate::support::{Answer, NOW, PASSWORD, Server, basic, start, start_with};

async fn login(server: &Server, name: &str, password: &str) -> Answer {
    server.send("POST", "/api/v4/login", &[], &json!({"username": name, "password": password})).await
}

async fn token(server: &Server, name: &str) -> String {
    let answer = login(server, name, PASSWORD).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

/// Adds a key of the account, as `overstory key add` does.
async fn add_key(server: &Server, account: &str, key: &str) {
    let key = ApiKey {
        key_hash: token_hash(key),
        account: account.into(),
        description: String::new(),
        created: Timestamp(NOW),
    };
    server.accounts.put_api_key(&key).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_opens_a_session_that_ends() {
    let server = start().await;
    let bearer = format!("Authorization: Bearer {}", token(&server, "admin").await);
    let me = server.request("GET", "/api/v4/account/me", &[&bearer], None).await;
    let expected = json!({"_id": "admin", "name": "admin", "roles": ["admin"], "permissions": {
        "api_alarm_read": 1, "api_entity": 15, "api_event": 1, "api_healthcheck": 1, "api_metrics_read": 1,
        "api_services": 6
    }});
    assert_eq!(me.pair(), (200, expected));
    assert_eq!(server.request("POST", "/api/v4/logout", &[&bearer], None).await.status, 204);
    assert_eq!(server.request("GET", "/api/v4/account/me", &[&bearer], None).await.status, 401);

    let bearer = format!("Authorization: Bearer {}", token(&server, "admin").await);
    server.clock.advance_secs(43_199);
    assert_eq!(server.request("GET", "/api/v4/account/me", &[&bearer], None).await.status, 200);
    server.clock.advance_secs(1);
    assert_eq!(server.request("GET", "/api/v4/account/me", &[&bearer], None).await.status, 401);
    let bearer = format!("Authorization: Bearer {}", token(&server, "admin").await);
    assert_eq!(server.request("GET", "/logout", &[&bearer], None).await.status, 204);
    assert_eq!(server.request("GET", "/api/v4/alarms", &[&bearer], None).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_credentials_and_nothing_else_lets_in() {
    let server = start().await;
    add_key(&server, "admin", "the-key").await;
    add_key(&server, "gone", "key-of-gone").await;
    let session = token(&server, "admin").await;
    let bearer = format!("authorization: bearer {session}");
    let (right, wrong) = (basic("admin", PASSWORD), basic("admin", "wrong"));
    let cases: &[(&str, &[&str], u16)] = &[
        ("basic", &[&right], 200),
        ("bearer", &[&bearer], 200),
        ("key", &["X-Canopsis-Authkey: the-key"], 200),
        ("nothing", &[], 401),
        ("a wrong password", &[&wrong], 401),
        ("an unknown user", &[&basic("nobody", PASSWORD)], 401),
        ("a disabled user", &[&basic("gone", PASSWORD)], 401),
        ("the key of a disabled user", &["x-canopsis-authkey: key-of-gone"], 401),
        ("an unknown key", &["x-canopsis-authkey: other"], 401),
        ("a key as a session", &["Authorization: Bearer the-key"], 401),
        ("a session as a key", &[&format!("x-canopsis-authkey: {session}")], 401),
        ("a hash instead of a key", &[&format!("x-canopsis-authkey: {}", token_hash("the-key"))], 401),
        ("an empty key", &["x-canopsis-authkey: "], 401),
        ("an empty token", &["Authorization: Bearer "], 401),
        ("no base64", &["Authorization: Basic ???"], 401),
        ("no colon", &["Authorization: Basic YWRtaW4="], 401),
        ("another scheme", &["Authorization: Digest x"], 401),
        ("a wrong password before a right key", &[&wrong, "x-canopsis-authkey: the-key"], 401),
    ];
    for (what, headers, status) in cases {
        let answer = server.request("GET", "/api/v4/account/me", headers, None).await;
        assert_eq!(answer.status, *status, "{what}: {}", answer.body);
        if *status == 401 {
            assert_eq!(answer.json(), json!({"error": "Unauthorized"}), "{what}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer", "{what}");
        }
    }
    let in_query = server.request("GET", "/api/v4/account/me?authkey=the-key", &[], None).await;
    assert_eq!(in_query.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_decide_what_may_be_done() {
    let server = start().await;
    let eve = basic("eve", PASSWORD);
    let event = json!({"event_type": "log", "connector": "c", "connector_name": "n", "component": "h"});
    for (method, path, status) in [
        ("GET", "/api/v4/alarms", 200),
        ("GET", "/api/v4/account/me", 200),
        ("GET", "/api/v4/app-info", 200),
        ("POST", "/api/v4/event", 403),
        ("GET", "/api/v4/entities", 403),
        ("GET", "/api/v4/metrics", 403),
        ("GET", "/api/v4/healthcheck", 403),
        ("GET", "/api/v4/services", 403),
        ("PUT", "/api/v4/services/collectd/stop", 403),
    ] {
        let answer = server.send(method, path, &[&eve], &event).await;
        assert_eq!(answer.status, status, "{method} {path}");
        if status == 403 {
            assert_eq!(answer.json(), json!({"error": "Forbidden"}));
        }
    }
    assert!(server.sink.messages.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_are_slowed_for_that_account_and_forgiven() {
    let server = start_with(|settings| settings.auth.failures_allowed = 2).await;
    for _ in 0..2 {
        let answer = login(&server, "admin", "wrong").await;
        assert_eq!(answer.pair(), (401, json!({"error": "Unauthorized"})));
    }
    // Now the right password does not count either, by whichever way it comes.
    let refused = login(&server, "admin", PASSWORD).await;
    assert_eq!(refused.pair(), (429, json!({"error": "Too many failed logins, try again later"})));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(server.get("/api/v4/alarms").await.status, 429);
    // Others are not concerned.
    assert_eq!(login(&server, "eve", PASSWORD).await.status, 200);
    server.clock.advance_secs(1);
    assert_eq!(login(&server, "admin", PASSWORD).await.status, 200);
    assert_eq!(login(&server, "admin", "wrong").await.status, 401);
    assert_eq!(login(&server, "admin", PASSWORD).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_there_is_slowed_like_one_that_is() {
    let server = start_with(|settings| settings.auth.failures_allowed = 1).await;
    for name in ["nobody", "gone"] {
        assert_eq!(login(&server, name, "wrong").await.status, 401);
        assert_eq!(login(&server, name, "wrong").await.status, 429);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_password_is_remembered_while_others_fail() {
    let server = start_with(|settings| settings.auth.failures_allowed = 1).await;
    assert_eq!(server.get("/api/v4/alarms").await.status, 200);
    assert_eq!(login(&server, "admin", "wrong").await.status, 401);
    assert_eq!(login(&server, "admin", "wrong").await.status, 429);
    // Who was let in a moment ago is not locked out by somebody who guesses.
    assert_eq!(server.get("/api/v4/alarms").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_or_a_switched_off_account_ends_what_was_open() {
    let server = start().await;
    let bearer = format!("Authorization: Bearer {}", token(&server, "admin").await);
    assert_eq!(server.request("GET", "/api/v4/alarms", &[&bearer], None).await.status, 200);
    assert_eq!(server.get("/api/v4/alarms").await.status, 200);
    let mut account = server.accounts.account("admin").await.unwrap().unwrap();
    account.password_hash = hash_password("another password").unwrap();
    account.generation += 1;
    server.accounts.update_account(&account).await.unwrap();
    // What is remembered of accounts is a few seconds old at most.
    server.clock.advance_secs(5);
    assert_eq!(server.request("GET", "/api/v4/alarms", &[&bearer], None).await.status, 401);
    assert_eq!(server.get("/api/v4/alarms").await.status, 401);
    let new = basic("admin", "another password");
    assert_eq!(server.request("GET", "/api/v4/alarms", &[&new], None).await.status, 200);
    account.enabled = false;
    server.accounts.update_account(&account).await.unwrap();
    server.clock.advance_secs(5);
    assert_eq!(server.request("GET", "/api/v4/alarms", &[&new], None).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_takes_json_or_a_form_and_says_what_is_missing() {
    let server = start().await;
    let answer = server.send("POST", "/api/v4/login", &[], &json!({"username": ""})).await;
    let missing = json!({"errors": {"username": "Field is missing.", "password": "Field is missing."}});
    assert_eq!(answer.pair(), (400, missing));
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let body = "username=admin&password=correct+horse%20battery";
    let answer = server.request("POST", "/api/v4/login", &form, Some(body.as_bytes())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    for body in ["", "[]", "{\"username\": 5}", "{"] {
        let answer =
            server.request("POST", "/api/v4/login", &["Content-Type: application/json"], Some(body.as_bytes()));
        assert_eq!(answer.await.status, 400, "{body}");
    }
    let answer = server.request("POST", "/api/v4/login", &["Content-Type: text/plain"], Some(b"x")).await;
    assert_eq!(answer.status, 415);
    let long = login(&server, "admin", &"x".repeat(2000)).await;
    assert_eq!(long.status, 401);
}
