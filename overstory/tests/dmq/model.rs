//! What has become of every value that was pushed to a queue, as its clients have seen it.

use std::ops::Range;

use super::rig::{Mode, value};

/// What a client knows of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Sent, and not answered before the node was killed: it may be there.
    Unknown,
    /// Taken.
    Acknowledged,
    /// Refused: it must not be there.
    Refused,
    Delivered,
    /// Found to be missing where that may be.
    Lost,
}

/// What a writer has done to a channel between two kills.
#[derive(Debug, Default, Clone)]
pub(crate) struct Written {
    /// Whether each value was taken, in order.
    pub(crate) answers: Vec<bool>,
    /// Values that were sent, answered or not.
    pub(crate) sent: usize,
}

/// What a reader has got from a queue between two kills.
#[derive(Debug, Default, Clone)]
pub(crate) struct Read {
    pub(crate) numbers: Vec<u32>,
    /// Where in `numbers` the last batch begins, if the node does not know that it was taken over.
    pub(crate) open_batch: Option<usize>,
    /// Values that may have been on their way, each for itself, and bytes of values that may have been.
    /// Unless they come again.
    pub(crate) redelivered: bool,
    pub(crate) under_way: usize,
    pub(crate) bytes_under_way: u64,
}

/// A queue.
pub(crate) struct Queue {
    pub(crate) channel: &'static str,
    pub(crate) subscriber: Option<&'static str>,
    mode: Mode,
    fates: Vec<Fate>,
    /// The number behind the last one that was delivered.
    next: u32,
    /// What may come again: it was delivered, and the node was never told that it was taken over.
    again: Range<u32>,
    /// What may be missing since the queue was empty last: so many values and so many bytes.
    may_miss: (usize, u64),
    /// The most bytes that are in memory.
    memory: u64,
}

impl Queue {
    pub(crate) fn new(channel: &'static str, subscriber: Option<&'static str>, mode: Mode, memory: u64) -> Self {
        Self { channel, subscriber, mode, fates: Vec::new(), next: 0, again: 0..0, may_miss: (0, 0), memory }
    }

    /// The number of the next value.
    pub(crate) fn end(&self) -> u32 {
        u32::try_from(self.fates.len()).unwrap()
    }

    /// Takes over that one more value was taken.
    pub(crate) fn pushed(&mut self) {
        self.fates.push(Fate::Acknowledged);
    }

    /// Takes over what was done until the node was killed.
    pub(crate) fn killed(&mut self, written: &Written, read: &Read) {
        let answers = written.answers.iter().map(|taken| if *taken { Fate::Acknowledged } else { Fate::Refused });
        self.fates.extend(answers);
        let unanswered = written.sent - written.answers.len();
        self.fates.extend(std::iter::repeat_n(Fate::Unknown, unanswered));
        self.delivered(&read.numbers);
        self.again = match read.open_batch.and_then(|from| read.numbers.get(from)) {
            Some(from) if self.mode == Mode::Journal => *from..self.next,
            _ => self.next..self.next,
        };
        if !(read.redelivered && self.mode == Mode::Journal) {
            self.may_miss.0 += read.under_way;
            self.may_miss.1 += read.bytes_under_way;
        }
        match self.mode {
            Mode::Memory => {
                self.fates.iter_mut().filter(|fate| **fate != Fate::Delivered).for_each(|fate| *fate = Fate::Lost);
                self.next = self.end();
                self.again = self.next..self.next;
            }
            Mode::Overflow => self.may_miss.1 += self.memory,
            Mode::Journal => {}
        }
    }

    /// Takes over what was delivered: in order, once.
    pub(crate) fn delivered(&mut self, numbers: &[u32]) {
        let name = (self.channel, self.subscriber);
        for number in numbers {
            let may_come = *number >= self.next || self.again.contains(number);
            assert!(may_come, "{name:?}: {number} comes in order and once, {} is next", self.next);
            if self.mode == Mode::Memory {
                let mut skipped = self.fates.iter().take(*number as usize).skip(self.next as usize);
                assert!(
                    skipped.all(|fate| *fate == Fate::Refused),
                    "{name:?}: nothing between {} and {number}",
                    self.next
                );
            }
            // Behind one that came again nothing in front of it may.
            self.again.start = self.again.start.max(number + 1);
            self.next = self.next.max(number + 1);
            let fate = self.fates.get_mut(usize::try_from(*number).unwrap());
            let fate = fate.unwrap_or_else(|| panic!("{name:?}: {number} was pushed"));
            assert!(*fate != Fate::Refused && *fate != Fate::Lost, "{name:?}: {number} was {fate:?}");
            *fate = Fate::Delivered;
        }
    }

    /// The queue is empty: everything that was promised has been delivered. Returns how much is missing.
    pub(crate) fn empty(&mut self) -> usize {
        let channel = self.channel;
        let missing: Vec<u32> =
            (0..self.end()).zip(&self.fates).filter(|(_, fate)| **fate == Fate::Acknowledged).map(|(n, _)| n).collect();
        let (values, bytes) = self.may_miss;
        // Those that were on their way to somebody came first.
        let of_memory = missing.iter().skip(values);
        let missed: u64 = of_memory.map(|number| 8 + value(channel, *number).len() as u64).sum();
        let name = (channel, self.subscriber);
        assert!(
            missed <= bytes,
            "{name:?}: {missed} bytes missing, at most {values} values and {bytes} bytes: {missing:?}"
        );
        self.fates.iter_mut().filter(|fate| **fate != Fate::Delivered).for_each(|fate| *fate = Fate::Lost);
        self.may_miss = (0, 0);
        missing.len()
    }
}
