//! Out of the logfiles.

use std::io::Write as _;

use overstory_client::dls::Order;
use overstory_client::{DlsClient, Error};

use super::{Read, write};
use crate::swarm::commands::Out;
use crate::swarm::output::Progress;
use crate::swarm::{FAILED, NOT_FOUND, USAGE};

/// Prints the records of a range.
pub(super) async fn print(
    client: &DlsClient,
    channel: &str,
    (low, high): (i64, i64),
    read: &Read,
    out: &mut Out,
) -> anyhow::Result<u8> {
    let order = if read.sorted { Order::ByTime } else { Order::AsTheyCome };
    let mut records = client.get_range(channel, low, high, read.matching.filter(), order)?;
    let mut progress = Progress::new(true);
    let mut left = read.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let batch = match records.next().await {
            Some(Ok(batch)) => batch,
            // They are named below.
            Some(Err(_)) => continue,
            None => break,
        };
        let (mut count, mut bytes) = (0, 0);
        for (timestamp, value) in batch.records().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            write(read.records, out, timestamp, value)?;
            count += 1;
            bytes += value.len() as u64;
        }
        left -= count;
        // What there is of a long search is there to be seen.
        out.flush()?;
        progress.add(count, bytes);
    }
    progress.clear();
    for (_, error) in records.missing() {
        eprintln!("swarm: {error}");
    }
    let refused = |(_, error): &(_, Error)| matches!(error, Error::FilterRefused { .. });
    Ok(match records.missing() {
        [] if progress.records() == 0 && read.limit != Some(0) => NOT_FOUND,
        [] => 0,
        missing => {
            eprintln!("swarm: the records are not complete");
            if missing.iter().all(refused) { USAGE } else { FAILED }
        }
    })
}
