use overstory_model::metric::MetricKind;
use overstory_model::{EntityId, Millis, SeriesKey, Timestamp};
use overstory_store::{Commit, Point};
use serde_json::json;

use crate::support::{NOW, Server, start};

/// A point every ten seconds of the last minute, the last one half a second late.
async fn seed(server: &Server) {
    let series = SeriesKey { entity: EntityId::resource("cpu", "h"), metric: "load".into() };
    let point = |n: i64| Point {
        series: series.clone(),
        unit: Some("%".into()),
        kind: MetricKind::Gauge,
        limits: [Some(0.0), Some(100.0), None, None],
        at: Millis((NOW - 60 + n * 10) * 1000 + if n == 5 { 500 } else { 0 }),
        value: f64::from(u8::try_from(n).unwrap()),
    };
    let points = (0..6).map(point).collect();
    server.commit(Commit { at: Timestamp(NOW), points, ..Commit::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn series_are_listed_with_their_latest_point() {
    let server = start().await;
    seed(&server).await;
    let expected = json!({
        "data": [{"entity": "cpu/h", "metric": "load", "unit": "%", "type": "GAUGE", "min": 0.0, "max": 100.0,
            "warn": null, "crit": null, "last_value": 5.0, "last_date": 1_699_999_990.5}],
        "meta": {"page": 1, "per_page": 10, "page_count": 1, "total_count": 1}
    });
    for query in ["", "?search=LOA", "?entity=cpu/h", "?entity=cpu/h&metric=load"] {
        assert_eq!(server.get(&format!("/api/v4/metrics{query}")).await.pair(), (200, expected.clone()), "{query}");
    }
    let none = server.get("/api/v4/metrics?metric=none").await.json();
    assert_eq!((&none["data"], &none["meta"]["total_count"]), (&json!([]), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_shows_points_or_buckets() {
    let server = start().await;
    seed(&server).await;
    let base = format!("/api/v4/metrics?entity=cpu/h&metric=load&from={}&to={}", NOW - 60, NOW);
    let buckets = server.get(&format!("{base}&step=20&aggregate=max")).await;
    let expected = json!({"data": {
        "entity": "cpu/h", "metric": "load", "from": NOW - 60, "to": NOW, "step": 20, "aggregate": "max",
        "points": [
            {"t": NOW - 60, "value": 1.0, "count": 2},
            {"t": NOW - 40, "value": 3.0, "count": 2},
            {"t": NOW - 20, "value": 5.0, "count": 2}
        ]
    }});
    assert_eq!(buckets.pair(), (200, expected));
    for (aggregate, values) in [
        ("avg", json!([0.5, 2.5, 4.5])),
        ("min", json!([0.0, 2.0, 4.0])),
        ("last", json!([1.0, 3.0, 5.0])),
        ("sum", json!([1.0, 5.0, 9.0])),
    ] {
        let document = server.get(&format!("{base}&step=20&aggregate={aggregate}")).await.json();
        let points = document["data"]["points"].as_array().unwrap();
        assert_eq!(points.iter().map(|point| point["value"].clone()).collect::<Vec<_>>(), *values.as_array().unwrap());
    }
    let raw = server.get(&base).await.json();
    assert_eq!((raw["data"]["points"].as_array().unwrap().len(), &raw["data"]["step"]), (6, &json!(null)));
    assert_eq!(raw["data"]["points"][5], json!({"t": 1_699_999_990.5, "value": 5.0, "count": 1}));
    // Without from and to: the hour that ends now.
    let hour = server.get("/api/v4/metrics?entity=cpu/h&metric=load&aggregate=avg").await.json();
    assert_eq!((&hour["data"]["from"], &hour["data"]["to"]), (&json!(NOW - 3600), &json!(NOW)));
    let unknown = server.get("/api/v4/metrics?entity=x&metric=y&from=0").await;
    assert_eq!((unknown.status, &unknown.json()["data"]["points"]), (200, &json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_ranges_are_named() {
    let server = start().await;
    let answer = server.get("/api/v4/metrics?from=5&to=5&step=0&aggregate=median").await;
    let expected = json!({"errors": {
        "entity": "Field is missing.",
        "metric": "Field is missing.",
        "from": "has to be before to",
        "step": "has to be a number from 0.001 to 253402300799",
        "aggregate": "has to be one of avg, min, max, last, sum",
    }});
    assert_eq!(answer.pair(), (400, expected));
    let answer = server.get("/api/v4/metrics?entity=a&metric=b&from=0&to=10001&step=1").await;
    let expected = json!({"errors": {"step": "makes more than 10000 buckets of this range"}});
    assert_eq!(answer.pair(), (400, expected));
    for from in ["NaN", "inf", "-1", "1e300", "abc"] {
        assert_eq!(server.get(&format!("/api/v4/metrics?entity=a&metric=b&from={from}")).await.status, 400, "{from}");
    }
}
