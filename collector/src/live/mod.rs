//! The rows that are not committed yet, and what is decided of them.
//!
//! A pure fold over the log: frame by frame, in order, with the receive times in the log as the only clock. Whatever
//! happens after (publishing, committing, replaying) changes nothing here, so a replay decides the same.
//!
//! ```text
//! frame -> recognise -> dedup -> block of columns        (the row's values)
//!                            \-> group of its trace      (what deciding needs to know of it)
//! later frame -> frames that are old enough settle: their groups are decided, their rows frozen
//! commit      -> settled rows leave, blocks are dropped
//! ```
//!
//! # Limits
//! * A row settles `settle_us` after its receipt, or when `younger_bytes_max` of younger rows stand behind it.
//! * Settled rows are remembered for late relatives: at most `remember_rows_max`, at most `remember_us`. Every bound
//!   is a function of the log alone.
//!
//! # How a decision reaches its row
//! Blocks are finished with the defaults (counted, first attempt, final, weight 1), which is what nearly every row is.
//! Other decisions are kept beside their block and written into its columns when somebody looks ([`decided`]). Then the rows
//! that count get their prices, too, by the book in force; the cost of a committed row is that of its commit.

mod arrived;
mod decided;
mod groups;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use toolgauge_analytics::price::{PriceBook, Pricer};
use toolgauge_analytics::settle::{Context, Decider, Decision, Facts, Link};
use toolgauge_proto::call::Kind;
use toolgauge_proto::id::{RowId, WalPosition};
use toolgauge_proto::time::UnixMicros;

use crate::dedup::SeenRows;
use crate::recognise::{ArrivalSums, CallColumns, FrameInfo, GroupKey, Quarantined, Recogniser, RowSink};
use crate::side_tables;
use arrived::Arrived;
use decided::Block;
use groups::Groups;

/// Memory of a row apart from its texts, in bytes: its columns and what deciding keeps of it. Measured, rounded up.
const ROW_BYTES: u64 = 672;
/// Memory of a link, in bytes.
const LINK_BYTES: u64 = 64;
/// Settled rows of one group that are remembered; a trace without end would otherwise be decided over and over.
const GROUP_REMEMBERED_MAX: usize = 4_096;

/// Settings of the live rows.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// Age at which a row settles, in microseconds.
    pub settle_us: i64,
    /// Memory of younger rows behind a row that makes it settle earlier, in bytes.
    pub younger_bytes_max: u64,
    /// How long settled rows are remembered for late relatives, in microseconds.
    pub remember_us: i64,
    /// How many settled rows are remembered for late relatives.
    pub remember_rows_max: u64,
    /// How many row identities are known to recognise rows that are sent again.
    pub seen_rows_max: usize,
    /// Bytes of the log whose sums of arrivals are committed together, if their minute has not ended before: the log keeps
    /// what has no sums yet.
    pub arrivals_bytes_max: u64,
    /// Services that have sums of arrivals of their own, a minute; others are summed as `__other__`.
    pub arrivals_services_max: usize,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self {
            settle_us: 60 * 1_000_000,
            younger_bytes_max: 192 << 20,
            remember_us: 15 * 60 * 1_000_000,
            remember_rows_max: 250_000,
            // Two tables that are full when they have 2^21 places.
            seen_rows_max: 2 * (7 << 18),
            arrivals_bytes_max: 256 << 20,
            // A row of 20 bytes on the disk for each.
            arrivals_services_max: 10_000,
        }
    }
}

/// A frame of the log, as the fold takes it.
#[derive(Debug, Clone, Copy)]
pub struct LiveFrame<'a> {
    /// Position, receive time, tenant.
    pub info: FrameInfo<'a>,
    /// What it carries.
    pub body: FrameBody<'a>,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy)]
pub enum FrameBody<'a> {
    /// An `ExportTraceServiceRequest`.
    Traces(&'a [u8]),
    /// An `ExportLogsServiceRequest`.
    Logs(&'a [u8]),
    /// Time passes.
    Tick,
}

impl FrameBody<'_> {
    /// Its length.
    const fn bytes(&self) -> u64 {
        match self {
            Self::Traces(body) | Self::Logs(body) => body.len() as u64,
            Self::Tick => 0,
        }
    }
}

/// What a frame left in the groups.
#[derive(Debug)]
struct FrameRows {
    position: WalPosition,
    received: UnixMicros,
    bytes: u64,
    rows: Range<u64>,
    /// Group of each row.
    groups: Vec<u32>,
    /// Group of each link.
    links: Vec<u32>,
}

/// What the live rows have counted, since the start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LiveCounts {
    /// Rows taken.
    pub rows: u64,
    /// Spans and log records looked at.
    pub records: u64,
    /// Rows dropped because their identity was known.
    pub duplicates: u64,
    /// Records refused a place.
    pub quarantined: u64,
    /// Values and records that could not be read.
    pub unreadable: u64,
    /// Rows that settled before their time because of memory.
    pub settled_early: u64,
    /// Settled rows that were forgotten because of their number.
    pub forgotten_early: u64,
    /// Outer views that came after an inner one had settled; they are not counted.
    pub late_views: u64,
    /// Marked retries whose failed attempt had settled, or never came; they begin a logical call.
    pub late_retries: u64,
    /// Times that a service arrived which has no sum of its own in that minute's arrivals.
    pub unnamed_arrivals: u64,
}

/// See the module.
#[derive(Debug)]
pub struct LiveRows {
    settings: LiveSettings,
    recogniser: Arc<Recogniser>,
    seen: SeenRows,
    decider: Decider,
    decisions: Vec<Decision>,

    open: CallColumns,
    open_number: u64,
    blocks: VecDeque<Block>,
    pricer: Pricer,
    next_seq: u64,

    groups: Groups,
    /// Decisions of rows whose block is still open.
    open_decisions: HashMap<u64, Decision>,
    dirty: Vec<u32>,
    unsettled: VecDeque<FrameRows>,
    unsettled_bytes: u64,
    remembered: VecDeque<FrameRows>,
    remembered_rows: u64,
    /// Settled rows whose values an unsettled row takes, with that row.
    pins: BTreeMap<u64, u64>,

    position: WalPosition,
    received: UnixMicros,
    settled: WalPosition,
    settled_seq: u64,
    committed_seq: u64,

    arrived: Arrived,
    quarantine: Vec<Quarantined>,
    counts: LiveCounts,
}

/// The rows that can be committed now.
#[derive(Debug, Default)]
pub struct Settled {
    /// Decided rows of `calls`, in the order of the log.
    pub calls: Vec<RecordBatch>,
    /// Up to where they are complete.
    pub calls_up_to: WalPosition,
    /// One past the last of them; hand it to [`LiveRows::committed`].
    pub calls_seq_end: u64,
    /// Sums of what has arrived.
    pub arrivals: Option<RecordBatch>,
    /// Up to where they are complete.
    pub arrivals_up_to: WalPosition,
    /// Refused records.
    pub quarantine: Option<RecordBatch>,
    /// Up to where they are complete.
    pub quarantine_up_to: WalPosition,
    /// Receive time of the newest frame.
    pub received: UnixMicros,
}

/// The live rows as readers see them.
#[derive(Debug, Clone)]
pub struct LiveView {
    /// Rows of `calls` after the committed ones.
    pub calls: Arc<[RecordBatch]>,
    /// Sums after the committed ones.
    pub arrivals: Arc<[RecordBatch]>,
    /// Refused records after the committed ones.
    pub quarantine: Arc<[RecordBatch]>,
    /// The last frame that is counted.
    pub position: WalPosition,
    /// The last frame whose rows are decided for good.
    pub settled: WalPosition,
    /// Its receive time.
    pub received: UnixMicros,
}

impl LiveRows {
    /// No rows yet.
    #[must_use]
    pub fn new(settings: LiveSettings, recogniser: Arc<Recogniser>) -> Self {
        // The heartbeat has a key as well.
        let arrived = Arrived::new(settings.arrivals_services_max.saturating_add(1));
        Self {
            seen: SeenRows::new(settings.seen_rows_max),
            settings,
            recogniser,
            decider: Decider::default(),
            decisions: Vec::new(),
            open: CallColumns::default(),
            open_number: 0,
            blocks: VecDeque::new(),
            pricer: Pricer::new(Arc::default()),
            next_seq: 0,
            groups: Groups::default(),
            open_decisions: HashMap::new(),
            dirty: Vec::new(),
            unsettled: VecDeque::new(),
            unsettled_bytes: 0,
            remembered: VecDeque::new(),
            remembered_rows: 0,
            pins: BTreeMap::new(),
            position: WalPosition(0),
            received: UnixMicros(0),
            settled: WalPosition(0),
            settled_seq: 0,
            committed_seq: 0,
            arrived,
            quarantine: Vec::new(),
            counts: LiveCounts::default(),
        }
    }

    /// Makes known identities of rows that were committed before the log begins. Only before the first frame.
    pub fn remember_identities(&mut self, ids: impl IntoIterator<Item = RowId>) {
        for id in ids {
            self.seen.insert(id);
        }
    }

    /// From now on, calls without a reported cost cost what this book says, those included that are here already. What was
    /// committed stays as it is.
    pub fn set_prices(&mut self, book: Arc<PriceBook>) {
        self.pricer = Pricer::new(book);
        self.blocks.iter_mut().for_each(Block::forget_prices);
    }

    /// The book in force.
    #[must_use]
    pub fn prices(&self) -> &Arc<PriceBook> {
        self.pricer.book()
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// If columns do not fit their schema, which is a fault of the program.
    pub fn apply(&mut self, frame: LiveFrame<'_>) -> Result<(), ArrowError> {
        let LiveFrame { info, body } = frame;
        self.settle_before(info.received);
        if info.received.minute() != self.received.minute() || self.arrived.bytes() >= self.settings.arrivals_bytes_max
        {
            self.arrived.cut(self.position);
        }
        self.position = info.position;
        self.received = info.received;
        self.arrived.begin(info.received.minute(), body.bytes());

        let recogniser = Arc::clone(&self.recogniser);
        let first_seq = self.next_seq;
        let mut sink = FrameSink {
            live: self,
            tenant: info.tenant,
            frame: FrameRows {
                position: info.position,
                received: info.received,
                bytes: 0,
                rows: first_seq..first_seq,
                groups: Vec::new(),
                links: Vec::new(),
            },
            fault: None,
        };
        match body {
            FrameBody::Traces(body) => recogniser.traces(info, body, &mut sink),
            FrameBody::Logs(body) => recogniser.logs(info, body, &mut sink),
            FrameBody::Tick => {}
        }
        let FrameSink { mut frame, fault, .. } = sink;
        if let Some(fault) = fault {
            return Err(fault);
        }
        frame.rows.end = self.next_seq;
        frame.bytes += (frame.rows.end - frame.rows.start) * ROW_BYTES + frame.links.len() as u64 * LINK_BYTES;
        self.unsettled_bytes += frame.bytes;
        self.unsettled.push_back(frame);
        self.settle_before(info.received);
        self.forget();
        Ok(())
    }

    /// Settles the frames that are old enough at this time, or that have too much behind them.
    fn settle_before(&mut self, now: UnixMicros) {
        while let Some(oldest) = self.unsettled.front() {
            let of_age = oldest.received.0.saturating_add(self.settings.settle_us) <= now.0;
            let crowded = self.unsettled_bytes - oldest.bytes > self.settings.younger_bytes_max;
            if !of_age && !crowded {
                break;
            }
            let Some(frame) = self.unsettled.pop_front() else { break };
            if !of_age {
                self.counts.settled_early += frame.rows.end - frame.rows.start;
            }
            self.unsettled_bytes -= frame.bytes;
            self.settle(frame);
        }
    }

    fn settle(&mut self, mut frame: FrameRows) {
        let mut groups = frame.groups.clone();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            // All of the frame's rows of a group are frozen by what is known now.
            self.decide(group);
            self.freeze(group, &frame.rows);
        }
        self.settled = frame.position;
        self.settled_seq = frame.rows.end;
        if !self.pins.is_empty() {
            let settled_seq = self.settled_seq;
            self.pins.retain(|_, taker| *taker >= settled_seq);
        }
        // Links of traces that have no call are of no use to anybody.
        frame.links.retain(|group| {
            let kept = self.groups.has_rows(*group);
            if !kept {
                self.groups.forget_link(*group);
            }
            kept
        });
        self.remembered_rows += frame.rows.end - frame.rows.start + frame.links.len() as u64;
        self.remembered.push_back(frame);
    }

    /// Decides a group anew and keeps the decisions beside their blocks; `self.decisions` belongs to its rows then.
    fn decide(&mut self, group: u32) {
        let (rows, links) = self.groups.rows_and_links(group);
        self.decider.decide(rows, links, self.settings.settle_us.saturating_mul(1_000), &mut self.decisions);
        let mut special = self.groups.is_special(group);
        let mut any = false;
        for (row, decision) in rows.iter().zip(&mut self.decisions) {
            if row.frozen.is_some() {
                continue;
            }
            // The values of a settled row can be taken only while somebody holds on to them.
            let settled_seq = self.settled_seq;
            let pins = &mut self.pins;
            let mut available = |source: &u64| {
                *source >= settled_seq
                    || pins.get_mut(source).map(|taker| *taker = (*taker).max(row.facts.seq)).is_some()
            };
            decision.nulls_from.retain(|source| available(source));
            if decision.error_from.as_ref().is_some_and(|source| !available(source)) {
                decision.error_from = None;
                decision.failed = row.facts.failed;
            }
            decision.context = decision.context.take().and_then(|mut context| {
                let Context { session_from, user_from, agent_from } = &mut *context;
                let mut any = false;
                for source in [session_from, user_from, agent_from] {
                    *source = source.filter(&mut available);
                    any |= source.is_some();
                }
                any.then_some(context)
            });
            let default = is_default(decision);
            any |= !default;
            if default && !special {
                continue;
            }
            special = true;
            let seq = row.facts.seq;
            match block_of(&mut self.blocks, seq) {
                Some(block) => block.decide(seq, (!default).then(|| decision.clone())),
                None if default => drop(self.open_decisions.remove(&seq)),
                None => drop(self.open_decisions.insert(seq, decision.clone())),
            }
        }
        self.groups.decided(group, any || special);
    }

    /// Freezes the rows of a group that are in a frame, as they were just decided.
    fn freeze(&mut self, group: u32, frame: &Range<u64>) {
        let frozen = self.groups.freeze(group, frame, &self.decisions);
        let rows = self.groups.rows_and_links(group).0;
        for (row, decision) in rows[frozen.clone()].iter().zip(&self.decisions[frozen]) {
            let alone = decision.view_of.is_none() && decision.pair.is_none();
            // An outer view is uncounted only if an inner one was counted and settled before it came.
            self.counts.late_views += u64::from(row.facts.kind == Kind::Tool && !decision.counted && alone);
            self.counts.late_retries += u64::from(decision.attempt > 1 && decision.retry_of.is_none());
        }
        if self.groups.is_special(group) {
            // Whoever is not settled and takes values of these rows keeps them here until it settles itself.
            for (row, decision) in rows.iter().zip(&self.decisions).filter(|(row, _)| row.frozen.is_none()) {
                for source in sources(decision).filter(|source| frame.contains(source)) {
                    let taker = self.pins.entry(source).or_insert(row.facts.seq);
                    *taker = (*taker).max(row.facts.seq);
                }
            }
        }
        while self.groups.frozen_rows(group) > GROUP_REMEMBERED_MAX {
            self.groups.forget_row_ahead(group);
        }
    }

    /// Forgets settled rows that are too old or too many.
    fn forget(&mut self) {
        while let Some(oldest) = self.remembered.front() {
            let of_age = oldest.received.0.saturating_add(self.settings.remember_us) <= self.received.0;
            let crowded = self.remembered_rows > self.settings.remember_rows_max;
            if !of_age && !crowded {
                break;
            }
            let Some(frame) = self.remembered.pop_front() else { break };
            if !of_age {
                self.counts.forgotten_early += frame.rows.end - frame.rows.start;
            }
            self.remembered_rows -= frame.rows.end - frame.rows.start + frame.links.len() as u64;
            for group in &frame.groups {
                self.groups.forget_row(*group);
            }
            for group in &frame.links {
                self.groups.forget_link(*group);
            }
        }
    }

    /// Finishes the open block, so that its rows can be read.
    fn seal(&mut self) -> Result<(), ArrowError> {
        if self.open.rows() == 0 {
            return Ok(());
        }
        let first = self.next_seq - self.open.rows() as u64;
        let mut block = Block::new(first, self.open.finish()?);
        for (seq, decision) in std::mem::take(&mut self.open_decisions) {
            block.decide(seq, Some(decision));
        }
        self.blocks.push_back(block);
        self.open_number += 1;
        Ok(())
    }

    fn decide_dirty(&mut self) {
        for group in std::mem::take(&mut self.dirty) {
            if self.groups.is_dirty(group) {
                self.decide(group);
            }
        }
    }

    /// The rows from `seq` on, decided, before `end`.
    fn rows(&mut self, range: Range<u64>) -> Result<Vec<RecordBatch>, ArrowError> {
        decided::batches(&mut self.blocks, range, &mut self.pricer)
    }

    /// What readers see.
    ///
    /// # Errors
    /// If columns do not fit their schema, which is a fault of the program.
    pub fn view(&mut self) -> Result<LiveView, ArrowError> {
        self.decide_dirty();
        self.seal()?;
        let calls = self.rows(self.committed_seq..self.next_seq)?;
        let arrivals = side_tables::arrivals(self.arrived.all())?;
        let quarantine = side_tables::quarantine(&self.quarantine)?;
        Ok(LiveView {
            calls: calls.into(),
            arrivals: arrivals.into_iter().collect(),
            quarantine: quarantine.into_iter().collect(),
            position: self.position,
            settled: self.settled,
            received: self.received,
        })
    }

    /// The rows that can be committed now.
    ///
    /// # Errors
    /// If columns do not fit their schema, which is a fault of the program.
    pub fn settled(&mut self) -> Result<Settled, ArrowError> {
        if self.committed_seq < self.settled_seq {
            // Also if none of the open block has settled: settled rows may take values from its rows.
            self.decide_dirty();
            self.seal()?;
        }
        Ok(Settled {
            calls: self.rows(self.committed_seq..self.settled_seq)?,
            calls_up_to: self.settled,
            calls_seq_end: self.settled_seq,
            arrivals: side_tables::arrivals(self.arrived.complete())?,
            arrivals_up_to: self.arrived.complete_up_to(),
            quarantine: side_tables::quarantine(&self.quarantine)?,
            quarantine_up_to: self.position,
            received: self.received,
        })
    }

    /// The rows before `calls_seq_end` are committed and leave.
    pub fn committed_calls(&mut self, calls_seq_end: u64) {
        self.committed_seq = self.committed_seq.max(calls_seq_end);
        let pins = &self.pins;
        // A replay knows rows to be committed before it has come to the frame that settles them.
        let gone = self.committed_seq.min(self.settled_seq);
        self.blocks.retain(|block| {
            let range = block.range();
            range.end > gone || pins.range(range).next().is_some()
        });
    }

    /// The frames up to here are in the table `arrivals`.
    pub fn committed_arrivals(&mut self, up_to: WalPosition) {
        self.arrived.committed(up_to);
    }

    /// The refused records of frames up to here are in the table `quarantine`.
    pub fn committed_quarantine(&mut self, up_to: WalPosition) {
        self.quarantine.retain(|record| record.position > up_to);
    }

    /// The last frame taken.
    #[must_use]
    pub fn position(&self) -> WalPosition {
        self.position
    }

    /// Receive time of the last frame taken.
    #[must_use]
    pub fn received(&self) -> UnixMicros {
        self.received
    }

    /// The last frame whose rows are decided for good.
    #[must_use]
    pub fn settled_position(&self) -> WalPosition {
        self.settled
    }

    /// Rows that are decided for good and wait to be committed.
    #[must_use]
    pub fn settled_rows(&self) -> u64 {
        self.settled_seq.saturating_sub(self.committed_seq)
    }

    /// The frame of the oldest record that waits to be committed to `quarantine`.
    #[must_use]
    pub fn first_quarantined(&self) -> Option<WalPosition> {
        self.quarantine.first().map(|record| record.position)
    }

    /// Rows that are not committed.
    #[must_use]
    pub fn live_rows(&self) -> u64 {
        self.next_seq - self.committed_seq
    }

    /// Their memory, in bytes, as the limits count it.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.unsettled_bytes + self.settled_rows() * ROW_BYTES
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counts(&self) -> LiveCounts {
        self.counts
    }

    /// Row identities that fell out of memory.
    #[must_use]
    pub fn forgotten_identities(&self) -> u64 {
        self.seen.forgotten()
    }

    /// After each frame of a replay: what the tables have already is not kept to be committed again. The rows of
    /// frames up to `calls` were taken only so that their relatives know them.
    pub fn discard_committed(&mut self, calls: WalPosition, arrivals: WalPosition, quarantine: WalPosition) {
        let seq_end = if self.position <= calls { self.next_seq } else { self.committed_seq };
        self.committed_calls(seq_end);
        if self.position <= arrivals {
            self.arrived.clear();
        }
        self.committed_quarantine(quarantine);
    }
}

/// The rows whose values a row takes.
fn sources(decision: &Decision) -> impl Iterator<Item = u64> {
    let context = decision.context.as_deref().copied().unwrap_or_default();
    let Context { session_from, user_from, agent_from } = context;
    let errors = [decision.error_from, session_from, user_from, agent_from];
    decision.nulls_from.iter().copied().chain(errors.into_iter().flatten())
}

fn is_default(decision: &Decision) -> bool {
    decision.counted
        && decision.attempt == 1
        && decision.is_final
        && decision.error_from.is_none()
        && decision.nulls_from.is_empty()
        && decision.context.is_none()
        && decision.threshold == toolgauge_analytics::settle::NO_THRESHOLD
}

fn block_of(blocks: &mut VecDeque<Block>, seq: u64) -> Option<&mut Block> {
    let index = blocks.partition_point(|block| block.range().end <= seq);
    blocks.get_mut(index).filter(|block| block.range().contains(&seq))
}

/// Takes what is recognised in one frame.
struct FrameSink<'l, 't> {
    live: &'l mut LiveRows,
    tenant: &'t str,
    frame: FrameRows,
    fault: Option<ArrowError>,
}

impl RowSink for FrameSink<'_, '_> {
    fn is_new(&mut self, row_id: RowId) -> bool {
        self.live.seen.insert(row_id)
    }

    fn announce(&mut self, row_ids: impl Iterator<Item = RowId>) {
        self.live.seen.announce(row_ids);
    }

    fn columns(&mut self) -> &mut CallColumns {
        &mut self.live.open
    }

    fn block_number(&self) -> u64 {
        self.live.open_number
    }

    fn row(&mut self, group: GroupKey, mut facts: Facts) {
        facts.seq = self.live.next_seq;
        self.live.next_seq += 1;
        self.frame.bytes += self.live.open.take_text_bytes();
        let (group, became_dirty) = self.live.groups.add_row(group, facts);
        if became_dirty {
            self.live.dirty.push(group);
        }
        self.frame.groups.push(group);
        if self.live.open.is_full()
            && let Err(fault) = self.live.seal()
        {
            self.fault = Some(fault);
        }
    }

    fn link(&mut self, group: GroupKey, link: Link) {
        let (group, became_dirty) = self.live.groups.add_link(group, link);
        if became_dirty {
            self.live.dirty.push(group);
        }
        self.frame.links.push(group);
    }

    fn quarantine(&mut self, record: Quarantined) {
        self.live.quarantine.push(record);
    }

    fn arrived(&mut self, service_name: Option<&str>, sums: &ArrivalSums) {
        let counts = &mut self.live.counts;
        counts.rows += sums.calls.unsigned_abs();
        counts.records += (sums.spans + sums.log_records).unsigned_abs();
        counts.duplicates += sums.duplicates.unsigned_abs();
        counts.quarantined += sums.quarantined.unsigned_abs();
        counts.unreadable += sums.unreadable.unsigned_abs();
        let minute = self.frame.received.minute();
        let key = (minute, Some((self.tenant.to_owned(), service_name.map(str::to_owned))));
        let named = self.live.arrived.add(key, sums);
        self.live.counts.unnamed_arrivals += u64::from(!named);
    }
}
