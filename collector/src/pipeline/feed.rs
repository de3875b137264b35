//! Settled rows on their way to readers: queues that are bounded by rows.
//!
//! The fold asks whether all feeds have room before it begins a commit, and at most one commit is under way. So what is
//! committed always finds room, nobody waits with a lock or a commit in hand, and a reader that appends rows while its
//! feed is full is served. A slow reader holds up commits, and in the end the log; but not the shutdown, before which all
//! feeds end.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::{Feed, FeedItem, SettledRows};

/// Items of a queue that is full, however few rows they have.
const ITEMS_MAX: usize = 64;

#[derive(Debug, Default)]
struct State {
    items: VecDeque<SettledRows>,
    rows: u64,
    ended: bool,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

fn rows_of(item: &SettledRows) -> u64 {
    item.rows.iter().map(RecordBatch::num_rows).sum::<usize>() as u64
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fold's ends of all feeds. A feed that was dropped is forgotten.
#[derive(Debug)]
pub(super) struct Feeds {
    queues: Vec<Weak<Queue>>,
    rows_max: u64,
    ended: bool,
}

impl Feeds {
    /// Feeds that are full when so many rows wait.
    pub(super) fn new(rows_max: u64) -> Self {
        Self { queues: Vec::new(), rows_max, ended: false }
    }

    /// A feed of what is offered from now on; what came before goes up to `after`.
    pub(super) fn open(&mut self, after: WalPosition) -> Box<dyn Feed> {
        let queue = Arc::new(Queue::default());
        queue.state().ended = self.ended;
        self.queues.push(Arc::downgrade(&queue));
        Box::new(LogFeed { after, queue })
    }

    /// Whether one more item finds room in all of them, however large it is.
    pub(super) fn have_room(&mut self) -> bool {
        self.queues.retain(|queue| queue.strong_count() > 0);
        self.ended
            || self.queues.iter().filter_map(Weak::upgrade).all(|queue| {
                let state = queue.state();
                state.rows < self.rows_max && state.items.len() < ITEMS_MAX
            })
    }

    /// Gives all of them one more item, if they have not ended.
    pub(super) fn offer(&mut self, item: &SettledRows) {
        if self.ended {
            return;
        }
        for queue in self.queues.iter().filter_map(Weak::upgrade) {
            let mut state = queue.state();
            let rows = rows_of(item);
            state.rows += rows;
            match state.items.back_mut() {
                // Time went on twice.
                Some(last) if rows == 0 && rows_of(last) == 0 => *last = item.clone(),
                _ => state.items.push_back(item.clone()),
            }
            drop(state);
            queue.changed.notify_all();
        }
    }

    /// Nothing will come any more.
    pub(super) fn end(&mut self) {
        self.ended = true;
        for queue in self.queues.iter().filter_map(Weak::upgrade) {
            queue.state().ended = true;
            queue.changed.notify_all();
        }
    }
}

/// A reader's end.
#[derive(Debug)]
struct LogFeed {
    after: WalPosition,
    queue: Arc<Queue>,
}

impl Feed for LogFeed {
    fn after(&self) -> WalPosition {
        self.after
    }

    fn recv(&self, timeout: Duration) -> FeedItem {
        let began = Instant::now();
        let mut state = self.queue.state();
        loop {
            if let Some(item) = state.items.pop_front() {
                state.rows -= rows_of(&item);
                return FeedItem::Rows(item);
            }
            if state.ended {
                return FeedItem::End;
            }
            let left = timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                return FeedItem::Nothing;
            }
            (state, _) = self.queue.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use toolgauge_proto::time::UnixMicros;

    use super::*;

    fn item(up_to: u64, rows: usize) -> SettledRows {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
        let batch = RecordBatch::try_from_iter([("row", column)]).unwrap();
        let rows: Arc<[RecordBatch]> = if rows == 0 { Arc::new([]) } else { Arc::new([batch]) };
        SettledRows { up_to: WalPosition(up_to), received: UnixMicros(0), rows }
    }

    fn taken(feed: &dyn Feed) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        while let FeedItem::Rows(item) = feed.recv(Duration::ZERO) {
            all.push((item.up_to.0, rows_of(&item)));
        }
        all
    }

    #[test]
    fn every_feed_gets_every_item_after_its_beginning_in_order() {
        let mut feeds = Feeds::new(100);
        let first = feeds.open(WalPosition(0));
        feeds.offer(&item(3, 2));
        let second = feeds.open(WalPosition(3));
        feeds.offer(&item(5, 1));
        assert_eq!(taken(&*first), [(3, 2), (5, 1)]);
        assert_eq!(second.after(), WalPosition(3));
        assert_eq!(taken(&*second), [(5, 1)]);
    }

    #[test]
    fn a_feed_has_no_room_until_its_rows_are_taken() {
        let mut feeds = Feeds::new(3);
        let feed = feeds.open(WalPosition(0));
        feeds.offer(&item(1, 2));
        assert!(feeds.have_room());
        feeds.offer(&item(2, 9));
        assert!(!feeds.have_room());
        assert!(matches!(feed.recv(Duration::ZERO), FeedItem::Rows(_)));
        assert!(!feeds.have_room());
        assert!(matches!(feed.recv(Duration::ZERO), FeedItem::Rows(_)));
        assert!(feeds.have_room());
    }

    #[test]
    fn a_dropped_feed_holds_up_nothing_and_is_forgotten() {
        let mut feeds = Feeds::new(1);
        let (dropped, kept) = (feeds.open(WalPosition(0)), feeds.open(WalPosition(0)));
        feeds.offer(&item(1, 1));
        assert!(!feeds.have_room());
        drop(dropped);
        assert_eq!(taken(&*kept), [(1, 1)]);
        assert!(feeds.have_room());
        assert_eq!(feeds.queues.len(), 1);
    }

    #[test]
    fn items_without_rows_are_one() {
        let mut feeds = Feeds::new(100);
        let feed = feeds.open(WalPosition(0));
        for (up_to, rows) in [(1, 0), (2, 0), (3, 1), (4, 0), (5, 0), (6, 1)] {
            feeds.offer(&item(up_to, rows));
        }
        assert_eq!(taken(&*feed), [(2, 0), (3, 1), (5, 0), (6, 1)]);
    }

    #[test]
    fn the_end_comes_after_what_waits_and_to_who_comes_late() {
        let mut feeds = Feeds::new(100);
        let feed = feeds.open(WalPosition(0));
        feeds.offer(&item(1, 100));
        assert!(!feeds.have_room());
        feeds.end();
        assert!(feeds.have_room(), "who does not take must not hold up the shutdown");
        feeds.offer(&item(2, 1));
        assert!(matches!(feed.recv(Duration::ZERO), FeedItem::Rows(_)));
        assert!(matches!(feed.recv(Duration::MAX), FeedItem::End));
        assert!(matches!(feeds.open(WalPosition(1)).recv(Duration::MAX), FeedItem::End));
    }

    #[test]
    fn who_waits_is_woken_by_the_next_item() {
        let mut feeds = Feeds::new(100);
        let feed = feeds.open(WalPosition(0));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || feed.recv(Duration::MAX));
            feeds.offer(&item(1, 1));
            assert!(matches!(waiting.join().unwrap(), FeedItem::Rows(_)));
        });
    }
}
