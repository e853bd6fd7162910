//! Graphite's line format as collectd writes it: one line per data source.

use super::naming::Identity;
use super::{DataSource, DataValue, Decoded, Format, Message, SkipReason, TypesDb, ValueList};
use super::{reading_of, time_of};
use crate::clock::Millis;

pub(super) fn read(text: &str, message: &Message<'_>, types: &TypesDb, out: &mut Decoded) {
    let routed = routed_identity(message.routing_key);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let path = line.split_whitespace().next().unwrap_or_default();
        match read_line(line, routed.as_ref(), message, types) {
            // The data sources of one list come as consecutive lines.
            Ok((identity, at, value)) => match out.lists.last_mut() {
                Some(last) if last.identity == identity && last.at == at && !has_source(last, &value) => {
                    last.values.push(value);
                }
                _ => {
                    let list =
                        ValueList { identity, at, interval: None, values: vec![value], format: Format::Graphite };
                    if !out.take(path, Ok(list)) {
                        return;
                    }
                }
            },
            Err(reason) => out.skip(path, reason),
        }
    }
}

fn has_source(list: &ValueList, value: &DataValue) -> bool {
    list.values.len() >= super::MAX_VALUES || list.values.iter().any(|other| other.source == value.source)
}

fn read_line(
    line: &str,
    routed: Option<&Identity>,
    message: &Message<'_>,
    types: &TypesDb,
) -> Result<(Identity, Millis, DataValue), SkipReason> {
    let mut words = line.split_whitespace();
    let (Some(path), Some(value), Some(time), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(SkipReason::Malformed);
    };
    let at = time.parse().ok().and_then(|at| time_of(at, message.received)).ok_or(SkipReason::BadValue)?;
    let path_of_names;
    let identity = match routed {
        Some(identity) => identity,
        None => {
            path_of_names = path_identity(path)?;
            &path_of_names
        }
    };
    let sources = types.get(&identity.type_name).ok_or(SkipReason::UnknownType)?;
    let source = source_of(sources, path).ok_or(SkipReason::WrongCount)?;
    let reading = reading_of(value, source.kind)?;
    let value = DataValue { source: source.name.clone(), kind: source.kind, min: source.min, reading };
    Ok((identity.clone(), at, value))
}

/// The data source that a path's last part names, or the only one there is.
fn source_of<'t>(sources: &'t [DataSource], path: &str) -> Option<&'t DataSource> {
    let last = path.rsplit('.').next().unwrap_or_default();
    sources.iter().find(|source| source.name == last).or(match sources {
        [only] => Some(only),
        _ => None,
    })
}

/// Reads the names out of `collectd.HOST.PLUGIN.PLUGIN_INSTANCE.TYPE.TYPE_INSTANCE`, in which dots are slashes.
fn routed_identity(routing_key: &str) -> Option<Identity> {
    let words: Vec<String> = routing_key.split('.').map(|word| word.replace('/', ".")).collect();
    let [prefix, host, plugin, plugin_instance, type_name, type_instance] = words.as_slice() else { return None };
    if prefix != "collectd" {
        return None;
    }
    Identity::new(host, (plugin, plugin_instance), (type_name, type_instance)).ok()
}

/// Reads the names out of `host.plugin[-inst].type[-inst][.source]`; a dot inside a host was written as `_`.
fn path_identity(path: &str) -> Result<Identity, SkipReason> {
    match *path.splitn(5, '.').collect::<Vec<_>>() {
        [host, plugin, kind] | [host, plugin, kind, _] => Identity::from_parts(host, plugin, kind),
        _ => Err(SkipReason::BadName),
    }
}
