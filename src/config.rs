//! The configuration: defaults, then a TOML file, then `TOOLGAUGE_...` in the environment, then flags.
//!
//! Every setting has one name: `key` or `section.key` in the file, `TOOLGAUGE_KEY` or `TOOLGAUGE_SECTION_KEY` in the
//! environment. Durations are written like `60s` or `15m`, sizes like `64MiB` or as a number of bytes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toolgauge_collector::lake::{CompactSettings, FoldSettings};
use toolgauge_collector::live::LiveSettings;
use toolgauge_collector::pipeline::CollectorSettings;
use toolgauge_collector::receiver::Settings as ReceiverSettings;
use toolgauge_collector::recognise::RecogniseSettings;
use toolgauge_collector::wal::WalSettings;
use toolgauge_queries::engine::Settings as EngineSettings;
use toolgauge_queries::evaluate::EvaluateSettings;

/// Prefix of settings in the environment.
const ENVIRONMENT_PREFIX: &str = "TOOLGAUGE_";
/// Names with that prefix that are no settings.
const NOT_SETTINGS: &[&str] = &["TOOLGAUGE_CONFIG", "TOOLGAUGE_URL", "TOOLGAUGE_LOG"];

/// Why the configuration cannot be used; every fault that was found.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read the configuration \"{path}\"")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{place}: {message}")]
    Invalid {
        /// The file, or the environment, or the flags.
        place: String,
        /// What is wrong, where, and what may stand there.
        message: String,
    },
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

const UNITS: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Bytes {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
        let (number, factor) = unit.unwrap_or((text, 1));
        number.trim().parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = NumberOrText::deserialize(deserializer)?.text();
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?} is no size (write like \"64MiB\", or a number of bytes)"))
        })
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (unit, factor) =
            UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)).unwrap_or(&("B", 1));
        serializer.serialize_str(&format!("{}{unit}", self.0 / factor))
    }
}

/// The data folder, if no other one is named.
pub const DEFAULT_DATA: &str = "toolgauge-data";

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl Time {
    const fn micros(us: u64) -> Self {
        Self(Duration::from_micros(us))
    }

    fn as_micros(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(|error| {
            serde::de::Error::custom(format!("{text:?} is no duration: {error} (write like \"60s\" or \"15m\")"))
        })
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const UNITS: &[(&str, u128)] = &[
            ("d", 86_400_000_000),
            ("h", 3_600_000_000),
            ("m", 60_000_000),
            ("s", 1_000_000),
            ("ms", 1_000),
            ("us", 1),
        ];
        let us = self.0.as_micros();
        let (unit, length) =
            UNITS.iter().find(|(_, length)| us >= *length && us.is_multiple_of(*length)).unwrap_or(&("s", 1_000_000));
        serializer.serialize_str(&format!("{}{unit}", us / length))
    }
}

/// A whole number; the environment writes it as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = NumberOrText::deserialize(deserializer)?.text();
        text.trim().parse().map(Self).map_err(|_| serde::de::Error::custom(format!("{text:?} is no whole number")))
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(i64),
    Text(String),
}

impl NumberOrText {
    fn text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

/// Yes or no; the environment writes it as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Switch(pub bool);

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Bool(bool),
            Text(String),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Bool(on) => Ok(Self(on)),
            Raw::Text(text) => text
                .trim()
                .parse()
                .map(Self)
                .map_err(|_| serde::de::Error::custom(format!("{text:?} is neither true nor false"))),
        }
    }
}

/// A list of names; the environment writes it with commas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Names(pub Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            List(Vec<String>),
            Text(String),
        }
        Ok(Self(match Raw::deserialize(deserializer)? {
            Raw::List(names) => names,
            Raw::Text(text) => {
                text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
            }
        }))
    }
}

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data folder.
    pub data: PathBuf,
    /// Where OTLP/gRPC listens.
    pub otlp_grpc: SocketAddr,
    /// Where OTLP/HTTP listens.
    pub otlp_http: SocketAddr,
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    /// Files and folders of SLOs.
    pub slo: Names,
    /// Addresses of the Alertmanagers that alerts are sent to.
    pub alertmanager: Names,
    /// Price books, in the order in which they are asked.
    pub prices: Names,
    /// File that says who owns which tools.
    pub ownership: Option<PathBuf>,
    /// The write-ahead log.
    pub wal: WalConfig,
    /// Settling.
    pub settle: SettleConfig,
    /// The tables.
    pub lake: LakeConfig,
    /// Recognition.
    pub recognise: RecogniseConfig,
    /// The doors for exports.
    pub receiver: ReceiverConfig,
    /// The doors for questions.
    pub queries: QueriesConfig,
    /// Evaluation of SLOs and delivery of alerts.
    pub alerting: AlertingConfig,
    /// Prices of calls whose producers do not report a cost.
    pub pricing: PricingConfig,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type),+ }
    };
}

section!(
    /// `[wal]`
    WalConfig {
        /// Size at which a segment is closed.
        segment: Bytes,
        /// Above this size, segments that no table needs go although re-sends might still be recognised by them.
        retain: Bytes,
        /// How far back re-sent exports are recognised.
        resend_horizon: Time,
        /// How long a group commit waits for more exports.
        group_commit_wait: Time,
        /// Size at which a group commit takes no further export.
        group_commit: Bytes,
        /// Exports that may wait for their sync.
        queue: Bytes,
    }
);
section!(
    /// `[settle]`
    SettleConfig {
        /// Age at which a row is decided for good.
        after: Time,
        /// Memory of younger rows behind a row that makes it settle earlier.
        younger: Bytes,
        /// How long settled rows are remembered for late relatives.
        remember: Time,
        /// How many settled rows are remembered for late relatives.
        remember_rows: Count,
        /// How many row identities are known, to recognise rows that are sent again.
        seen_rows: Count,
    }
);
section!(
    /// `[lake]`
    LakeConfig {
        /// Longest time between two commits, if there is something to commit.
        commit_interval: Time,
        /// Settled rows at which a commit begins.
        commit_rows: Count,
        /// How often, in log time, the sums of committed rows are written to `calls_1m`.
        fold_interval: Time,
        /// So many different series a day (tenant, service, environment, server, tool, agent, model) have sums of their own; those
        /// of the others are summed as `__other__`.
        series_per_day: Count,
        /// So many services a minute have sums of what arrived of their own; those of the others are summed as `__other__`.
        services_per_minute: Count,
        /// How often it is looked whether there are small files to merge; 0 for never.
        compact_interval: Time,
        /// So many small files of the newest date are merged at once, or more.
        compact_files: Count,
        /// Only smaller files are merged.
        compact_below: Bytes,
        /// Files are merged up to this size of all together.
        compact_target: Bytes,
        /// How long files that were merged, or are too old, stay on the disk for queries that began before.
        keep_removed: Time,
    }
);
section!(
    /// `[recognise]`
    RecogniseConfig {
        /// Rows that ended more than this ahead of their receipt are quarantined.
        ahead: Time,
        /// Rows older than this are quarantined.
        retention: Time,
        /// Attributes that rows of failed attempts keep.
        keep_attributes: Names,
        /// Attributes that rows of successful attempts keep.
        keep_attributes_of_successes: Names,
        /// Folder with conventions (`*.toml`) that are tried before those that come with Toolgauge.
        conventions: Option<PathBuf>,
    }
);
section!(
    /// `[receiver]`
    ReceiverConfig {
        /// Largest request, also after decompression.
        request: Bytes,
        /// Memory of all requests in flight.
        in_flight: Bytes,
        /// How long a request waits for its share of it.
        admission_timeout: Time,
        /// Most open connections.
        connections: Count,
        /// Bytes per second that one tenant may send; 0 for no limit.
        tenant_bytes_per_second: Bytes,
    }
);
section!(
    /// `[queries]`
    QueriesConfig {
        /// Memory of all queries.
        memory: Bytes,
        /// Longest time of a query.
        timeout: Time,
        /// Most rows of an answer.
        rows: Count,
        /// Queries that run at a time.
        concurrent: Count,
        /// A session is over when nothing of it has happened for so long.
        session_idle: Time,
        /// Web pages from these addresses may read the HTTP API; `*` is any.
        cors_origins: Names,
    }
);

section!(
    /// `[alerting]`
    AlertingConfig {
        /// Time between two evaluations, and between two looks at the files of SLOs.
        interval: Time,
        /// Time after which a firing alert is sent again.
        resend_delay: Time,
        /// Longest time of a request to an Alertmanager.
        timeout: Time,
        /// Time between two appends to the table `slo_1m`.
        flush_interval: Time,
        /// Address of the HTTP API as people reach it, for links in alerts; empty for where it listens.
        external_url: String,
        /// Whether SLOs are learned from the calls if there are no files of them.
        learn_slos: Switch,
    }
);

section!(
    /// `[pricing]`
    PricingConfig {
        /// Whether models that no price book names cost what the table that comes with Toolgauge says.
        models: Switch,
        /// Time between two looks at the price books.
        interval: Time,
    }
);

impl Default for Config {
    fn default() -> Self {
        Self {
            data: DEFAULT_DATA.into(),
            otlp_grpc: SocketAddr::from(([127, 0, 0, 1], 4317)),
            otlp_http: SocketAddr::from(([127, 0, 0, 1], 4318)),
            http: SocketAddr::from(([127, 0, 0, 1], 4400)),
            slo: Names(Vec::new()),
            alertmanager: Names(Vec::new()),
            prices: Names(Vec::new()),
            ownership: None,
            wal: WalConfig::default(),
            settle: SettleConfig::default(),
            lake: LakeConfig::default(),
            recognise: RecogniseConfig::default(),
            receiver: ReceiverConfig::default(),
            queries: QueriesConfig::default(),
            alerting: AlertingConfig::default(),
            pricing: PricingConfig::default(),
        }
    }
}

// The defaults live with the settings of each room; they are only given their names here.

impl Default for WalConfig {
    fn default() -> Self {
        let wal = WalSettings::default();
        Self {
            segment: Bytes(wal.segment_bytes),
            retain: Bytes(wal.retain_bytes),
            resend_horizon: Time::micros(wal.digest_horizon_us.unsigned_abs()),
            group_commit_wait: Time::micros(wal.group_commit_wait_us),
            group_commit: Bytes(wal.group_commit_bytes as u64),
            queue: Bytes(wal.queue_bytes as u64),
        }
    }
}

impl Default for SettleConfig {
    fn default() -> Self {
        let live = LiveSettings::default();
        Self {
            after: Time::micros(live.settle_us.unsigned_abs()),
            younger: Bytes(live.younger_bytes_max),
            remember: Time::micros(live.remember_us.unsigned_abs()),
            remember_rows: Count(live.remember_rows_max),
            seen_rows: Count(live.seen_rows_max as u64),
        }
    }
}

impl Default for LakeConfig {
    fn default() -> Self {
        let collector = CollectorSettings::new(PathBuf::new());
        Self {
            commit_interval: Time::micros(collector.commit_interval_us),
            commit_rows: Count(collector.commit_rows),
            fold_interval: Time::micros(collector.fold.interval_us.unsigned_abs()),
            series_per_day: Count(collector.fold.series_max as u64),
            services_per_minute: Count(collector.live.arrivals_services_max as u64),
            compact_interval: Time::micros(collector.compact.interval_us),
            compact_files: Count(collector.compact.files_min as u64),
            compact_below: Bytes(collector.compact.small_bytes),
            compact_target: Bytes(collector.compact.target_bytes),
            keep_removed: Time::micros(collector.compact.keep_removed_us),
        }
    }
}

impl Default for RecogniseConfig {
    fn default() -> Self {
        let recognise = RecogniseSettings::default();
        Self {
            ahead: Time::micros(recognise.ahead_max_us.unsigned_abs()),
            retention: Time::micros(recognise.retention_us.unsigned_abs()),
            keep_attributes: Names(recognise.keep_attributes),
            keep_attributes_of_successes: Names(recognise.keep_attributes_of_successes),
            conventions: None,
        }
    }
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        let receiver = ReceiverSettings::default();
        Self {
            request: Bytes(receiver.request_bytes_max as u64),
            in_flight: Bytes(receiver.in_flight_bytes_max as u64),
            admission_timeout: Time(receiver.admission_timeout),
            connections: Count(receiver.connections_max as u64),
            tenant_bytes_per_second: Bytes(receiver.tenant_bytes_per_second.map_or(0, u64::from)),
        }
    }
}

impl Default for QueriesConfig {
    fn default() -> Self {
        let engine = EngineSettings::default();
        Self {
            memory: Bytes(engine.memory_bytes as u64),
            timeout: Time(engine.timeout),
            rows: Count(engine.rows_max as u64),
            concurrent: Count(engine.concurrent_max as u64),
            session_idle: Time(engine.session_idle),
            cors_origins: Names(Vec::new()),
        }
    }
}

impl Default for PricingConfig {
    fn default() -> Self {
        Self { models: Switch(true), interval: Time(PRICES_INTERVAL) }
    }
}

/// How often price books are looked at: a change is in force before anybody who made it looks.
const PRICES_INTERVAL: Duration = Duration::from_secs(10);
/// An Alertmanager that takes longer is as good as away; Prometheus waits as long.
const ALERTMANAGER_TIMEOUT: Duration = Duration::from_secs(10);

impl Default for AlertingConfig {
    fn default() -> Self {
        let evaluate = EvaluateSettings::default();
        Self {
            interval: Time(evaluate.interval),
            resend_delay: Time(evaluate.resend_delay),
            timeout: Time(ALERTMANAGER_TIMEOUT),
            flush_interval: Time(evaluate.flush_interval),
            external_url: evaluate.external_url,
            learn_slos: Switch(true),
        }
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Config {
    /// Reads the configuration. `flags` are (name, value) pairs that win over everything else.
    ///
    /// # Errors
    /// If the file cannot be read, or a setting is unknown or cannot be what it is.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Self, ConfigError> {
        let mut table = toml::Table::new();
        if let Some(path) = file {
            let read = |source| ConfigError::Read { path: path.to_owned(), source };
            let text = std::fs::read_to_string(path).map_err(read)?;
            let invalid = |error: toml::de::Error| ConfigError::Invalid {
                place: format!("\"{}\"", path.display()),
                message: error.to_string().trim_end().to_owned(),
            };
            // Checked on its own first, so that faults name line and column.
            let _: Self = toml::from_str(&text).map_err(invalid)?;
            table = toml::from_str(&text).map_err(invalid)?;
        }
        for (name, value) in environment {
            let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            if NOT_SETTINGS.contains(&name.as_str()) || name.starts_with("TOOLGAUGE_TEST_") {
                continue;
            }
            set(&mut table, &key.to_lowercase(), value);
            let checked: Result<Self, _> = table.clone().try_into();
            checked.map_err(|error| ConfigError::Invalid { place: name, message: error.message().to_owned() })?;
        }
        for (name, value) in flags {
            set(&mut table, name, value);
        }
        table.try_into().map_err(|error: toml::de::Error| ConfigError::Invalid {
            place: "flags".into(),
            message: error.message().to_owned(),
        })
    }

    /// The settings of the collector, but for the conventions of the user ([`crate::conventions::read`]).
    #[must_use]
    pub fn collector(&self) -> CollectorSettings {
        let wal = WalSettings {
            segment_bytes: self.wal.segment.0,
            digest_horizon_us: self.wal.resend_horizon.as_micros(),
            retain_bytes: self.wal.retain.0,
            queue_bytes: size(self.wal.queue.0),
            group_commit_bytes: size(self.wal.group_commit.0),
            group_commit_wait_us: self.wal.group_commit_wait.as_micros().unsigned_abs(),
            ..WalSettings::default()
        };
        let live = LiveSettings {
            settle_us: self.settle.after.as_micros(),
            younger_bytes_max: self.settle.younger.0,
            remember_us: self.settle.remember.as_micros(),
            remember_rows_max: self.settle.remember_rows.0,
            seen_rows_max: size(self.settle.seen_rows.0),
            arrivals_services_max: size(self.lake.services_per_minute.0),
            ..LiveSettings::default()
        };
        let recognise = RecogniseSettings {
            ahead_max_us: self.recognise.ahead.as_micros(),
            retention_us: self.recognise.retention.as_micros(),
            keep_attributes: self.recognise.keep_attributes.0.clone(),
            keep_attributes_of_successes: self.recognise.keep_attributes_of_successes.0.clone(),
            conventions: Vec::new(),
            ..RecogniseSettings::default()
        };
        let interval_us = self.lake.compact_interval.as_micros().unsigned_abs();
        let compact = CompactSettings {
            merge: interval_us > 0,
            // Old dates go even if nothing is merged.
            interval_us: if interval_us > 0 { interval_us } else { CompactSettings::default().interval_us },
            files_min: size(self.lake.compact_files.0),
            small_bytes: self.lake.compact_below.0,
            small_rows: CompactSettings::default().small_rows,
            target_bytes: self.lake.compact_target.0,
            // A query that runs must not lose its files.
            keep_removed_us: (self.lake.keep_removed.0.max(2 * self.queries.timeout.0)).as_micros() as u64,
            retention_us: recognise.retention_us,
        };
        CollectorSettings {
            wal,
            live,
            recognise,
            commit_rows: self.lake.commit_rows.0,
            commit_interval_us: self.lake.commit_interval.as_micros().unsigned_abs(),
            compact,
            fold: FoldSettings {
                interval_us: self.lake.fold_interval.as_micros(),
                series_max: size(self.lake.series_per_day.0),
                ..FoldSettings::default()
            },
            ..CollectorSettings::new(self.data.clone())
        }
    }

    /// The settings of the doors for exports.
    #[must_use]
    pub fn receiver(&self) -> ReceiverSettings {
        ReceiverSettings {
            request_bytes_max: size(self.receiver.request.0),
            in_flight_bytes_max: size(self.receiver.in_flight.0),
            admission_timeout: self.receiver.admission_timeout.0,
            connections_max: size(self.receiver.connections.0),
            tenant_bytes_per_second: self.receiver.tenant_bytes_per_second.0.try_into().ok(),
            ..ReceiverSettings::default()
        }
    }

    /// The settings of the evaluation of SLOs, for an HTTP API that listens at this address.
    #[must_use]
    pub fn evaluate(&self, http: SocketAddr) -> EvaluateSettings {
        let external_url = match self.alerting.external_url.as_str() {
            "" => format!("http://{http}"),
            url => url.to_owned(),
        };
        EvaluateSettings {
            ownership: std::sync::Arc::default(),
            slos: self.slo.0.iter().map(PathBuf::from).collect(),
            interval: self.alerting.interval.0.max(Duration::from_millis(10)),
            resend_delay: self.alerting.resend_delay.0,
            flush_interval: self.alerting.flush_interval.0,
            external_url,
            ..EvaluateSettings::default()
        }
    }

    /// The settings of the query engine.
    #[must_use]
    pub fn engine(&self) -> EngineSettings {
        EngineSettings {
            memory_bytes: size(self.queries.memory.0),
            spill_folder: Some(self.data.join("spill")),
            timeout: self.queries.timeout.0,
            rows_max: size(self.queries.rows.0),
            concurrent_max: size(self.queries.concurrent.0),
            session_idle: self.queries.session_idle.0,
            ..EngineSettings::default()
        }
    }
}

/// Sets `section_key` or `key`; what is no section is taken as a key, and found to be unknown when the table is read.
fn set(table: &mut toml::Table, name: &str, value: String) {
    const SECTIONS: &[&str] = &["wal", "settle", "lake", "recognise", "receiver", "queries", "alerting", "pricing"];
    let value = toml::Value::String(value);
    match name.split_once('_').filter(|(section, _)| SECTIONS.contains(section)) {
        Some((section, key)) => {
            let section = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let Some(section) = section.as_table_mut() {
                section.insert(key.to_owned(), value);
            }
        }
        None => {
            table.insert(name.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        file: Option<&str>,
        environment: &[(&str, &str)],
        flags: Vec<(&'static str, String)>,
    ) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("toolgauge.toml");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(file.map(|_| path.as_path()), environment, flags)
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn defaults_are_those_of_the_rooms_and_survive_being_written() {
        let config = load(None, &[], vec![]).unwrap();
        assert_eq!(config, Config::default());
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
        assert_eq!(config.collector().live.settle_us, LiveSettings::default().settle_us);
        assert_eq!(config.receiver(), ReceiverSettings::default());
        assert_eq!(config.collector().compact, CompactSettings::default());
    }

    #[test]
    fn files_that_are_not_merged_are_still_dropped_when_they_are_too_old() {
        let file = "[lake]\ncompact_interval = \"0s\"\nkeep_removed = \"1s\"\n[recognise]\nretention = \"30d\"\n";
        let compact = load(Some(file), &[], vec![]).unwrap().collector().compact;
        assert!(!compact.merge && compact.interval_us > 0);
        assert_eq!(compact.retention_us, 30 * 86_400 * 1_000_000);
        assert_eq!(compact.keep_removed_us, 60_000_000, "twice the time of a query");
    }

    #[test]
    fn flags_win_over_environment_and_that_over_the_file() {
        let file = "data = \"a\"\n[wal]\nretain = \"1GiB\"\n[settle]\nafter = \"30s\"\n";
        let environment = [
            ("TOOLGAUGE_WAL_RETAIN", "512MiB"),
            ("TOOLGAUGE_DATA", "b"),
            ("TOOLGAUGE_QUERIES_ROWS", "5"),
            ("TOOLGAUGE_ALERTING_LEARN_SLOS", "false"),
        ];
        let config = load(Some(file), &environment, vec![("data", "c".into())]).unwrap();
        assert_eq!(config.data, PathBuf::from("c"));
        assert_eq!(config.wal.retain, Bytes(512 << 20));
        assert_eq!(config.settle.after, Time(Duration::from_secs(30)));
        assert_eq!(config.queries.rows, Count(5));
        assert_eq!(config.alerting.learn_slos, Switch(false));
        let in_file = load(Some("[alerting]\nlearn_slos = false\n"), &[], vec![]).unwrap();
        assert_eq!(in_file.alerting.learn_slos, Switch(false));
    }

    #[test]
    fn faults_say_where_and_what_may_stand_there() {
        let unknown = load(Some("[wal]\nretian = \"1GiB\"\n"), &[], vec![]).unwrap_err();
        assert!(
            unknown.starts_with("\"FILE\": ") && unknown.contains("line 2") && unknown.contains("`retain`"),
            "{unknown}"
        );
        let size = load(Some("[wal]\nretain = \"1GB\"\n"), &[], vec![]).unwrap_err();
        assert!(size.contains("\"1GB\" is no size (write like \"64MiB\", or a number of bytes)"), "{size}");
        let environment = load(None, &[("TOOLGAUGE_SETTLE_AFTER", "soon")], vec![]).unwrap_err();
        assert!(environment.starts_with("TOOLGAUGE_SETTLE_AFTER: \"soon\" is no duration"), "{environment}");
        let switch = load(None, &[("TOOLGAUGE_ALERTING_LEARN_SLOS", "no")], vec![]).unwrap_err();
        assert!(switch.contains("\"no\" is neither true nor false"), "{switch}");
        let typo = load(None, &[("TOOLGAUGE_DTA", "x")], vec![]).unwrap_err();
        assert!(typo.starts_with("TOOLGAUGE_DTA: unknown field `dta`"), "{typo}");
        let flag = load(None, &[], vec![("http", "4400".into())]).unwrap_err();
        assert!(flag.starts_with("flags: "), "{flag}");
    }
}
