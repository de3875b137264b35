//! Who was heard when: of each service and each of its tools, the minutes of the last 14 days.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use toolgauge_analytics::alert::Patience;
use toolgauge_analytics::budget::Severity;
use toolgauge_analytics::heartbeat::{LIMIT_MIN, Minutes, Pulse, longest_gap, pulse};
use toolgauge_analytics::window::Minute;
use toolgauge_proto::time::UnixMicros;

use super::book::{Numbers, Said, Texts};
use super::definition::{Heartbeat, SilenceLimit, fits};
use super::sql::literal;
use super::stream::{Page, Rows};
use crate::evaluate::alerts::AlertId;
use crate::json::rfc3339;

/// Most services and tools that are listened to, at 2.5 KiB each; further ones are counted, and left out.
pub const KEYS_MAX: usize = 10_000;
/// The words that pages need for this.
pub(super) const WORDS: [&str; 3] = ["tenant", "tool_server", "tool_name"];
/// The columns of `calls_1m` that are read.
pub(super) const COLUMNS_1M: [&str; 7] =
    ["minute", "kind", "counted", "tenant", "service_name", "tool_server", "tool_name"];
/// A longest gap is looked for anew after so many minutes.
const GAP_FOR: i64 = 15;

/// A service, or one of its tools.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeartKey {
    /// Its tenant.
    pub tenant: Arc<str>,
    /// The service.
    pub service: Arc<str>,
    /// The tool: server, name.
    pub tool: Option<(Option<Arc<str>>, Arc<str>)>,
}

impl HeartKey {
    fn name(&self) -> String {
        match &self.tool {
            None => format!("service {}", self.service),
            Some((None, tool)) => format!("tool {tool} of {}", self.service),
            Some((Some(server), tool)) => format!("tool {server}/{tool} of {}", self.service),
        }
    }

    fn condition(&self) -> String {
        let tool = match &self.tool {
            None => String::new(),
            Some((server, tool)) => {
                let server = server.as_ref().map_or("IS NULL".to_owned(), |server| format!("= {}", literal(server)));
                format!(" AND kind = 'tool' AND tool_server {server} AND tool_name = {}", literal(tool))
            }
        };
        format!("counted AND tenant = {} AND service_name = {}{tool}", literal(&self.tenant), literal(&self.service))
    }
}

/// What is known of one of them.
#[derive(Debug)]
struct Heard {
    minutes: Minutes,
    /// According to rows that are not settled.
    live: Option<Minute>,
    /// The longest gap, as of a minute.
    gap: Option<(Minute, u64)>,
    /// The place of the rule that it is under; `None` for the usual one.
    rule: Option<usize>,
    id: AlertId,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    heard: BTreeMap<HeartKey, Heard>,
    listened: Minutes,
    rules: Vec<Arc<Heartbeat>>,
    /// Services and tools that found no place.
    overflow: HashSet<HeartKey>,
}

/// How it stands with one of them.
#[derive(Debug, Clone)]
pub struct HeartStatus {
    /// Who.
    pub key: HeartKey,
    /// How.
    pub pulse: Pulse,
    /// The name of the rule, if it is not the usual one.
    pub rule: Option<String>,
}

/// What is to be observed of one of them.
pub(super) struct Beat {
    pub(super) id: AlertId,
    pub(super) patience: Patience,
    pub(super) status: HeartStatus,
}

impl Heartbeats {
    /// Takes rules, those that say most first.
    pub(super) fn take_rules(&mut self, rules: &[Arc<Heartbeat>]) {
        self.rules = rules.to_vec();
        for (key, heard) in &mut self.heard {
            heard.rule = rule_of(&self.rules, key);
            heard.id = id_of(key, severity(&self.rules, heard.rule));
        }
    }

    /// How many are listened to, and how many found no place.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.heard.len(), self.overflow.len())
    }

    fn hear(&mut self, key: HeartKey, minute: Minute, rows: Rows) {
        if !self.heard.contains_key(&key) {
            // What is not settled may still turn out to be another view of another call.
            if rows == Rows::Live {
                return;
            }
            if self.heard.len() >= KEYS_MAX {
                if self.overflow.len() < KEYS_MAX {
                    self.overflow.insert(key);
                }
                return;
            }
            let rule = rule_of(&self.rules, &key);
            let id = id_of(&key, severity(&self.rules, rule));
            self.heard.insert(key.clone(), Heard { minutes: Minutes::default(), live: None, gap: None, rule, id });
        }
        let Some(heard) = self.heard.get_mut(&key) else { return };
        match rows {
            Rows::Live => heard.live = heard.live.max(Some(minute)),
            Rows::Settled => {
                if heard.minutes.last().is_none_or(|last| last != minute) && !heard.minutes.contains(minute) {
                    heard.minutes.insert(minute);
                    heard.gap = None;
                }
            }
        }
    }

    /// Hears the rows of a page of `calls`.
    pub(super) fn count(&mut self, page: &Page, rows: Rows) {
        let words = WORDS.map(|name| page.words.get(name));
        let [Some(tenants), Some(servers), Some(tools)] = words else { return };
        let is_tool = page.kinds.marks(|kind| kind == "tool");
        let mut seen: HashSet<[u32; 5]> = HashSet::new();
        let mut last = None;
        let mut heard: Vec<([u32; 4], i64)> = Vec::new();
        for row in 0..page.rows {
            if !page.counted.value(row) || !page.is_new(row) {
                continue;
            }
            let tool = if page.kinds.is(row, &is_tool) { tools.codes[row] } else { 0 };
            let codes =
                [tenants.codes[row], page.services.codes[row], if tool > 0 { servers.codes[row] } else { 0 }, tool];
            let minute = page.minutes[row];
            if last == Some((codes, minute)) {
                continue;
            }
            last = Some((codes, minute));
            let [tenant, service, server, tool] = codes;
            // Minutes of one page are close together.
            if seen.insert([tenant, service, server, tool, minute as u32]) {
                heard.push((codes, minute));
            }
        }
        for ([tenant, service, server, tool], minute) in heard {
            let (Some(tenant), Some(service)) = (tenants.text(tenant), page.services.text(service)) else { continue };
            let tool = tools.text(tool).map(|tool| (servers.text(server), tool));
            self.hear_both(tenant, service, tool, Minute(minute), rows);
        }
    }

    fn hear_both(
        &mut self,
        tenant: Arc<str>,
        service: Arc<str>,
        tool: Option<(Option<Arc<str>>, Arc<str>)>,
        minute: Minute,
        rows: Rows,
    ) {
        if tool.is_some() {
            self.hear(HeartKey { tenant: Arc::clone(&tenant), service: Arc::clone(&service), tool }, minute, rows);
        }
        self.hear(HeartKey { tenant, service, tool: None }, minute, rows);
    }

    /// Hears rows of `calls_1m`, with [`COLUMNS_1M`].
    pub(super) fn count_1m(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let minutes = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let counted = batch.column(2).as_boolean();
        let text = |column: usize| cast(batch.column(column), &DataType::Utf8);
        let texts = [text(1)?, text(3)?, text(4)?, text(5)?, text(6)?];
        let value = |column: usize, row: usize| {
            let column = texts[column].as_string::<i32>();
            arrow::array::Array::is_valid(column, row).then(|| Arc::<str>::from(column.value(row)))
        };
        for row in 0..batch.num_rows() {
            let (Some(kind), Some(tenant), Some(service)) = (value(0, row), value(1, row), value(2, row)) else {
                continue;
            };
            if !counted.value(row) {
                continue;
            }
            let tool = value(4, row).filter(|_| &*kind == "tool").map(|tool| (value(3, row), tool));
            self.hear_both(tenant, service, tool, Minute::of(UnixMicros(minutes.value(row))), Rows::Settled);
        }
        Ok(())
    }

    /// Takes rows of `arrivals`: somebody listened.
    pub(super) fn listen(&mut self, batch: &RecordBatch) {
        let Some(minutes) = batch.column_by_name("minute") else { return };
        let Some(minutes) = minutes.as_primitive_opt::<TimestampMicrosecondType>() else { return };
        let mut last = None;
        for minute in minutes.values().iter().map(|minute| Minute::of(UnixMicros(*minute))) {
            if last != Some(minute) {
                self.listened.insert(minute);
            }
            last = Some(minute);
        }
    }

    /// Adds what another one has heard.
    pub(super) fn take(&mut self, other: &Self) {
        other.listened.iter().for_each(|minute| {
            self.listened.insert(minute);
        });
        for (key, heard) in &other.heard {
            heard.minutes.iter().for_each(|minute| self.hear(key.clone(), minute, Rows::Settled));
        }
        self.overflow.extend(other.overflow.iter().take(KEYS_MAX - self.overflow.len().min(KEYS_MAX)).cloned());
    }

    /// Goes on to a minute: forgets what is too old, and the live rows.
    pub(super) fn advance(&mut self, now: Minute) {
        self.listened.forget(now);
        self.heard.retain(|_, heard| {
            heard.live = None;
            heard.minutes.forget(now);
            heard.minutes.last().is_some()
        });
        if self.heard.len() < KEYS_MAX {
            self.overflow.clear();
        }
    }

    /// Whether live rows can make a difference: whether something was not heard for as long as may be told.
    pub(super) fn asks_for_live(&self, now: Minute) -> bool {
        let shortest = self.rules.iter().filter_map(|rule| match rule.limit {
            SilenceLimit::Minutes(minutes) => Some(minutes),
            SilenceLimit::Auto | SilenceLimit::Never => None,
        });
        let shortest = shortest.min().unwrap_or(LIMIT_MIN).min(LIMIT_MIN);
        self.heard
            .values()
            .filter_map(|heard| heard.minutes.last())
            .any(|last| now.0 > last.0 && now.0.abs_diff(last.0) > shortest)
    }

    /// How it stands with all that has to be heard of.
    pub(super) fn beats(&mut self, now: Minute) -> Vec<Beat> {
        let (listened, rules) = (&self.listened, &self.rules);
        let beat = |(key, heard): (&HeartKey, &mut Heard)| {
            let rule = heard.rule.map(|rule| &rules[rule]);
            let by_hand = match rule.map_or(SilenceLimit::Auto, |rule| rule.limit) {
                SilenceLimit::Never => return None,
                SilenceLimit::Auto => None,
                SilenceLimit::Minutes(minutes) => Some(minutes),
            };
            let known = heard.gap.filter(|(at, _)| now.0 - at.0 < GAP_FOR);
            let mut looked = known;
            let minutes = &heard.minutes;
            let pulse = pulse(minutes, heard.live, listened, by_hand, now, || {
                looked.get_or_insert_with(|| (now, longest_gap(minutes, listened))).1
            })?;
            heard.gap = looked;
            let rule = rule.map(|rule| rule.header.name.clone());
            Some(Beat {
                id: heard.id.clone(),
                patience: heard.rule.map_or_else(Patience::default, |rule| rules[rule].header.patience),
                status: HeartStatus { key: key.clone(), pulse, rule },
            })
        };
        self.heard.iter_mut().filter_map(beat).collect()
    }
}

fn rule_of(rules: &[Arc<Heartbeat>], key: &HeartKey) -> Option<usize> {
    rules.iter().position(|rule| {
        let tool = match (&rule.tool, &key.tool) {
            (None, None) => true,
            (Some(pattern), Some((server, tool))) => {
                let server = server.as_deref().unwrap_or_default();
                fits(pattern, tool) && rule.server.as_ref().is_none_or(|pattern| fits(pattern, server))
            }
            _ => false,
        };
        let tenant = rule.tenant.as_ref().is_none_or(|pattern| fits(pattern, &key.tenant));
        tool && tenant && fits(&rule.service, &key.service)
    })
}

fn severity(rules: &[Arc<Heartbeat>], rule: Option<usize>) -> Severity {
    rule.map_or(Severity::Ticket, |rule| rules[rule].header.severity)
}

fn id_of(key: &HeartKey, severity: Severity) -> AlertId {
    let mut labels = Texts::from([
        ("alertname".to_owned(), "ToolSilent".to_owned()),
        ("service".to_owned(), key.service.to_string()),
        ("severity".to_owned(), severity.as_str().to_owned()),
        ("tenant".to_owned(), key.tenant.to_string()),
    ]);
    if let Some((server, tool)) = &key.tool {
        labels.insert("tool".to_owned(), tool.to_string());
        labels.extend(server.iter().map(|server| ("server".to_owned(), server.to_string())));
    }
    AlertId::new(labels)
}

/// What is said of something that is silent.
pub(super) fn said(status: &HeartStatus, rules: &[Arc<Heartbeat>]) -> Said {
    let HeartStatus { key, pulse, rule } = status;
    let limit = pulse.limit.unwrap_or(LIMIT_MIN);
    let last = rfc3339(pulse.last.start());
    let why = match (rule, pulse.longest_gap) {
        (Some(rule), None) => format!("as the rule {rule} says"),
        (_, Some(gap)) => format!("its longest gap within 14 days was {gap} min"),
        (None, None) => "the shortest that is told".to_owned(),
    };
    let summary = format!(
        "{} is silent: last heard at {last}, {} min ago; the limit is {limit} min, {why}",
        key.name(),
        pulse.silence
    );
    let mut annotations = Texts::from([
        ("last_seen".to_owned(), last),
        ("limit_minutes".to_owned(), limit.to_string()),
        ("silence_minutes".to_owned(), pulse.silence.to_string()),
        ("sql".to_owned(), format!("SELECT max(minute) AS last_seen FROM calls_1m WHERE {}", key.condition())),
        ("summary".to_owned(), summary),
    ]);
    if let Some(gap) = pulse.longest_gap {
        annotations.insert("longest_gap_minutes".to_owned(), gap.to_string());
    }
    if let Some(rule) = rule {
        annotations.insert("rule".to_owned(), rule.clone());
        let description = rules.iter().find(|known| known.header.name == *rule);
        let description = description.and_then(|rule| rule.header.description.clone());
        annotations.extend(description.map(|text| ("description".to_owned(), text)));
    }
    let numbers = Numbers { window_s: Some(limit * 60), ..Numbers::default() };
    Said { annotations, group: "{}".to_owned(), numbers, questions: Vec::new() }
}
