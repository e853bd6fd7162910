//! The plain text protocol: `PUTVAL identifier [option=value ...] time:value[:value ...] ...`.

use super::naming::Identity;
use super::{DataValue, Decoded, Format, MAX_VALUES, Message, SkipReason, TypesDb, ValueList};
use super::{interval_of, reading_of, time_of};

/// The one command that carries values.
pub(super) const VERB: &str = "PUTVAL";

pub(super) fn read(text: &str, message: &Message<'_>, types: &TypesDb, out: &mut Decoded) {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Err((identifier, reason)) = read_line(line, message, types, out) {
            out.skip(&identifier, reason);
        }
    }
}

fn read_line(
    line: &str,
    message: &Message<'_>,
    types: &TypesDb,
    out: &mut Decoded,
) -> Result<(), (String, SkipReason)> {
    let malformed = |text: &str| (text.to_owned(), SkipReason::Malformed);
    let (verb, rest) = take_word(line).ok_or_else(|| malformed(line))?;
    if !verb.eq_ignore_ascii_case(VERB) {
        return Err(malformed(line));
    }
    let (name, mut rest) = take_word(rest).ok_or_else(|| malformed(line))?;
    let identity = identity_of(&name).map_err(|reason| (name.clone(), reason))?;
    let mut interval = None;
    let mut lists = 0;
    while !rest.trim_start().is_empty() {
        let (word, after) = take_word(rest).ok_or_else(|| malformed(&name))?;
        rest = after;
        if let Some((option, value)) = word.split_once('=') {
            if option.eq_ignore_ascii_case("interval") {
                interval = value.parse().ok().and_then(interval_of);
            }
            continue;
        }
        lists += 1;
        let list = values_of(&word, &identity, message, types);
        let list = list.map(|(at, values)| ValueList {
            identity: identity.clone(),
            at,
            interval,
            values,
            format: Format::Command,
        });
        if !out.take(&name, list) {
            return Ok(());
        }
    }
    if lists == 0 { Err(malformed(&name)) } else { Ok(()) }
}

fn identity_of(name: &str) -> Result<Identity, SkipReason> {
    let mut parts = name.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(host), Some(plugin), Some(kind)) => Identity::from_parts(host, plugin, kind),
        _ => Err(SkipReason::BadName),
    }
}

fn values_of(
    word: &str,
    identity: &Identity,
    message: &Message<'_>,
    types: &TypesDb,
) -> Result<(crate::Millis, Vec<DataValue>), SkipReason> {
    let (time, values) = word.split_once(':').ok_or(SkipReason::Malformed)?;
    let at = match time {
        "N" | "n" => message.received,
        _ => time.parse().ok().and_then(|at| time_of(at, message.received)).ok_or(SkipReason::BadValue)?,
    };
    let sources = types.get(&identity.type_name).ok_or(SkipReason::UnknownType)?;
    let texts: Vec<&str> = values.split(':').take(MAX_VALUES + 1).collect();
    if texts.len() != sources.len() {
        return Err(SkipReason::WrongCount);
    }
    let values = texts.into_iter().zip(sources).map(|(text, source)| {
        let reading = reading_of(text, source.kind)?;
        Ok(DataValue { source: source.name.clone(), kind: source.kind, min: source.min, reading })
    });
    Ok((at, values.collect::<Result<_, SkipReason>>()?))
}

/// Takes one word: up to a blank, or quoted with `"` and `\` before a quote or a backslash.
fn take_word(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    if text.is_empty() {
        return None;
    }
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
        return Some((word.to_owned(), rest));
    };
    let mut word = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return quoted.get(at + 1..).map(|rest| (word, rest)),
            '\\' => word.push(chars.next()?.1),
            _ => word.push(c),
        }
    }
    None
}
