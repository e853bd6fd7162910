//! Suspending, resuming and stopping what nodes send.

use std::sync::Arc;

use tokio::sync::watch;

/// What the reader wants of the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Run,
    Suspend,
    Stop,
}

/// Suspends, resumes and stops a stream, from wherever.
#[derive(Debug, Clone)]
pub struct StreamControl {
    want: Arc<watch::Sender<Want>>,
}

impl StreamControl {
    pub(crate) fn new(suspended: bool) -> (Self, watch::Receiver<Want>) {
        let (want, wanted) = watch::channel(if suspended { Want::Suspend } else { Want::Run });
        (Self { want: Arc::new(want) }, wanted)
    }

    /// Asks the nodes to pause. What has arrived already still comes.
    pub fn suspend(&self) {
        self.set(Want::Suspend);
    }

    /// Asks the nodes to go on.
    pub fn resume(&self) {
        self.set(Want::Run);
    }

    /// Ends the stream: after what has arrived already.
    pub fn stop(&self) {
        self.set(Want::Stop);
    }

    fn set(&self, want: Want) {
        // What was stopped stays so.
        self.want.send_if_modified(|now| {
            let changes = *now != Want::Stop && *now != want;
            if changes {
                *now = want;
            }
            changes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stopped_stays_so() {
        let (control, wanted) = StreamControl::new(true);
        assert_eq!(*wanted.borrow(), Want::Suspend);
        control.resume();
        assert_eq!(*wanted.borrow(), Want::Run);
        control.stop();
        control.resume();
        assert_eq!(*wanted.borrow(), Want::Stop);
    }
}
