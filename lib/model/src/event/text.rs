//! Cleaning texts.

/// How control characters in a text are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controls {
    /// Names: each becomes `?`.
    Name,
    /// One line for operators: line breaks and tabs become blanks, others `?`.
    Line,
    /// Several lines: line feeds and tabs stay, a carriage return before a line feed goes, others become `?`.
    Lines,
}

/// Replaces control characters; says whether there were any to replace.
pub(super) fn clean(text: String, controls: Controls) -> (String, bool) {
    let stays = |c: char| !c.is_control() || (controls == Controls::Lines && matches!(c, '\n' | '\t'));
    if text.chars().all(stays) {
        return (text, false);
    }
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            c if stays(c) => out.push(c),
            '\r' if controls != Controls::Name && characters.peek() == Some(&'\n') => {}
            '\n' | '\r' | '\t' if controls == Controls::Line => out.push(' '),
            _ => out.push('?'),
        }
    }
    (out, true)
}

/// Cuts a text to `limit` characters; says whether it was longer.
pub(super) fn cut(mut text: String, limit: usize) -> (String, bool) {
    // A text of fewer bytes has fewer characters: most are not counted.
    if text.len() <= limit {
        return (text, false);
    }
    match text.char_indices().nth(limit) {
        None => (text, false),
        Some((end, _)) => {
            text.truncate(end);
            text.shrink_to_fit();
            (text, true)
        }
    }
}
