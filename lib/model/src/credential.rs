//! Passwords, keys and tokens: how they are made, and the only forms in which they are kept.

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use sha2::{Digest, Sha256};

use crate::ids::hexadecimal;

/// The longest password, in bytes; longer ones would only make hashing dear.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// The shortest password that an account may be given, in bytes.
pub const MIN_PASSWORD_BYTES: usize = 8;
/// A hash that takes more memory (256 MiB) is not one of ours, in blocks of 1 KiB.
const MAX_BLOCKS: usize = 256 * 1024;
/// Letters and digits that cannot be taken for each other, 32 of them.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// 26 of 32 symbols are 130 bits.
const GENERATED_LENGTH: usize = 26;

/// Why a password cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// It is too short or too long.
    #[error("a password has {MIN_PASSWORD_BYTES} to {MAX_PASSWORD_BYTES} bytes")]
    Length,
    /// It could not be hashed.
    #[error("the password could not be hashed")]
    Hashing,
}

/// Hashes a new password with argon2id (19 MiB, two passes); the result is in PHC form and holds its random salt.
///
/// # Errors
/// The password is shorter or longer than allowed.
pub fn hash_password(password: &str) -> Result<String, PasswordError> {
    if !(MIN_PASSWORD_BYTES..=MAX_PASSWORD_BYTES).contains(&password.len()) {
        return Err(PasswordError::Length);
    }
    let salt: [u8; 16] = rand::random();
    let hash: PasswordHash =
        Argon2::default().hash_password_with_salt(password.as_bytes(), &salt).map_err(|_| PasswordError::Hashing)?;
    Ok(hash.to_string())
}

/// Whether `password` is the one that `hash` was made from. Takes tens of milliseconds of one processor.
#[must_use]
pub fn verify_password(password: &str, hash: &str) -> bool {
    Verifier::default().verify(password, hash)
}

/// Checks passwords in memory that it keeps.
///
/// A process that allocates and frees the memory for each check grows by it with each check: the C library does not
/// find the freed block again for the next aligned one.
#[derive(Default)]
pub struct Verifier {
    blocks: Vec<Block>,
}

impl Verifier {
    /// Whether `password` is the one that `hash` was made from. Takes tens of milliseconds of one processor.
    pub fn verify(&mut self, password: &str, hash: &str) -> bool {
        password.len() <= MAX_PASSWORD_BYTES && self.matches(password, hash).unwrap_or(false)
    }

    /// `None` when `hash` is not one that can be compared with.
    fn matches(&mut self, password: &str, hash: &str) -> Option<bool> {
        let hash = PasswordHash::new(hash).ok()?;
        let (salt, expected) = (hash.salt?, hash.hash?);
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
        let version = hash.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
        let params = Params::try_from(&hash).ok()?;
        let count = params.block_count();
        if count > MAX_BLOCKS {
            return None;
        }
        if self.blocks.len() < count {
            self.blocks.resize(count, Block::default());
        }
        let blocks = self.blocks.get_mut(..count)?;
        let mut output = [0; Output::MAX_LENGTH];
        let output = output.get_mut(..expected.len())?;
        let argon2 = Argon2::new(algorithm, version, params);
        argon2.hash_password_into_with_memory(password.as_bytes(), &salt, output, blocks).ok()?;
        // The comparison takes the same time wherever the two differ.
        Some(Output::new(output).ok()? == expected)
    }
}

/// Makes a password of 130 random bits that can be read aloud.
#[must_use]
pub fn random_password() -> String {
    let bytes: [u8; GENERATED_LENGTH] = rand::random();
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

/// Makes a session token or an API key: 256 random bits in hexadecimal.
#[must_use]
pub fn random_token() -> String {
    let bytes: [u8; 32] = rand::random();
    hexadecimal(&bytes)
}

/// SHA-256 of a token or key in hexadecimal, the form in which the store keeps it.
#[must_use]
pub fn token_hash(token: &str) -> String {
    hexadecimal(&Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn only_the_same_password_matches_and_no_two_hashes_are_equal() {
        let hash = hash_password("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(verify_password("correct horse", &hash));
        assert!(!verify_password("correct horsf", &hash));
        assert_ne!(hash, hash_password("correct horse").unwrap());
    }

    #[test]
    fn memory_that_was_used_before_changes_nothing() {
        let (first, second) = (hash_password("the first one").unwrap(), hash_password("the second one").unwrap());
        let mut verifier = Verifier::default();
        for _ in 0..2 {
            assert!(verifier.verify("the first one", &first));
            assert!(!verifier.verify("the first one", &second));
            assert!(verifier.verify("the second one", &second));
        }
        // The published test vector of the reference implementation, with other costs.
        let vector = "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA";
        assert!(verifier.verify("password", vector));
        assert!(verifier.verify("the first one", &first));
    }

    #[test]
    fn lengths_are_bounded_and_damaged_hashes_match_nothing() {
        assert_eq!(hash_password("short"), Err(PasswordError::Length));
        assert_eq!(hash_password(&"x".repeat(1025)), Err(PasswordError::Length));
        assert!(!verify_password("anything", ""));
        assert!(!verify_password("anything", "$argon2id$nonsense"));
        let costly = "$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA";
        assert!(!verify_password("anything", costly));
    }

    #[test]
    fn tokens_and_passwords_are_random_and_of_the_stated_length() {
        assert_eq!(random_token().len(), 64);
        assert_ne!(random_token(), random_token());
        assert_eq!(random_password().len(), 26);
        assert_eq!(token_hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
