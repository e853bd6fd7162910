//! An archive that is switched off: its queue must not fill while nobody takes it.

use std::time::Duration;

use overstory_amqp::AmqpConfig;
use overstory_amqp::queues::{Retired, retire_archive};
use overstory_runtime::Shutdown;
use overstory_runtime::backoff::Backoff;

/// How often it is looked whether those that still archive have ended: processes with the configuration of before.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Takes the binding of the archive's queue away, and the queue too once it is empty; then waits for the end.
pub(crate) async fn off(amqp: AmqpConfig, shutdown: Shutdown) {
    let mut backoff = Backoff::new(Duration::from_secs(1), LOOK_AGAIN);
    loop {
        let pause = match retire_archive(&amqp).await {
            Ok(Retired::Absent) => break,
            Ok(Retired::Deleted) => {
                tracing::info!("the archive is off, its empty queue was deleted");
                break;
            }
            Ok(Retired::Kept(events)) => {
                tracing::warn!(
                    events,
                    "the archive is off: its queue gets no more events and keeps those that wait in it"
                );
                break;
            }
            Ok(Retired::InUse) => LOOK_AGAIN,
            Err(error) => {
                tracing::debug!(%error, "cannot look for the archive's queue");
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
    shutdown.requested().await;
}
