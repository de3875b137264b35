//! One SLO of a document with what is watched of it: itself, or its groups.
//!
//! Groups are taken in the order of the log ([`crate::slo::group`]). Those of settled rows are kept for good: their rows in `slo_1m` say that they
//! are there. Groups that only live rows have are provisional: they take the places that settled ones leave free, in the same order, and are
//! looked at anew in each evaluation.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::id::WalPosition;

use super::alerts::AlertId;
use super::backfill::Progress;
use super::history::Revision;
use super::round::Backfill;
use super::watched::{Live, Watched, held, labels, windows_of};
use crate::slo::counter::{GroupAt, Tally};
use crate::slo::group::{self, Group, GroupKey};
use crate::slo::set::CompiledSlo;

/// Whether the history of an SLO is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// Nobody has begun to.
    Waiting,
    /// It is being read, and settled rows are counted as they come.
    Reading,
    /// It is.
    Known,
}

/// One SLO of a document.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) slo: Arc<CompiledSlo>,
    pub(super) past: Past,
    /// What its rows in `slo_1m` are called.
    pub(super) revision: Option<String>,
    /// Whether `slo_1m` has yet to be told that the history is whole.
    pub(super) untold: bool,
    /// Whether the definition before it answers until its own history is counted.
    pub(super) is_successor: bool,
    /// How far its history is read.
    pub(super) progress: Option<Arc<Progress>>,
    /// Itself, or its groups in the order in which they were taken.
    pub(super) watched: Vec<Watched>,
    /// Of each group, its place in `watched`, and the position of its first event as far as that matters.
    places: HashMap<GroupKey, (usize, WalPosition)>,
    /// Groups that were not known, of settled rows that are being added.
    staged: HashMap<GroupKey, Loose>,
    /// Groups of live rows.
    provisional: HashMap<GroupKey, Watched>,
    /// Groups whose rows the group of all others does not have, as it was told last.
    told_others: usize,
    /// `TelemetryStale`, once for all groups.
    pub(super) telemetry: AlertId,
    /// The alerts of its groups, also of provisional ones.
    fingerprints: HashSet<Arc<str>>,
    columns: Arc<[&'static str]>,
    now: Minute,
    /// Events that found no group of their own since this was asked last.
    overflowed: u64,
    is_full: bool,
}

impl Definition {
    pub(super) fn new(slo: CompiledSlo, now: Minute) -> Self {
        let slo = Arc::new(slo);
        let columns: Arc<[&'static str]> = slo.slo.group_columns().into();
        let mut definition = Self {
            past: Past::Waiting,
            revision: None,
            untold: false,
            is_successor: false,
            progress: None,
            watched: Vec::new(),
            places: HashMap::new(),
            staged: HashMap::new(),
            provisional: HashMap::new(),
            told_others: 0,
            telemetry: telemetry_id(&slo),
            fingerprints: HashSet::new(),
            columns,
            now,
            overflowed: 0,
            is_full: false,
            slo,
        };
        definition.clear();
        definition
    }

    pub(super) fn is_grouped(&self) -> bool {
        !self.columns.is_empty()
    }

    /// From when on its logical calls have to be known, if it counts attempts and needs them.
    pub(super) fn logical_since(&self) -> Option<Minute> {
        self.watched.first().filter(|_| !self.is_grouped())?.logical_since()
    }

    /// Takes logical calls that were counted, in place of those before.
    pub(super) fn take_logical(&mut self, found: &Loose) {
        self.watched.iter_mut().for_each(Watched::forget_logical);
        if !self.is_grouped() {
            found.logical.iter().for_each(|(minute, counts)| self.add_logical(*minute, counts));
        }
    }

    /// Adds logical calls of a minute; of groups nobody asks for them.
    pub(super) fn add_logical(&mut self, minute: Minute, counts: &Counts) {
        if self.past != Past::Waiting
            && !self.is_grouped()
            && let Some(watched) = self.watched.first_mut()
        {
            watched.add_logical(minute, counts);
        }
    }

    /// Judges the slices that have ended, of itself or of its groups. How many have turned.
    pub(super) fn judge(&mut self) -> u64 {
        let past = self.past;
        let turned = |watched: &mut Watched| {
            let live = std::mem::take(&mut watched.live);
            let turned = watched.judge(&live, past);
            watched.live = live;
            turned
        };
        self.all_mut().map(turned).sum()
    }

    /// How far back it has to know.
    pub(super) fn held(&self) -> Option<Window> {
        held(&self.slo.slo, &windows_of(&self.slo.slo)).iter().max().copied()
    }

    /// Takes the services of its events, or those of its groups.
    pub(super) fn take_services(&mut self, found: LooseOf) {
        let feed = |watched: &mut Watched, loose: &Loose| {
            loose.fed_by.iter().for_each(|(service, minute)| watched.fed(service, *minute));
        };
        if !self.is_grouped() {
            return feed(&mut self.watched[0], &found.whole);
        }
        let other = group::other(self.columns.len());
        for (key, loose) in &found.groups {
            if let Some((place, _)) = self.places.get(key).or_else(|| self.places.get(&other)) {
                feed(&mut self.watched[*place], loose);
            }
        }
    }

    /// Whether it counts what another definition counts, as far back.
    pub(super) fn counts_as(&self, slo: &CompiledSlo) -> bool {
        let longest = held(&slo.slo, &windows_of(&slo.slo)).iter().max().copied();
        self.slo.slo.revision() == slo.slo.revision() && self.held() == longest
    }

    /// Takes another target, description, file or tiers.
    pub(super) fn redefine(&mut self, slo: CompiledSlo) {
        self.slo = Arc::new(slo);
        self.telemetry = telemetry_id(&self.slo);
        self.provisional.clear();
        self.fingerprints.clear();
        for watched in &mut self.watched {
            watched.redefine(&self.slo);
            self.fingerprints.extend(watched.alert_ids.iter().map(|id| Arc::clone(&id.fingerprint)));
        }
        self.fingerprints.insert(Arc::clone(&self.telemetry.fingerprint));
    }

    /// Forgets all counts, and all groups.
    pub(super) fn clear(&mut self) {
        self.watched.clear();
        self.places.clear();
        self.staged.clear();
        self.provisional.clear();
        self.fingerprints = HashSet::from([Arc::clone(&self.telemetry.fingerprint)]);
        if !self.is_grouped() {
            self.push(None);
        }
    }

    fn push(&mut self, group: Option<Group>) -> usize {
        let watched = Watched::new(&self.slo, group.map(Arc::new), self.now);
        self.fingerprints.extend(watched.alert_ids.iter().map(|id| Arc::clone(&id.fingerprint)));
        self.watched.push(watched);
        self.watched.len() - 1
    }

    /// How many more groups have room.
    fn free(&self) -> usize {
        let others = usize::from(self.places.contains_key(&group::other(self.columns.len())));
        self.slo.slo.groups_max().saturating_sub(1 + self.watched.len() - others)
    }

    /// The place of a group, which becomes one if there is room, and otherwise that of all others. Groups must be asked for in their order.
    pub(super) fn admit(&mut self, key: &GroupKey, began: WalPosition) -> usize {
        if let Some((place, _)) = self.places.get(key) {
            return *place;
        }
        if group::is_other(key) || self.free() == 0 {
            return self.other();
        }
        let place = self.push(Some(Group::new(&self.columns, Arc::clone(key))));
        self.places.insert(Arc::clone(key), (place, began));
        place
    }

    /// The same if there is room; what comes later has none.
    pub(super) fn admit_own(&mut self, key: &GroupKey, began: WalPosition) {
        if self.free() > 0 {
            self.admit(key, began);
        }
    }

    /// The place of itself, or of a group that is known or one of all others.
    pub(super) fn place(&mut self, key: Option<&GroupKey>) -> usize {
        match key {
            None => 0,
            Some(key) => self.places.get(key).map(|(place, _)| *place).unwrap_or_else(|| self.other()),
        }
    }

    /// How far its history is counted, and what it will count.
    pub(super) fn backfill(&self) -> Backfill {
        let progress = self.progress.as_ref().map_or(0.0, |progress| progress.ratio());
        Backfill { revision: self.slo.slo.revision().into(), progress }
    }

    /// The place of the group of all others.
    fn other(&mut self) -> usize {
        let key = group::other(self.columns.len());
        if let Some((place, _)) = self.places.get(&key) {
            return *place;
        }
        let place = self.push(Some(Group::new(&self.columns, Arc::clone(&key))));
        self.places.insert(key, (place, WalPosition(i64::MAX.unsigned_abs())));
        self.told_others = usize::MAX;
        place
    }

    /// Takes the groups that stand in `slo_1m`: what comes is after all of their first events.
    pub(super) fn take_groups(&mut self, texts: impl IntoIterator<Item = impl AsRef<str>>) {
        for text in texts {
            if let (true, Ok(key)) = (self.is_grouped(), group::parse(&self.columns, text.as_ref())) {
                self.admit(&key, WalPosition(0));
            }
        }
    }

    /// The places of its groups, by their texts in `slo_1m`.
    pub(super) fn texts(&self) -> HashMap<Arc<str>, usize> {
        let text =
            |watched: &Watched| watched.group.as_ref().map_or(group::NO_GROUP.into(), |it| Arc::clone(it.text()));
        self.watched.iter().enumerate().map(|(place, watched)| (text(watched), place)).collect()
    }

    /// The places and first positions of its groups.
    pub(super) const fn places(&self) -> &HashMap<GroupKey, (usize, WalPosition)> {
        &self.places
    }

    /// What its rows are called.
    pub(super) fn revision(&self) -> Option<Revision> {
        Some(self.revision_of(self.revision.clone()?))
    }

    pub(super) fn revision_of(&self, name: String) -> Revision {
        Revision { service: self.slo.slo.service.clone(), slo: self.slo.slo.name.clone(), name }
    }

    /// Goes to another minute.
    pub(super) fn advance(&mut self, now: Minute) {
        self.now = now;
        self.all_mut().for_each(|watched| watched.advance(now));
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Watched> {
        self.watched.iter_mut().chain(self.provisional.values_mut())
    }

    /// What is evaluated: itself or its groups, and the groups that only live rows have.
    pub(super) fn evaluated(&mut self) -> impl Iterator<Item = &mut Watched> {
        self.all_mut()
    }

    /// What is watched of a group.
    pub(super) fn find(&self, key: Option<&GroupKey>) -> Option<&Watched> {
        match key {
            None => self.watched.first().filter(|_| !self.is_grouped()),
            Some(key) => match self.places.get(key) {
                Some((place, _)) => self.watched.get(*place),
                None => self.provisional.get(key),
            },
        }
    }

    /// Whether an alert is one of its groups', or may turn out to be when they are known.
    pub(super) fn has_alert(&self, id: &AlertId) -> bool {
        let is_its_own =
            id.label("service") == Some(&self.slo.slo.service) && id.label("slo") == Some(&self.slo.slo.name);
        let may_be = self.is_grouped() && self.past != Past::Known;
        is_its_own && (may_be || self.fingerprints.contains(&id.fingerprint))
    }

    /// Adds a minute of settled rows.
    fn add(&mut self, group: Option<GroupAt<'_>>, minute: Minute, counts: &Counts) {
        if self.past == Past::Waiting {
            // Its history will have them.
            return;
        }
        match self.place_of(group) {
            Ok(place) => self.watched[place].add(minute, counts),
            Err(loose) => loose.add(minute, counts),
        }
        if let Some((key, _)) = group.filter(|_| self.is_full) {
            self.overflowed += if self.places.contains_key(key) { 0 } else { counts.total() };
        }
    }

    /// The same of rows that are not in total: they belong to no group but their own.
    fn outside(&mut self, key: &GroupKey, minute: Minute, counts: &Counts) {
        if let Some((place, _)) = self.places.get(key) {
            self.watched[*place].add(minute, counts);
        } else if let Some(loose) = self.staged.get_mut(key) {
            *loose.outside.entry(minute).or_default() += counts;
        }
    }

    fn fed_by(&mut self, group: Option<GroupAt<'_>>, service: &str, minute: Minute) {
        if self.past == Past::Waiting {
            return;
        }
        match self.place_of(group) {
            Ok(place) => self.watched[place].fed(service, minute),
            Err(loose) => loose.fed(service, minute),
        }
    }

    /// The place of a group of settled rows, or where its counts wait until all rows of the same exports have come.
    fn place_of(&mut self, group: Option<GroupAt<'_>>) -> Result<usize, &mut Loose> {
        let Some((key, first)) = group else { return Ok(0) };
        if let Some((place, _)) = self.places.get(key) {
            return Ok(*place);
        }
        if group::is_other(key) || self.is_full {
            return Ok(self.other());
        }
        let loose = self.staged.entry(Arc::clone(key)).or_default();
        loose.first = loose.first.into_iter().chain(first).min();
        Err(loose)
    }

    /// Takes the groups of the settled rows that have come: in their order, as many as have room.
    pub(super) fn admit_staged(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        let mut staged: Vec<(GroupKey, Loose)> = std::mem::take(&mut self.staged).into_iter().collect();
        staged.sort_by(|(a, of_a), (b, of_b)| (of_a.first, a).cmp(&(of_b.first, b)));
        for (key, loose) in staged {
            let place = self.admit(&key, loose.first.unwrap_or(WalPosition(0)));
            let is_own = self.places.contains_key(&key);
            let watched = &mut self.watched[place];
            if is_own {
                loose.outside.iter().for_each(|(minute, counts)| watched.add(*minute, counts));
            } else {
                self.overflowed += loose.counts.values().map(Counts::total).sum::<u64>();
            }
            loose.counts.iter().for_each(|(minute, counts)| watched.add(*minute, counts));
            loose.fed_by.iter().for_each(|(service, minute)| watched.fed(service, *minute));
        }
        self.note_full();
    }

    /// Looks whether there is room for another group.
    pub(super) fn note_full(&mut self) {
        let is_full = self.is_grouped() && self.free() == 0;
        if is_full && !std::mem::replace(&mut self.is_full, is_full) {
            tracing::info!(
                service = self.slo.slo.service,
                slo = self.slo.slo.name,
                groups = self.slo.slo.groups_max() - 1,
                "an SLO has as many groups as it may; events of others count as `__other__`"
            );
        }
    }

    /// Events that found no group of their own since this was called last.
    pub(super) fn take_overflowed(&mut self) -> u64 {
        std::mem::take(&mut self.overflowed)
    }

    /// Takes the live rows in place of those before.
    pub(super) fn take_live(&mut self, live: LooseOf) {
        self.watched.iter_mut().for_each(|watched| watched.live.clear());
        if !self.is_grouped() {
            self.watched[0].take_live(live.whole);
            return;
        }
        if self.past != Past::Known {
            return;
        }
        let (mut fresh, mut rest) = (Vec::new(), Loose::default());
        for (key, loose) in live.groups {
            if group::is_other(&key) {
                rest.merge(&loose);
                continue;
            }
            match (self.places.get(&key), loose.first) {
                (Some((place, _)), _) => self.watched[*place].take_live(loose.into_own()),
                (None, Some(first)) => fresh.push((first, key, loose)),
                // No event makes it one.
                (None, None) => {}
            }
        }
        fresh.sort_by(|(first_a, a, _), (first_b, b, _)| (first_a, a).cmp(&(first_b, b)));
        let mut before = std::mem::take(&mut self.provisional);
        let free = self.free();
        for (place, (_, key, loose)) in fresh.into_iter().enumerate() {
            if place < free {
                self.take_provisional(key, loose, &mut before);
            } else {
                rest.merge(&loose);
            }
        }
        if rest.first.is_some() {
            let other = group::other(self.columns.len());
            match self.places.get(&other) {
                Some((place, _)) => self.watched[*place].take_live(rest),
                None => self.take_provisional(other, rest, &mut before),
            }
        }
        for (key, watched) in before {
            if !self.places.contains_key(&key) {
                for id in &watched.alert_ids {
                    self.fingerprints.remove(&id.fingerprint);
                }
            }
        }
        self.tell_other();
    }

    fn take_provisional(&mut self, key: GroupKey, loose: Loose, before: &mut HashMap<GroupKey, Watched>) {
        let mut watched = before.remove(&key).unwrap_or_else(|| {
            let group = Group::new(&self.columns, Arc::clone(&key));
            let watched = Watched::new(&self.slo, Some(Arc::new(group)), self.now);
            self.fingerprints.extend(watched.alert_ids.iter().map(|id| Arc::clone(&id.fingerprint)));
            watched
        });
        watched.take_live(loose.into_own());
        self.provisional.insert(key, watched);
    }

    /// Tells the group of all others which those are not: before it is asked for its condition.
    pub(super) fn tell_other(&mut self) {
        let other = group::other(self.columns.len());
        let own = self.watched.len() + self.provisional.len();
        // Groups stay: as long as there are as many, they are the same. Those of live rows may change.
        if self.provisional.is_empty() && std::mem::replace(&mut self.told_others, own) == own {
            return;
        }
        let all = self.places.keys().chain(self.provisional.keys()).filter(|key| **key != other);
        let is_watched = self.places.contains_key(&other) || self.provisional.contains_key(&other);
        if !is_watched {
            return;
        }
        let mut keys: Vec<GroupKey> = all.cloned().collect();
        keys.sort_unstable();
        let rest = Arc::new(Group::rest(&self.columns, keys.into(), &self.slo.slo, self.revision.as_deref()));
        let watched = match self.places.get(&other) {
            Some((place, _)) => self.watched.get_mut(*place),
            None => self.provisional.get_mut(&other),
        };
        if let Some(watched) = watched {
            watched.group = Some(rest);
        }
        if !self.provisional.is_empty() {
            self.told_others = usize::MAX;
        }
    }
}

fn telemetry_id(slo: &CompiledSlo) -> AlertId {
    AlertId::new(labels(slo, None, "TelemetryStale", &slo.slo.ticket_severity, None))
}

/// Settled rows go to the SLOs that are watched.
#[derive(Debug)]
pub(super) struct SettledTally<'a>(pub(super) &'a mut [Definition]);

impl Tally for SettledTally<'_> {
    fn add(&mut self, slo: usize, group: Option<GroupAt<'_>>, minute: Minute, counts: &Counts) {
        self.0[slo].add(group, minute, counts);
    }

    fn add_logical(&mut self, slo: usize, minute: Minute, counts: &Counts) {
        self.0[slo].add_logical(minute, counts);
    }

    fn fed_by(&mut self, slo: usize, group: Option<GroupAt<'_>>, service: &str, minute: Minute) {
        self.0[slo].fed_by(group, service, minute);
    }

    fn outside(&mut self, slo: usize, group: &GroupKey, minute: Minute, counts: &Counts) {
        self.0[slo].outside(group, minute, counts);
    }

    fn began(&self, slo: usize, group: &GroupKey) -> Option<WalPosition> {
        let definition = &self.0[slo];
        let known = definition.places.get(group).map(|(_, began)| *began);
        known.or_else(|| definition.staged.get(group)?.first)
    }
}

/// Counts that stay outside of what is watched.
#[derive(Debug, Default)]
pub(super) struct Loose {
    pub(super) counts: Live,
    /// Of rows that are not in total, apart: only groups of their own have them.
    outside: Live,
    /// Logical calls of an SLO of attempts.
    pub(super) logical: Live,
    pub(super) fed_by: HashMap<String, Minute>,
    /// Of a group, the position of its first event among these rows.
    first: Option<WalPosition>,
}

impl Loose {
    fn add(&mut self, minute: Minute, counts: &Counts) {
        *self.counts.entry(minute).or_default() += counts;
    }

    fn fed(&mut self, service: &str, minute: Minute) {
        match self.fed_by.get_mut(service) {
            Some(last) => *last = minute.max(*last),
            None => {
                self.fed_by.insert(service.to_owned(), minute);
            }
        }
    }

    /// All of its rows, if it is a group of its own.
    pub(super) fn into_own(mut self) -> Self {
        for (minute, counts) in std::mem::take(&mut self.outside) {
            self.add(minute, &counts);
        }
        self
    }

    /// Takes the events of a group that is none of its own.
    fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|(minute, counts)| self.add(*minute, counts));
        other.fed_by.iter().for_each(|(service, minute)| self.fed(service, *minute));
        self.first = self.first.into_iter().chain(other.first).min();
    }
}

/// Those of one SLO: its own, or those of its groups.
#[derive(Debug, Default)]
pub(super) struct LooseOf {
    pub(super) whole: Loose,
    pub(super) groups: HashMap<GroupKey, Loose>,
}

impl LooseOf {
    fn of(&mut self, group: Option<GroupAt<'_>>) -> &mut Loose {
        let Some((key, first)) = group else { return &mut self.whole };
        if !self.groups.contains_key(key) {
            self.groups.insert(Arc::clone(key), Loose::default());
        }
        let loose = self.groups.entry(Arc::clone(key)).or_default();
        loose.first = loose.first.into_iter().chain(first).min();
        loose
    }
}

/// Rows that stay outside of the SLOs, such as the live ones of one evaluation.
#[derive(Debug)]
pub(super) struct LooseTally<'a> {
    /// Whose groups are known, if any are.
    definitions: &'a [Definition],
    pub(super) of: Vec<LooseOf>,
}

impl<'a> LooseTally<'a> {
    pub(super) fn new(definitions: &'a [Definition], slos: usize) -> Self {
        Self { definitions, of: (0..slos).map(|_| LooseOf::default()).collect() }
    }
}

impl Tally for LooseTally<'_> {
    fn add(&mut self, slo: usize, group: Option<GroupAt<'_>>, minute: Minute, counts: &Counts) {
        self.of[slo].of(group).add(minute, counts);
    }

    fn add_logical(&mut self, slo: usize, minute: Minute, counts: &Counts) {
        *self.of[slo].whole.logical.entry(minute).or_default() += counts;
    }

    fn fed_by(&mut self, slo: usize, group: Option<GroupAt<'_>>, service: &str, minute: Minute) {
        self.of[slo].of(group).fed(service, minute);
    }

    fn outside(&mut self, slo: usize, group: &GroupKey, minute: Minute, counts: &Counts) {
        *self.of[slo].of(Some((group, None))).outside.entry(minute).or_default() += counts;
    }

    fn began(&self, slo: usize, group: &GroupKey) -> Option<WalPosition> {
        let known = self.definitions.get(slo).and_then(|definition| definition.places.get(group));
        // What is known began earlier.
        known.map(|(_, began)| *began).or_else(|| self.of[slo].groups.get(group)?.first)
    }
}
