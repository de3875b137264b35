//! What stands around a record: its resource and scope, and what the records before it said.

use std::borrow::Cow;
use std::sync::Arc;

use toolgauge_analytics::ownership::Ownership;
use toolgauge_proto::id::{RowId, SpanId, TraceId};
use toolgauge_proto::otlp::{AnyValueView, SpanView};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{ArrivalSums, CallColumns, FrameInfo, NULL_WORD, TEXT_BYTES_MAX, WORD_BYTES_MAX, failure, hash_of, value};

/// Tools of one origin whose teams are kept.
const TEAMS_MAX: usize = 64;

/// What the resource of the record at hand gives to its rows.
pub(super) struct Origin<'a, 'f> {
    pub(super) frame: FrameInfo<'f>,
    pub(super) tenant_seed: u64,
    pub(super) service_name: Option<Cow<'a, str>>,
    pub(super) service_version: Option<Cow<'a, str>>,
    pub(super) environment: Option<Cow<'a, str>>,
    pub(super) resource_hash: u64,
    pub(super) scope_hash: u64,
    pub(super) scope_name: &'a [u8],
    /// Hash of that name, 0 if it has none.
    pub(super) source: u64,
    pub(super) sums: ArrivalSums,
    pub(super) keys: Option<(u64, OriginKeys)>,
    /// Whose the tools are, if that is known.
    pub(super) ownership: Option<Arc<Ownership>>,
    /// Teams that were looked up for a block.
    pub(super) teams: (u64, Vec<TeamOf>),
    pub(super) last_session: LastText<'a>,
    pub(super) last_user: LastText<'a>,
}

/// Hashes of a tool and its server, and the word of the team that owns it.
type TeamOf = ((u64, u64), u16);

#[derive(Clone, Copy)]
pub(super) struct OriginKeys {
    pub(super) tenant: u16,
    pub(super) service_name: u16,
    pub(super) service_version: u16,
    pub(super) environment: u16,
}

impl<'a> Origin<'a, '_> {
    /// The identity of the row that a span may become, if it has ids: a hash of the tenant and the trace, then the span's id, which is
    /// random itself. So rows of one trace share a half, and take half the room in a file.
    #[inline]
    pub(super) fn row_id(&self, span: &SpanView<'a>) -> Option<RowId> {
        let trace = TraceId::from_slice(span.trace_id)?;
        let mut identity = [0; 16];
        identity[..8].copy_from_slice(&xxh3_64_with_seed(trace.as_bytes(), self.tenant_seed).to_be_bytes());
        identity[8..].copy_from_slice(SpanId::from_slice(span.span_id)?.as_bytes());
        Some(RowId::from_bytes(identity))
    }

    pub(super) fn begin_scope(&mut self, name: &'a [u8]) {
        self.scope_name = name;
        self.source = if name.is_empty() { 0 } else { hash_of(name) };
    }

    pub(super) fn keys(&mut self, block: u64, columns: &mut CallColumns) -> OriginKeys {
        if let Some((of_block, keys)) = self.keys
            && of_block == block
        {
            return keys;
        }
        let keys = OriginKeys {
            tenant: columns.tenant.key(self.frame.tenant),
            service_name: self.service_name.as_deref().map_or(NULL_WORD, |word| columns.service_name.key(word)),
            service_version: self
                .service_version
                .as_deref()
                .map_or(NULL_WORD, |word| columns.service_version.key(word)),
            environment: self.environment.as_deref().map_or(NULL_WORD, |word| columns.environment.key(word)),
        };
        self.keys = Some((block, keys));
        keys
    }

    /// The team that owns a tool of this service, given the hashes of server and tool and what tells them; a word of this block.
    pub(super) fn team(
        &mut self,
        block: u64,
        hashes: (u64, u64),
        told: [Option<&AnyValueView<'_>>; 2],
        columns: &mut CallColumns,
    ) -> u16 {
        let Some(ownership) = &self.ownership else { return NULL_WORD };
        let (of_block, teams) = &mut self.teams;
        if *of_block != block || teams.len() >= TEAMS_MAX {
            *of_block = block;
            teams.clear();
        }
        if let Some((_, team)) = teams.iter().find(|(known, _)| *known == hashes) {
            return *team;
        }
        let [server, tool] = told.map(|value| {
            // What cannot be read was counted when the name itself was.
            value
                .and_then(|value| value::text(value, WORD_BYTES_MAX, &mut 0))
                .map(|text| failure::mask(text).into_owned())
        });
        let owner = ownership.owner(self.service_name.as_deref(), server.as_deref(), tool.as_deref());
        let team = owner.map_or(NULL_WORD, |owner| columns.team.key(&owner.team));
        teams.push((hashes, team));
        team
    }
}

/// A text as it was read last: the records of a trace have the same session and user.
#[derive(Default)]
pub(super) struct LastText<'a> {
    /// The bytes that were read, if all of them could be.
    said: &'a [u8],
    pub(super) masked: Cow<'a, str>,
    /// Of what is masked.
    pub(super) hash: u64,
}

impl<'a> LastText<'a> {
    /// The text of a value, read anew only if it is another one.
    pub(super) fn read(&mut self, value: &AnyValueView<'a>, unreadable: &mut i64) -> Option<&Self> {
        if !self.is(value) {
            let mut bad = 0;
            let text = value::text(value, TEXT_BYTES_MAX, &mut bad);
            *unreadable += bad;
            let said = match value {
                // What cannot be read is counted each time.
                AnyValueView::String(bytes) if bad == 0 => bytes,
                _ => &[][..],
            };
            let masked = failure::mask(text?);
            let hash = hash_of(masked.as_bytes());
            *self = Self { said, masked, hash };
        }
        Some(self)
    }

    #[inline]
    fn is(&self, value: &AnyValueView<'_>) -> bool {
        matches!(value, AnyValueView::String(bytes) if !bytes.is_empty() && *bytes == self.said)
    }
}
