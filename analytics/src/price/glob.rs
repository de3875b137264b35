//! Globs: `*` is any text, `?` any one character, `[a-c5]` one of these; everything else is itself.

use std::fmt;

/// Longest glob, in characters.
const LENGTH_MAX: usize = 256;

/// One character of what a glob matches.
#[derive(Debug, Clone, PartialEq, Eq)]
enum One {
    Is(char),
    Any,
    /// One of these ranges, both ends included.
    Of(Vec<(char, char)>),
}

impl One {
    fn takes(&self, char: char) -> bool {
        match self {
            Self::Is(is) => *is == char,
            Self::Any => true,
            Self::Of(ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&char)),
        }
    }

    /// Whether there is a character that both take.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Is(char), one) | (one, Self::Is(char)) => one.takes(*char),
            (Self::Of(mine), Self::Of(theirs)) => {
                mine.iter().any(|(from, to)| theirs.iter().any(|(begin, end)| from.max(begin) <= to.min(end)))
            }
        }
    }

    /// Whether it surely takes every character that the other takes.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (one, Self::Is(char)) => one.takes(*char),
            (one, other) => one == other,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    One(One),
    /// Any text.
    Star,
}

/// A pattern of names.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Glob {
    text: Box<str>,
    tokens: Vec<Token>,
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Glob {
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if text.chars().count() > LENGTH_MAX {
            return Err(format!("the pattern is longer than {LENGTH_MAX} characters (write `*` for a part of it)"));
        }
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            let token = match char {
                // Two stars are one.
                '*' if tokens.last() == Some(&Token::Star) => continue,
                '*' => Token::Star,
                '?' => Token::One(One::Any),
                '[' => Token::One(One::Of(class(&mut chars).ok_or_else(|| {
                    format!(
                        "\"{text}\" has a `[` that does not hold characters or ranges (write like \"[0-9]\", or `?`)"
                    )
                })?)),
                char => Token::One(One::Is(char)),
            };
            tokens.push(token);
        }
        Ok(Self { text: text.into(), tokens })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let mut rest = text.chars();
        let mut at = 0;
        // Where to go on if what follows the last star did not fit: one character later.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            match self.tokens.get(at) {
                Some(Token::Star) => {
                    at += 1;
                    retry = Some((at, rest.clone()));
                    continue;
                }
                Some(Token::One(one)) => {
                    let mut next = rest.clone();
                    if next.next().is_some_and(|char| one.takes(char)) {
                        rest = next;
                        at += 1;
                        continue;
                    }
                }
                None if rest.as_str().is_empty() => return true,
                None => {}
            }
            let Some((after, from)) = &mut retry else { return false };
            if from.next().is_none() {
                return false;
            }
            (at, rest) = (*after, from.clone());
        }
    }

    /// Whether it surely matches everything that the other one matches.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.walk(other, &|mine, theirs| mine.covers(theirs), false)
    }

    /// Whether some text matches both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.walk(other, &One::meets, true)
    }

    /// Whether the tokens of both can be laid side by side, a star beside any of them. `both` says whether the other's stars may
    /// stand beside several tokens, too.
    fn walk(&self, other: &Self, fits: &dyn Fn(&One, &One) -> bool, both: bool) -> bool {
        let (rows, columns) = (self.tokens.len(), other.tokens.len());
        // From the ends: whether the rest of mine from `i` fits the rest of theirs from `j`.
        let mut next = vec![false; columns + 1];
        for i in (0..=rows).rev() {
            let mut row = vec![false; columns + 1];
            for j in (0..=columns).rev() {
                row[j] = match (self.tokens.get(i), other.tokens.get(j)) {
                    (None, None) => true,
                    (Some(Token::Star), None) => next[j],
                    (Some(Token::Star), Some(_)) => next[j] || row[j + 1],
                    (Some(Token::One(_)), Some(Token::Star)) => both && (row[j + 1] || next[j]),
                    (None, Some(Token::Star)) => both && row[j + 1],
                    (Some(Token::One(mine)), Some(Token::One(theirs))) => fits(mine, theirs) && next[j + 1],
                    (Some(Token::One(_)), None) | (None, Some(Token::One(_))) => false,
                };
            }
            next = row;
        }
        next[0]
    }
}

/// The rest of `[...]`.
fn class(chars: &mut std::str::Chars<'_>) -> Option<Vec<(char, char)>> {
    let mut ranges = Vec::new();
    loop {
        let from = chars.next()?;
        if from == ']' {
            return (!ranges.is_empty()).then_some(ranges);
        }
        let mut ahead = chars.clone();
        let mut to = from;
        if ahead.next() == Some('-') {
            let end = ahead.next()?;
            if end == ']' || end < from {
                return None;
            }
            *chars = ahead;
            to = end;
        }
        ranges.push((from, to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(text: &str) -> Glob {
        Glob::new(text).unwrap_or_else(|fault| panic!("{fault}"))
    }

    #[test]
    fn globs_match_what_they_say() {
        for (pattern, yes, no) in [
            ("charge_card", &["charge_card"][..], &["charge", "charge_card2", ""][..]),
            ("search_*", &["search_", "search_docs"], &["search", "xsearch_docs"]),
            ("*docs*", &["docs", "search_docs_now"], &["doc"]),
            ("*a*b*c", &["abc", "xaxbxc", "abcbc"], &["acb", "abca"]),
            ("v?-[0-9][0-9]", &["v1-20", "vé-99"], &["v-20", "v1-2", "v1-2x"]),
            ("[a-c5]", &["a", "c", "5"], &["d", "", "ab"]),
            ("*", &["", "anything"], &[]),
            ("", &[""], &["x"]),
        ] {
            assert!(yes.iter().all(|text| glob(pattern).matches(text)), "{pattern}");
            assert!(no.iter().all(|text| !glob(pattern).matches(text)), "{pattern}");
        }
        for wrong in ["[", "[]", "[a", "[a-]", "[z-a]"] {
            assert!(Glob::new(wrong).unwrap_err().contains("write like \"[0-9]\""), "{wrong}");
        }
        assert!(Glob::new(&"a".repeat(257)).is_err());
    }

    #[test]
    fn which_covers_which_and_which_meet() {
        for (a, b, covers, meets) in [
            ("*", "search_*", true, true),
            ("search_*", "*", false, true),
            ("search_*", "search_docs", true, true),
            ("search_*", "*_docs", false, true),
            ("search_*", "read_*", false, false),
            ("a?c", "abc", true, true),
            ("abc", "a?c", false, true),
            ("a?c", "a*c", false, true),
            ("a*c", "a?c", true, true),
            ("[0-9]", "5", true, true),
            ("[0-9]", "[5-z]", false, true),
            ("[0-4]", "[5-9]", false, false),
            ("*a*", "*b*", false, true),
            ("a", "", false, false),
            ("*", "", true, true),
        ] {
            assert_eq!(glob(a).covers(&glob(b)), covers, "{a} covers {b}");
            assert_eq!(glob(a).meets(&glob(b)), meets, "{a} meets {b}");
            assert_eq!(glob(b).meets(&glob(a)), meets, "{b} meets {a}");
        }
    }
}
