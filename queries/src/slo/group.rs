//! The groups of an SLO: one for each combination of values of some columns, as far as there is room.
//!
//! # Which there are
//! A group is made by an event: a row of the total. Groups are taken in the order of their first events in the log, those that
//! begin in one export by their values, until there are [`GroupBy::groups_max`](super::definition::GroupBy::groups_max); the events of all
//! others belong to [`OTHER`]. Settled rows come in the order of the log, so that the same groups are taken however they come: live, after a
//! restart, or read again from `calls`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;
use toolgauge_proto::id::WalPosition;

use super::definition::Slo;

/// The values of a group, in the order of its columns; none is an empty one.
pub type GroupKey = Arc<[Arc<str>]>;

/// Each value of the group of what found no room. A row that has it itself belongs there, too.
pub const OTHER: &str = "__other__";
/// The text of no group.
pub const NO_GROUP: &str = "{}";
/// Most groups that a statement about [`OTHER`] may name; more are looked up in `slo_1m`.
pub const NAMED_MAX: usize = 900;

/// What can be grouped by: its name, its column, and its label. The label `service` is the one of the SLO.
pub(super) const GROUPS: &[(&str, &str, &str)] = &[
    ("tool", "tool_name", "tool"),
    ("server", "tool_server", "server"),
    ("service", "service_name", "source_service"),
    ("team", "team", "team"),
    ("tenant", "tenant", "tenant"),
    ("agent", "agent_name", "agent"),
    ("model", "model", "model"),
    ("environment", "environment", "environment"),
];

/// The group of what found no room, of so many columns.
#[must_use]
pub fn other(columns: usize) -> GroupKey {
    let value: Arc<str> = OTHER.into();
    vec![value; columns].into()
}

/// Whether a group is that of what found no room.
#[must_use]
pub fn is_other(key: &GroupKey) -> bool {
    !key.is_empty() && key.iter().all(|value| **value == *OTHER)
}

/// One group of an SLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    columns: Arc<[&'static str]>,
    key: GroupKey,
    text: Arc<str>,
    /// Of the group of what found no room: who did.
    rest_of: Option<RestOf>,
}

/// The groups whose rows are not those of [`OTHER`].
#[derive(Debug, Clone, PartialEq, Eq)]
struct RestOf {
    keys: Arc<[GroupKey]>,
    /// Whose groups in `slo_1m` they are: service, name and revision.
    owner: Option<[Arc<str>; 3]>,
}

impl Group {
    /// The group of these values of columns.
    #[must_use]
    pub fn new(columns: &Arc<[&'static str]>, key: GroupKey) -> Self {
        let values: BTreeMap<&str, &str> = columns.iter().copied().zip(key.iter().map(|value| &**value)).collect();
        let text = serde_json::to_string(&values).unwrap_or_else(|_| NO_GROUP.to_owned());
        Self { columns: Arc::clone(columns), key, text: text.into(), rest_of: None }
    }

    /// The group of all that is in none of these. They stand in `slo_1m` under this revision of the SLO, if it has one.
    #[must_use]
    pub fn rest(columns: &Arc<[&'static str]>, keys: Arc<[GroupKey]>, slo: &Slo, revision: Option<&str>) -> Self {
        let owner = revision.map(|revision| [slo.service.as_str().into(), slo.name.as_str().into(), revision.into()]);
        Self { rest_of: Some(RestOf { keys, owner }), ..Self::new(columns, other(columns.len())) }
    }

    /// Its values.
    #[must_use]
    pub const fn key(&self) -> &GroupKey {
        &self.key
    }

    /// Canonical JSON: an object with the names of the columns in order.
    #[must_use]
    pub const fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Its values by column.
    #[must_use]
    pub fn values(&self) -> BTreeMap<String, String> {
        self.columns.iter().zip(&*self.key).map(|(column, value)| ((*column).to_owned(), value.to_string())).collect()
    }

    /// The value of a column, if it is one that it is grouped by and not empty.
    #[must_use]
    pub fn value(&self, column: &str) -> Option<&str> {
        let place = self.columns.iter().position(|known| *known == column)?;
        Some(&*self.key[place]).filter(|value| !value.is_empty() && *value != OTHER)
    }

    /// The labels that tell its alerts from those of the others; an empty value has none.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let label = |column: &str| GROUPS.iter().find(|(_, known, _)| *known == column).map_or("group", |(.., it)| it);
        self.columns.iter().zip(&*self.key).map(move |(column, value)| (label(column), &**value))
    }

    /// How many groups there are besides that of what found no room, if it is that.
    #[must_use]
    pub fn others(&self) -> usize {
        self.rest_of.as_ref().map_or(0, |rest_of| rest_of.keys.len())
    }

    /// Conditions on rows of `calls`, each after an `AND`, that select its rows. Of what found no room they name all groups that did, up to so
    /// many ([`NAMED_MAX`] are possible); more are looked up in `slo_1m`, which has them about a minute after they began.
    #[must_use]
    pub fn condition(&self, named_max: usize) -> String {
        let mut sql = String::new();
        // Writing to memory does not fail.
        let mut add = |text: std::fmt::Arguments<'_>| sql.write_fmt(text).unwrap_or_default();
        let Some(rest_of) = &self.rest_of else {
            for (column, value) in self.columns.iter().zip(&*self.key) {
                add(format_args!(" AND coalesce(\"{column}\", '') = {}", quoted(value)));
            }
            return sql;
        };
        let value = |column: &&str| format!("coalesce(\"{column}\", '')");
        match (&*self.columns, &rest_of.owner) {
            _ if rest_of.keys.is_empty() => {}
            (_, Some([service, slo, revision])) if rest_of.keys.len() > named_max => {
                // The canonical JSON of the row's values; names have no control characters.
                let mut columns: Vec<&str> = self.columns.to_vec();
                columns.sort_unstable();
                let fields = columns.iter().map(|column| {
                    format!(
                        "'\"{column}\":\"' || replace(replace({}, '\\', '\\\\'), '\"', '\\\"') || '\"'",
                        value(column)
                    )
                });
                add(format_args!(
                    " AND '{{' || {} || '}}' NOT IN (SELECT \"group\" FROM slo_1m WHERE service = {} AND slo = {} AND \
                     slo_revision = {})",
                    fields.collect::<Vec<_>>().join(" || ',' || "),
                    quoted(service),
                    quoted(slo),
                    quoted(revision)
                ));
            }
            ([column], _) => {
                let values: Vec<String> = rest_of.keys.iter().map(|key| quoted(&key[0])).collect();
                add(format_args!(" AND {} NOT IN ({})", value(column), values.join(", ")));
            }
            (columns, _) => {
                let rows = rest_of
                    .keys
                    .iter()
                    .map(|key| format!("({})", key.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ")));
                let names: Vec<String> = (0..columns.len()).map(|place| format!("value_{place}")).collect();
                let equal = columns.iter().zip(&names);
                let equal = equal.map(|(column, name)| format!("taken.{name} = coalesce(calls.\"{column}\", '')"));
                add(format_args!(
                    " AND NOT EXISTS (SELECT 1 FROM (VALUES {}) AS taken ({}) WHERE {})",
                    rows.collect::<Vec<_>>().join(", "),
                    names.join(", "),
                    equal.collect::<Vec<_>>().join(" AND ")
                ));
            }
        }
        sql
    }
}

/// A text as SQL has it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The group that a JSON object names, by the names of the columns or those of documents.
///
/// # Errors
/// What it has to be, if it is not that.
pub fn parse(columns: &[&'static str], text: &str) -> Result<GroupKey, String> {
    let names = || columns.iter().map(|column| format!("\"{column}\": \"...\"")).collect::<Vec<_>>().join(", ");
    let wrong = || format!("{text:?} does not name a group (write {{{}}})", names());
    let Ok(Value::Object(found)) = serde_json::from_str(text) else { return Err(wrong()) };
    let of = |column: &&str| {
        let name = GROUPS.iter().find(|(_, known, _)| known == column).map(|(name, ..)| *name);
        let value = found.get(*column).or_else(|| found.get(name?))?;
        Some(Arc::from(value.as_str()?))
    };
    let values: Option<Vec<Arc<str>>> = columns.iter().map(of).collect();
    values.filter(|values| values.len() == found.len()).map(Into::into).ok_or_else(wrong)
}

/// The groups that come first, as many as there is room for, from rows in any order; within memory for those.
#[derive(Debug)]
pub(crate) struct First {
    max: usize,
    positions: std::collections::HashMap<GroupKey, WalPosition>,
    order: std::collections::BTreeSet<(WalPosition, GroupKey)>,
}

impl First {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, positions: std::collections::HashMap::new(), order: std::collections::BTreeSet::new() }
    }

    /// A group has an event here. What falls out had as many before it, and so it stays unless an earlier event of it comes.
    pub(crate) fn offer(&mut self, key: &GroupKey, position: WalPosition) {
        if is_other(key) {
            return;
        }
        match self.positions.get(key) {
            Some(known) if *known <= position => return,
            Some(known) => {
                self.order.remove(&(*known, Arc::clone(key)));
            }
            None => {
                let is_late = |last: &(WalPosition, GroupKey)| (last.0, &last.1) < (position, key);
                if self.order.len() >= self.max && self.order.last().is_some_and(is_late) {
                    return;
                }
            }
        }
        self.positions.insert(Arc::clone(key), position);
        self.order.insert((position, Arc::clone(key)));
        if self.order.len() > self.max
            && let Some((_, key)) = self.order.pop_last()
        {
            self.positions.remove(&key);
        }
    }

    /// They, in order.
    pub(crate) fn finish(self) -> impl Iterator<Item = (WalPosition, GroupKey)> {
        self.order.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[&str]) -> GroupKey {
        values.iter().map(|value| Arc::from(*value)).collect()
    }

    fn columns() -> Arc<[&'static str]> {
        Arc::new(["tool_name", "tenant"])
    }

    #[test]
    fn a_group_has_one_text_and_one_condition() {
        let group = Group::new(&columns(), key(&["it's \"so\"", ""]));
        assert_eq!(&**group.text(), r#"{"tenant":"","tool_name":"it's \"so\""}"#);
        assert_eq!(parse(&["tool_name", "tenant"], group.text()).unwrap(), *group.key());
        assert_eq!(parse(&["tool_name", "tenant"], r#"{"tool":"a","tenant":"b"}"#).unwrap(), key(&["a", "b"]));
        for wrong in
            ["", "[]", "{}", r#"{"tool":"a"}"#, r#"{"tool":"a","tenant":1}"#, r#"{"tool":"a","tenant":"b","x":""}"#]
        {
            assert!(parse(&["tool_name", "tenant"], wrong).unwrap_err().contains("\"tool_name\": \"...\""), "{wrong}");
        }
        assert_eq!(
            group.condition(NAMED_MAX),
            " AND coalesce(\"tool_name\", '') = 'it''s \"so\"' AND coalesce(\"tenant\", '') = ''"
        );
        assert_eq!((group.value("tenant"), group.value("tool_name")), (None, Some("it's \"so\"")));
        assert!(is_other(&other(2)) && !is_other(&key(&["__other__", "a"])));
    }

    /// Whatever the order in which events come, and however many fall out meanwhile, those are left that an ordinary sort puts first.
    #[test]
    fn the_first_groups_are_those_of_a_sort() {
        let mut random = 1_u64;
        let mut below = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        for max in [1, 3, 10, 100] {
            let events: Vec<(u64, GroupKey)> = (0..500)
                .map(|_| (below(60), if below(9) == 0 { other(1) } else { key(&[&format!("tool-{}", below(40))]) }))
                .collect();
            let mut first = First::new(max);
            events.iter().for_each(|(position, key)| first.offer(key, WalPosition(*position)));
            let mut least: BTreeMap<&GroupKey, u64> = BTreeMap::new();
            for (position, key) in events.iter().filter(|(_, key)| !is_other(key)) {
                let known = least.entry(key).or_insert(*position);
                *known = (*known).min(*position);
            }
            let mut expected: Vec<(WalPosition, GroupKey)> =
                least.into_iter().map(|(key, position)| (WalPosition(position), Arc::clone(key))).collect();
            expected.sort();
            expected.truncate(max);
            assert_eq!(first.finish().collect::<Vec<_>>(), expected, "{max}");
        }
    }
}
