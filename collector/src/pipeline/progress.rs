//! How far a start has come, for whoever waits for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use toolgauge_proto::id::WalPosition;

/// How far the replay of the log has come. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    replayed: AtomicU64,
    /// 0 before the replay.
    frames: AtomicU64,
}

impl Progress {
    pub(super) fn begin(&self, first: WalPosition, last: WalPosition) {
        self.0.replayed.store(0, Relaxed);
        self.0.frames.store(last.0.saturating_sub(first.0).saturating_add(1), Relaxed);
    }

    pub(super) fn replayed(&self) {
        self.0.replayed.fetch_add(1, Relaxed);
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (replayed, frames) = (self.0.replayed.load(Relaxed), self.0.frames.load(Relaxed));
        match frames {
            0 => f.write_str("opening the log and the tables"),
            _ if replayed < frames => write!(f, "replaying the log: {replayed} of {frames}"),
            _ => f.write_str("the log is replayed, the doors are about to open"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_many_frames_are_replayed() {
        let progress = Progress::default();
        let shown = progress.clone();
        assert_eq!(shown.to_string(), "opening the log and the tables");
        progress.begin(WalPosition(11), WalPosition(13));
        assert_eq!(shown.to_string(), "replaying the log: 0 of 3");
        progress.replayed();
        progress.replayed();
        assert_eq!(shown.to_string(), "replaying the log: 2 of 3");
        progress.replayed();
        assert_eq!(shown.to_string(), "the log is replayed, the doors are about to open");
    }
}
