//! Buffers that are used again.

use std::sync::{Mutex, PoisonError};

/// Keeps buffers that nobody needs just now, up to a number of bytes.
#[derive(Debug)]
pub(super) struct Buffers {
    kept: Mutex<Kept>,
    most: usize,
}

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// No larger buffer is kept: it was made for one large record.
const LARGEST: usize = 1 << 20;

impl Buffers {
    /// Keeps at most so many bytes.
    pub(super) const fn new(most: usize) -> Self {
        Self { kept: Mutex::new(Kept { buffers: Vec::new(), bytes: 0 }), most }
    }

    /// A buffer with whatever is in it; an empty one if none is kept.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let buffer = kept.buffers.pop().unwrap_or_default();
        kept.bytes -= buffer.capacity();
        buffer
    }

    /// Takes a buffer back.
    pub(super) fn give(&self, buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity == 0 || capacity > LARGEST {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + capacity <= self.most {
            kept.bytes += capacity;
            kept.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers = Buffers::new(3000);
        (0..9).for_each(|_| buffers.give(Vec::with_capacity(1000)));
        buffers.give(Vec::with_capacity(LARGEST + 1));
        let kept: Vec<_> = (0..4).map(|_| buffers.take().capacity()).collect();
        assert_eq!(kept, [1000, 1000, 1000, 0]);
    }
}
