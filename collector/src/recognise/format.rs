//! The files in which conventions are written; [`super::convention`] makes rules of them.
//!
//! Every table refuses keys that it does not know, so that a slip of the pen is a fault with line and column and not
//! a rule that never applies.

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConvention {
    /// What the column `convention` says.
    pub(super) name: String,
    /// The convention whose `[fields]` stand in for those that are not given here, and whose classes come after these.
    pub(super) fields_from: Option<String>,
    /// `input_tokens` are without those read from and written to a cache; if not given, as the one says that `fields_from` names.
    pub(super) input_excludes_cache: Option<bool>,
    #[serde(default)]
    pub(super) fields: RawFields,
    /// When a recognised record failed, for rules that do not say so themselves.
    #[serde(default)]
    pub(super) failed: Vec<RawCondition>,
    /// Classes of failures that the general table cannot know, for rules that do not say so themselves.
    #[serde(default)]
    pub(super) class: Vec<RawClass>,
    #[serde(default)]
    pub(super) rule: Vec<RawRule>,
}

/// One `[[rule]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    /// What `why` calls it.
    pub(super) name: Option<String>,
    /// `tool`, `model`, `agent`, or `none`: what it recognises is no call, and no later rule is asked.
    pub(super) kind: String,
    /// `span`, `log` or `span_event`.
    pub(super) signal: String,
    /// `agent`, `client`, `server`.
    pub(super) layer: Option<String>,
    pub(super) all: Vec<RawCondition>,
    #[serde(default)]
    pub(super) none: Vec<RawCondition>,
    pub(super) failed: Option<Vec<RawCondition>>,
    pub(super) class: Option<Vec<RawClass>>,
    #[serde(default)]
    pub(super) fields: RawFields,
    /// `trace` (default) or `session`: with what the relatives of its rows share.
    pub(super) related_by: Option<String>,
    /// The record tells that a call was asked for: it counts if another one tells that it was carried out.
    #[serde(default)]
    pub(super) asked: bool,
}

/// `{ when = CONDITION, is = "CLASS" }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClass {
    pub(super) when: RawCondition,
    pub(super) is: String,
}

/// A condition; which keys go together is checked when it is compiled.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCondition {
    pub(super) key: Option<String>,
    pub(super) json: Option<String>,
    pub(super) is: Option<Vec<String>>,
    pub(super) is_not: Option<Vec<String>>,
    pub(super) starts_with: Option<Vec<String>>,
    pub(super) at_least: Option<f64>,
    pub(super) span_kind: Option<Vec<String>>,
    pub(super) span_name: Option<Vec<String>>,
    pub(super) span_name_starts_with: Option<Vec<String>>,
    pub(super) status: Option<String>,
    pub(super) event: Option<Vec<String>>,
    pub(super) event_starts_with: Option<Vec<String>>,
    pub(super) scope: Option<Vec<String>>,
    pub(super) scope_starts_with: Option<Vec<String>>,
    pub(super) span_event: Option<Vec<String>>,
    pub(super) any: Option<Vec<RawCondition>>,
    pub(super) all: Option<Vec<RawCondition>>,
}

/// Where a field is read: `"KEY"`, or a table.
#[derive(Debug, Clone)]
pub(super) enum RawSource {
    Key(String),
    Table(RawSourceTable),
}

/// A source that is more than a key.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSourceTable {
    pub(super) key: Option<String>,
    pub(super) json: Option<String>,
    pub(super) after: Option<String>,
    #[serde(default)]
    pub(super) not: Vec<String>,
    pub(super) add: Option<i64>,
    pub(super) exponent: Option<i32>,
    pub(super) span_name_after: Option<String>,
    pub(super) until: Option<String>,
    pub(super) value: Option<String>,
}

impl<'de> Deserialize<'de> for RawSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SourceVisitor;

        impl<'de> Visitor<'de> for SourceVisitor {
            type Value = RawSource;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the key of an attribute, or a table like { key = \"...\", json = \"...\" }")
            }

            fn visit_str<E>(self, key: &str) -> Result<RawSource, E> {
                Ok(RawSource::Key(key.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawSource, A::Error> {
                RawSourceTable::deserialize(MapAccessDeserializer::new(map)).map(RawSource::Table)
            }
        }

        deserializer.deserialize_any(SourceVisitor)
    }
}

macro_rules! fields {
    ($($field:ident => $name:ident),+ $(,)?) => {
        /// What a rule can say the place of.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub(crate) enum Field { $($field),+ }

        /// Number of fields.
        pub(crate) const FIELDS: usize = [$(Field::$field),+].len();

        /// All of them, in order.
        pub(crate) const ALL_FIELDS: [Field; FIELDS] = [$(Field::$field),+];

        impl Field {
            /// As it is written in a convention.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$field => stringify!($name)),+ }
            }
        }

        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct RawFields { $(#[serde(default)] $name: Option<Vec<RawSource>>),+ }

        impl RawFields {
            pub(super) fn get(&self, field: Field) -> Option<&Vec<RawSource>> {
                match field { $(Field::$field => self.$name.as_ref()),+ }
            }
        }
    };
}

fields!(
    ToolName => tool_name, ToolType => tool_type, ToolServer => tool_server, AgentName => agent_name,
    SessionId => session_id, TransportSessionId => transport_session_id, UserId => user_id, Team => team, Model => model, CallId => call_id,
    Arguments => arguments, Result => result, ErrorType => error_type, ErrorMessage => error_message,
    StatusCode => status_code, ResendCount => resend_count, Attempt => attempt, AsksRetry => asks_retry,
    FallbackLevel => fallback_level, CircuitState => circuit_state, SideEffect => side_effect,
    InputTokens => input_tokens, OutputTokens => output_tokens, CachedInputTokens => cached_input_tokens,
    ReasoningTokens => reasoning_tokens, InputBytes => input_bytes, OutputBytes => output_bytes,
    CostUsd => cost_usd, DurationMs => duration_ms, Provider => provider,
    CacheWriteInputTokens => cache_write_input_tokens, InputCostUsd => input_cost_usd, OutputCostUsd => output_cost_usd,
);
