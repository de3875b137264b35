//! What has arrived and is not in the table `arrivals` yet: sums by minute, tenant and service.
//!
//! The table is additive, so that one minute may be committed in parts. A part ends with its minute, or when so much was
//! received that the log should not wait for the end of the minute.
//!
//! A part has so many keys and no more: the services that come then are summed as [`OTHER`], those of a tenant together. Parts end where the log
//! says, and replay begins at the start of one, so that the same log always gives the same sums.

use std::collections::{BTreeMap, VecDeque};

use toolgauge_analytics::series::OTHER;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::UnixMicros;

use crate::recognise::ArrivalSums;
use crate::side_tables::ArrivalKey;

type Sums = BTreeMap<ArrivalKey, ArrivalSums>;

/// See the module.
#[derive(Debug)]
pub(super) struct Arrived {
    /// Most keys of a part, but for those of others.
    keys_max: usize,
    open: Sums,
    /// Bytes of the frames in `open`.
    bytes: u64,
    /// Parts that are complete, each with its last frame, oldest first.
    complete: VecDeque<(WalPosition, Sums)>,
}

impl Arrived {
    pub(super) fn new(keys_max: usize) -> Self {
        Self { keys_max, open: Sums::new(), bytes: 0, complete: VecDeque::new() }
    }

    /// Bytes of the frames since the last cut.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the open part with the frame at this position.
    pub(super) fn cut(&mut self, last: WalPosition) {
        self.bytes = 0;
        if !self.open.is_empty() {
            self.complete.push_back((last, std::mem::take(&mut self.open)));
        }
    }

    /// Begins a frame. Its minute was alive, whatever the frame holds.
    pub(super) fn begin(&mut self, minute: UnixMicros, bytes: u64) {
        self.bytes += bytes;
        self.open.entry((minute, None)).or_default();
    }

    /// Whether the service has a name of its own.
    pub(super) fn add(&mut self, key: ArrivalKey, sums: &ArrivalSums) -> bool {
        if self.open.len() < self.keys_max || self.open.contains_key(&key) {
            self.open.entry(key).or_default().add(sums);
            return true;
        }
        let (minute, of) = key;
        let others = of.map(|(tenant, _)| (tenant, Some(OTHER.to_owned())));
        self.open.entry((minute, others)).or_default().add(sums);
        false
    }

    /// Everything.
    pub(super) fn all(&self) -> impl Iterator<Item = (&ArrivalKey, &ArrivalSums)> {
        self.complete().chain(&self.open)
    }

    /// What can be committed.
    pub(super) fn complete(&self) -> impl Iterator<Item = (&ArrivalKey, &ArrivalSums)> {
        self.complete.iter().flat_map(|(_, sums)| sums)
    }

    /// The last frame of that.
    pub(super) fn complete_up_to(&self) -> WalPosition {
        self.complete.back().map_or(WalPosition(0), |(last, _)| *last)
    }

    /// The parts up to this frame are in the table.
    pub(super) fn committed(&mut self, up_to: WalPosition) {
        while self.complete.front().is_some_and(|(last, _)| *last <= up_to) {
            self.complete.pop_front();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.keys_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes<'a>(sums: impl Iterator<Item = (&'a ArrivalKey, &'a ArrivalSums)>) -> Vec<(i64, i64)> {
        sums.map(|((minute, _), sums)| (minute.0, sums.requests)).collect()
    }

    /// Scenario: a minute is cut in two while the first part is being committed.
    #[test]
    fn parts_leave_when_they_are_committed_and_not_before() {
        let mut arrived = Arrived::new(100);
        arrived.cut(WalPosition(0));
        assert_eq!(arrived.complete_up_to(), WalPosition(0));
        let take = |arrived: &mut Arrived, minute, requests| {
            arrived.begin(UnixMicros(minute), 10);
            arrived.add((UnixMicros(minute), None), &ArrivalSums { requests, ..ArrivalSums::default() });
        };
        take(&mut arrived, 60, 1);
        take(&mut arrived, 60, 2);
        assert_eq!(arrived.bytes(), 20);
        assert_eq!(minutes(arrived.complete()), []);
        arrived.cut(WalPosition(2));
        take(&mut arrived, 60, 4);
        arrived.cut(WalPosition(3));
        take(&mut arrived, 120, 8);
        assert_eq!((arrived.bytes(), arrived.complete_up_to()), (10, WalPosition(3)));
        assert_eq!(minutes(arrived.complete()), [(60, 3), (60, 4)]);
        assert_eq!(minutes(arrived.all()), [(60, 3), (60, 4), (120, 8)]);
        arrived.committed(WalPosition(2));
        assert_eq!(minutes(arrived.complete()), [(60, 4)]);
        arrived.committed(WalPosition(3));
        assert_eq!(minutes(arrived.all()), [(120, 8)]);
    }

    /// Scenario: more services in a minute than there may be. Guarantees: those that came first keep their names, and no sum is lost.
    #[test]
    fn too_many_services_share_one_sum_a_tenant() {
        let mut arrived = Arrived::new(3);
        arrived.begin(UnixMicros(60), 10);
        let key = |tenant: &str, service: &str| (UnixMicros(60), Some((tenant.to_owned(), Some(service.to_owned()))));
        let mut take = |tenant: &str, service: &str, calls| {
            arrived.add(key(tenant, service), &ArrivalSums { calls, ..ArrivalSums::default() })
        };
        assert_eq!(
            [take("a", "s", 1), take("a", "t", 2), take("a", "u", 4), take("b", "s", 8)],
            [true, true, false, false]
        );
        assert_eq!([take("a", "s", 16), take("a", "v", 32), take("b", "w", 64)], [true, false, false]);
        let found: Vec<_> = arrived.all().map(|(key, sums)| (key.clone(), sums.calls)).collect();
        let expected = [
            ((UnixMicros(60), None), 0),
            (key("a", OTHER), 36),
            (key("a", "s"), 17),
            (key("a", "t"), 2),
            (key("b", OTHER), 72),
        ];
        assert_eq!(found, expected);
        arrived.cut(WalPosition(1));
        arrived.begin(UnixMicros(120), 10);
        assert!(arrived.add((UnixMicros(120), Some(("b".to_owned(), None))), &ArrivalSums::default()));
    }
}
