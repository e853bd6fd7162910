//! `overstory list`: the instances of the prefix.

use std::io::Write;

use overstory_runtime::Home;
use overstory_supervisor::Services;
use serde_json::json;

use super::instance::{self, Instance, ranges};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Writes one JSON object per line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &Args, home: &Home, out: &mut impl Write) -> anyhow::Result<()> {
    list(args, home, &Services::open(home.root()), out).await
}

async fn list(args: &Args, home: &Home, services: &Services, out: &mut impl Write) -> anyhow::Result<()> {
    let (instances, problems) = instance::all(home)?;
    let mut states = Vec::with_capacity(instances.len());
    for instance in &instances {
        states.push(state(instance, services).await?);
    }
    if args.json {
        for (instance, state) in instances.iter().zip(states) {
            let limit = |limit: u64| format!("{limit:#018x}");
            let range = instance.range.map(|range| json!({"min": limit(range.min()), "max": limit(range.max())}));
            let line = json!({
                "instance": instance.place.service(), "type": instance.place.kind.name, "group": instance.group, "state": state,
                "address": instance.address, "legacy_address": instance.legacy_address, "port": instance.port,
                "neo_port": instance.neo_port, "admin_port": instance.admin_port, "range": range,
                "dump_process": instance.has_dump_process, "directory": instance.place.dir(),
            });
            writeln!(out, "{line}")?;
        }
    } else {
        let width = instances.iter().map(|i| i.place.service().len()).max().unwrap_or(0).max(12);
        for (instance, state) in instances.iter().zip(states) {
            let admin = instance.admin_port.map_or_else(|| "none".to_owned(), |port| port.to_string());
            let dump = if instance.has_dump_process { ", dump process" } else { "" };
            let range = match instance.range {
                Some(range) if range.is_empty() => "no hash range, ".to_owned(),
                Some(range) => format!("{}, ", ranges::show(instance.place.kind, range)),
                None => String::new(),
            };
            writeln!(
                out,
                "{:width$}  {state:<9} {}:{}, legacy {}:{}, admin {admin}, {range}group {}{dump}",
                instance.place.service(),
                instance.address,
                instance.neo_port,
                instance.legacy_address,
                instance.port,
                instance.group,
            )?;
        }
        let mut groups: Vec<_> = instances.iter().map(|i| (i.group.as_str(), i.place.kind)).collect();
        groups.sort_unstable_by_key(|(group, _)| *group);
        groups.dedup_by_key(|(group, _)| *group);
        for (group, kind) in groups {
            for problem in ranges::describe(kind, group, &instance::ranges_of(&instances, group)) {
                writeln!(out, "warning: {problem}")?;
            }
        }
    }
    problems.iter().for_each(|problem| eprintln!("overstory: {problem}"));
    Ok(())
}

async fn state(instance: &Instance, services: &Services) -> anyhow::Result<&'static str> {
    let statuses = services.status(&services.catalogue().resolve(&instance.place.service())).await?;
    Ok(statuses.first().map_or("UNKNOWN", |status| status.state.as_str()))
}
