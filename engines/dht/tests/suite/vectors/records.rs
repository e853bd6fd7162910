//! What the recordings of dht nodes hold.

use std::collections::{HashMap, HashSet};

use overstory_replay::recording::neo_message;
use overstory_replay::{Record, Recording};
use overstory_swarm::batch::{self, Keys, Pairs, Refreshed};
use overstory_swarm::key::Key;
use overstory_swarm::legacy::Limits;
use overstory_swarm::legacy::dht::{self as legacy, Decoded};
use overstory_swarm::neo::dht::Request as Neo;

/// How the records of a batch lie in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Pairs,
    Keys,
    Refresh,
}

/// Puts another port in place of that of the node that records were sent to.
pub(crate) fn with_target_port(mut recording: Recording, port: u16) -> Recording {
    const RECORDED: u16 = 21_350;
    let replace = |bytes: &mut Vec<u8>, old: [u8; 2], new: [u8; 2]| {
        for at in 0..bytes.len().saturating_sub(1) {
            if bytes[at..at + 2] == old {
                bytes[at..at + 2].copy_from_slice(&new);
            }
        }
    };
    for line in &mut recording.lines {
        if line.note.starts_with("Redistribute: ") {
            replace(&mut line.bytes, RECORDED.to_le_bytes(), port.to_le_bytes());
        } else if line.note.contains("NewNode") && !line.bytes.is_empty() {
            replace(&mut line.bytes, (RECORDED + 100).to_be_bytes(), (port + 100).to_be_bytes());
        }
    }
    recording
}

/// The records of all PutBatches, by key.
pub(crate) fn batched_records(recording: &Recording) -> Vec<(u64, Vec<u8>)> {
    let mut records = Vec::new();
    for line in recording.lines.iter().filter(|line| line.from_client) {
        if let Some(legacy::Request::PutBatch { batch, .. }) = legacy_request(&line.bytes) {
            records.extend(records_of(batch, Form::Pairs));
        }
    }
    let key = |(key, value): Record| (Key::from_hex16(&key).unwrap().0, value);
    let mut records: Vec<_> = records.into_iter().map(key).collect();
    records.sort();
    records
}

/// The records that the node was shown to have and was not given in this recording.
pub(crate) fn stored_before(recording: &Recording) -> Vec<(String, u64, Vec<u8>)> {
    let mut given: HashSet<(String, u64)> = HashSet::new();
    let mut before = Vec::new();
    let mut asked: HashMap<(u64, u64), (String, u64, Form, bool)> = Default::default();
    for line in &recording.lines {
        let answers = |id| (line.conn, id);
        if line.from_client && line.neo {
            let Some((id, payload)) = neo_message(&line.bytes).filter(|(_, payload)| payload.len() > 2) else {
                continue;
            };
            match Neo::decode(payload[0], &payload[2..]) {
                Ok(Neo::Put { channel, key, .. } | Neo::Update { channel, key, .. }) => {
                    given.insert((text(channel), key.0));
                }
                Ok(Neo::GetAll(get)) if !get.keys_only => {
                    asked.insert(answers(id), (text(get.channel), 0, Form::Pairs, false));
                }
                Ok(Neo::Mirror { channel, .. }) => {
                    asked.insert(answers(id), (text(channel), 0, Form::Refresh, false));
                }
                Ok(Neo::Get { channel, key }) => {
                    asked.insert(answers(id), (text(channel), key.0, Form::Keys, false));
                }
                _ => {}
            }
        } else if line.from_client {
            match legacy_request(&line.bytes) {
                Some(legacy::Request::Put { channel, key, .. }) => {
                    given.extend(Key::from_hex16(key).map(|key| (text(channel), key.0)));
                }
                Some(legacy::Request::PutBatch { channel, batch }) => {
                    for (key, _) in try_records_of(batch, Form::Pairs).unwrap_or_default() {
                        given.extend(Key::from_hex16(&key).map(|key| (text(channel), key.0)));
                    }
                }
                Some(legacy::Request::GetAll { channel }) => {
                    asked.insert(answers(0), (text(channel), 0, Form::Pairs, false));
                }
                Some(_) => {
                    asked.remove(&answers(0));
                }
                None => {}
            }
        } else if line.neo {
            let Some((id, payload)) = neo_message(&line.bytes) else { continue };
            let Some((channel, key, form, got)) = asked.get_mut(&answers(id)) else { continue };
            match (*form, payload) {
                (Form::Keys, [2]) => *got = true,
                (Form::Keys, value) if *got => {
                    before.push((channel.clone(), *key, value[8..].to_vec()));
                    *got = false;
                }
                (Form::Pairs, [7, batch @ ..]) | (Form::Refresh, [9, batch @ ..]) => {
                    let records = records_of(&batch[8..], *form);
                    before.extend(records.into_iter().map(|(key, value)| (channel.clone(), raw_key(&key), value)));
                }
                _ => {}
            }
        } else if let Some((channel, ..)) = asked.get(&answers(0))
            && line.bytes.len() > 16
        {
            let records = records_of(&line.bytes[8..], Form::Pairs);
            let key = |key: &[u8]| Key::from_hex16(key).unwrap().0;
            before.extend(records.into_iter().map(|(name, value)| (channel.clone(), key(&name), value)));
        }
    }
    before.retain(|(channel, key, _)| !given.contains(&(channel.clone(), *key)));
    before
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn raw_key(key: &[u8]) -> u64 {
    u64::from_le_bytes(key.try_into().unwrap())
}

fn legacy_request(bytes: &[u8]) -> Option<legacy::Request<'_>> {
    match legacy::decode(bytes, &Limits::DEFAULT.with_value(10 << 20)) {
        Ok(Decoded::Request { request, .. }) => Some(request),
        _ => None,
    }
}

/// The records of a batch.
pub(crate) fn records_of(batch: &[u8], form: Form) -> Vec<Record> {
    try_records_of(batch, form).unwrap_or_else(|| panic!("a batch of {form:?}"))
}

fn try_records_of(batch: &[u8], form: Form) -> Option<Vec<Record>> {
    let mut plain = Vec::new();
    batch::decode(batch, 16 << 20, &mut plain).ok()?;
    let own = |(key, value): (&[u8], &[u8])| (key.to_vec(), value.to_vec());
    match form {
        Form::Pairs => Pairs::new(&plain).map(|pair| pair.ok().map(own)).collect(),
        Form::Keys => Keys::new(&plain).map(|key| key.ok().map(|key| (key.to_vec(), Vec::new()))).collect(),
        Form::Refresh => Refreshed::new(&plain)
            .map(|record| record.ok().map(|(key, value)| (key.to_le_bytes().to_vec(), value.to_vec())))
            .collect(),
    }
}
