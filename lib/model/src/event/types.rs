//! The published event types and what becomes of each.

/// What an engine does with a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Carries a state.
    Check,
    /// Carries measurements only.
    Perf,
    /// Is only heard.
    Log,
    /// Known, and kept for an engine that is not there yet.
    Unsupported,
}

/// Types that carry a state like a check.
const CHECKS: [&str; 7] = ["check", "selector", "sla", "eue", "topology", "toponode", "consolidation"];

/// Types that only say something.
const LOGS: [&str; 2] = ["log", "user"];

/// Types of both eras that act on alarms, entities or rules.
const UNSUPPORTED: [&str; 62] = [
    "ack",
    "ackremove",
    "activate",
    "assocticket",
    "autoinstructionactivate",
    "autoinstructioncompleted",
    "autoinstructionfailed",
    "autoinstructionstarted",
    "autowebhookcompleted",
    "autowebhookfailed",
    "autowebhookstarted",
    "calendar",
    "cancel",
    "changestate",
    "comment",
    "declareticket",
    "declareticketwebhook",
    "downtime",
    "entitytoggled",
    "entityupdated",
    "instructionaborted",
    "instructioncompleted",
    "instructionfailed",
    "instructionjobcompleted",
    "instructionjobfailed",
    "instructionjobstarted",
    "instructionpaused",
    "instructionresumed",
    "instructionstarted",
    // Spelt so in its source.
    "junittestcaseeupdated",
    "junittestsuiteupdated",
    "manual_metaalarm_group",
    "manual_metaalarm_ungroup",
    "manual_metaalarm_update",
    "metaalarm",
    "metaalarm_ungroup",
    "metaalarm_update",
    "metaalarmattachchildren",
    "metaalarmchildactivate",
    "metaalarmchilddeactivate",
    "metaalarmdetachchildren",
    "noevents",
    "pbhenter",
    "pbhleave",
    "pbhleaveandenter",
    "recomputeentityservice",
    "resolve_cancel",
    "resolve_close",
    "resolve_deleted",
    "run_delayed_scenario",
    "snmp",
    "snooze",
    "todo",
    "trap",
    "trigger",
    "uncancel",
    "unsnooze",
    "updatecounters",
    "updatestatus",
    "webhookcompleted",
    "webhookfailed",
    "webhookstarted",
];

/// Says what becomes of `event_type`; `None` when nobody published it.
pub(super) fn classify(event_type: &str) -> Option<Class> {
    if CHECKS.contains(&event_type) {
        Some(Class::Check)
    } else if event_type == "perf" {
        Some(Class::Perf)
    } else if LOGS.contains(&event_type) {
        Some(Class::Log)
    } else if UNSUPPORTED.contains(&event_type) {
        Some(Class::Unsupported)
    } else {
        None
    }
}
