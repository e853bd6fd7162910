//! Reads values from the front of an input that may not be complete.

use super::{Decoded, Limits, ProtocolError};

/// Why a value could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Incomplete: so many bytes in all are needed.
    Need(usize),
    /// It will never be right.
    Error(ProtocolError),
}

impl From<ProtocolError> for Stop {
    fn from(error: ProtocolError) -> Self {
        Self::Error(error)
    }
}

/// What a decoder of replies made of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need<T> {
    /// Incomplete: it makes sense to decode again once so many bytes in all are there.
    More(usize),
    /// A value, in the first `consumed` bytes.
    Done {
        /// The value; borrows from the input.
        value: T,
        /// Bytes of input that are the value.
        consumed: usize,
    },
}

/// A place in an input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a, 'l> {
    input: &'a [u8],
    at: usize,
    limits: &'l Limits,
}

impl<'a, 'l> Cursor<'a, 'l> {
    pub(super) const fn new(input: &'a [u8], limits: &'l Limits) -> Self {
        Self { input, at: 0, limits }
    }

    /// How much was read.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) const fn limits(&self) -> &'l Limits {
        self.limits
    }

    /// What lies between an earlier place and this one.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.input.get(start..self.at).unwrap_or_default()
    }

    /// What lies behind this place.
    pub(super) fn left(&self) -> usize {
        self.input.len().saturating_sub(self.at)
    }

    #[inline]
    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.saturating_add(length);
        // Also when all of it has arrived: a request is the same however it arrives.
        if end > self.limits.request {
            return Err(ProtocolError::RequestTooLong(self.limits.request).into());
        }
        let bytes = self.input.get(self.at..end).ok_or(Stop::Need(end))?;
        self.at = end;
        Ok(bytes)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let bytes = self.bytes(N)?;
        // `bytes` has this length whenever it succeeds.
        bytes.try_into().map_err(|_| Stop::Need(self.at))
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, Stop> {
        self.fixed().map(u8::from_le_bytes)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Stop> {
        self.fixed().map(u16::from_le_bytes)
    }

    #[inline]
    pub(super) fn i32(&mut self) -> Result<i32, Stop> {
        self.fixed().map(i32::from_le_bytes)
    }

    #[inline]
    pub(super) fn f32(&mut self) -> Result<f32, Stop> {
        self.fixed().map(f32::from_le_bytes)
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, Stop> {
        self.fixed().map(u64::from_le_bytes)
    }

    #[inline]
    pub(super) fn array(&mut self) -> Result<&'a [u8], Stop> {
        let announced = self.u64()?;
        match usize::try_from(announced) {
            Ok(length) if length <= self.limits.array => self.bytes(length),
            _ => Err(ProtocolError::ArrayTooLong(announced).into()),
        }
    }

    /// Says what became of a request.
    pub(super) fn decoded<R>(self, request: Result<R, Stop>) -> Result<Decoded<R>, ProtocolError> {
        match request {
            Ok(request) => Ok(Decoded::Request { request, consumed: self.at }),
            Err(Stop::Need(bytes)) => Ok(Decoded::Need(bytes)),
            Err(Stop::Error(error)) => Err(error),
        }
    }

    /// Says what became of a part of a reply.
    pub(super) fn done<T>(self, value: Result<T, Stop>) -> Result<Need<T>, ProtocolError> {
        match value {
            Ok(value) => Ok(Need::Done { value, consumed: self.at }),
            Err(Stop::Need(bytes)) => Ok(Need::More(bytes)),
            Err(Stop::Error(error)) => Err(error),
        }
    }
}
