//! Recognising an export that was sent before.

use std::collections::{HashMap, VecDeque};

use toolgauge_proto::id::WalPosition;
use xxhash_rust::xxh3::Xxh3;

use crate::export::{Export, Refusal};

use super::format::MAX_BODY_BYTES;

/// An export with what is computed over its bytes, once.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(super) export: Export,
    pub(super) digest: u128,
    pub(super) payload_crc: u32,
    pub(super) body_len: u32,
    pub(super) tenant_len: u16,
}

impl Prepared {
    /// Computes checksum and digest.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] if the body or the tenant's name is longer than the log takes.
    pub fn new(export: Export) -> Result<Self, Refusal> {
        let too_long = |what: &str| Refusal::Overloaded { reason: format!("{what} is longer than the log takes") };
        let body_len = u32::try_from(export.body.len())
            .ok()
            .filter(|len| *len <= MAX_BODY_BYTES)
            .ok_or_else(|| too_long("the export"))?;
        let tenant = export.tenant.as_bytes();
        let tenant_len = u16::try_from(tenant.len()).map_err(|_| too_long("the tenant's name"))?;
        let mut hash = Xxh3::new();
        hash.update(&tenant_len.to_le_bytes());
        hash.update(tenant);
        hash.update(&[export.signal as u8, export.encoding as u8]);
        hash.update(&export.body);
        let payload_crc = crc32c::crc32c_append(crc32c::crc32c(tenant), &export.body);
        Ok(Self { digest: hash.digest128(), payload_crc, body_len, tenant_len, export })
    }

    /// Bytes that it takes up in memory and, but for the head, in the log.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.export.body.len() + self.export.tenant.len() + super::format::HEAD_BYTES
    }
}

#[derive(Debug)]
struct Entry {
    digest: u128,
    receive_time_us: i64,
    position: WalPosition,
}

/// The digests of the exports that are younger than the horizon, bounded by count.
#[derive(Debug)]
pub(super) struct Digests {
    positions: HashMap<u128, WalPosition>,
    /// In order of the log.
    entries: VecDeque<Entry>,
    horizon_us: i64,
    max: usize,
}

impl Digests {
    pub(super) fn new(horizon_us: i64, max: usize) -> Self {
        Self { positions: HashMap::new(), entries: VecDeque::new(), horizon_us, max }
    }

    /// Where the same export stands, if it does less than the horizon before `now_us`.
    pub(super) fn find(&mut self, digest: u128, now_us: i64) -> Option<WalPosition> {
        while self.entries.front().is_some_and(|entry| entry.receive_time_us < now_us.saturating_sub(self.horizon_us)) {
            self.drop_oldest();
        }
        self.positions.get(&digest).copied()
    }

    /// Adds one; `true` if an older one had to go for it.
    pub(super) fn insert(&mut self, digest: u128, receive_time_us: i64, position: WalPosition) -> bool {
        self.positions.insert(digest, position);
        self.entries.push_back(Entry { digest, receive_time_us, position });
        let full = self.entries.len() > self.max;
        if full {
            self.drop_oldest();
        }
        full
    }

    /// Forgets those after `position`.
    pub(super) fn cut_back(&mut self, position: WalPosition) {
        while let Some(entry) = self.entries.pop_back_if(|entry| entry.position > position) {
            self.remove(&entry);
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.remove(&entry);
        }
    }

    /// The same digest may stand there again, at a later position.
    fn remove(&mut self, entry: &Entry) {
        if self.positions.get(&entry.digest) == Some(&entry.position) {
            self.positions.remove(&entry.digest);
        }
    }
}
