//! What does not change while the host runs: its name, its system, its limits.

use sysinfo::System;

use crate::read::cgroup::Limits;

/// The host's facts, the tags of its perf events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    tags: Vec<(&'static str, String)>,
}

impl Facts {
    pub(crate) fn of_this_host(limits: Limits) -> Self {
        let mut tags = vec![("arch", System::cpu_arch())];
        let known = |fact: Result<String, sysinfo::Error>| fact.ok().filter(|text| !text.is_empty());
        for (name, fact) in [("os", known(System::long_os_version())), ("kernel", known(System::kernel_version()))] {
            tags.extend(fact.map(|fact| (name, fact)));
        }
        tags.extend(limits.cpus.map(|cpus| ("limit_cpus", cpus.to_string())));
        tags.extend(limits.memory.map(|bytes| ("limit_memory_bytes", bytes.to_string())));
        Self { tags }
    }

    pub(crate) fn tags(&self) -> &[(&'static str, String)] {
        &self.tags
    }

    #[cfg(test)]
    pub(crate) fn for_tests(tags: &[(&'static str, &str)]) -> Self {
        Self { tags: tags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect() }
    }
}

/// The machine's own name.
///
/// # Errors
/// The machine has none, or it is no text: it has to be set in the configuration then.
pub(crate) fn host_name() -> anyhow::Result<String> {
    use anyhow::Context as _;
    overstory_runtime::host::name().context("set hostname in [connector] of etc/collectd.conf")
}
