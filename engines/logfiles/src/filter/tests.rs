#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use super::pattern::used;
use super::*;

fn pcre(pattern: &str) -> Filter {
    Filter::pcre(pattern.as_bytes(), false).unwrap()
}

#[test]
fn what_is_empty_takes_everything() {
    for filter in [Filter::none(), Filter::substring(b"").unwrap(), Filter::pcre(b"", true).unwrap()] {
        assert!(filter.is_none());
        assert_eq!(filter.matches(b""), Ok(true));
        assert_eq!(filter.matches(b"any"), Ok(true));
    }
}

#[test]
fn a_string_is_found_wherever_it_is() {
    let filter = Filter::substring(b"ap\0\xff").unwrap();
    assert!(!filter.is_none());
    assert_eq!(filter.matches(b"xxap\0\xffyy"), Ok(true));
    assert_eq!(filter.matches(b"xxap\0\xfe"), Ok(false));
    assert_eq!(filter.matches(b""), Ok(false));
}

#[test]
fn the_recorded_patterns_match_the_recorded_values() {
    let values = [&b"apple pie"[..], b"Apple tart", b"banana split", b"cherry \0\xff cake", b"multi\nline apple"];
    let matching = |pattern: &str, caseless| {
        let filter = Filter::pcre(pattern.as_bytes(), caseless).unwrap();
        (0..values.len()).filter(|&index| filter.matches(values[index]).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(matching("^[ab].*e", false), [0]);
    assert_eq!(matching("^[ab].*e", true), [0, 1]);
    assert_eq!(matching("apple$", false), [4]);
    assert_eq!(matching("APPLE", true), [0, 1, 4]);
    assert_eq!(matching("\\d|split", false), [2]);
    assert_eq!(matching(".", false), [0, 1, 2, 3, 4]);
    // Bytes, no characters; what only a full engine has.
    assert_eq!(matching("\\x00\\xff", false), [3]);
    assert_eq!(matching("(?<=an)an(?!d)", false), [2]);
    assert_eq!(matching("(p)\\1", false), [0, 1, 4]);
    assert_eq!(matching("(?m)^line", false), [4]);
}

#[test]
fn a_value_that_is_no_text_matches_no_pattern_of_characters() {
    let filter = pcre("(*UTF)^.$");
    assert_eq!(filter.matches("\u{e9}".as_bytes()), Ok(true));
    assert_eq!(filter.matches(b"\xe9"), Ok(false));
    assert_eq!(filter.matches(b"\xed\xa0\x80"), Ok(false));
}

#[test]
fn what_is_no_pattern_is_refused() {
    for bad in ["(", "[a", "a{2,1}", "(?<n>a)(?<n>b)", "\\", "(?P<>a)", "*"] {
        assert!(matches!(Filter::pcre(bad.as_bytes(), false), Err(PatternError::Syntax(_))), "{bad}");
    }
    let long = vec![b'a'; MAX_PATTERN + 1];
    assert_eq!(Filter::pcre(&long, false).unwrap_err(), PatternError::TooLong(long.len()));
    assert_eq!(Filter::substring(&vec![b'a'; 1 << 20]).unwrap_err(), PatternError::TooLong(1 << 20));
    assert!(Filter::substring(&long[1..]).is_ok());
}

/// Patterns that take for ever without a limit, each with a value.
fn catastrophes() -> Vec<(String, Vec<u8>)> {
    let a = vec![b'a'; 65_536];
    let ab = [a.clone(), vec![b'!']].concat();
    let patterns = [
        "(a+)+$",
        "(a|aa)+$",
        "(a*)*[bc]",
        "^(a?){30}a{30}[bc]",
        "(.*)(.*)(.*)(.*)[xy]",
        "((a+)*)*\\1[bc]",
        "(?:a|a)*?[bc]",
        "^(?=(a+)+[bc])",
        "(?:(?:a{1,10}){1,10}){1,10}[bc]",
        "(?:(?R)?a)+[bc]",
        "(a++|a)+$\\b\\B",
        "(?:.|\\s)*?[xy]",
        "(?<=(?:a|aa){50})[bc]",
        "a*a*a*a*a*a*[bc]",
        "(?=(?:a+)+a[bc])a",
        "(?:a+?|a+)+?(?:[bc])",
    ];
    let mut all: Vec<(String, Vec<u8>)> = patterns.iter().map(|pattern| ((*pattern).to_owned(), ab.clone())).collect();
    for verbs in ["(*NO_JIT)", "(*NO_START_OPT)", "(*NO_AUTO_POSSESS)", "(*UTF)(*UCP)", "(*LIMIT_MATCH=4294967295)"] {
        all.extend(
            ["(a+)+$", "(a|aa)+$", "(.*)(.*)(.*)(.*)[xy]"].map(|pattern| (format!("{verbs}{pattern}"), ab.clone())),
        );
    }
    // Each of these stays below a limit that counts from each place anew, in which it looks at all that follows.
    all.extend(
        [
            "(?:a++[bc]|a){0,200}[bc]",
            "(?:a++[bc]|a){0,900}[bc]",
            "(?:(?=.*[xy])|a){0,30}[bc]",
            "(?R)?(?:a++[bc]|a){0,200}[bc]",
        ]
        .map(|pattern| (pattern.to_owned(), ab.clone())),
    );
    all.push(("(?:a|aa){18}[bc]".into(), a[..1024].to_vec()));
    all.push(("(?:a++[bc]|a){0,900}[bc]".into(), a[..1024].to_vec()));
    let huge = [vec![b'a'; 8 << 20], vec![b'!']].concat();
    all.extend(
        ["(a+)+$", "(?:a++[bc]|a){0,200}[bc]", "(?:foo|bar)[0-9]"].map(|pattern| (pattern.to_owned(), huge.clone())),
    );
    all
}

#[test]
fn no_pattern_takes_long() {
    for (pattern, value) in catastrophes() {
        let filter = pcre(&pattern);
        let start = used();
        let found = filter.matches(&value);
        let took = used() - start;
        println!("{pattern:50} {:8} bytes: {took:>12.2?} {found:?}", value.len());
        assert_ne!(found, Ok(true), "{pattern}");
        assert!(took < Duration::from_secs(10), "{pattern}: {took:?}");
    }
    // Without a limit this one would be tried for ever.
    assert_eq!(pcre("(*NO_JIT)(a+)+$").matches(&[vec![b'a'; 1000], vec![b'!']].concat()), Err(LimitHit));
    assert_eq!(pcre("(a+)+$").matches(&[vec![b'a'; 1000], vec![b'!']].concat()), Err(LimitHit));
}

#[test]
fn a_client_can_lower_its_limit() {
    let value = vec![b'a'; 1000];
    assert_eq!(pcre("(a|b)*c").matches(&value[..100]), Ok(false));
    assert_eq!(pcre("(*LIMIT_MATCH=5)(a|b)*[bc]").matches(&value[..100]), Err(LimitHit));
}

#[test]
fn compiling_takes_a_bounded_time() {
    let nested = |depth: usize| ["(".repeat(depth), "a".into(), ")".repeat(depth)].concat();
    let alternatives = (0..9_000).map(|n| format!("w{n:x}")).collect::<Vec<_>>().join("|");
    let patterns = [
        nested(240),
        nested(251),
        nested(32_000),
        "(((((a{1,60}){1,60}){1,60}){1,60}){1,60})".to_owned(),
        "(?:a{1000}){60}".to_owned(),
        "a?".repeat(1000) + &"a".repeat(1000),
        "a?".repeat(16_000),
        alternatives.clone(),
        "(?=a)".repeat(13_000),
        "[a-z][^a-z]\\w\\W".repeat(4000),
        "(?|(a)|(b))".repeat(5000),
        "(?<!a{1,200}|b{2,100}|c)".repeat(2000),
        "(?i)[\u{e0}-\u{ff}]".repeat(3000),
        format!("(*UTF)(*UCP){}", "(?i)\u{e9}\\w\\X".repeat(4000)),
        "\\Q".repeat(30_000),
        "(?#".repeat(20_000),
        ".*".repeat(30_000),
        "(a+)+".repeat(10_000),
        "(?R)".repeat(10_000),
        "(?1)(a(?1)?)".repeat(400),
        "x{1,65535}".to_owned(),
        "(x{1,255}){1,255}".to_owned(),
    ];
    for pattern in patterns {
        let start = used();
        let made = Filter::pcre(pattern.as_bytes(), true);
        let took = used() - start;
        let shown: String = pattern.chars().take(30).collect();
        println!("{shown:30} {:6} bytes: {took:>10.2?} {:?}", pattern.len(), made.as_ref().err());
        assert!(took < Duration::from_secs(2), "{shown}: {took:?}");
        let start = used();
        if let Ok(filter) = made {
            let found = filter.matches(&vec![b'a'; 65_536]);
            println!("{:30} {:>30.2?} {found:?}", "", used() - start);
            assert!(used() - start < Duration::from_secs(5), "{shown}");
        }
    }
}
