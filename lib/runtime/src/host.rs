//! What this machine is called.

use std::io;

/// Where the kernel tells the name; it is that of the container inside of one.
const NAME: &str = "/proc/sys/kernel/hostname";

/// The machine's own name, by which it is known to the platform.
///
/// # Errors
/// The machine has no name, or it cannot be read.
pub fn name() -> io::Result<String> {
    let text = std::fs::read_to_string(NAME)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot tell the machine's name: {error}")))?;
    match text.trim() {
        "" | "(none)" => Err(io::Error::other("the machine has no name")),
        name => Ok(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_machine_has_a_name_in_one_word() {
        let name = super::name().unwrap_or_default();
        assert!(!name.is_empty() && !name.contains(char::is_whitespace));
    }
}
