use std::collections::BTreeSet;
use std::path::Path;

use overstory_webserver::{openapi, routes};
use serde_json::Value;

use crate::support::start;

/// `OVERSTORY_UPDATE_GOLDEN=1 cargo test -p overstory-webserver` writes the file anew.
#[test]
fn the_openapi_document_is_the_committed_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if std::env::var_os("OVERSTORY_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, openapi::document()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == openapi::document(), "openapi.json is out of step: set OVERSTORY_UPDATE_GOLDEN=1");
}

#[test]
fn every_route_is_documented_and_every_documented_route_exists() {
    let document: Value = serde_json::from_str(openapi::document()).unwrap();
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            documented.insert((method.to_uppercase(), path.clone()));
        }
    }
    let table = routes::table();
    let registered: BTreeSet<_> = table.iter().map(|route| (route.method.to_string(), route.path.to_owned())).collect();
    assert_eq!(documented, registered);
    assert_eq!(registered.len(), table.len());
}

#[test]
fn only_the_named_routes_are_public_and_the_document_says_so() {
    let document: Value = serde_json::from_str(openapi::document()).unwrap();
    let public: Vec<_> = routes::table().into_iter().filter(|route| route.access == routes::Access::Public).collect();
    let paths: Vec<_> = public.iter().map(|route| route.path).collect();
    assert_eq!(paths, ["/healthz", "/readyz", "/openapi.json", "/api/v4/login"]);
    for route in routes::table() {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        let says_public = operation["security"] == serde_json::json!([{}]);
        assert_eq!(says_public, paths.contains(&route.path), "{}", route.path);
        let needs_credentials = !operation["responses"]["401"].is_null();
        assert_eq!(needs_credentials, !says_public || route.path == "/api/v4/login", "{}", route.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_served() {
    let server = start().await;
    let answer = server.request("GET", "/openapi.json", &[], None).await;
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "application/json"));
    assert_eq!(answer.body, openapi::document());
}
