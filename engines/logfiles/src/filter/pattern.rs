//! Patterns as clients send them, made fit for the library, and matches that end.
//!
//! The library counts the steps of a match anew for each place of the value where a match could begin, and a step may
//! look at all of the value. So that a match ends in time whatever the pattern is, one call of the library is never given
//! much: short values at once, longer ones by pieces of [`PIECE`] places to begin at, which have one count together, and
//! the pieces that are too much place by place. Between the calls a clock is looked at.
//!
//! ```text
//! as sent   (*UTF)(*LIMIT_MATCH=4000000000)a.*b$
//! quick     (*UTF)(*LIMIT_MATCH=..)..a.*b$                             values of up to SHORT bytes
//! piece     (*UTF)(*LIMIT_MATCH=..)..\G(?s:.{0,255}?)(?:a.*b$)         longer ones, and where that was too much
//! place     (*UTF)(*LIMIT_MATCH=..)..\G(?:a.*b$)                       the pieces where that was too much
//! ```
//!
//! The library takes settings in front of a pattern and believes the last one of a kind. So they are read here: those
//! that set limits are taken out, and ours, or lower ones of the client, follow the others.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::OnceLock;
use std::time::Duration;

use nix::time::ClockId;
use pcre2::bytes::{Regex, RegexBuilder};

use super::{LimitHit, PatternError};

/// Values of up to so many bytes are matched at once.
const SHORT: usize = 1024;
/// The same for patterns that cannot be made into pieces: no longer values are matched.
const SHORT_WHOLE: usize = 4096;
/// Places where a match may begin, that are tried together.
const PIECE: usize = 256;
/// The longest value of which single places are tried.
const LONG: usize = 65_536;
/// How long this thread computes on a value at most, looked at between calls.
const PATIENCE: Duration = Duration::from_millis(100);

/// Steps of a call of each kind.
const QUICK_STEPS: u32 = 1000;
const PIECE_STEPS: u32 = 2000;
const PLACE_STEPS: u32 = 20_000;
/// Kibibytes that a call of the interpreter takes to remember where it can go back to.
const HEAP_KIB: u32 = 4096;

/// Bytes of the stack that compiled code has for a call.
const JIT_STACK: usize = 1 << 20;
/// Longer patterns are interpreted: compiling takes long in relation to the pattern's length.
const JIT_PATTERN: usize = 2048;

/// A value that is not UTF-8 has errors in this range; it matches no pattern that begins with `(*UTF)`.
const UTF_ERRORS: std::ops::RangeInclusive<i32> = -28..=-3;

/// How long this thread has computed so far: the answer does not depend on what else the machine does.
pub(crate) fn used() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().map_or(Duration::ZERO, Duration::from)
}

/// What may stand between `(*` and `)` in front of a pattern.
const SETTINGS: [&str; 19] = [
    "UTF8",
    "UTF",
    "UCP",
    "NOTEMPTY",
    "NOTEMPTY_ATSTART",
    "NO_AUTO_POSSESS",
    "NO_DOTSTAR_ANCHOR",
    "NO_JIT",
    "NO_START_OPT",
    "CASELESS_RESTRICT",
    "TURKISH_CASING",
    "CR",
    "LF",
    "CRLF",
    "ANY",
    "NUL",
    "ANYCRLF",
    "BSR_ANYCRLF",
    "BSR_UNICODE",
];

/// What means the whole pattern or the place where it began to match: not the same in a piece.
const WHOLE: [&str; 7] = ["(?R", "(?0", "(?C", "(*", "\\G", "\\g<0", "\\g'0"];

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Matcher {
    text: Text,
    caseless: bool,
    quick: Regex,
    /// Compiled for the first value that needs them; none if they cannot be.
    piece: OnceLock<Option<Regex>>,
    place: OnceLock<Option<Regex>>,
}

impl Matcher {
    pub(super) fn new(pattern: &[u8], caseless: bool) -> Result<Self, PatternError> {
        let text = Text::new(pattern);
        let quick = compile(&text.limited(QUICK_STEPS, &text.body), caseless)
            .map_err(|error| PatternError::Syntax(error.to_string()))?;
        Ok(Self { text, caseless, quick, piece: OnceLock::new(), place: OnceLock::new() })
    }

    #[inline]
    pub(super) fn matches(&self, value: &[u8]) -> Result<bool, LimitHit> {
        if value.len() <= SHORT {
            match self.quick.is_match(value) {
                Ok(found) => return Ok(found),
                Err(error) if no_text(&error) => return Ok(false),
                Err(_) => {}
            }
        }
        self.thorough(value)
    }

    pub(super) fn both_ways(&self, value: &[u8]) -> [Result<bool, LimitHit>; 2] {
        [self.at_once(value), self.thorough(value)]
    }

    fn at_once(&self, value: &[u8]) -> Result<bool, LimitHit> {
        self.quick.is_match(value).or_else(|error| if no_text(&error) { Ok(false) } else { Err(LimitHit) })
    }

    #[cold]
    fn thorough(&self, value: &[u8]) -> Result<bool, LimitHit> {
        let Some(piece) = self.piece.get_or_init(|| self.wrapped(PIECE_STEPS, &format!("(?s:.{{0,{}}}?)", PIECE - 1)))
        else {
            return if value.len() <= SHORT_WHOLE { self.at_once(value) } else { Err(LimitHit) };
        };
        let (begun, mut at) = (used(), 0);
        loop {
            let next = self.after(value, at, PIECE);
            match piece.is_match_at(value, at) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) if no_text(&error) => return Ok(false),
                Err(_) if value.len() > LONG => return Err(LimitHit),
                Err(_) => {
                    if self.by_place(value, at, next, begun)? {
                        return Ok(true);
                    }
                }
            }
            if next > value.len() {
                return Ok(false);
            }
            if used().saturating_sub(begun) > PATIENCE {
                return Err(LimitHit);
            }
            at = next;
        }
    }

    /// Tries one place after another.
    fn by_place(&self, value: &[u8], mut at: usize, end: usize, begun: Duration) -> Result<bool, LimitHit> {
        let place = self.place.get_or_init(|| self.wrapped(PLACE_STEPS, "")).as_ref().ok_or(LimitHit)?;
        while at < end && at <= value.len() {
            if place.is_match_at(value, at).map_err(|_| LimitHit)? {
                return Ok(true);
            }
            if used().saturating_sub(begun) > PATIENCE {
                return Err(LimitHit);
            }
            at = self.after(value, at, 1);
        }
        Ok(false)
    }

    /// The place that is `count` bytes, or characters, behind another one; beyond the end if there is none.
    fn after(&self, value: &[u8], at: usize, count: usize) -> usize {
        if !self.text.utf {
            return at.saturating_add(count);
        }
        let left = value.get(at..).unwrap_or_default();
        let starts = left.iter().enumerate().filter(|(_, byte)| **byte & 0xc0 != 0x80).map(|(index, _)| index);
        let next = starts.chain([left.len(), left.len() + 1]).nth(count);
        at + next.unwrap_or(left.len() + 1)
    }

    /// The pattern behind the place where the call begins and `skip`.
    fn wrapped(&self, steps: u32, skip: &str) -> Option<Regex> {
        let Text { settings, body, .. } = &self.text;
        // What is skipped would make a match of nothing one of something.
        if settings.contains("(*NOTEMPTY") || WHOLE.iter().any(|whole| body.contains(whole)) {
            return None;
        }
        // What is open at the end: nothing, `\Q`, or a comment of an extended pattern.
        let mut ends = [")", "\\E)", "\n)"].into_iter();
        ends.find_map(|end| compile(&self.text.limited(steps, &format!("\\G{skip}(?:{body}{end}")), self.caseless).ok())
    }
}

fn no_text(error: &pcre2::Error) -> bool {
    UTF_ERRORS.contains(&error.code())
}

fn compile(text: &str, caseless: bool) -> Result<Regex, pcre2::Error> {
    let jit = text.len() <= JIT_PATTERN;
    RegexBuilder::new().caseless(caseless).jit_if_available(jit).max_jit_stack_size(Some(JIT_STACK)).build(text)
}

/// A pattern in parts.
#[derive(Debug)]
struct Text {
    /// The settings in front of it, without limits.
    settings: String,
    /// The limits of the client.
    steps: u32,
    heap: u32,
    /// What follows, without bytes that are no text.
    body: String,
    utf: bool,
}

impl Text {
    fn new(pattern: &[u8]) -> Self {
        let (mut settings, mut left) = (String::new(), pattern);
        let (mut steps, mut heap, mut utf) = (u32::MAX, HEAP_KIB, false);
        while let Some((name, rest)) = setting(left) {
            match name.split_once('=') {
                Some(("LIMIT_HEAP", number)) => heap = heap.min(limit(number)),
                Some((_, number)) => steps = steps.min(limit(number)),
                None => settings.extend(["(*", name, ")"]),
            }
            utf |= name.starts_with("UTF");
            left = rest;
        }
        // Nothing that follows is a setting, whatever it looks like.
        let guard = if left.starts_with(b"(*") { "(?:)" } else { "" };
        Self { settings, steps, heap, body: format!("{guard}{}", text_of(left)), utf }
    }

    fn limited(&self, steps: u32, body: &str) -> String {
        let (steps, heap) = (steps.min(self.steps), self.heap);
        format!("{}(*LIMIT_MATCH={steps})(*LIMIT_DEPTH={steps})(*LIMIT_HEAP={heap}){body}", self.settings)
    }
}

fn limit(number: &str) -> u32 {
    number.parse().unwrap_or(u32::MAX)
}

/// Takes a setting from the front of a pattern: its name, with its number if it has one, and what follows.
fn setting(pattern: &[u8]) -> Option<(&str, &[u8])> {
    let inner = pattern.strip_prefix(b"(*")?;
    let end = inner.iter().take(64).position(|&byte| byte == b')')?;
    let name = str::from_utf8(inner.get(..end)?).ok()?;
    let known = match name.split_once('=') {
        Some(("LIMIT_MATCH" | "LIMIT_DEPTH" | "LIMIT_RECURSION" | "LIMIT_HEAP", number)) => {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        }
        Some(_) => false,
        None => SETTINGS.contains(&name),
    };
    known.then_some((name, inner.get(end + 1..)?))
}

/// The library takes text: bytes that are none are written as the escapes that mean them, `\xe9`.
fn text_of(pattern: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(pattern) {
        return Cow::Borrowed(text);
    }
    let (mut text, mut quoted) = (String::with_capacity(pattern.len() + 64), false);
    for chunk in pattern.utf8_chunks() {
        text.push_str(chunk.valid());
        quoted = quotes(chunk.valid(), quoted);
        for byte in chunk.invalid() {
            // A backslash in front of such a byte means the byte, and so it does with an escape behind it.
            let escaped = !quoted && trailing_backslashes(&text) % 2 == 1;
            let (before, after) = if quoted { ("\\E\\", "\\Q") } else { (if escaped { "" } else { "\\" }, "") };
            let _ = write!(text, "{before}x{byte:02x}{after}");
        }
    }
    Cow::Owned(text)
}

/// Whether a piece of a pattern ends between `\Q` and `\E`; `quoted`: whether it begins there.
fn quotes(piece: &str, mut quoted: bool) -> bool {
    let mut left = piece.as_bytes();
    while let [first, rest @ ..] = left {
        left = match (first, rest) {
            (b'\\', [b'E', rest @ ..]) if quoted => {
                quoted = false;
                rest
            }
            (b'\\', [next, rest @ ..]) if !quoted => {
                quoted = *next == b'Q';
                rest
            }
            _ => rest,
        };
    }
    quoted
}

fn trailing_backslashes(text: &str) -> usize {
    text.bytes().rev().take_while(|&byte| byte == b'\\').count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn limited(pattern: &[u8]) -> String {
        let text = Text::new(pattern);
        text.limited(QUICK_STEPS, &text.body)
    }

    const OURS: &str = "(*LIMIT_MATCH=1000)(*LIMIT_DEPTH=1000)(*LIMIT_HEAP=4096)";

    #[test]
    fn limits_can_be_lowered_and_not_raised() {
        assert_eq!(limited(b"a"), format!("{OURS}a"));
        assert_eq!(limited(b"(*LIMIT_MATCH=4294967295)(*UTF)(*LIMIT_HEAP=99999999)a"), format!("(*UTF){OURS}a"));
        assert_eq!(
            limited(b"(*LIMIT_MATCH=10)(*LIMIT_MATCH=20)(*CRLF)(*LIMIT_HEAP=7)a"),
            "(*CRLF)(*LIMIT_MATCH=10)(*LIMIT_DEPTH=10)(*LIMIT_HEAP=7)a"
        );
        assert_eq!(limited(b"(*LIMIT_MATCH=99999999999999999999)a"), format!("{OURS}a"));
        for strange in ["(*LIMIT_MATCH=)a", "(*LIMIT_MATCH=1x)a", "(*LIMIT_SPACE=1)a", "(*utf)a", "(*UTF", "(*"] {
            assert_eq!(limited(strange.as_bytes()), format!("{OURS}(?:){strange}"));
        }
        // One that is hidden behind something else is no setting.
        assert!(Matcher::new(b"(*FAIL)(*LIMIT_MATCH=4294967295)a", false).is_err());
        assert!(Matcher::new(b"(?:)(*LIMIT_MATCH=4294967295)a", false).is_err());
    }

    #[test]
    fn any_byte_stands_for_itself() {
        for pattern in [
            &b"caf\xe9"[..],
            b"caf\\\xe9",
            b"ca\\\\?f\xe9",
            b"caf[\xe0-\xef]",
            b"\\Qcaf\xe9\\E$",
            b"\\Qcaf\\E\xe9",
            b"\\\\?\xe9",
            b"\\\\?Q?\xe9",
            b"caf\xc3?\xe9",
            b"\\Qf\xe9",
        ] {
            let matcher = Matcher::new(pattern, false).unwrap();
            assert_eq!(matcher.matches(b"caf\xe9"), Ok(true), "{pattern:?}: {}", matcher.text.body);
            assert_eq!(matcher.matches(b"cafe"), Ok(false), "{pattern:?}: {}", matcher.text.body);
        }
        // In \Q..\E a backslash is one.
        let matcher = Matcher::new(b"\\Qa\\\xe9\\E", false).unwrap();
        assert_eq!((matcher.matches(b"a\\\xe9"), matcher.matches(b"a\xe9")), (Ok(true), Ok(false)));
        assert_eq!(Matcher::new(b"a\0b", false).unwrap().matches(b"xa\0b"), Ok(true));
        assert_eq!(Matcher::new("\u{e9}.".as_bytes(), false).unwrap().matches(b"\xc3\xa9\xff"), Ok(true));
    }

    #[test]
    fn a_value_gets_the_same_answer_in_pieces() {
        let patterns = [
            "b$",
            "^a",
            "^.*c",
            "a{300}c",
            "(?<=c)b",
            "\\Gab",
            "(?x) c # the end",
            "\\Qcb",
            "x|cb",
            "(?i)CB\\Z",
            "[^a]",
            "\\Ab",
            "(*UTF)\u{e9}",
            "(*UTF)..b$",
            "(*UTF)^\\X+$",
            "(?R)?c",
            "c(*COMMIT)b",
            "(a)\\1c",
            "(?|(c)|(d))b",
            "$",
            "^",
            "\\b",
        ];
        let mut compared = 0;
        for length in [0, 1, 250, 254, 255, 256, 257, 511, 512, 513, 900] {
            for end in ["", "cb", "c\n", "\u{e9}c", "c\u{e9}\u{e9}b"] {
                let value = ["a".repeat(length), end.to_owned()].concat();
                for pattern in patterns {
                    let matcher = Matcher::new(pattern.as_bytes(), false).unwrap();
                    // The few that are too much at once have no answer to compare with.
                    if let Ok(expected) = matcher.quick.is_match(value.as_bytes()) {
                        assert_eq!(matcher.thorough(value.as_bytes()), Ok(expected), "{pattern} {length} {end:?}");
                        compared += 1;
                    }
                }
            }
        }
        assert!(compared > 1000, "{compared}");
    }

    #[test]
    fn what_cannot_be_in_pieces_is_matched_as_a_whole() {
        // With something in front of it, a match of nothing would be one of something.
        for pattern in ["(*NOTEMPTY)x*", "(*NOTEMPTY_ATSTART)x*$"] {
            let matcher = Matcher::new(pattern.as_bytes(), false).unwrap();
            let value = b"a".repeat(SHORT + 1);
            assert_eq!(matcher.matches(&value), matcher.at_once(&value), "{pattern}");
        }
        // A value that is no text is so at any length.
        let matcher = Matcher::new(b"(*UTF)(?R)?c", false).unwrap();
        assert_eq!(matcher.matches(&b"\xff".repeat(SHORT + 1)), Ok(false));
    }

    #[test]
    fn a_piece_that_is_too_much_is_tried_by_place() {
        // Each letter is a step, so that the first piece has far more than it may.
        let matcher = Matcher::new(b"^(?:a|b)*c", false).unwrap();
        let value = [vec![b'a'; 15_000], vec![b'c']].concat();
        assert_eq!(matcher.matches(&value), Ok(true));
        assert_eq!(matcher.matches(&value[..15_000]), Ok(false));
    }
}
