//! Which key was meant.

/// Whether `found` is `meant` with one letter wrong, missing, too many, or exchanged with the next, whatever the case.
pub(super) fn is_slip(found: &str, meant: &str) -> bool {
    let (found, meant) = (found.to_ascii_lowercase(), meant.to_ascii_lowercase());
    let (found, meant) = (found.as_bytes(), meant.as_bytes());
    let same = found.iter().zip(meant).take_while(|(a, b)| a == b).count();
    let (found, meant) = (found.get(same..).unwrap_or_default(), meant.get(same..).unwrap_or_default());
    match (found, meant) {
        ([], []) => true,
        ([a, b, left @ ..], [c, d, right @ ..]) if (a, b) == (d, c) && left == right => true,
        ([_, left @ ..], [_, right @ ..]) if left == right => true,
        ([_, left @ ..], right) if left == right => true,
        (left, [_, right @ ..]) => left == right,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_slip;

    #[test]
    fn one_slip_is_seen_through() {
        for found in ["prot", "pprt", "Port", "por", "ports", "ort", "pport"] {
            assert!(is_slip(found, "port"), "{found}");
        }
        for found in ["", "po", "neo_port", "topr", "backlog"] {
            assert!(!is_slip(found, "port"), "{found}");
        }
    }
}
