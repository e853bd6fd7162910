//! Into the logfiles.

use std::io::{self, StdinLock};
use std::os::unix::ffi::OsStrExt as _;

use overstory_client::DlsClient;

use super::Put;
use super::time::Time;
use crate::swarm::bulk::{self, Bulk};
use crate::swarm::input::{self, BadInput};

/// Puts one record, or those of standard input.
pub(super) async fn put(client: &DlsClient, put: &Put) -> anyhow::Result<u8> {
    let unit = put.unit.unit;
    if let Some(value) = &put.value {
        client.put(&put.channel, put.timestamp.stamp(unit, unit.now())?, value.as_bytes()).await?;
        return Ok(0);
    }
    // What is wrong with all of them is said once, before any of them is read.
    put.timestamp.stamp(unit, unit.now())?;
    // Many that wait for a node do not keep their order.
    client.any_ready().await?;
    let (binary, timestamps) = (put.records.binary, put.timestamps);
    let read = move |input: &mut StdinLock<'static>| -> io::Result<Option<Vec<u8>>> {
        match (binary, timestamps) {
            (true, true) => input::stamped_frame(input),
            (true, false) => input::frame(input),
            (false, _) => input::line(input),
        }
    };
    let channel = &put.channel;
    let store = |(timestamp, value): (i64, Vec<u8>)| async move {
        let stored = client.put(channel, timestamp, &value).await;
        (value.len() as u64, stored)
    };
    let (unit_name, each) = if binary { ("record", "record") } else { ("line", "record") };
    let bulk = Bulk { in_flight: put.in_flight as usize, unit: unit_name, each, done: "stored" };
    bulk::send_all(&bulk, read, |record| parse(put, record).map(Some), store).await
}

/// The timestamp and the value of a record.
fn parse(put: &Put, record: Vec<u8>) -> Result<(i64, Vec<u8>), BadInput> {
    let (unit, format) = (put.unit.unit, put.records.format);
    match (put.timestamps, put.records.binary) {
        (true, true) => {
            let (timestamp, value) = record.split_first_chunk().ok_or(BadInput::Cut)?;
            Ok((i64::from_le_bytes(*timestamp), value.to_vec()))
        }
        (true, false) => {
            let (time, value) = input::stamped(&record, format)?;
            Ok((time.parse::<Time>()?.stamp(unit, unit.now())?, value))
        }
        (false, true) => Ok((put.timestamp.stamp(unit, unit.now())?, record)),
        (false, false) => Ok((put.timestamp.stamp(unit, unit.now())?, input::value_of(record, format)?)),
    }
}
