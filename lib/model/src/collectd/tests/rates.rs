//! Rates: wraps, restarts, clocks that jump, and the bound of the table.

use super::*;
use crate::metric::Sample;

const COUNTER: MetricKind = MetricKind::Counter;
const DERIVE: MetricKind = MetricKind::Derive;

fn step(kind: MetricKind, before: i128, after: i128) -> Option<f64> {
    let last = Last { at: Millis(0), count: before, rate: None };
    rate(Some(&last), kind, (Millis(2000), after), Some(0.0), None)
}

#[test]
fn a_rate_is_the_step_over_the_time() {
    assert_eq!(step(DERIVE, 100, 300), Some(100.0));
    assert_eq!(step(COUNTER, 100, 300), Some(100.0));
    assert_eq!(step(MetricKind::Absolute, 100, 300), Some(150.0));
    assert_eq!(step(MetricKind::Gauge, 100, 300), None);
    let huge = i128::from(u64::MAX);
    assert_eq!(step(COUNTER, huge - 3, huge - 1), Some(1.0), "exact beyond the digits of a float");
}

#[test]
fn a_wrap_is_told_from_a_restart() {
    assert_eq!(step(COUNTER, (1 << 32) - 50, 50), Some(50.0));
    assert_eq!(step(COUNTER, i128::from(u64::MAX) - 49, 50), Some(50.0));
    assert_eq!(step(COUNTER, 1_000_000, 10), None, "a machine that was started again");
    assert_eq!(step(COUNTER, 1 << 40, 10), None);
    assert_eq!(step(COUNTER, 1 << 65, 10), None, "no counter is that wide");
    assert_eq!(step(DERIVE, 1_000_000, 10), None);
    let last = Last { at: Millis(0), count: 10, rate: None };
    assert_eq!(rate(Some(&last), DERIVE, (Millis(1000), 4), None, None), Some(-6.0), "its type may shrink");
    assert_eq!(rate(Some(&last), DERIVE, (Millis(1000), i128::MIN), None, None), None);
}

#[test]
fn the_first_count_makes_a_rate_only_where_it_counts_since_the_one_before() {
    let interval = Some(Duration::from_secs(10));
    assert_eq!(rate(None, DERIVE, (Millis(0), 50), None, interval), None);
    assert_eq!(rate(None, MetricKind::Absolute, (Millis(0), 50), None, interval), Some(5.0));
    assert_eq!(rate(None, MetricKind::Absolute, (Millis(0), 50), None, None), None);
}

fn sent(rates: &mut Rates, host: &str, at: i64, count: i128) -> Option<f64> {
    let body = format!("PUTVAL {host}/p/derive {}:{count}", NOW.secs().0 + at);
    let mut samples: Vec<Sample> = rates.samples(&first(&body));
    samples.pop().map(|sample| sample.value)
}

#[test]
fn a_message_delivered_twice_gives_the_same_rate_twice() {
    let mut rates = Rates::new(10);
    assert_eq!(sent(&mut rates, "h", 0, 0), None);
    assert_eq!(sent(&mut rates, "h", 10, 50), Some(5.0));
    assert_eq!(sent(&mut rates, "h", 10, 50), Some(5.0));
    assert_eq!(sent(&mut rates, "h", 20, 150), Some(10.0));
}

#[test]
fn a_clock_set_back_costs_one_rate() {
    let mut rates = Rates::new(10);
    sent(&mut rates, "h", 0, 0);
    assert_eq!(sent(&mut rates, "h", -3600, 50), None);
    assert_eq!(sent(&mut rates, "h", -3590, 60), Some(1.0));
}

#[test]
fn the_table_forgets_the_series_that_were_silent_longest() {
    let mut rates = Rates::new(100);
    for round in 0..50_i128 {
        for other in 0..20 {
            sent(&mut rates, &format!("r{round}h{other}"), 0, 0);
        }
        let expected = (round > 0).then_some(1.0);
        let at = i64::try_from(round).unwrap();
        assert_eq!(sent(&mut rates, "busy", at, round), expected, "the busy series is never forgotten");
    }
    assert!(rates.len() <= 200, "{}", rates.len());
}

#[test]
fn whole_numbers_of_a_host_that_sends_rates_are_rates() {
    let list = |at: i64, value: &str| {
        first(&format!(
            r#"[{{"values":[{value}],"dstypes":["derive"],"dsnames":["value"],"time":{},"interval":10.0,
            "host":"h","plugin":"p","plugin_instance":"","type":"derive","type_instance":""}}]"#,
            NOW.secs().0 + at
        ))
    };
    let mut rates = Rates::new(10);
    let mut value = |at, text| rates.samples(&list(at, text)).first().map(|sample| sample.value);
    assert_eq!(value(0, "null"), None, "the first interval of a sender that stores rates");
    assert_eq!(value(10, "7"), Some(7.0));
    assert_eq!(value(20, "7.25"), Some(7.25));
    // Its operator turned StoreRates off: ten minutes without a fraction, and whole numbers are counts again.
    assert_eq!(value(700, "1000"), None);
    assert_eq!(value(710, "1100"), Some(10.0));
}
