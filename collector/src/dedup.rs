//! Row identities that were seen: exact, bounded by count.
//!
//! Two generations of fixed size: when the younger one is full, the older one is forgotten. So at least the last
//! `rows_max / 2` and at most the last `rows_max` identities are known.

use hashbrown::HashTable;
use toolgauge_proto::id::RowId;

/// See the module.
#[derive(Debug)]
pub(crate) struct SeenRows {
    younger: HashTable<RowId>,
    older: HashTable<RowId>,
    generation_max: usize,
    forgotten: u64,
}

/// Each half of an identity is random by itself; only both are different within a trace and, should a producer count its spans
/// instead of drawing their ids, between traces.
fn hash(id: &RowId) -> u64 {
    let id = u128::from_ne_bytes(*id.as_bytes());
    (id >> 64) as u64 ^ id as u64
}

impl SeenRows {
    /// Knows at most the last `rows_max` identities.
    pub(crate) fn new(rows_max: usize) -> Self {
        Self { younger: HashTable::new(), older: HashTable::new(), generation_max: (rows_max / 2).max(1), forgotten: 0 }
    }

    /// Looks identities up that are inserted next. The tables are larger than the processor's caches: looked up together, memory is
    /// waited for once and not for each.
    pub(crate) fn announce(&self, ids: impl Iterator<Item = RowId>) {
        let known = ids.filter(|id| {
            let hash_of_id = hash(id);
            // Both, whatever the first one says.
            self.younger.find(hash_of_id, |known| known == id).is_some()
                | self.older.find(hash_of_id, |known| known == id).is_some()
        });
        std::hint::black_box(known.count());
    }

    /// Remembers the identity; false if it was known.
    pub(crate) fn insert(&mut self, id: RowId) -> bool {
        let hash_of_id = hash(&id);
        if self.younger.find(hash_of_id, |known| *known == id).is_some()
            || self.older.find(hash_of_id, |known| *known == id).is_some()
        {
            return false;
        }
        if self.younger.len() >= self.generation_max {
            self.forgotten += self.older.len() as u64;
            // The table of the forgotten generation is used again, so that memory is not given back and taken anew.
            std::mem::swap(&mut self.younger, &mut self.older);
            self.younger.clear();
        }
        self.younger.insert_unique(hash_of_id, id, hash);
        true
    }

    /// Identities that fell out.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> RowId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_ne_bytes());
        bytes[8..].copy_from_slice(&number.to_ne_bytes());
        RowId::from_bytes(bytes)
    }

    #[test]
    fn the_last_half_is_always_known_and_memory_is_bounded() {
        let mut seen = SeenRows::new(100);
        for number in 0..1_000 {
            assert!(seen.insert(id(number)));
            for known in number.saturating_sub(49)..=number {
                assert!(!seen.insert(id(known)), "{known} of {number}");
            }
        }
        assert!(seen.younger.len() + seen.older.len() <= 100);
        assert_eq!(seen.forgotten(), 900);
        assert!(seen.insert(id(0)));
    }
}
