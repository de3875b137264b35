//! Failures: their class, their message without secrets, and the fingerprint of their root cause.
//!
//! The class of a failure is, first match: what its convention says of it ([`super::convention`]), the words in its type, the
//! code that it reports, the words in its message, a code in its message; else `unknown`.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use toolgauge_proto::call::ErrorClass;
use xxhash_rust::xxh3::xxh3_64;

use super::value::Exception;

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

/// What a failed record says of its failure.
pub(super) struct Failure<'a> {
    pub(super) error_type: Option<Cow<'a, str>>,
    pub(super) message: Option<Cow<'a, str>>,
}

impl<'a> Failure<'a> {
    /// From what the record's attributes report, its first exception, and the description of its status, in this order.
    pub(super) fn new(
        reported: (Option<Cow<'a, str>>, Option<Cow<'a, str>>),
        exception: Option<&'a Exception>,
        status: &'a [u8],
    ) -> Self {
        let (error_type, message) = reported;
        let error_type = error_type.or_else(|| exception?.kind.as_deref().map(Cow::Borrowed));
        let message = message
            .or_else(|| exception?.message.as_deref().map(Cow::Borrowed))
            .or_else(|| (!status.is_empty()).then(|| String::from_utf8_lossy(status)));
        let message = message.map(|message| match message {
            Cow::Borrowed(message) => Cow::Borrowed(without_stack(message)),
            Cow::Owned(message) => Cow::Owned(without_stack(&message).to_owned()),
        });
        let told = error_type.as_deref().is_some_and(|error_type| error_type != "Exception");
        if !told && let Some((name, said)) = message.as_deref().and_then(type_in_message) {
            let (name, said) = (name.to_owned(), said.to_owned());
            return Self { error_type: Some(name.into()), message: (!said.is_empty()).then(|| said.into()) };
        }
        Self { error_type, message }
    }
}

/// The message without the Python stack that some write behind it.
fn without_stack(message: &str) -> &str {
    match message.find("Traceback (most recent call last)") {
        Some(at) if at > 0 => message[..at].trim_end(),
        _ => message,
    }
}

/// Type and message of an error of which nothing but its text is left: `KeyError('x')`, `KeyError: x` or `KeyError`.
fn type_in_message(message: &str) -> Option<(&str, &str)> {
    let end = message.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.')));
    let (name, rest) = message.split_at(end.unwrap_or(message.len()));
    let last = name.rsplit('.').next()?;
    let is_type = last.starts_with(|c: char| c.is_ascii_uppercase())
        && ["Error", "Exception", "Exit", "Interrupt", "Timeout", "Retry"].iter().any(|word| last.ends_with(word));
    if !is_type {
        return None;
    }
    if rest.is_empty() {
        return Some((name, ""));
    }
    if let Some(said) = rest.strip_prefix(": ") {
        return Some((name, said.trim()));
    }
    let said = rest.strip_prefix('(')?.trim_end().strip_suffix(')')?;
    let quoted = |quote: char| said.strip_prefix(quote)?.trim_end_matches(',').strip_suffix(quote);
    Some((name, quoted('\'').or_else(|| quoted('"')).unwrap_or(said)))
}

/// Types of errors by which a tool asks the model to call it again (pydantic-ai before it said so in an attribute).
const ASK_RETRY: &[&str] = &["ModelRetry", "ToolRetryError"];

/// Whether the error asks for another try.
pub(crate) fn asks_retry(error_type: &str) -> bool {
    error_type.rsplit(['.', ':']).next().is_some_and(|name| ASK_RETRY.contains(&name))
}

static SECRETS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        // Headers as a whole, then what names itself as a secret, in quotes or not.
        r"(?i)\b(?:set-)?cookie\s*:\s*[^\r\n]+",
        r#"(?i)\b(?:proxy-)?authorization["']?\s*[=:]\s*["']?(?:[a-z]+\s+)?[^\s"',;&]+"#,
        r"(?i)\b(?:bearer|basic)\s+[a-z0-9._~+/=-]{8,}",
        r#"(?i)\b[\w-]*(?:api[_-]?key|access[_-]?key|account[_-]?key|token|secret|passw(?:or)?d|passphrase|credential)s?["']?\s*[=:]\s*(?:"[^"\r\n]*"?|'[^'\r\n]*'?|[^\s"',;&]+)"#,
        r#"(?i)\b[\w-]*pwd=[^\s"',;&]+"#,
        r"(?i)\bsig(?:nature)?=[a-z0-9%+/=_-]{8,}",
        r"\b(?:sk|pk|rk|whsec|gh[oprsu]|github_pat|glpat|hf|npm|pypi|dop_v1|xox[abeprs]|xapp)[-_][A-Za-z0-9_-]{8,}",
        // After an underscore, too, where nothing else looks like it.
        r"(?:[spr]k[-_](?:live|test|proj|ant)[-_][A-Za-z0-9_-]{8,}|gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,})",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b",
        r"\b(?:AC|SK)[0-9a-f]{32}\b",
        r"\bSG\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
        r"\bya29\.[A-Za-z0-9_-]{8,}",
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
        r"://[^\s/@]+@",
        r"\b[0-9a-fA-F]{32,}\b",
        r"\bAIza[A-Za-z0-9_-]{20,}",
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?",
        r"[\w.%+-]+(?:@|%40)[\w-]+(?:\.[\w-]+)*\.\p{L}{2,}",
    ]
    .iter()
    .filter_map(|pattern| Regex::new(pattern).ok())
    .collect()
});
static CARD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\d(?:[ -]?\d){12,18}").ok());

/// The text without what looks like a key, a token, an e-mail address or a card number, cut to the length of messages.
pub(crate) fn redact(text: &str) -> String {
    // Cut first, so that a message of megabytes costs no more than a short one; a secret may be cut too, so leave room.
    let text = redact_all(cut(text, 4 * MESSAGE_BYTES_MAX));
    cut(&text, MESSAGE_BYTES_MAX).to_owned()
}

fn redact_all(text: &str) -> String {
    let mut text = Cow::Borrowed(text);
    for secret in SECRETS.iter() {
        if let Cow::Owned(masked) = secret.replace_all(&text, REDACTED) {
            text = Cow::Owned(masked);
        }
    }
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let card = |found: &regex::Captures<'_>| {
        let whole = found.get(0).is_some_and(|found| {
            let (before, after) = (text[..found.start()].chars().next_back(), text[found.end()..].chars().next());
            !digit(before) && !digit(after)
        });
        if whole && passes_luhn(&found[0]) { REDACTED.to_owned() } else { found[0].to_owned() }
    };
    let masked = CARD.as_ref().map(|cards| cards.replace_all(&text, card));
    match masked {
        Some(Cow::Owned(masked)) => masked,
        _ => text.into_owned(),
    }
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
    "SG.", "AC", "SK", "whsec_", "ya29.", "dop_v1_",
];

/// By first byte, a bit for each of [`KEY_BEGINNINGS`] that begins with it: almost no name has one.
const KEYS_BY_FIRST_BYTE: [u32; 256] = {
    let mut found = [0; 256];
    let mut i = 0;
    while i < KEY_BEGINNINGS.len() {
        found[KEY_BEGINNINGS[i].as_bytes()[0] as usize] |= 1 << i;
        i += 1;
    }
    found
};

#[inline]
fn begins_like_key(text: &[u8]) -> bool {
    let mut candidates = text.first().map_or(0, |first| KEYS_BY_FIRST_BYTE[usize::from(*first)]);
    while candidates != 0 {
        if text.starts_with(KEY_BEGINNINGS[candidates.trailing_zeros() as usize].as_bytes()) {
            return true;
        }
        candidates &= candidates - 1;
    }
    false
}

/// A name or an id without what looks like a secret. Almost none does, so almost none costs more than a look.
pub(crate) fn mask(name: Cow<'_, str>) -> Cow<'_, str> {
    let look = Look::at(&name);
    let suspicious = look.unusual
        || begins_like_key(name.as_bytes())
        || look.parted && holds_key(&name)
        || look.colon && name.contains("://")
        || look.digits && holds_card(&name);
    if !suspicious {
        return name;
    }
    let masked = redact_all(&name);
    if masked == name { name } else { Cow::Owned(masked) }
}

/// What one pass over a text finds.
#[derive(Default)]
struct Look {
    /// A byte that ids and names rarely have, and that stands in whatever holds an address, or a secret behind its name.
    unusual: bool,
    colon: bool,
    /// Something stands before the last part.
    parted: bool,
    /// Enough digits for the number of a card.
    digits: bool,
}

impl Look {
    #[inline]
    fn at(text: &str) -> Self {
        let (mut seen, mut digits) = (0, 0_usize);
        for byte in text.bytes() {
            let class = LOOKS[usize::from(byte)];
            seen |= class;
            digits += usize::from(class & LOOKS_DIGIT != 0);
        }
        let unusual = seen & LOOKS_UNUSUAL != 0;
        let (colon, parted) = (seen & LOOKS_COLON != 0, seen & LOOKS_PARTS != 0);
        Self { unusual, colon, parted, digits: digits >= CARD_DIGITS.0 }
    }
}

const LOOKS_UNUSUAL: u8 = 1;
const LOOKS_COLON: u8 = 2;
const LOOKS_DIGIT: u8 = 4;
const LOOKS_PARTS: u8 = 8;
/// What a byte may mean.
const LOOKS: [u8; 256] = {
    let mut looks = [0; 256];
    let unusual = b"@= \"'&?%,\n\r\t";
    let mut i = 0;
    while i < unusual.len() {
        looks[unusual[i] as usize] = LOOKS_UNUSUAL;
        i += 1;
    }
    let parts = b"/-_.:|+#;~";
    i = 0;
    while i < parts.len() {
        looks[parts[i] as usize] = LOOKS_PARTS;
        i += 1;
    }
    looks[b':' as usize] |= LOOKS_COLON;
    let mut digit = b'0';
    while digit <= b'9' {
        looks[digit as usize] = LOOKS_DIGIT;
        digit += 1;
    }
    looks
};

/// Fewest characters of a key, its beginning included, where it does not stand at the start of a name.
const KEY_WITHIN_CHARS_MIN: usize = 16;

/// Whether a part of the text that is not its first looks like a key: it begins like one, is long, and has a digit or a capital, as
/// the parts of names (`search-npm-packages-by-name`) do not.
fn holds_key(text: &str) -> bool {
    let bytes = text.as_bytes();
    let parts = |byte: u8| LOOKS[usize::from(byte)] & LOOKS_PARTS != 0;
    (1..bytes.len()).filter(|at| parts(bytes[at - 1]) && !parts(bytes[*at])).any(|at| {
        let rest = &bytes[at..];
        let ends = |byte: &u8| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        begins_like_key(rest) && {
            let key = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];
            let after = &key[2..];
            key.len() >= KEY_WITHIN_CHARS_MIN
                && after.iter().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
        }
    })
}

/// Fewest and most digits of the numbers of the large networks' cards.
const CARD_DIGITS: (usize, usize) = (14, 16);

/// Whether a card number stands in the text: a run of the digits of one network, which ids of other kinds rarely have. Digits next to a letter of
/// hex are part of an id.
fn holds_card(text: &str) -> bool {
    let is_card = |digits: &str| {
        (CARD_DIGITS.0..=CARD_DIGITS.1).contains(&digits.len())
            && digits.starts_with(['3', '4', '5', '6'])
            && passes_luhn(digits)
    };
    let is_hex = |c: Option<char>| c.is_some_and(|c| c.is_ascii_hexdigit() && !c.is_ascii_digit());
    let mut start = 0;
    let mut runs = text.split(|c: char| !c.is_ascii_digit()).filter(|run| {
        let end = start + run.len();
        let around = (text[..start].chars().next_back(), text[end..].chars().next());
        start = end + around.1.map_or(0, char::len_utf8);
        !is_hex(around.0) && !is_hex(around.1)
    });
    let parted = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    runs.any(is_card) || parted && is_card(&text.replace('-', ""))
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
    fn the_type_of_an_error_is_found_in_its_text_if_nothing_else_says_it() {
        let repr = "RuntimeError('boom, twice')Traceback (most recent call last):\n  File \"a.py\"";
        for (error_type, text, expect) in [
            (Some("Exception"), repr, (Some("RuntimeError"), Some("boom, twice"))),
            (None, "app.errors.StockError: none left", (Some("app.errors.StockError"), Some("none left"))),
            (None, "ReadTimeout(\"no answer\",)", (Some("ReadTimeout"), Some("no answer"))),
            (None, "HTTPStatusError(404, 'gone')", (Some("HTTPStatusError"), Some("404, 'gone'"))),
            (None, "ShellError", (Some("ShellError"), None)),
            (None, "Error: ENOENT", (Some("Error"), Some("ENOENT"))),
            (Some("ValueError"), "KeyError: x", (Some("ValueError"), Some("KeyError: x"))),
            (None, "the server said Error: no", (None, Some("the server said Error: no"))),
            (None, "Errors: 3", (None, Some("Errors: 3"))),
            (None, "KeyError(", (None, Some("KeyError("))),
            (None, "Traceback (most recent call last): x", (None, Some("Traceback (most recent call last): x"))),
            (None, "", (None, None)),
        ] {
            let found = Failure::new((error_type.map(Cow::Borrowed), None), None, text.as_bytes());
            assert_eq!((found.error_type.as_deref(), found.message.as_deref()), expect, "{text}");
        }
        assert!(asks_retry("pydantic_ai.exceptions.ModelRetry") && asks_retry("ToolRetryError"));
        assert!(!asks_retry("app.RetryError") && !asks_retry("NoModelRetry"));
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
            ("Authorization: Token abc, retry", "[redacted], retry"),
            ("{\"password\": \"my long secret\", \"a\": 1}", "{\"[redacted], \"a\": 1}"),
            ("Cookie: a=1; b=2\nHost: x", "[redacted]\nHost: x"),
            ("GET /blob?sv=2&sig=abc%2Bdef123456&x=1", "GET /blob?sv=2&[redacted]&x=1"),
            ("mail jo%40example.com, jo@exämple.com", "mail [redacted], [redacted]"),
            ("order_4111111111111111 and 12345678901234567890", "order_[redacted] and 12345678901234567890"),
            ("git https://ghx:@h/x ftp://token@h/x", "git https[redacted]h/x ftp[redacted]h/x"),
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
            ("user-4111111111111111", "user-[redacted]"),
            ("order4111111111111111", "order[redacted]"),
            ("conv-30500668457404fa", "conv-30500668457404fa"),
            ("conv-8a61918904729158", "conv-8a61918904729158"),
            ("password=hunter2", "[redacted]"),
            ("my chat, number 2", "my chat, number 2"),
            ("org/team:agent|7", "org/team:agent|7"),
            ("https://me:pw@host/x", "https[redacted]host/x"),
            ("1731999999999999", "1731999999999999"),
            ("call_mszuSIzqtI65i1wAUOE8w5H4", "call_mszuSIzqtI65i1wAUOE8w5H4"),
            // Keys behind something else, and what only begins like one.
            ("tenant/sk-live_51HxQ9abcdefgh", "tenant/[redacted]"),
            ("user-ghp_16C7e42F292c6912E7710c838347Ae178B4a", "user-[redacted]"),
            ("user_ghp_16C7e42F292c6912E7710c838347Ae178B4a", "user_[redacted]"),
            ("s:AKIAIOSFODNN7EXAMPLE", "s:[redacted]"),
            ("team.xoxb-123456789012-abcdefAB", "team.[redacted]"),
            ("search-npm-packages-by-name", "search-npm-packages-by-name"),
            ("org/sk-learn_training_run", "org/sk-learn_training_run"),
            ("a-gh-b", "a-gh-b"),
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
