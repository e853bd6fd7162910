use overstory_model::Timestamp;
use overstory_store::EngineRun;

use super::fixture::Fixture;
use super::model::NOW;

fn run(engine: &str, instance: &str, at: i64) -> EngineRun {
    EngineRun {
        engine: engine.to_owned(),
        instance: instance.to_owned(),
        active: true,
        at: Timestamp(at),
        pid: 17,
        events: 300,
        errors: 0,
        events_per_second: 5.5,
        seconds_per_event: 0.0001,
    }
}

pub(crate) async fn the_latest_report_of_each_engine_is_listed(fixture: &Fixture) {
    let store = fixture.engines().await;
    store.runs.record(&[]).await.unwrap();
    store.runs.record(&[run("metrics", "h/0", NOW), run("alarms", "h/1", NOW)]).await.unwrap();
    store.runs.record(&[run("alarms", "h/0", NOW - 90), run("alarms", "h/1", NOW + 1)]).await.unwrap();
    let web = fixture.web().await;
    let all = web.runs.list(Timestamp(NOW), 90).await.unwrap();
    assert_eq!(all, [run("alarms", "h/0", NOW - 90), run("alarms", "h/1", NOW + 1), run("metrics", "h/0", NOW)]);
    let recent = web.runs.list(Timestamp(NOW), 89).await.unwrap();
    assert_eq!(recent.len(), 2);
}
