//! The definitions, one after the other, as plainly and slowly as they can be written.

use std::collections::BTreeMap;

use super::*;

pub(super) struct Model<'a> {
    facts: &'a [Facts],
    links: &'a [Link],
    /// Nearest recognised ancestors.
    up: Vec<Option<usize>>,
    /// Span of a log record.
    span_of: BTreeMap<usize, usize>,
    counted: Vec<bool>,
}

/// What the definitions say of a group of which nothing is frozen.
pub(super) fn decide(facts: &[Facts], links: &[Link]) -> BTreeMap<RowId, Named> {
    let mut model = Model { facts, links, up: Vec::new(), span_of: BTreeMap::new(), counted: Vec::new() };
    model.up = model.nearest_ancestors();
    model.span_of = model.logs_with_spans();
    model.counted = (0..facts.len()).map(|i| model.counts(i)).collect();
    let attempts = model.attempts();
    let id = |i: usize| facts[i].row_id;
    (0..facts.len())
        .map(|i| {
            let (failed, error_from, nulls_from) = model.resolved(i);
            let (attempt, retry_of) = attempts[i];
            let retried_by = attempts.iter().position(|(_, of)| *of == Some(i));
            let mut first = i;
            while let Some(before) = attempts[first].1 {
                first = before;
            }
            let since = |ns: i64| facts[i].start_ns - ns;
            let retry = retry_of.map(|before| Retry {
                first: id(first),
                delay_ns: since(facts[before].end_ns),
                lost_ns: since(facts[first].start_ns),
            });
            let named = Named {
                counted: model.counted[i],
                attempt,
                is_final: retried_by.is_none(),
                retry_of: retry_of.map(id),
                retry,
                retried_by: retried_by.map(id),
                view_of: model.outer(i).map(id),
                pair: model.span_of.get(&i).copied().or(model.log_of(i)).map(id),
                error_from: error_from.map(id),
                context: model.context(i, &nulls_from[..nulls_from.len().min(FILLERS_MAX)]),
                nulls_from: nulls_from.into_iter().take(FILLERS_MAX).map(id).collect(),
                failed,
                threshold: model.threshold(i),
            };
            (id(i), named)
        })
        .collect()
}

impl Model<'_> {
    fn row_of_span(&self, span_id: u64) -> Option<usize> {
        (0..self.facts.len()).find(|i| self.facts[*i].signal == Signal::Span && self.facts[*i].span_id == span_id)
    }

    fn link_of_span(&self, span_id: u64) -> Option<&Link> {
        self.links.iter().find(|link| link.span_id == span_id)
    }

    fn nearest_ancestors(&self) -> Vec<Option<usize>> {
        let mut up: Vec<Option<usize>> = (0..self.facts.len())
            .map(|i| {
                let facts = self.facts[i];
                let mut id = if facts.signal == Signal::Log { facts.span_id } else { facts.parent_span_id };
                for _ in 0..ANCESTORS_MAX {
                    if let Some(row) = self.row_of_span(id) {
                        return (row != i).then_some(row);
                    }
                    id = self.link_of_span(id)?.parent_span_id;
                }
                None
            })
            .collect();
        // In a cycle the row with the smallest id has no ancestor.
        let on_cycle = |i: usize| {
            let mut seen = vec![i];
            let mut at = up[i];
            while let Some(next) = at {
                if next == i {
                    return Some(seen);
                }
                if seen.contains(&next) {
                    return None;
                }
                seen.push(next);
                at = up[next];
            }
            None
        };
        let smallest = |cycle: Vec<usize>| cycle.into_iter().min_by_key(|i| self.facts[*i].row_id);
        let cut: Vec<usize> = (0..up.len()).filter(|i| on_cycle(*i).and_then(smallest) == Some(*i)).collect();
        for i in cut {
            up[i] = None;
        }
        up
    }

    fn logs_with_spans(&self) -> BTreeMap<usize, usize> {
        let mut candidates = Vec::new();
        for (s, span) in self.facts.iter().enumerate().filter(|(_, facts)| facts.signal == Signal::Span) {
            for (l, log) in self.facts.iter().enumerate().filter(|(_, facts)| facts.signal == Signal::Log) {
                if (span.kind, span.tool) != (log.kind, log.tool) {
                    continue;
                }
                if span.server != 0 && log.server != 0 && span.server != log.server {
                    continue;
                }
                if span.call_id != 0 && log.call_id != 0 && span.call_id != log.call_id {
                    continue;
                }
                let same_id = span.call_id != 0 && span.call_id == log.call_id;
                let same_place = log.span_id != 0 && [span.span_id, span.parent_span_id].contains(&log.span_id);
                if same_id || same_place {
                    // Nearest ends; of rows that ended at once their ids say who stands left and right.
                    let apart = i128::from(span.end_ns) - i128::from(log.end_ns);
                    let half = |id: &RowId| u128::from_be_bytes(*id.as_bytes()) as u64;
                    let mut ids = i128::from(half(&span.row_id)) - i128::from(half(&log.row_id));
                    if apart < 0 || apart == 0 && ids < 0 {
                        ids = -ids;
                    }
                    candidates.push((!same_id, apart.abs(), ids, span.row_id, log.row_id, s, l));
                }
            }
        }
        candidates.sort();
        let mut span_of = BTreeMap::new();
        for (.., s, l) in candidates {
            if !span_of.contains_key(&l) && !span_of.values().any(|span| *span == s) {
                span_of.insert(l, s);
            }
        }
        span_of
    }

    fn log_of(&self, i: usize) -> Option<usize> {
        self.span_of.iter().find(|(_, span)| **span == i).map(|(log, _)| *log)
    }

    fn outer(&self, i: usize) -> Option<usize> {
        let above = self.up[i]?;
        let (outer, inner) = (self.facts[above], self.facts[i]);
        let tools = outer.kind == Kind::Tool && inner.kind == Kind::Tool;
        let further_in = inner.layer as u8 > outer.layer as u8;
        let known = |of: fn(&Facts) -> u64| of(&inner) != 0 && of(&outer) != 0;
        let equal = |of: fn(&Facts) -> u64| known(of) && of(&inner) == of(&outer);
        let same_id = equal(|facts| facts.call_id);
        let other_id = known(|facts| facts.call_id) && !same_id;
        let other_library = known(|facts| facts.source) && !equal(|facts| facts.source);
        let both_spans = outer.signal == Signal::Span && inner.signal == Signal::Span;
        let doubled = equal(|facts| facts.arguments) || both_spans && other_library;
        let same_call = outer.tool == inner.tool && (further_in || same_id || doubled && !other_id);
        let unnamed = inner.tool == 0 && further_in;
        (tools && (same_call || unnamed) && !self.span_of.contains_key(&i)).then_some(above)
    }

    fn resolved(&self, i: usize) -> (bool, Option<usize>, Vec<usize>) {
        let mut views: Vec<usize> = (0..self.facts.len()).filter(|view| self.outer(*view) == Some(i)).collect();
        views.sort_by_key(|view| (self.facts[*view].end_ns, self.facts[*view].row_id));
        views.reverse();
        let mut list: Vec<usize> = self.log_of(i).into_iter().chain(views.iter().copied()).collect();
        for view in &views {
            list.extend(self.resolved(*view).2);
        }
        let own = self.facts[i].failed;
        if let Some(last) = views.first() {
            let (failed, from, _) = self.resolved(*last);
            if failed {
                return (true, Some(from.unwrap_or(*last)), list);
            }
        }
        match self.log_of(i) {
            Some(log) if self.facts[log].failed && !own => (true, Some(log), list),
            _ => (own, None, list),
        }
    }

    fn counts(&self, i: usize) -> bool {
        if self.span_of.contains_key(&i) {
            return false;
        }
        match self.facts[i].kind {
            Kind::Agent => true,
            Kind::Tool => {
                let told = self.log_of(i).is_some() || (0..self.facts.len()).any(|view| self.outer(view) == Some(i));
                self.outer(i).is_none() && (!self.facts[i].asked || told)
            }
            Kind::Model => !(0..self.facts.len()).any(|inner| {
                let facts = self.facts[inner];
                self.up[inner] == Some(i) && facts.kind == Kind::Model && !self.span_of.contains_key(&inner)
            }),
        }
    }

    fn agent(&self, i: usize) -> Option<usize> {
        let above = self.up[i]?;
        if self.facts[above].kind == Kind::Agent { Some(above) } else { self.agent(above) }
    }

    /// Session, user and agent that a row takes from others: from its log record and views; from the ancestor next to it that
    /// has it; or what all of its group that say it agree on. Agents' names come from runs of agents only, for others.
    fn context(&self, i: usize, fillers: &[usize]) -> [u64; 3] {
        let own = |row: usize| [self.facts[row].session, self.facts[row].user, self.facts[row].agent];
        let is_agent = |row: usize| self.facts[row].kind == Kind::Agent;
        let mut above = Vec::new();
        let mut at = self.up[i];
        while let Some(row) = at {
            above.push(row);
            at = self.up[row];
        }
        std::array::from_fn(|thing| {
            let agents_only = thing == 2;
            if own(i)[thing] != 0 || agents_only && is_agent(i) {
                return 0;
            }
            let of_fillers = fillers.iter().map(|row| own(*row)[thing]);
            let of_above = above.iter().filter(|row| !agents_only || is_agent(**row)).map(|row| own(*row)[thing]);
            if let Some(found) = of_fillers.chain(of_above).find(|found| *found != 0) {
                return found;
            }
            let all: std::collections::BTreeSet<u64> =
                (0..self.facts.len()).map(|row| own(row)[thing]).filter(|value| *value != 0).collect();
            if agents_only || all.len() != 1 { 0 } else { all.first().copied().unwrap_or(0) }
        })
    }

    fn server(&self, i: usize) -> u64 {
        let mut servers = vec![self.facts[i].server];
        servers.extend(self.resolved(i).2.into_iter().map(|row| self.facts[row].server));
        servers.into_iter().find(|server| *server != 0).unwrap_or(0)
    }

    /// Number of every attempt, and what it retried.
    fn attempts(&self) -> Vec<(u32, Option<usize>)> {
        let mut order: Vec<usize> = (0..self.facts.len()).collect();
        order.sort_by_key(|i| (self.facts[*i].start_ns, self.facts[*i].end_ns, self.facts[*i].row_id));
        let key = |i: usize| {
            let facts = self.facts[i];
            let seen = (facts.layer, self.counted[i], facts.signal);
            (facts.kind, facts.tool, self.agent(i), self.server(i), seen)
        };
        let mut found = vec![(0, None); self.facts.len()];
        let mut open: Vec<usize> = Vec::new();
        for i in order {
            let attempt = self.facts[i];
            let tool = attempt.kind == Kind::Tool;
            let rank = |slot: &Facts| {
                let marked = slot.asks_retry || attempt.says_attempt >= 2;
                let same_id = tool && attempt.call_id != 0 && attempt.call_id == slot.call_id;
                let same_arguments = tool && attempt.arguments != 0 && attempt.arguments == slot.arguments;
                let no_ids = attempt.call_id == 0 && slot.call_id == 0;
                if same_id {
                    Some(0)
                } else if same_arguments && (marked || no_ids) {
                    Some(1)
                } else {
                    marked.then_some(2)
                }
            };
            let mut best: Option<(i32, i64, RowId, usize)> = None;
            for slot in open.iter().copied().filter(|slot| key(*slot) == key(i)) {
                let facts = self.facts[slot];
                let in_time = facts.end_ns <= attempt.start_ns && attempt.start_ns - facts.end_ns <= SETTLE_NS;
                if let Some(rank) = rank(&facts).filter(|_| in_time) {
                    let this = (rank, -facts.end_ns, facts.row_id, slot);
                    if best.is_none_or(|best| this < best) {
                        best = Some(this);
                    }
                }
            }
            let slot = best.map(|best| best.3);
            open.retain(|other| Some(*other) != slot);
            let number = slot.map_or(1, |slot: usize| found[slot].0 + 1u32);
            found[i] = (number.max(attempt.says_attempt), slot);
            if self.resolved(i).0 {
                open.push(i);
            }
        }
        found
    }

    fn threshold(&self, i: usize) -> u64 {
        let facts = self.facts[i];
        if facts.threshold != NO_THRESHOLD || facts.signal == Signal::Log {
            return facts.threshold;
        }
        let mut id = facts.span_id;
        for _ in 0..ANCESTORS_MAX {
            let row = self.row_of_span(id).map(|row| self.facts[row]);
            let link = self.link_of_span(id);
            let parent = match (row, link) {
                (Some(row), _) => row.parent_span_id,
                (None, Some(link)) => link.parent_span_id,
                (None, None) => return NO_THRESHOLD,
            };
            if parent == 0 || link.is_some_and(|link| link.remote_parent) {
                let reported = [row.map(|row| row.threshold), link.map(|link| link.threshold)];
                return reported
                    .into_iter()
                    .flatten()
                    .find(|threshold| *threshold != NO_THRESHOLD)
                    .unwrap_or(NO_THRESHOLD);
            }
            id = parent;
        }
        NO_THRESHOLD
    }
}
