#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use serde_json::json;

use super::*;

const SENDER: Sender<'_> = Sender { name: "operator", role: Some("admin") };

fn accepted(event: Value) -> Result<Accepted, String> {
    let Value::Object(event) = event else { panic!("{event}") };
    accept(event, SENDER)
}

fn check() -> Value {
    json!({"event_type": "check", "connector": "c", "connector_name": "cn", "component": "h", "resource": "r", "state": 2})
}

fn with(name: &str, value: Value) -> Value {
    let mut event = check();
    event[name] = value;
    event
}

#[test]
fn an_event_gets_its_source_type_author_and_routing_key() {
    let accepted = accepted(with("state", json!("3"))).unwrap();
    assert_eq!(accepted.routing_key.as_str(), "c.cn.check.resource.h.r");
    assert_eq!(
        Value::Object(accepted.event),
        json!({"event_type": "check", "connector": "c", "connector_name": "cn", "component": "h", "resource": "r",
            "state": 3, "source_type": "resource", "author": "operator", "user_id": "operator"})
    );
}

#[test]
fn what_the_sender_states_stays() {
    let mut event = with("author", json!("A"));
    event["user_id"] = json!("u");
    event["x"] = json!({"deep": [1]});
    event["source_type"] = json!("component");
    event["long_output"] = json!({"not": "text"});
    let event = accepted(event).unwrap().event;
    assert_eq!((&event["author"], &event["user_id"], &event["x"]), (&json!("A"), &json!("u"), &json!({"deep": [1]})));
    assert_eq!((&event["source_type"], &event["long_output"]), (&json!("resource"), &json!("")));
    assert_eq!(event.get("role"), None);
}

#[test]
fn only_actions_carry_a_role() {
    let mut event = with("event_type", json!("ack"));
    event.as_object_mut().unwrap().remove("state");
    assert_eq!(accepted(event).unwrap().event["role"], json!("admin"));
}

#[test]
fn what_is_wrong_is_said() {
    let cases = [
        (with("event_type", Value::Null), "event_type is missing"),
        (with("event_type", json!(7)), "event_type has to be text"),
        (with("event_type", json!("x".repeat(65))), "event_type has more than 64 bytes"),
        (with("connector", json!("  ")), "connector is missing"),
        (with("connector_name", json!([])), "connector_name has to be text"),
        (with("component", json!("")), "component is missing, and there is a resource"),
        (with("state", Value::Null), "state is missing"),
        (with("state", json!(4)), "state has to be a number from 0 to 3"),
        (with("state", json!(-1)), "state has to be a number from 0 to 3"),
        (with("state", json!(1.5)), "state has to be a number from 0 to 3"),
        (with("state", json!("critical")), "state has to be a number from 0 to 3"),
        (with("state", json!(true)), "state has to be a number from 0 to 3"),
    ];
    for (event, expected) in cases {
        assert_eq!(accepted(event.clone()).unwrap_err(), expected, "{event}");
    }
    let of_connector = json!({"event_type": "check", "connector": "c", "connector_name": "cn", "state": 1});
    assert!(accepted(of_connector).unwrap_err().starts_with("component is missing"));
    let perf = json!({"event_type": "perf", "connector": "c", "connector_name": "cn"});
    assert_eq!(accepted(perf).unwrap().routing_key.as_str(), "c.cn.perf.connector.");
}

#[test]
fn long_names_make_a_key_that_fits() {
    let accepted = accepted(with("component", json!("x".repeat(400)))).unwrap();
    assert!(accepted.routing_key.as_str().len() <= 255);
    assert_eq!(accepted.event["component"].as_str().unwrap().len(), 400);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("check")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_event() -> impl Strategy<Value = Map<String, Value>> {
    let names = [
        "event_type",
        "connector",
        "connector_name",
        "component",
        "resource",
        "state",
        "long_output",
        "author",
        "user_id",
        "source_type",
        "role",
        "other",
    ];
    let name = proptest::sample::select(names.to_vec()).prop_map(str::to_owned);
    proptest::collection::btree_map(name, any_json(), 0..12).prop_map(|map| map.into_iter().collect())
}

proptest! {
    #[test]
    fn nothing_panics_and_what_is_accepted_is_whole(event in any_event()) {
        if let Ok(accepted) = accept(event, SENDER) {
            prop_assert!(accepted.routing_key.as_str().len() <= 255);
            for name in ["event_type", "connector", "connector_name", "source_type", "author", "user_id"] {
                prop_assert!(accepted.event[name].as_str().is_some_and(|text| !text.trim().is_empty()), "{}", name);
            }
            let kind = accepted.event["event_type"].as_str().unwrap_or_default().trim();
            if WITH_STATE.contains(&kind) {
                prop_assert!(accepted.event["state"].as_i64().is_some_and(|state| (0..=3).contains(&state)));
            }
            // Accepting again changes nothing.
            let again = accept(accepted.event.clone(), SENDER);
            prop_assert_eq!(again, Ok(accepted));
        }
    }
}
