//! Buffers that can be written past the page cache.

use super::CHUNK;

/// What direct I/O wants memory, lengths and offsets to be a multiple of, on any disk.
pub(super) const ALIGNMENT: usize = 4096;

/// A buffer of [`CHUNK`] bytes that begins at a multiple of [`ALIGNMENT`].
#[derive(Debug)]
pub(super) struct Chunk {
    memory: Vec<u8>,
    begin: usize,
    length: usize,
}

impl Chunk {
    pub(super) fn new() -> Self {
        let memory = vec![0u8; CHUNK + ALIGNMENT];
        let begin = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, begin, length: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    pub(super) fn is_full(&self) -> bool {
        self.length == CHUNK
    }

    /// Takes what fits; returns the rest.
    #[inline]
    pub(super) fn push<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(CHUNK - self.length));
        let at = self.begin + self.length;
        self.memory[at..at + taken.len()].copy_from_slice(taken);
        self.length += taken.len();
        rest
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.begin..self.begin + self.length]
    }
}
