//! The watched readings of the host, and the check events that they make.

use std::collections::BTreeMap;

use overstory_model::State;

use crate::collector::Readings;
use crate::config::Thresholds;
use crate::read::filesystem::{Full, Fullness};
use crate::threshold::{Levels, Verdict, Watch};

/// A state of a resource of the host that has to be published.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Check {
    /// `cpu`, `memory`, `load` or `disk-NAME`.
    pub(crate) resource: String,
    pub(crate) state: State,
    /// One line for operators.
    pub(crate) output: String,
    /// False when it only repeats what was said before.
    pub(crate) changed: bool,
}

/// All watches of the host.
#[derive(Debug)]
pub(crate) struct Checks {
    thresholds: Thresholds,
    cpu: Watch,
    memory: Watch,
    load: Watch,
    disks: BTreeMap<String, Watch>,
}

impl Checks {
    pub(crate) fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            cpu: Watch::default(),
            memory: Watch::default(),
            load: Watch::default(),
            disks: BTreeMap::new(),
        }
    }

    /// Takes the readings of a tick, at `now_s` of a clock that never jumps.
    ///
    /// A reading that is missing changes nothing. A disk that is no longer mounted has its alarm cleared.
    pub(crate) fn take(&mut self, readings: &Readings, now_s: i64) -> Vec<Check> {
        let mut checks = Vec::new();
        let Thresholds { rule, cpu, memory, load, .. } = &self.thresholds;
        let rule = *rule;
        for (resource, reading, levels, watch, unit) in [
            ("cpu", readings.cpu, cpu, &mut self.cpu, " % in use"),
            ("memory", readings.memory, memory, &mut self.memory, " % in use"),
            ("load", readings.load_per_core, load, &mut self.load, " per core"),
        ] {
            let Some(value) = reading.filter(|_| levels.any()) else { continue };
            if let Some(verdict) = watch.take(levels, &rule, value, now_s) {
                checks.push(check(resource.to_owned(), &verdict, format!("{resource} {value:.2}{unit}")));
            }
        }
        for disk in &readings.disks {
            let levels: Levels = *self.thresholds.of_mount(&disk.path.to_string_lossy());
            let Some(full) = disk.full.filter(|_| levels.any()) else { continue };
            let watch = self.disks.entry(disk.name.clone()).or_default();
            if let Some(verdict) = watch.take(&levels, &rule, full.space.max(full.inodes), now_s) {
                checks.push(check(format!("disk-{}", disk.name), &verdict, disk_text(disk, full)));
            }
        }
        self.disks.retain(|name, watch| {
            let mounted = readings.disks.iter().any(|disk| disk.name == *name);
            if !mounted && watch.is_raised() {
                let verdict = Verdict { state: State::Ok, level: None, changed: true };
                checks.push(check(format!("disk-{name}"), &verdict, "no longer mounted".to_owned()));
            }
            mounted
        });
        checks
    }
}

fn disk_text(disk: &Fullness, full: Full) -> String {
    format!("{} {:.2} % full, inodes {:.2} % in use", disk.path.display(), full.space, full.inodes)
}

fn check(resource: String, verdict: &Verdict, text: String) -> Check {
    let output = match verdict.level {
        Some(level) => format!("{text}: {} from {level}", verdict.state.name()),
        None => text,
    };
    Check { resource, state: verdict.state, output, changed: verdict.changed }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::CollectdConfig;

    fn checks() -> Checks {
        let mut thresholds = CollectdConfig::default().thresholds;
        thresholds.rule.consecutive = 1;
        Checks::new(thresholds)
    }

    fn disk(name: &str, space: f64, inodes: f64) -> Fullness {
        let full = Some(Full { space, inodes });
        Fullness { path: PathBuf::from(format!("/{name}")), name: name.to_owned(), full }
    }

    fn shown(checks: &[Check]) -> Vec<String> {
        checks.iter().map(|c| format!("{} {}: {}", c.resource, c.state.name(), c.output)).collect()
    }

    #[test]
    fn every_part_of_the_host_has_its_check() {
        let readings = Readings {
            cpu: Some(96.5),
            memory: Some(12.0),
            load_per_core: Some(2.5),
            disks: vec![disk("var", 50.0, 96.0)],
        };
        let expected = [
            "cpu major: cpu 96.50 % in use: major from 95",
            "memory ok: memory 12.00 % in use",
            "load minor: load 2.50 per core: minor from 2",
            "disk-var critical: /var 50.00 % full, inodes 96.00 % in use: critical from 95",
        ];
        let mut checks = checks();
        assert_eq!(shown(&checks.take(&readings, 0)), expected);
        assert_eq!(checks.take(&readings, 10), [], "nothing new");
        assert_eq!(checks.take(&Readings::default(), 20).len(), 1, "only the disk that is gone");
    }

    #[test]
    fn a_disk_that_is_unmounted_leaves_no_alarm_behind() {
        let mut checks = checks();
        let full = Readings { disks: vec![disk("a", 99.0, 0.0), disk("b", 1.0, 0.0)], ..Readings::default() };
        assert_eq!(checks.take(&full, 0).len(), 2);
        assert_eq!(shown(&checks.take(&Readings::default(), 10)), ["disk-a ok: no longer mounted"]);
        assert_eq!(checks.take(&Readings::default(), 20), []);
        assert_eq!(checks.take(&full, 30).len(), 2, "mounted again, watched again");
        let mut silent = full.clone();
        silent.disks.iter_mut().for_each(|disk| disk.full = None);
        assert_eq!(checks.take(&silent, 40), [], "one that cannot be asked is not gone");
    }

    #[test]
    fn a_part_without_levels_has_no_check() {
        let mut checks = checks();
        checks.thresholds.cpu = Levels::default();
        checks.thresholds.disk = Levels::default();
        let readings = Readings { cpu: Some(100.0), disks: vec![disk("a", 99.0, 0.0)], ..Readings::default() };
        assert_eq!(checks.take(&readings, 0), []);
    }
}
