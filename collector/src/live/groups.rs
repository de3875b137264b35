//! The rows and links of each trace (or session), as deciding wants them.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashTable;
use toolgauge_analytics::settle::{Decision, Facts, Link, Row};

use crate::recognise::GroupKey;

/// See the module. Groups are named by their place in a slab, which is used again when a group is empty.
#[derive(Debug, Default)]
pub(super) struct Groups {
    index: HashTable<(GroupKey, u32)>,
    slab: Vec<Group>,
    free: Vec<u32>,
    last: Option<(GroupKey, u32)>,
    /// The decision that was frozen last: most are the same.
    alike: Option<Arc<Decision>>,
}

#[derive(Debug, Default)]
struct Group {
    key: GroupKey,
    /// In the order of the log.
    rows: Fifo<Row>,
    links: Fifo<Link>,
    frozen: usize,
    /// Rows that were forgotten before their frame was.
    forgotten_ahead: usize,
    dirty: bool,
    /// Some row was once decided otherwise than by default.
    special: bool,
}

/// Rows and links of an empty group for which there is memory.
const KEPT_CAPACITY: usize = 8;

/// A queue that is one slice.
#[derive(Debug)]
struct Fifo<T> {
    items: Vec<T>,
    gone: usize,
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self { items: Vec::new(), gone: 0 }
    }
}

impl<T> Fifo<T> {
    fn as_slice(&self) -> &[T] {
        &self.items[self.gone..]
    }

    /// Forgets everything, and keeps the memory of as many as most groups have.
    fn clear(&mut self) {
        self.items.clear();
        self.items.shrink_to(KEPT_CAPACITY);
        self.gone = 0;
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.items[self.gone..]
    }

    /// Moves what is left only when half is gone, so that emptying a long queue is not quadratic.
    fn pop_front(&mut self) {
        self.gone += 1;
        if self.gone * 2 > self.items.len() {
            self.items.drain(..self.gone);
            self.gone = 0;
        }
    }
}

/// The key is a hash already.
fn hash(key: &GroupKey) -> u64 {
    key.0 as u64
}

impl Groups {
    fn entry(&mut self, key: GroupKey) -> u32 {
        if let Some((last, group)) = self.last
            && last == key
        {
            return group;
        }
        let hash_of_key = hash(&key);
        let group = if let Some((_, group)) = self.index.find(hash_of_key, |(other, _)| *other == key) {
            *group
        } else {
            let group = self.free.pop().unwrap_or_else(|| {
                self.slab.push(Group::default());
                (self.slab.len() - 1) as u32
            });
            self.slab[group as usize].key = key;
            self.index.insert_unique(hash_of_key, (key, group), |(key, _)| hash(key));
            group
        };
        self.last = Some((key, group));
        group
    }

    /// Adds a row; true if the group was not dirty before.
    pub(super) fn add_row(&mut self, key: GroupKey, facts: Facts) -> (u32, bool) {
        let group = self.entry(key);
        let slot = &mut self.slab[group as usize];
        slot.rows.items.push(Row { facts, frozen: None });
        (group, !std::mem::replace(&mut slot.dirty, true))
    }

    /// Adds a link; true if the group has rows and was not dirty before.
    pub(super) fn add_link(&mut self, key: GroupKey, link: Link) -> (u32, bool) {
        let group = self.entry(key);
        let slot = &mut self.slab[group as usize];
        slot.links.items.push(link);
        let first = !slot.rows.as_slice().is_empty() && !slot.dirty;
        slot.dirty |= first;
        (group, first)
    }

    pub(super) fn rows_and_links(&self, group: u32) -> (&[Row], &[Link]) {
        let group = &self.slab[group as usize];
        (group.rows.as_slice(), group.links.as_slice())
    }

    pub(super) fn has_rows(&self, group: u32) -> bool {
        !self.slab[group as usize].rows.as_slice().is_empty()
    }

    pub(super) fn is_dirty(&self, group: u32) -> bool {
        self.slab[group as usize].dirty
    }

    pub(super) fn is_special(&self, group: u32) -> bool {
        self.slab[group as usize].special
    }

    pub(super) fn decided(&mut self, group: u32, special: bool) {
        let group = &mut self.slab[group as usize];
        group.dirty = false;
        group.special = special;
    }

    /// Freezes the rows of a group whose numbers are in the range, by the decisions at their places; gives the places.
    pub(super) fn freeze(&mut self, group: u32, seqs: &Range<u64>, decisions: &[Decision]) -> Range<usize> {
        let group = &mut self.slab[group as usize];
        let rows = group.rows.as_mut_slice();
        let from = rows.partition_point(|row| row.facts.seq < seqs.start);
        let to = rows.partition_point(|row| row.facts.seq < seqs.end);
        for (row, decision) in rows[from..to].iter_mut().zip(&decisions[from..to]) {
            let shared = self.alike.as_ref().filter(|alike| ***alike == *decision).map(Arc::clone);
            row.frozen = Some(shared.unwrap_or_else(|| Arc::clone(self.alike.insert(Arc::new(decision.clone())))));
        }
        group.frozen += to - from;
        from..to
    }

    pub(super) fn frozen_rows(&self, group: u32) -> usize {
        self.slab[group as usize].frozen
    }

    /// Forgets the oldest row of a group, which is settled, before its frame is forgotten.
    pub(super) fn forget_row_ahead(&mut self, group: u32) {
        let group = &mut self.slab[group as usize];
        group.rows.pop_front();
        group.frozen -= 1;
        group.forgotten_ahead += 1;
    }

    /// Forgets the oldest row of a group, which is settled.
    pub(super) fn forget_row(&mut self, group: u32) {
        let slot = &mut self.slab[group as usize];
        if slot.forgotten_ahead > 0 {
            slot.forgotten_ahead -= 1;
        } else if !slot.rows.as_slice().is_empty() {
            slot.rows.pop_front();
            slot.frozen = slot.frozen.saturating_sub(1);
        }
        self.release(group);
    }

    /// Forgets the oldest link of a group.
    pub(super) fn forget_link(&mut self, group: u32) {
        let slot = &mut self.slab[group as usize];
        if !slot.links.as_slice().is_empty() {
            slot.links.pop_front();
        }
        self.release(group);
    }

    fn release(&mut self, group: u32) {
        let slot = &mut self.slab[group as usize];
        if !slot.rows.as_slice().is_empty() || !slot.links.as_slice().is_empty() || slot.forgotten_ahead > 0 {
            return;
        }
        let key = slot.key;
        slot.rows.clear();
        slot.links.clear();
        (slot.frozen, slot.dirty, slot.special) = (0, false, false);
        if let Ok(entry) = self.index.find_entry(hash(&key), |(other, _)| *other == key) {
            entry.remove();
            self.free.push(group);
        }
        if self.last.is_some_and(|(last, _)| last == key) {
            self.last = None;
        }
    }
}
