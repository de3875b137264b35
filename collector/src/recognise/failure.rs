//! Failures: their class, their message without secrets, and the fingerprint of their root cause.

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
        &["ratelimit", "rate_limit", "rate limit", "toomanyrequests", "too many requests", "throttl"],
    ),
    (ErrorClass::QuotaExceeded, &["quota", "billing", "insufficient_funds", "payment required"]),
    (ErrorClass::Timeout, &["timeout", "timed out", "deadline"]),
    (
        ErrorClass::PolicyDenied,
        &["policy", "guardrail", "content_filter", "contentfilter", "user_reject", "rejected by", "declined by"],
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
            "reset",
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

/// The class of a failure: from the type, else the status code, else the message.
pub(crate) fn class(error_type: Option<&str>, status_code: Option<i32>, message: Option<&str>) -> ErrorClass {
    let by_words = |text: &str| {
        let text = text.to_lowercase();
        let line = CLASS_WORDS.iter().find(|(_, words)| words.iter().any(|word| text.contains(word)));
        line.map(|(class, _)| *class)
    };
    let code_in_type = error_type.and_then(|text| text.parse().ok());
    error_type
        .and_then(by_words)
        .or_else(|| status_code.or(code_in_type).and_then(class_of_code))
        .or_else(|| message.and_then(by_words))
        .unwrap_or(ErrorClass::Unknown)
}

/// HTTP codes from 100, gRPC codes below, JSON-RPC codes below zero.
fn class_of_code(code: i32) -> Option<ErrorClass> {
    Some(match code {
        400 | 405 | 406 | 411..=417 | 422 | 3 | 9 | 11 | -32600 | -32602 | -32700 => ErrorClass::InvalidInput,
        401 | 403 | 407 | 511 | 7 | 16 => ErrorClass::Unauthorized,
        402 => ErrorClass::QuotaExceeded,
        404 | 410 | 5 | -32601 => ErrorClass::NotFound,
        408 | 504 | 4 => ErrorClass::Timeout,
        409 | 423 | 425 | 502 | 503 | 10 | 14 => ErrorClass::Transient,
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
        r"\b(?:sk|pk|rk|ghp|gho|ghs|glpat|xox[abprs])[-_][A-Za-z0-9_-]{8,}",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b",
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

/// At most so many bytes of the text, ending at a character's end.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Same root cause, same number: the message with every word that holds a digit (ids, numbers, hex) masked.
pub(crate) fn fingerprint(error_type: Option<&str>, message: Option<&str>) -> i64 {
    let mut masked = String::from(error_type.unwrap_or_default());
    masked.push('\n');
    for word in message.unwrap_or_default().split_inclusive(|c: char| !c.is_alphanumeric() && c != '-' && c != '_') {
        if word.contains(|c: char| c.is_ascii_digit()) {
            masked.push('#');
            masked.extend(word.chars().next_back().filter(|c| !c.is_alphanumeric()));
        } else {
            masked.push_str(word);
        }
    }
    xxh3_64(masked.as_bytes()).cast_signed()
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
            (None, None, None, ErrorClass::Unknown),
        ];
        for (error_type, code, message, expect) in cases {
            assert_eq!(class(error_type, code, message), expect, "{error_type:?} {code:?} {message:?}");
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
        ];
        for (text, expect) in cases {
            assert_eq!(redact(text), expect);
        }
        assert_eq!(redact(&"é".repeat(2_000)).len(), MESSAGE_BYTES_MAX);
    }

    #[test]
    fn fingerprints_ignore_ids_numbers_and_hex() {
        let of = |message| fingerprint(Some("E"), Some(message));
        assert_eq!(of("request 0xdeadbeef01 failed after 12 ms"), of("request 0xabc901 failed after 7 ms"));
        assert_eq!(of("user 7f3a-11 gone"), of("user 9 gone"));
        assert_ne!(of("request failed"), of("response failed"));
        assert_ne!(fingerprint(Some("A"), None), fingerprint(Some("B"), None));
    }
}
