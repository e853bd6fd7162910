//! The kinds of nodes: all in which the instances of one differ from those of another.

/// The neo protocol's port is the legacy protocol's and this, unless another one is configured.
pub(in crate::overstory_admin) const NEO_OFFSET: u16 = 100;

/// A kind of node.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::overstory_admin) struct Kind {
    /// The type that its nodes report, and what their services, directories and templates are named after.
    pub(in crate::overstory_admin) name: &'static str,
    pub(in crate::overstory_admin) program: &'static str,
    /// The package that installs the program.
    pub(in crate::overstory_admin) package: &'static str,
    /// `etc/NAME/config.ini` as we install it.
    pub(in crate::overstory_admin) template: &'static str,
    /// Directories of an instance besides `etc`, `data` and `log`.
    pub(in crate::overstory_admin) folders: &'static [&'static str],
    /// The first port of the legacy protocol that is tried; the neo protocol's lies [`NEO_OFFSET`] above it.
    pub(in crate::overstory_admin) first_port: u16,
    /// The first admin port that is tried.
    pub(in crate::overstory_admin) first_admin: u16,
    /// The key of `[Server]` that says the neo protocol's port; without one it is always [`NEO_OFFSET`] above the other.
    pub(in crate::overstory_admin) neo_key: Option<&'static str>,
    /// What the nodes of a group share out among themselves.
    pub(in crate::overstory_admin) shares: Shares,
    /// Whether an instance without `--group` has one of its own.
    pub(in crate::overstory_admin) stands_alone: bool,
    /// What the nodes of a group have in common.
    pub(in crate::overstory_admin) group_note: &'static str,
    /// How long supervisord waits for its end, in seconds, and why.
    pub(in crate::overstory_admin) stop_wait_s: u32,
    pub(in crate::overstory_admin) stop_note: &'static str,
    /// How long it may take until it is ready, in seconds, and why.
    pub(in crate::overstory_admin) ready_timeout_s: u32,
    pub(in crate::overstory_admin) ready_note: &'static str,
    /// The process that can stand beside a node and write its records.
    pub(in crate::overstory_admin) dump: Option<Dump>,
}

/// What the nodes of a group can have a part of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::overstory_admin) enum Shares {
    Nothing,
    /// Every position has one node.
    HashSpace,
    /// Several nodes may have the same, and clients use them in turn.
    Timestamps,
}

/// A process beside a node that writes the node's records to its files.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::overstory_admin) struct Dump {
    /// The type that it reports, what its service is named after, and its program.
    pub(in crate::overstory_admin) name: &'static str,
    /// `etc/KIND/dump.ini` as we install it.
    pub(in crate::overstory_admin) template: &'static str,
    /// The section of its configuration that says where its node is.
    pub(in crate::overstory_admin) section: &'static str,
}

/// The published nodes are waited for without end, which supervisord cannot do; an hour is enough for hundreds of
/// gigabytes.
const HOUR: u32 = 3600;

pub(in crate::overstory_admin) static DHT: Kind = Kind {
    name: "dht",
    program: "dhtnode",
    package: "dht",
    template: include_str!("../../../../etc/dht/config.ini"),
    folders: &["backup-data"],
    first_port: 21_000,
    first_admin: 21_200,
    neo_key: None,
    shares: Shares::HashSpace,
    stands_alone: false,
    group_note: "Nodes of a group share the hash space.",
    stop_wait_s: HOUR,
    stop_note: "When it ends it writes every record to its files; what is killed before loses what came since its last \
                dump.",
    ready_timeout_s: HOUR,
    ready_note: "It is ready when its files are loaded.",
    dump: Some(Dump { name: "dhtdump", template: include_str!("../../../../etc/dht/dump.ini"), section: "Dht" }),
};

pub(in crate::overstory_admin) static DMQ: Kind = QUEUES;

/// What both kinds of queue nodes are.
const QUEUES: Kind = Kind {
    name: "dmq",
    program: "dmqnode",
    package: "dmq",
    template: include_str!("../../../../etc/dmq/config.ini"),
    folders: &[],
    first_port: 22_000,
    first_admin: 22_200,
    neo_key: Some("neoport"),
    shares: Shares::Nothing,
    stands_alone: false,
    group_note: "Clients use the nodes of a group together.",
    stop_wait_s: HOUR,
    stop_note: "When it ends it writes what it has in memory to its files; what is killed before loses that, unless its \
                durability is journal.",
    ready_timeout_s: HOUR,
    ready_note: "It is ready when its files are loaded, and what is on disk after a crash has been looked through.",
    dump: None,
};

pub(in crate::overstory_admin) static QUEUE: Kind = Kind {
    name: "queue",
    program: "queuenode",
    template: include_str!("../../../../etc/queue/config.ini"),
    first_port: 22_400,
    first_admin: 22_600,
    // Queues are separate systems (tracking, bidding, ...), each of one or more nodes.
    stands_alone: true,
    ..QUEUES
};

pub(in crate::overstory_admin) static LOGFILES: Kind = Kind {
    name: "logfiles",
    program: "logfilesnode",
    package: "logfiles",
    template: include_str!("../../../../etc/logfiles/config.ini"),
    folders: &[],
    first_port: 23_000,
    first_admin: 23_200,
    neo_key: Some("neoport"),
    shares: Shares::Timestamps,
    stands_alone: false,
    group_note: "Clients use the nodes of a group together, each for its timestamps.",
    stop_wait_s: HOUR,
    stop_note: "When it ends it writes what it has in memory to its files and has them on disk; what is killed before \
                loses what the last second brought, unless its sync mode is always.",
    ready_timeout_s: HOUR,
    ready_note: "It is ready when the files that were written to before a crash have been looked through.",
    dump: None,
};

/// All of them, in the order of their names.
pub(in crate::overstory_admin) static KINDS: [&Kind; 4] = [&DHT, &DMQ, &LOGFILES, &QUEUE];

impl Kind {
    /// The name of an instance's service and directory.
    pub(in crate::overstory_admin) fn service(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// The group of an instance that was not given another one.
    pub(in crate::overstory_admin) fn default_group<'a>(&'a self, name: &'a str) -> &'a str {
        if self.stands_alone { name } else { self.name }
    }

    /// The kind of the instance that a service or a directory belongs to, and the instance's name.
    pub(in crate::overstory_admin) fn of(service: &str) -> Option<(&'static Self, &str)> {
        KINDS.iter().find_map(|kind| Some((*kind, service.strip_prefix(kind.name)?.strip_prefix('-')?)))
    }

    /// Its programs.
    pub(in crate::overstory_admin) fn programs(&'static self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.program).chain(self.dump.as_ref().map(|dump| dump.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_belongs_to_one_kind() {
        let of = |text| Kind::of(text).map(|(kind, name)| (kind.name, name));
        assert_eq!(of("dht-a"), Some(("dht", "a")));
        assert_eq!(of("queue-user-matching"), Some(("queue", "user-matching")));
        assert_eq!(of("logfiles-events"), Some(("logfiles", "events")));
        for other in ["dhtdump-a", "dht", "dmqnode", ".adding-dmq-a", "removed", "dls-a"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn kinds_have_names_and_ports_of_their_own() {
        assert!(KINDS.is_sorted_by_key(|kind| kind.name));
        let mut ports: Vec<_> =
            KINDS.iter().flat_map(|k| [k.first_port, k.first_port + NEO_OFFSET, k.first_admin]).collect();
        ports.sort_unstable();
        assert!(ports.windows(2).all(|pair| pair[1] - pair[0] >= 100), "{ports:?}");
    }
}
