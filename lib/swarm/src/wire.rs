//! The values that both protocols are made of (protocol §1.1): raw little-endian numbers, and arrays with their length
//! in front.
//!
//! ```text
//! array   0        8
//!         +--------+------------------+
//!         | length | bytes (length)   |   length: u64; a list ends with an array of length 0
//!         +--------+------------------+
//! ```

/// Bytes that an array of a legacy request has at most (inclusive); neo bounds the message instead.
pub const MAX_ARRAY: usize = 10 << 20;

/// The bytes end before the value does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message too short")]
pub struct Short;

/// Reads values from the front of a message.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    left: &'a [u8],
}

macro_rules! number {
    ($($name:ident)*) => {$(
        #[doc = concat!("Takes a little-endian `", stringify!($name), "`.\n\n# Errors\n[`Short`] if less is left.")]
        #[inline]
        pub fn $name(&mut self) -> Result<$name, Short> {
            let (bytes, left) = self.left.split_first_chunk().ok_or(Short)?;
            self.left = left;
            Ok($name::from_le_bytes(*bytes))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Begins at the front of a message.
    #[must_use]
    pub const fn new(message: &'a [u8]) -> Self {
        Self { left: message }
    }

    number! { u8 u16 u32 u64 i8 i32 i64 f32 }

    /// Takes a byte that is false if it is 0.
    ///
    /// # Errors
    /// [`Short`] if nothing is left.
    #[inline]
    pub fn boolean(&mut self) -> Result<bool, Short> {
        Ok(self.u8()? != 0)
    }

    /// Takes an array: its length, then so many bytes.
    ///
    /// # Errors
    /// [`Short`] if less is left than announced, whatever was announced.
    #[inline]
    pub fn array(&mut self) -> Result<&'a [u8], Short> {
        let length = usize::try_from(self.u64()?).map_err(|_| Short)?;
        self.bytes(length)
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// [`Short`] if less is left.
    #[inline]
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], Short> {
        let (bytes, left) = self.left.split_at_checked(length).ok_or(Short)?;
        self.left = left;
        Ok(bytes)
    }

    /// Takes all that is left.
    #[must_use]
    pub const fn rest(self) -> &'a [u8] {
        self.left
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.left.len()
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }
}

/// Appends an array: its length, then its bytes.
#[inline]
pub fn put_array(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(8 + bytes.len());
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends an array without bytes: the end of a list.
#[inline]
pub fn put_end(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 8]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_in_order() {
        let mut out = vec![7, 1];
        out.extend_from_slice(&0x0102u16.to_le_bytes());
        out.extend_from_slice(&0x0102_0304u32.to_le_bytes());
        out.extend_from_slice(&u64::MAX.to_le_bytes());
        out.extend_from_slice(&(-3i8).to_le_bytes());
        out.extend_from_slice(&(-3i32).to_le_bytes());
        out.extend_from_slice(&(-3i64).to_le_bytes());
        out.extend_from_slice(&0.5f32.to_le_bytes());
        put_array(&mut out, b"value");
        put_end(&mut out);
        out.extend_from_slice(b"rest");

        let mut reader = Reader::new(&out);
        assert_eq!((reader.u8(), reader.boolean(), reader.u16()), (Ok(7), Ok(true), Ok(0x0102)));
        assert_eq!((reader.u32(), reader.u64()), (Ok(0x0102_0304), Ok(u64::MAX)));
        assert_eq!((reader.i8(), reader.i32(), reader.i64()), (Ok(-3), Ok(-3), Ok(-3)));
        assert_eq!((reader.f32(), reader.array(), reader.array()), (Ok(0.5), Ok(&b"value"[..]), Ok(&b""[..])));
        assert!(!reader.is_empty());
        assert_eq!((reader.len(), reader.rest()), (4, &b"rest"[..]));
    }

    #[test]
    fn nothing_is_taken_when_too_little_is_left() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!((reader.u32(), reader.u64(), reader.array()), (Err(Short), Err(Short), Err(Short)));
        assert_eq!(reader.u16(), Ok(0x0201));
        assert_eq!((reader.u8(), reader.u8()), (Ok(3), Err(Short)));
    }

    #[test]
    fn an_announced_length_is_never_believed() {
        for length in [1u64, 9, 1 << 31, 1 << 63, u64::MAX] {
            assert_eq!(Reader::new(&length.to_le_bytes()).array(), Err(Short), "{length}");
        }
    }
}
