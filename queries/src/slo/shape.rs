//! What an OpenSLO v1 document may hold: one table per kind, checked before anything is read from the document.

use super::fault::{Faults, Place};
use super::rules::METRICS;
use super::yaml::{Entry, Node, Value};
use crate::rules::definition::{Calls, VERSION as RULES_VERSION};

/// Longest description, in characters.
const DESCRIPTION_CHARS_MAX: usize = 1_050;
/// Longest name, in characters: that of an RFC 1123 label.
pub(super) const NAME_CHARS_MAX: usize = 63;

/// Longest name of a service, in characters.
const SERVICE_CHARS_MAX: usize = 255;

/// What may stand at a place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Whatever its owner says; not looked at.
    Any,
    Text,
    /// A name of an object.
    Name,
    /// A name of a service: a text that can be a label.
    Service,
    Description,
    Bool,
    /// A decimal number.
    Number,
    /// A number with a unit: m, h, d, w, M, Q, Y.
    Duration,
    /// A duration, or a number of minutes.
    Minutes,
    OneOf(&'static [&'static str]),
    /// Labels: each a text or a list of texts.
    Labels,
    /// Annotations: each a text.
    Texts,
    Map(&'static [Field]),
    ListOf(&'static Shape),
}

/// A key that a map may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    key: &'static str,
    required: bool,
    shape: Shape,
}

const fn req(key: &'static str, shape: Shape) -> Field {
    Field { key, required: true, shape }
}

const fn opt(key: &'static str, shape: Shape) -> Field {
    Field { key, required: false, shape }
}

use Shape::{
    Any, Bool, Description, Duration, Labels, ListOf, Map, Minutes, Name, Number, OneOf, Service, Text, Texts,
};

const METADATA: Shape =
    Map(&[req("name", Name), opt("displayName", Text), opt("labels", Labels), opt("annotations", Texts)]);
/// Of objects that stand inside others.
const INLINE_METADATA: Shape =
    Map(&[opt("name", Name), opt("displayName", Text), opt("labels", Labels), opt("annotations", Texts)]);
const OPERATORS: Shape = OneOf(&["lte", "gte", "lt", "gt"]);
const METRIC: Shape =
    Map(&[req("metricSource", Map(&[opt("metricSourceRef", Text), opt("type", Text), req("spec", Any)]))]);
const SLI_SPEC: Shape = Map(&[
    opt("description", Description),
    opt("thresholdMetric", METRIC),
    opt(
        "ratioMetric",
        Map(&[
            opt("counter", Bool),
            opt("good", METRIC),
            opt("bad", METRIC),
            opt("total", METRIC),
            opt("raw", METRIC),
            opt("rawType", OneOf(&["success", "failure"])),
        ]),
    ),
]);
const INDICATOR: Shape = Map(&[opt("metadata", INLINE_METADATA), req("spec", SLI_SPEC)]);
const CONDITION_SPEC: Shape = Map(&[
    opt("description", Description),
    req("severity", Text),
    req(
        "condition",
        Map(&[
            req("kind", OneOf(&["burnrate"])),
            opt("op", OPERATORS),
            req("threshold", Number),
            req("lookbackWindow", Duration),
            opt("alertAfter", Duration),
        ]),
    ),
]);
const TARGET_SPEC: Shape = Map(&[opt("description", Description), req("target", Text)]);
const POLICY_SPEC: Shape = Map(&[
    opt("description", Description),
    opt("alertWhenNoData", Bool),
    opt("alertWhenResolved", Bool),
    opt("alertWhenBreaching", Bool),
    req(
        "conditions",
        ListOf(&Map(&[
            opt("conditionRef", Text),
            opt("kind", OneOf(&["AlertCondition"])),
            opt("metadata", INLINE_METADATA),
            opt("spec", CONDITION_SPEC),
        ])),
    ),
    req(
        "notificationTargets",
        ListOf(&Map(&[
            opt("targetRef", Text),
            opt("kind", OneOf(&["AlertNotificationTarget"])),
            opt("metadata", INLINE_METADATA),
            opt("spec", TARGET_SPEC),
        ])),
    ),
]);
const SLO_SPEC: Shape = Map(&[
    opt("description", Description),
    req("service", Service),
    opt("indicator", INDICATOR),
    opt("indicatorRef", Text),
    opt(
        "timeWindow",
        ListOf(&Map(&[
            req("duration", Duration),
            req("isRolling", Bool),
            opt("calendar", Map(&[req("startTime", Text), req("timeZone", Text)])),
        ])),
    ),
    req("budgetingMethod", OneOf(&["Occurrences", "Timeslices", "RatioTimeslices"])),
    req(
        "objectives",
        ListOf(&Map(&[
            opt("displayName", Text),
            opt("op", OPERATORS),
            opt("value", Number),
            opt("target", Number),
            opt("targetPercent", Number),
            opt("timeSliceTarget", Number),
            opt("timeSliceWindow", Minutes),
            opt("indicator", INDICATOR),
            opt("indicatorRef", Text),
            opt("compositeWeight", Number),
        ])),
    ),
    opt(
        "alertPolicies",
        ListOf(&Map(&[
            opt("alertPolicyRef", Text),
            opt("kind", OneOf(&["AlertPolicy"])),
            opt("metadata", INLINE_METADATA),
            opt("spec", POLICY_SPEC),
        ])),
    ),
]);

/// The kinds, and what the `spec` of each may hold.
const KINDS: &[(&str, Shape)] = &[
    ("AlertCondition", CONDITION_SPEC),
    ("AlertNotificationTarget", TARGET_SPEC),
    ("AlertPolicy", POLICY_SPEC),
    ("DataSource", Map(&[opt("description", Description), req("type", Text), opt("connectionDetails", Any)])),
    ("SLI", SLI_SPEC),
    ("SLO", SLO_SPEC),
    ("Service", Map(&[opt("description", Description)])),
];
const VERSION: &str = "openslo/v1";

/// Words of conditions that rules are on.
const BY_COLUMNS: Shape = ListOf(&Text);
/// The kinds of rules, which are no OpenSLO: see `rules.rs`.
const RULE_KINDS: &[(&str, Shape)] = &[
    (
        "CostBudget",
        Map(&[
            opt("description", Description),
            opt("service", Service),
            req("amount", Text),
            req("period", OneOf(&["day", "week", "month"])),
            opt("zone", Text),
            opt("calls", OneOf(&Calls::WORDS)),
            opt("where", Text),
            opt("by", BY_COLUMNS),
            opt("groupsMax", Text),
            opt("for", Text),
            opt("keepFiringFor", Text),
            opt("severity", OneOf(&SEVERITIES)),
        ]),
    ),
    (
        "Heartbeat",
        Map(&[
            opt("description", Description),
            opt("service", Text),
            opt("tool", Text),
            opt("server", Text),
            opt("tenant", Text),
            opt("limit", Text),
            opt("for", Text),
            opt("keepFiringFor", Text),
            opt("severity", OneOf(&SEVERITIES)),
        ]),
    ),
    (
        "ThresholdRule",
        Map(&[
            opt("description", Description),
            opt("service", Service),
            req("metric", OneOf(&METRICS)),
            opt("calls", OneOf(&Calls::WORDS)),
            opt("mode", OneOf(&["logical", "attempt"])),
            opt("quantile", Number),
            opt("target", Number),
            opt("per", Duration),
            opt("where", Text),
            opt("by", BY_COLUMNS),
            opt("groupsMax", Text),
            opt("op", OneOf(&["gte", "gt"])),
            req("threshold", Text),
            req("window", Duration),
            opt("minEvents", Text),
            opt("for", Text),
            opt("keepFiringFor", Text),
            opt("severity", OneOf(&SEVERITIES)),
        ]),
    ),
];
const SEVERITIES: [&str; 2] = ["page", "ticket"];

/// Checks one document. Where it has no fault that is an error, its keys hold what the tables above say.
pub(super) fn check(document: &Node, faults: &mut Faults) {
    let Value::Map(_) = document.value else {
        faults.error(
            document.place,
            "",
            "this is no OpenSLO document (write `apiVersion`, `kind`, `metadata`, `spec`)",
        );
        return;
    };
    let kinds = match document.text_of("apiVersion") {
        Some(VERSION) => KINDS,
        Some(RULES_VERSION) => RULE_KINDS,
        Some(other) => {
            let place = document.get("apiVersion").map_or(document.place, |node| node.place);
            let known = if other.starts_with("toolgauge") { RULES_VERSION } else { VERSION };
            faults.error(place, "apiVersion", format!("{other:?} is not known (write {known:?})"));
            return;
        }
        None => return missing(document.place, "", "apiVersion", faults),
    };
    let Some(kind) = document.get("kind") else { return missing(document.place, "", "kind", faults) };
    let Some((_, spec)) = kinds.iter().find(|(name, _)| kind.text() == Some(name)) else {
        let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
        faults.error(kind.place, "kind", not_one_of(kind.text().unwrap_or("a list or map"), &names));
        return;
    };
    let fields = [req("apiVersion", Text), req("kind", Text), req("metadata", METADATA), req("spec", *spec)];
    check_map(document, &fields, "", faults);
}

fn missing(place: Place, path: &str, key: &str, faults: &mut Faults) {
    faults.error(place, path, format!("the key \"{key}\" is missing"));
}

fn not_one_of(found: &str, allowed: &[&str]) -> String {
    let nearest = nearest(found, allowed).map(|word| format!("write {word:?}"));
    format!("{found:?} is not known ({})", nearest.unwrap_or_else(|| format!("one of: {}", allowed.join(", "))))
}

/// The word that is at most two edits away, and less than half of it.
fn nearest<'a>(found: &str, words: &[&'a str]) -> Option<&'a str> {
    let distance = |word: &str| {
        let (a, b): (Vec<char>, Vec<char>) =
            (found.to_lowercase().chars().collect(), word.to_lowercase().chars().collect());
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, x) in a.iter().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], i + 1);
            for (j, y) in b.iter().enumerate() {
                let edits = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
                diagonal = std::mem::replace(&mut row[j + 1], edits);
            }
        }
        row[b.len()]
    };
    if found.chars().count() > NAME_CHARS_MAX {
        return None;
    }
    let (edits, word) = words.iter().map(|word| (distance(word), *word)).min()?;
    (edits <= 2 && edits * 2 < word.len()).then_some(word)
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn check_map(node: &Node, fields: &[Field], path: &str, faults: &mut Faults) {
    let Value::Map(entries) = &node.value else {
        faults.error(node.place, path, format!("{} stands here, where keys are expected", called(node)));
        return;
    };
    for Entry { key, place, node } in entries {
        let path = join(path, key);
        match fields.iter().find(|field| field.key == key) {
            Some(field) if node.value == Value::Null => {
                if field.required {
                    faults.error(*place, &path, "it has no value");
                }
            }
            Some(field) => check_value(node, field.shape, &path, faults),
            None => {
                let names: Vec<&str> = fields.iter().map(|field| field.key).collect();
                faults.error(*place, &path, format!("the key {}", not_one_of(key, &names)));
            }
        }
    }
    for field in fields.iter().filter(|field| field.required) {
        if !entries.iter().any(|entry| entry.key == field.key) {
            missing(node.place, path, field.key, faults);
        }
    }
}

fn called(node: &Node) -> String {
    match &node.value {
        Value::Null => "nothing".to_owned(),
        Value::Scalar { text, .. } => format!("{text:?}"),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}

fn check_value(node: &Node, shape: Shape, path: &str, faults: &mut Faults) {
    let mut expected = |good: bool, what: &str| {
        if !good {
            faults.error(node.place, path, format!("{} is no {what}", called(node)));
        }
    };
    match shape {
        Any => {}
        Text => expected(node.text().is_some(), "text"),
        Service => {
            let good = |text: &str| {
                (1..=SERVICE_CHARS_MAX).contains(&text.chars().count()) && !text.contains(char::is_control)
            };
            expected(node.text().is_some_and(good), "name of a service");
        }
        Bool => expected(matches!(node.text(), Some("true" | "false")), "truth value (write true or false)"),
        Number => expected(node.text().is_some_and(is_number), "decimal number (write like 0.999)"),
        Duration => expected(node.text().is_some_and(is_duration), DURATION),
        Minutes => {
            let good = node.text().is_some_and(|text| is_duration(text) || text.parse::<u32>().is_ok());
            expected(good, DURATION);
        }
        OneOf(words) => {
            if !node.text().is_some_and(|text| words.contains(&text)) {
                faults.error(node.place, path, not_one_of(node.text().unwrap_or("a list or map"), words));
            }
        }
        Name => check_name(node, path, faults),
        Description => match node.text() {
            None => expected(false, "text"),
            Some(text) if text.chars().count() > DESCRIPTION_CHARS_MAX => {
                let message = format!("it is longer than the {DESCRIPTION_CHARS_MAX} characters that OpenSLO allows");
                faults.error(node.place, path, message);
            }
            Some(_) => {}
        },
        Labels | Texts => {
            if !matches!(node.value, Value::Map(_)) {
                return expected(false, "map of texts");
            }
            for Entry { key, node, .. } in node.entries() {
                let is_list = matches!(shape, Labels) && matches!(node.value, Value::List(_));
                let good = node.text().is_some() || is_list && node.items().iter().all(|item| item.text().is_some());
                if !good {
                    faults.error(
                        node.place,
                        &join(path, key),
                        format!("{} is no text (put it in quotes)", called(node)),
                    );
                }
            }
        }
        Map(fields) => check_map(node, fields, path, faults),
        ListOf(shape) => match &node.value {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    check_value(item, *shape, &format!("{path}[{index}]"), faults);
                }
            }
            _ => expected(false, "list (begin each item with \"- \")"),
        },
    }
}

const DURATION: &str = "duration (write a number with m, h, d, w, M, Q or Y, like 30d)";

fn check_name(node: &Node, path: &str, faults: &mut Faults) {
    let Some(name) = node.text() else {
        return faults.error(node.place, path, format!("{} is no text", called(node)));
    };
    let length = name.chars().count();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if length == 0 || length > NAME_CHARS_MAX || !name.bytes().all(plain) {
        let message = format!("{name:?} is no name (write 1 to {NAME_CHARS_MAX} letters, digits, \"-\")");
        return faults.error(node.place, path, message);
    }
    let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !name.bytes().all(label) || name.starts_with('-') || name.ends_with('-') {
        let message =
            format!("{name:?} is no RFC 1123 label, which OpenSLO asks for (write lower-case letters, digits, \"-\")");
        faults.warning(node.place, path, message);
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, rest) = digits.split_once('.').unwrap_or((digits, ""));
    let all = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    all(whole) && all(rest) && !(whole.is_empty() && rest.is_empty()) && text.len() <= 40
}

pub(super) fn is_duration(text: &str) -> bool {
    let unit = text.char_indices().next_back().filter(|(_, unit)| "mhdwMQY".contains(*unit));
    unit.is_some_and(|(end, _)| (1..=6).contains(&end) && text[..end].bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_corrected_only_when_the_right_one_is_near() {
        assert_eq!(nearest("occurrences", &["Occurrences", "Timeslices"]), Some("Occurrences"));
        assert_eq!(nearest("objectve", &["objectives", "service"]), Some("objectives"));
        assert_eq!(nearest("markdown", &["description"]), None);
        assert_eq!(nearest("op", &["lt", "gt"]), None);
    }

    #[test]
    fn numbers_are_decimal_and_durations_have_a_unit() {
        assert!(["0.999", ".5", "-1", "99", "+2."].into_iter().all(is_number));
        assert!(!["", ".", "1e3", "99%", "NaN", "0x1"].into_iter().any(is_number));
        assert!(["5m", "30d", "1M", "4w"].into_iter().all(is_duration));
        assert!(!["", "m", "30", "30s", "1.5h", "-1d", "9999999d", "30 d", "1é"].into_iter().any(is_duration));
    }
}
