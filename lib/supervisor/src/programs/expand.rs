//! supervisord's `%(name)s` expressions (Python's `%` operator with a dictionary, the part that is used).

/// Is a value that an expression can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Var {
    /// Text, for `s`.
    Text(String),
    /// A number, for `d` and `s`.
    Number(u32),
}

/// Tells why an expression cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} in {template:?}")]
pub struct ExpandError {
    /// The whole value.
    pub template: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Expands every `%(name)s`, `%(name)d` (with a width, `%(process_num)02d`) and `%%` of `template`.
pub(crate) fn expand(template: &str, lookup: &dyn Fn(&str) -> Option<Var>) -> Result<String, ExpandError> {
    let fail = |problem: String| ExpandError { template: template.to_owned(), problem };
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(tail) = after.strip_prefix('%') {
            out.push('%');
            rest = tail;
            continue;
        }
        let parts = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        let (name, tail) = parts.ok_or_else(|| fail("a % that is neither %% nor %(name)s".to_owned()))?;
        let var = lookup(name).ok_or_else(|| fail(format!("unknown name %({name})")))?;
        let conversion = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (width, tail) = tail.split_at(conversion);
        let kind = tail.chars().next();
        let text = match (kind, &var) {
            (Some('s'), Var::Text(text)) => text.clone(),
            (Some('s' | 'd'), Var::Number(number)) => number.to_string(),
            _ => return Err(fail(format!("%({name}) without s or d"))),
        };
        let columns = width.parse::<usize>().unwrap_or(0).min(64);
        let fill = if width.starts_with('0') && kind == Some('d') { '0' } else { ' ' };
        out.extend(std::iter::repeat_n(fill, columns.saturating_sub(text.chars().count())));
        out.push_str(&text);
        rest = tail.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<Var> {
        match name {
            "here" => Some(Var::Text("/p/etc".to_owned())),
            "process_num" => Some(Var::Number(3)),
            _ => None,
        }
    }

    #[test]
    fn expressions_are_expanded_as_python_does() {
        let cases = [
            ("plain", "plain"),
            ("%(here)s/../x", "/p/etc/../x"),
            ("809%(process_num)d", "8093"),
            ("e-%(process_num)02d-%(process_num)s", "e-03-3"),
            ("100%%", "100%"),
            ("%%(here)s", "%(here)s"),
        ];
        for (template, expected) in cases {
            assert_eq!(expand(template, &lookup).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        for (template, problem) in [
            ("%(ENV_X)s", "unknown name %(ENV_X) in \"%(ENV_X)s\""),
            ("50%", "a % that is neither %% nor %(name)s in \"50%\""),
            ("%(here)d", "%(here) without s or d in \"%(here)d\""),
            ("%(here", "a % that is neither %% nor %(name)s in \"%(here\""),
        ] {
            assert_eq!(expand(template, &lookup).unwrap_err().to_string(), problem);
        }
    }
}
