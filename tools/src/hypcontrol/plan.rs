//! Which services are started, in which order: `etc/hypcontrol.conf` and the relations in `etc/supervisord.d`.

use overstory_runtime::{Home, config};
use overstory_supervisor::{Catalogue, ProcessDef, ServiceDef};
use serde::Deserialize;

/// The sections in the order in which they are started.
pub(crate) const SECTIONS: [&str; 3] = ["BACKEND", "MIDDLEWARE", "FRONTEND"];

/// Is `etc/hypcontrol.conf`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "UPPERCASE", default)]
pub(crate) struct StackConfig {
    backend: SectionConfig,
    middleware: SectionConfig,
    frontend: SectionConfig,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SectionConfig {
    services: Vec<String>,
}

impl StackConfig {
    /// Reads the file of a prefix.
    pub(crate) fn load(home: &Home) -> Result<Self, config::ConfigError> {
        config::load(home, "hypcontrol.conf", "HYPCONTROL", &[])
    }

    #[cfg(test)]
    pub(crate) fn of(sections: [&[&str]; 3]) -> Self {
        let [backend, middleware, frontend] =
            sections.map(|names| SectionConfig { services: names.iter().map(|n| (*n).to_owned()).collect() });
        Self { backend, middleware, frontend }
    }

    const fn sections(&self) -> [&SectionConfig; 3] {
        [&self.backend, &self.middleware, &self.frontend]
    }
}

/// Is the order in which services are started; they are stopped in the reverse one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan<'a> {
    /// The sections, one for each of [`SECTIONS`].
    pub(crate) sections: Vec<Section<'a>>,
}

/// Is a section: all of it is ready before the next one is begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section<'a> {
    pub(crate) name: &'static str,
    /// In an order in which each comes after those that it waits for.
    pub(crate) nodes: Vec<Node<'a>>,
}

/// Is a service of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node<'a> {
    pub(crate) service: &'a ServiceDef,
    pub(crate) processes: Vec<&'a ProcessDef>,
    /// The services of its section that must be ready before it is started.
    pub(crate) waits_for: Vec<&'a str>,
}

/// Tells why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("etc/hypcontrol.conf: [{section}] services: there is no service {name:?} in etc/supervisord.d")]
    Unknown { section: &'static str, name: String },
    #[error("{file}: {key} of {service} names {name:?}, which is no service")]
    UnknownRelation { file: String, key: &'static str, service: String, name: String },
    #[error("{service} in [{section}] cannot wait for {name}: that is started later, in [{later}]")]
    Later { service: String, section: &'static str, name: String, later: &'static str },
    #[error("services wait for each other: {0}")]
    Cycle(String),
}

impl<'a> Plan<'a> {
    /// Makes the plan of a configuration.
    pub(crate) fn new(config: &StackConfig, catalogue: &'a Catalogue) -> Result<Self, PlanError> {
        let mut sections: Vec<Section<'a>> = SECTIONS.iter().map(|name| Section { name, nodes: Vec::new() }).collect();
        for (section, named) in sections.iter_mut().zip(config.sections()) {
            for name in &named.services {
                let targets = catalogue.resolve(name);
                // A pattern may match nothing yet: `dht*` before the first node is set up.
                if targets.is_empty() && !name.contains('*') {
                    return Err(PlanError::Unknown { section: section.name, name: name.clone() });
                }
                targets.into_iter().for_each(|target| section.add(target.service, target.processes));
            }
        }
        Self { sections }.complete(catalogue)
    }

    /// Pulls in what is required, and sorts each section.
    fn complete(mut self, catalogue: &'a Catalogue) -> Result<Self, PlanError> {
        for index in 0..self.sections.len() {
            let mut at = 0;
            while let Some(service) = self.sections.get(index).and_then(|s| s.nodes.get(at)).map(|n| n.service) {
                for name in &service.requires {
                    let required = lookup(catalogue, service, "hyp_requires", name)?;
                    if self.section_of(name).is_none()
                        && let Some(section) = self.sections.get_mut(index)
                    {
                        section.add(required, required.processes.iter().collect());
                    }
                }
                at += 1;
            }
        }
        for index in 0..self.sections.len() {
            let mut sorted = Vec::new();
            for node in self.sections.get(index).map(|s| s.nodes.clone()).unwrap_or_default() {
                let waits_for = self.relations(index, node.service, catalogue)?;
                sorted.push(Node { waits_for, ..node });
            }
            if let Some(section) = self.sections.get_mut(index) {
                section.nodes = sort(sorted)?;
            }
        }
        Ok(self)
    }

    /// The services of section `index` that `service` waits for.
    fn relations(
        &self,
        index: usize,
        service: &'a ServiceDef,
        catalogue: &'a Catalogue,
    ) -> Result<Vec<&'a str>, PlanError> {
        let mut waits_for = Vec::new();
        let named = service.requires.iter().map(|n| ("hyp_requires", n));
        for (key, name) in named.chain(service.after.iter().map(|n| ("hyp_after", n))) {
            let other = lookup(catalogue, service, key, name)?;
            match self.section_of(name) {
                Some(at) if at == index && !waits_for.contains(&other.name.as_str()) => waits_for.push(&other.name),
                Some(at) if at > index => {
                    return Err(PlanError::Later {
                        service: service.name.clone(),
                        section: SECTIONS.get(index).copied().unwrap_or_default(),
                        name: name.clone(),
                        later: SECTIONS.get(at).copied().unwrap_or_default(),
                    });
                }
                // Ready before this section is begun, or not started at all.
                _ => {}
            }
        }
        Ok(waits_for)
    }

    fn section_of(&self, name: &str) -> Option<usize> {
        self.sections.iter().position(|section| section.nodes.iter().any(|node| node.service.name == name))
    }

    /// Every service, with its section.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&'static str, &Node<'a>)> {
        self.sections.iter().flat_map(|section| section.nodes.iter().map(|node| (section.name, node)))
    }

    /// Every process.
    pub(crate) fn processes(&self) -> impl Iterator<Item = &'a ProcessDef> {
        self.nodes().flat_map(|(_, node)| node.processes.iter().copied())
    }
}

impl<'a> Section<'a> {
    fn add(&mut self, service: &'a ServiceDef, processes: Vec<&'a ProcessDef>) {
        match self.nodes.iter_mut().find(|node| node.service.name == service.name) {
            Some(node) => {
                for process in processes {
                    if !node.processes.iter().any(|p| p.name == process.name) {
                        node.processes.push(process);
                    }
                }
            }
            None => self.nodes.push(Node { service, processes, waits_for: Vec::new() }),
        }
    }

    /// The services in groups that can be stopped at once: first those that nobody waits for.
    pub(crate) fn stop_levels(&self) -> Vec<Vec<&Node<'a>>> {
        let mut left: Vec<&Node<'a>> = self.nodes.iter().collect();
        let mut levels = Vec::new();
        while !left.is_empty() {
            let needed = |node: &Node<'_>| left.iter().any(|n| n.waits_for.contains(&node.service.name.as_str()));
            let (keep, level): (Vec<_>, Vec<_>) = left.iter().copied().partition(|node| needed(node));
            if level.is_empty() {
                // A plan has no cycles; better everything at once than never.
                levels.push(keep);
                break;
            }
            levels.push(level);
            left = keep;
        }
        levels
    }
}

fn lookup<'a>(
    catalogue: &'a Catalogue,
    service: &ServiceDef,
    key: &'static str,
    name: &str,
) -> Result<&'a ServiceDef, PlanError> {
    catalogue.service(name).ok_or_else(|| PlanError::UnknownRelation {
        file: service.file.display().to_string(),
        key,
        service: service.name.clone(),
        name: name.to_owned(),
    })
}

/// Puts each service after those that it waits for, and otherwise keeps the order.
fn sort(mut left: Vec<Node<'_>>) -> Result<Vec<Node<'_>>, PlanError> {
    let mut sorted: Vec<Node<'_>> = Vec::new();
    while !left.is_empty() {
        let waiting = |node: &Node<'_>| node.waits_for.iter().any(|name| left.iter().any(|n| n.service.name == *name));
        match left.iter().position(|node| !waiting(node)) {
            Some(next) => sorted.push(left.remove(next)),
            None => return Err(PlanError::Cycle(describe_cycle(&left))),
        }
    }
    Ok(sorted)
}

/// Follows the first service from one that it waits for to the next until one comes again.
fn describe_cycle(nodes: &[Node<'_>]) -> String {
    let mut line: Vec<&str> = Vec::new();
    let mut at = nodes.first();
    while let Some(node) = at {
        let name = node.service.name.as_str();
        if let Some(begin) = line.iter().position(|n| *n == name) {
            line.drain(..begin);
            line.push(name);
            break;
        }
        line.push(name);
        at = nodes.iter().find(|n| node.waits_for.contains(&n.service.name.as_str()));
    }
    line.join(" -> ")
}

#[cfg(test)]
mod tests;
