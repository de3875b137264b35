//! Failures: their class, their message without secrets, and the fingerprint of their root cause.
//!
//! The class of a failure is, first match: what its convention says of it ([`super::convention`]), the words in its type, the
//! code that it reports, the words in its message, a code in its message; else `unknown`.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use toolgauge_proto::call::ErrorClass;
use xxhash_rust::xxh3::xxh3_64;

/// Longest error message that is kept, in bytes.
const MESSAGE_BYTES_MAX: usize = 512;

/// What replaces a secret.
const REDACTED: &str = "[redacted]";

/// Words in an error's type or message, and the class they stand for. The first line that matches wins, so narrow
/// words stand before wide ones.
const CLASS_WORDS: &[(ErrorClass, &[&str])] = &[
    (ErrorClass::CircuitOpen, &["circuit", "breaker"]),
    (
        ErrorClass::RateLimited,
        &[
            "ratelimit",
            "rate_limit",
            "rate limit",
            "toomanyrequests",
            "too many requests",
            "throttl",
            "resource_exhausted",
            "resourceexhausted",
        ],
    ),
    (ErrorClass::QuotaExceeded, &["quota", "billing", "insufficient_funds", "payment required"]),
    (ErrorClass::Timeout, &["timeout", "timed out", "deadline"]),
    (
        ErrorClass::PolicyDenied,
        &[
            "policy",
            "guardrail",
            "content_filter",
            "contentfilter",
            "user_reject",
            "user rejected",
            "user denied",
            "denied by user",
            "rejected by",
            "declined by",
            "not approved",
            "want to proceed",
        ],
    ),
    (
        ErrorClass::Unauthorized,
        &[
            "unauthori",
            "unauthenticated",
            "forbidden",
            "permission",
            "accessdenied",
            "access denied",
            "authentication",
            "api key",
        ],
    ),
    (ErrorClass::Cancelled, &["cancel", "abort", "interrupt"]),
    (
        ErrorClass::NotFound,
        &["notfound", "not_found", "not found", "enoent", "no such", "does not exist", "unknown tool"],
    ),
    (
        ErrorClass::InvalidOutput,
        &["outputpars", "output_pars", "invalid_output", "invalid output", "output validation"],
    ),
    (
        ErrorClass::Transient,
        &[
            "connection",
            "connect",
            "unavailable",
            "unreachable",
            "econn",
            "overloaded",
            "broken pipe",
            "network",
            "temporar",
            "dns",
        ],
    ),
    (
        ErrorClass::InvalidInput,
        &[
            "valueerror",
            "validation",
            "invalid",
            "typeerror",
            "keyerror",
            "badrequest",
            "bad request",
            "argument",
            "schema",
            "decodeerror",
        ],
    ),
    (ErrorClass::Server, &["internal", "servererror", "server error", "serviceerror"]),
    (ErrorClass::Semantic, &["tool_error", "toolerror", "modelretry", "toolretry", "shellerror"]),
];

/// What gave a failure its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Because {
    /// This word in the error's type.
    Type(&'static str),
    /// The code that was reported.
    Code(i32),
    /// This word in the message.
    Message(&'static str),
    /// The code in the message.
    CodeInMessage(i32),
    /// Nothing did.
    Nothing,
}

impl std::fmt::Display for Because {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Type(word) => write!(f, "\"{word}\" in the error's type"),
            Self::Code(code) => write!(f, "code {code}"),
            Self::Message(word) => write!(f, "\"{word}\" in the message"),
            Self::CodeInMessage(code) => write!(f, "code {code} in the message"),
            Self::Nothing => f.write_str("nothing in type, code or message says more"),
        }
    }
}

/// The class of a failure, and what gave it.
pub(crate) fn class(error_type: Option<&str>, code: Option<i32>, message: Option<&str>) -> (ErrorClass, Because) {
    let by_words = |text: &str| {
        let text = text.to_lowercase();
        CLASS_WORDS
            .iter()
            .find_map(|(class, words)| words.iter().find(|word| text.contains(**word)).map(|word| (*class, *word)))
    };
    // Whoever writes a code into the type means it, whether as a number or by its name.
    let in_type = error_type.and_then(code_of);
    let by_code = |code: i32| Some((class_of_code(code)?, code));
    if let Some((class, code)) = in_type.and_then(by_code) {
        return (class, Because::Code(code));
    }
    if let Some((class, word)) = error_type.and_then(by_words) {
        return (class, Because::Type(word));
    }
    if let Some((class, code)) = code.and_then(by_code) {
        return (class, Because::Code(code));
    }
    let message = message.map(|message| cut(message, 4 * MESSAGE_BYTES_MAX));
    if let Some((class, word)) = message.and_then(by_words) {
        return (class, Because::Message(word));
    }
    let in_message = message.and_then(|message| {
        let found = CODE_IN_MESSAGE.as_ref()?.captures(message)?;
        by_code(found[1].parse().ok()?)
    });
    in_message.map_or((ErrorClass::Unknown, Because::Nothing), |(class, code)| (class, Because::CodeInMessage(code)))
}

/// A code as it is written: a number, or the name of a gRPC code.
pub(crate) fn code_of(text: &str) -> Option<i32> {
    let text = text.trim();
    let by_name = || GRPC_CODES.iter().position(|name| name.eq_ignore_ascii_case(text));
    text.parse().ok().or_else(|| by_name().and_then(|code| i32::try_from(code).ok()))
}

/// The names of the gRPC codes, by number (grpc/grpc, doc/statuscodes.md).
const GRPC_CODES: &[&str] = &[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

static CODE_IN_MESSAGE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)\b(?:status(?:[ _]code)?|http(?:/\d(?:\.\d)?)?)[ :=]+([1-5]\d\d)\b").ok());

/// HTTP codes from 100, gRPC codes below, JSON-RPC codes below zero.
fn class_of_code(code: i32) -> Option<ErrorClass> {
    Some(match code {
        400 | 405 | 406 | 411..=417 | 422 | 3 | 6 | 9 | 11 | -32600 | -32602 | -32700 => ErrorClass::InvalidInput,
        401 | 403 | 407 | 511 | 7 | 16 => ErrorClass::Unauthorized,
        402 => ErrorClass::QuotaExceeded,
        404 | 410 | 5 | -32601 => ErrorClass::NotFound,
        408 | 504 | 4 => ErrorClass::Timeout,
        // 529 is what Anthropic's API says when it is overloaded.
        409 | 423 | 425 | 502 | 503 | 529 | 10 | 14 => ErrorClass::Transient,
        429 | 8 => ErrorClass::RateLimited,
        451 => ErrorClass::PolicyDenied,
        499 | 1 => ErrorClass::Cancelled,
        500..600 | 12 | 13 | 15 | -32603 | -32099..=-32000 => ErrorClass::Server,
        _ => return None,
    })
}

static SECRETS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        r"(?i)\b(?:bearer|basic)\s+[a-z0-9._~+/=-]{8,}",
        r#"(?i)\b[\w-]*(?:api[_-]?key|token|secret|passw(?:or)?d|authorization|credential)s?["']?\s*[=:]\s*["']?[^\s"',;&]+"#,
        r"\b(?:sk|pk|rk|whsec|gh[opsu]|github_pat|glpat|hf|npm|pypi|dop_v1|xox[abeprs]|xapp)[-_][A-Za-z0-9_-]{8,}",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b",
        r"\bya29\.[A-Za-z0-9_-]{8,}",
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
        r"://[^\s/@:]+:[^\s/@]+@",
        r"\b[0-9a-fA-F]{32,}\b",
        r"\bAIza[A-Za-z0-9_-]{20,}",
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?",
        r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}",
    ]
    .iter()
    .filter_map(|pattern| Regex::new(pattern).ok())
    .collect()
});
static CARD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\b\d(?:[ -]?\d){12,18}\b").ok());

/// The text without what looks like a key, a token, an e-mail address or a card number.
pub(crate) fn redact(text: &str) -> String {
    // Cut first, so that a message of megabytes costs no more than a short one; a secret may be cut too, so leave room.
    let mut text = cut(text, 4 * MESSAGE_BYTES_MAX).to_owned();
    for secret in SECRETS.iter() {
        text = secret.replace_all(&text, REDACTED).into_owned();
    }
    if let Some(card) = CARD.as_ref() {
        let masked =
            card.replace_all(
                &text,
                |found: &regex::Captures<'_>| {
                    if passes_luhn(&found[0]) { REDACTED.to_owned() } else { found[0].to_owned() }
                },
            );
        text = masked.into_owned();
    }
    cut(&text, MESSAGE_BYTES_MAX).to_owned()
}

/// The Luhn check of card numbers (ISO/IEC 7812-1, annex B).
fn passes_luhn(text: &str) -> bool {
    let digits = text.chars().rev().filter_map(|c| c.to_digit(10));
    let sum: u32 = digits.enumerate().map(|(i, d)| if i % 2 == 1 { d * 2 / 10 + d * 2 % 10 } else { d }).sum();
    sum.is_multiple_of(10)
}

/// Beginnings of texts that are keys as a whole.
const KEY_BEGINNINGS: &[&str] = &[
    "sk-", "sk_", "pk_", "rk_", "gh", "glpat-", "xox", "xapp-", "hf_", "npm_", "pypi-", "AKIA", "ASIA", "AIza", "eyJ",
];

/// A name or an id without what looks like a secret. Almost none does, so almost none costs more than a look.
pub(crate) fn mask(name: Cow<'_, str>) -> Cow<'_, str> {
    let suspicious = name.contains('@')
        || KEY_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || looks_like_card(&name)
        || name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer "));
    if suspicious { Cow::Owned(redact(&name)) } else { name }
}

/// Whether the whole text is a card number: the digits of one network, which ids of other kinds rarely have.
fn looks_like_card(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    (14..=16).contains(&digits)
        && matches!(text.as_bytes().first(), Some(b'3'..=b'6'))
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b' ' || byte == b'-')
        && passes_luhn(text)
}

/// At most so many bytes of the text, ending at a character's end.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Same root cause, same number: the message with everything masked that changes from one failure to the next: words
/// that hold a digit (ids, numbers), hex, paths, addresses and hosts.
pub(crate) fn fingerprint(error_type: Option<&str>, message: Option<&str>) -> i64 {
    let mut masked = String::from(error_type.unwrap_or_default());
    masked.push('\n');
    let message = cut(message.unwrap_or_default(), 4 * MESSAGE_BYTES_MAX);
    let apart = |c: char| c.is_whitespace() || "\"'`()[]{}<>,;=|".contains(c);
    for piece in message.split_inclusive(apart) {
        let word = piece.trim_end_matches(apart);
        let name = word.trim_matches(|c: char| !c.is_alphanumeric());
        if changes(word, name) {
            // What surrounds it stays: "host: x" is no "host, x".
            masked.push('#');
            masked.push_str(&word[word.trim_end_matches(|c: char| !c.is_alphanumeric()).len()..]);
        } else {
            masked.push_str(word);
        }
        masked.push_str(&piece[word.len()..]);
    }
    xxh3_64(masked.as_bytes()).cast_signed()
}

/// Whether a word is likely to be another one when the same thing fails again. `name` is the word without the
/// punctuation around it.
fn changes(word: &str, name: &str) -> bool {
    let digit = name.contains(|c: char| c.is_ascii_digit());
    let path = word.contains(['/', '\\']) && name.contains(char::is_alphanumeric);
    let hex = name.len() >= 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    // A dot, a colon or an @ with letters on both sides: a host, a file, an address.
    let inside = name.char_indices().any(|(at, c)| {
        matches!(c, '.' | '@')
            && name[..at].ends_with(char::is_alphanumeric)
            && name[at + c.len_utf8()..].starts_with(char::is_alphanumeric)
    });
    digit || path || hex || inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_come_from_type_then_code_then_message() {
        let cases = [
            (Some("TimeoutError"), None, None, ErrorClass::Timeout),
            (Some("ConnectionError"), None, Some("upstream reset"), ErrorClass::Transient),
            (Some("429"), None, None, ErrorClass::RateLimited),
            (Some("tool_error"), None, None, ErrorClass::Semantic),
            (Some("_OTHER"), Some(403), None, ErrorClass::Unauthorized),
            (None, Some(14), None, ErrorClass::Transient),
            (None, Some(-32602), None, ErrorClass::InvalidInput),
            (None, None, Some("pager API unreachable"), ErrorClass::Transient),
            (Some("Exception"), None, Some("boom"), ErrorClass::Unknown),
            (Some("HTTPStatusError"), Some(401), None, ErrorClass::Unauthorized),
            (Some("HTTPStatusError"), Some(403), None, ErrorClass::Unauthorized),
            (Some("CircuitBreakerOpen"), Some(503), None, ErrorClass::CircuitOpen),
            (Some("ABORTED"), None, None, ErrorClass::Transient),
            (Some("RESOURCE_EXHAUSTED"), None, None, ErrorClass::RateLimited),
            (Some("user_reject"), None, None, ErrorClass::PolicyDenied),
            (Some("AxiosError"), None, Some("Request failed with status code 503"), ErrorClass::Transient),
            (None, None, Some("HTTP/1.1 429"), ErrorClass::RateLimited),
            (None, Some(529), None, ErrorClass::Transient),
            (None, None, None, ErrorClass::Unknown),
        ];
        for (error_type, code, message, expect) in cases {
            assert_eq!(class(error_type, code, message).0, expect, "{error_type:?} {code:?} {message:?}");
        }
    }

    #[test]
    fn secrets_are_masked_and_plain_words_are_kept() {
        let cases = [
            ("401 for Bearer abcdef123456", "401 for [redacted]"),
            ("api_key=abc123, host=a", "[redacted], host=a"),
            ("mail to jo.doe+x@example.co.uk failed", "mail to [redacted] failed"),
            ("card 4111 1111 1111 1111 declined", "card [redacted] declined"),
            ("order 4111 1111 1111 1112 declined", "order 4111 1111 1111 1112 declined"),
            ("key sk-proj_abcdef123 bad", "key [redacted] bad"),
            ("the secret of tokens", "the secret of tokens"),
            ("clone https://me:pw123@git.example/x", "clone https[redacted]git.example/x"),
            ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY----- end", "[redacted] end"),
            ("hash d41d8cd98f00b204e9800998ecf8427e", "hash [redacted]"),
        ];
        for (text, expect) in cases {
            assert_eq!(redact(text), expect);
        }
        assert_eq!(redact(&"é".repeat(2_000)).len(), MESSAGE_BYTES_MAX);
    }

    #[test]
    fn names_that_are_secrets_are_masked_and_ids_stay() {
        for (name, expect) in [
            ("jo@example.com", "[redacted]"),
            ("sk-proj-abcdef123456", "[redacted]"),
            ("4111-1111-1111-1111", "[redacted]"),
            ("Bearer abcdef123456", "[redacted]"),
            ("5e550001-0000-4000-8000-000000000001", "5e550001-0000-4000-8000-000000000001"),
            ("1790010008537000000", "1790010008537000000"),
            ("ghost_writer", "ghost_writer"),
            ("call_mszuSIzqtI65i1wAUOE8w5H4", "call_mszuSIzqtI65i1wAUOE8w5H4"),
        ] {
            assert_eq!(mask(Cow::Borrowed(name)), expect);
        }
    }

    #[test]
    fn fingerprints_ignore_ids_numbers_and_hex() {
        let of = |message| fingerprint(Some("E"), Some(message));
        assert_eq!(of("request 0xdeadbeef01 failed after 12 ms"), of("request 0xabc901 failed after 7 ms"));
        assert_eq!(of("user 7f3a-11 gone"), of("user 9 gone"));
        assert_eq!(of("open '/home/ann/a.txt': denied"), of("open '/srv/b.txt': denied"));
        assert_eq!(of("connect to db.internal:5432 refused"), of("connect to db.eu.example:5433 refused"));
        assert_eq!(of("commit deadbeef is gone"), of("commit cafebabe is gone"));
        assert_ne!(of("seats must be at least one."), of("seats must be at most one."));
        assert_ne!(of("request failed"), of("response failed"));
        assert_ne!(fingerprint(Some("A"), None), fingerprint(Some("B"), None));
    }
}
