//! Channel names: one check for every request that carries one (protocol §1.3, §10.1).

/// Bytes a channel name has at most: a name becomes a file name, and a suffix has to fit behind it.
pub const MAX_CHANNEL_NAME: usize = 230;

/// A name that no channel can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("channel name is not 1 to {MAX_CHANNEL_NAME} letters, digits, '_' or '-'")]
pub struct BadChannelName;

/// Checks a channel name from the wire: `[A-Za-z0-9_-]`, 1 to [`MAX_CHANNEL_NAME`] bytes.
///
/// # Errors
/// [`BadChannelName`] for anything else, `../x` and the empty name among it.
#[inline]
pub fn check(name: &[u8]) -> Result<&str, BadChannelName> {
    if name.is_empty() || name.len() > MAX_CHANNEL_NAME {
        return Err(BadChannelName);
    }
    // Without an early exit or a table, several bytes are checked at once.
    let valid = name.iter().fold(true, |valid, &byte| valid & allowed(byte));
    if !valid {
        return Err(BadChannelName);
    }
    std::str::from_utf8(name).map_err(|_| BadChannelName)
}

#[inline(always)]
const fn allowed(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let digit = byte.wrapping_sub(b'0') < 10;
    letter | digit | (byte == b'_') | (byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_letters_digits_dash_and_underscore_only() {
        for good in ["a", "Z", "chan-1", "under_score", "0123456789", "-", "_"] {
            assert_eq!(check(good.as_bytes()), Ok(good));
        }
        for bad in ["", " ", "bad name", "../x", "a/b", "a@b", "a.b", "a\0", "é", "a\n"] {
            assert_eq!(check(bad.as_bytes()), Err(BadChannelName), "{bad:?}");
        }
        for byte in 0..=u8::MAX {
            let expected = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            assert_eq!(check(&[b'a', byte]).is_ok(), expected, "{byte:#x}");
        }
    }

    #[test]
    fn a_name_fits_into_a_file_name() {
        assert!(check(&[b'a'; MAX_CHANNEL_NAME]).is_ok());
        assert_eq!(check(&[b'a'; MAX_CHANNEL_NAME + 1]), Err(BadChannelName));
        assert_eq!(check(&vec![b'a'; 10 << 20]), Err(BadChannelName));
    }
}
