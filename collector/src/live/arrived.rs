//! What has arrived and is not in the table `arrivals` yet: sums by minute, tenant and service.
//!
//! The table is additive, so that one minute may be committed in parts. A part ends with its minute, or when so much was
//! received that the log should not wait for the end of the minute.

use std::collections::{BTreeMap, VecDeque};

use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::UnixMicros;

use crate::recognise::ArrivalSums;
use crate::side_tables::ArrivalKey;

type Sums = BTreeMap<ArrivalKey, ArrivalSums>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    open: Sums,
    /// Bytes of the frames in `open`.
    bytes: u64,
    /// Parts that are complete, each with its last frame, oldest first.
    complete: VecDeque<(WalPosition, Sums)>,
}

impl Arrived {
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

    pub(super) fn add(&mut self, key: ArrivalKey, sums: &ArrivalSums) {
        self.open.entry(key).or_default().add(sums);
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
        *self = Self::default();
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
        let mut arrived = Arrived::default();
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
}
