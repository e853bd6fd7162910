//! Buffers that connections use while they run and give back when they have nothing left in them.
//!
//! A busy node works in the same few buffers over and over, which stay in the processor's cache, and a connection
//! that is idle holds none.

use std::cell::RefCell;

/// Bytes of a buffer, and so of a read.
pub(super) const BUFFER: usize = 128 << 10;

/// A buffer that grew larger is freed rather than kept.
const LARGEST: usize = 1 << 20;

/// Buffers that are kept.
const KEPT: usize = 8;

/// Buffers that nobody uses now.
#[derive(Debug, Default)]
pub(super) struct Buffers(RefCell<Vec<Vec<u8>>>);

impl Buffers {
    /// An empty buffer of [`BUFFER`] bytes or more.
    #[inline]
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER))
    }

    /// Gives a buffer back, whatever is in it.
    #[inline]
    pub(super) fn give(&self, mut buffer: Vec<u8>) {
        let mut kept = self.0.borrow_mut();
        if (BUFFER..=LARGEST).contains(&buffer.capacity()) && kept.len() < KEPT {
            buffer.clear();
            kept.push(buffer);
        }
    }

    /// Makes `buffer` hold what comes after its first `done` bytes and not much else: gives it back when nothing is
    /// left, exchanges it for a small one when little is.
    #[inline]
    pub(super) fn settle(&self, buffer: &mut Vec<u8>, done: &mut usize) {
        let left = buffer.get(*done..).unwrap_or_default();
        if left.is_empty() {
            if buffer.capacity() > 0 {
                self.give(std::mem::take(buffer));
            }
        } else if left.len() < buffer.capacity() / 4 {
            let small = left.to_vec();
            self.give(std::mem::replace(buffer, small));
        } else {
            return;
        }
        *done = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_keeps_a_buffer_of_its_size() {
        let buffers = Buffers::default();
        let (mut buffer, mut done) = (buffers.take(), 3);
        buffer.extend_from_slice(b"abcdef");
        buffers.settle(&mut buffer, &mut done);
        assert_eq!((buffer.as_slice(), done, buffer.capacity()), (&b"def"[..], 0, 3));
        assert_eq!(buffers.0.borrow().len(), 1);
        done = 3;
        buffers.settle(&mut buffer, &mut done);
        assert_eq!((buffer.capacity(), done), (0, 0));

        let mut large = buffers.take();
        large.resize(BUFFER, 7);
        done = 10;
        buffers.settle(&mut large, &mut done);
        assert_eq!((large.len(), done), (BUFFER, 10));
        large.reserve(LARGEST);
        buffers.give(large);
        assert!(buffers.0.borrow().is_empty());
    }
}
