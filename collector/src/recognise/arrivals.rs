//! What came in, as sums.

/// Sums over what one service sent in one export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArrivalSums {
    /// Exports with rows of this service.
    pub requests: i64,
    /// Spans received.
    pub spans: i64,
    /// Log records received.
    pub log_records: i64,
    /// Rows recognised, duplicates not counted.
    pub calls: i64,
    /// Values or records that could not be read.
    pub unreadable: i64,
    /// Rows whose identity was known.
    pub duplicates: i64,
    /// Records refused a place.
    pub quarantined: i64,
    /// Largest receive time minus end time, in milliseconds.
    pub max_lag_ms: i64,
}

impl ArrivalSums {
    /// Adds the sums of another part of the same key.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.spans += other.spans;
        self.log_records += other.log_records;
        self.calls += other.calls;
        self.unreadable += other.unreadable;
        self.duplicates += other.duplicates;
        self.quarantined += other.quarantined;
        self.max_lag_ms = self.max_lag_ms.max(other.max_lag_ms);
    }
}
