//! A real collectd beside the connector: the same host, the same series.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use overstory_amqp::fanout;
use overstory_model::collectd::{Message, Rates, TypesDb, decode};

use super::*;

const COLLECTD: &str = "/usr/sbin/collectd";

/// What collectd 5 has no name for, and what depends on the machine at this moment.
const OURS_ALONE: [&str; 6] = [
    "cpu/percent-active",
    "memory/memory-available",
    "memory/percent-available",
    "processes/ps_count/processes",
    "processes/ps_count/threads",
    "/pending_operations",
];

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_collectd(directory: &Path, broker: &AmqpConfig) -> Ended {
    assert!(Path::new(COLLECTD).exists(), "install collectd-core, librabbitmq4 and libyajl2: {COLLECTD} is missing");
    let AmqpConfig { host, port, vhost, user, password, .. } = broker;
    let at = directory.display();
    let plugins = ["cpu", "memory", "swap", "load", "df", "disk", "interface", "uptime", "processes", "amqp"];
    let load: String = plugins.iter().map(|plugin| format!("LoadPlugin {plugin}\n")).collect();
    let percent = "ValuesAbsolute true\nValuesPercentage true\n";
    let config = format!(
        "Hostname \"{HOST}\"\nFQDNLookup false\nBaseDir \"{at}\"\nPIDFile \"{at}/pid\"\nInterval 1\n\
         PluginDir \"/usr/lib/collectd\"\nTypesDB \"/usr/share/collectd/types.db\"\n{load}\
         <Plugin cpu>\nReportByCpu false\nValuesPercentage true\n</Plugin>\n\
         <Plugin memory>\n{percent}</Plugin>\n<Plugin swap>\n{percent}</Plugin>\n\
         <Plugin df>\nReportInodes true\n{percent}</Plugin>\n\
         <Plugin amqp>\n<Publish \"overstory\">\nHost \"{host}\"\nPort \"{port}\"\nVHost \"{vhost}\"\nUser \"{user}\"\n\
         Password \"{password}\"\nExchange \"amq.topic\"\nFormat \"JSON\"\nStoreRates true\n</Publish>\n</Plugin>\n"
    );
    fs::write(directory.join("collectd.conf"), config).unwrap();
    let mut command = Command::new(COLLECTD);
    command.arg("-f").arg("-C").arg(directory.join("collectd.conf"));
    Ended(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

#[tokio::test]
async fn a_real_collectd_gives_the_same_series_of_the_host() {
    let broker = tokio::task::spawn_blocking(broker::shared).await.unwrap().unwrap();
    let running = start(&broker);
    let mut queue = Queue::new(&broker);
    // The second event: devices that appeared meanwhile have their rates.
    queue.next_perf().await;
    let ours = queue.next_perf().await;
    let mut missing: BTreeMap<&str, Option<&str>> = ours
        .samples
        .iter()
        .filter(|sample| !OURS_ALONE.iter().any(|name| sample.metric.ends_with(name)))
        .map(|sample| (sample.metric.as_str(), sample.unit.as_deref()))
        .collect();
    assert!(missing.len() > 30, "{missing:?}");
    let mut tail = fanout::subscribe(&broker, "test", "amq.topic", "collectd.#").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let _collectd = start_collectd(directory.path(), &broker);
    let (mut rates, mut others) = (Rates::new(1000), BTreeSet::new());
    let compared = async {
        while !missing.is_empty() {
            let delivery = tail.next().await.unwrap();
            let message = Message {
                content_type: delivery.content_type.as_deref(),
                routing_key: &delivery.routing_key,
                body: &delivery.body,
                received: SystemClock.now(),
            };
            for list in decode(&message, TypesDb::builtin()).unwrap().lists {
                assert_eq!(list.identity.host, HOST);
                for sample in rates.samples(&list) {
                    match missing.remove(sample.metric.as_str()) {
                        Some(unit) => assert_eq!(sample.unit.as_deref(), unit, "{}", sample.metric),
                        None => drop(others.insert(sample.metric)),
                    }
                }
            }
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, compared).await;
    assert!(in_time.is_ok(), "not from collectd: {missing:?}; from collectd alone: {others:?}");
    running.stop().await;
}
