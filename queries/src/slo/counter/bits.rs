//! Truth of rows, a bit each.

use arrow::array::{Array, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::util::bit_chunk_iterator::UnalignedBitChunk;

/// What a condition says of rows: where neither bit is set, it is false.
#[derive(Debug, Clone)]
pub(super) struct Verdicts {
    /// Where it is true.
    pub(super) yes: BooleanBuffer,
    /// Where it is null; `None` if nowhere.
    pub(super) unknown: Option<BooleanBuffer>,
}

impl Verdicts {
    pub(super) fn of(values: &BooleanArray) -> Self {
        match values.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => Self { yes: values.values().clone(), unknown: None },
            Some(nulls) => Self { yes: values.values() & nulls.inner(), unknown: Some(!nulls.inner()) },
        }
    }

    /// Of a condition that is always true.
    pub(super) fn always(rows: usize) -> Self {
        Self { yes: BooleanBuffer::new_set(rows), unknown: None }
    }

    /// `AND` of SQL: false where one is false, true where both are true, else null.
    pub(super) fn and(&self, other: &Self) -> Self {
        let yes = &self.yes & &other.yes;
        let unknown = match (&self.unknown, &other.unknown) {
            (None, None) => None,
            (Some(unknown), None) => Some(unknown & &other.yes),
            (None, Some(unknown)) => Some(unknown & &self.yes),
            (Some(own), Some(its)) => {
                // Neither is false, and not both are true.
                let possible = &(own | &self.yes) & &(its | &other.yes);
                Some(&possible & &!&yes)
            }
        };
        Self { yes, unknown }
    }
}

/// How many bits are set of so many from the first.
pub(super) fn ones(bits: &BooleanBuffer, first: usize, length: usize) -> u64 {
    UnalignedBitChunk::new(bits.values(), bits.offset() + first, length).count_ones() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::compute::and_kleene;

    #[test]
    fn and_is_that_of_sql() {
        let all = [Some(true), Some(false), None];
        let (left, right): (Vec<_>, Vec<_>) = all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b))).unzip();
        for some in [9, 3, 2, 1] {
            let (left, right) = (BooleanArray::from(left[..some].to_vec()), BooleanArray::from(right[..some].to_vec()));
            let found = Verdicts::of(&left).and(&Verdicts::of(&right));
            for (row, expected) in and_kleene(&left, &right).unwrap().iter().enumerate() {
                let is_unknown = found.unknown.as_ref().is_some_and(|unknown| unknown.value(row));
                assert_eq!((found.yes.value(row), is_unknown), (expected == Some(true), expected.is_none()), "{row}");
            }
        }
    }

    #[test]
    fn bits_are_counted_from_anywhere() {
        let bits: BooleanBuffer = (0..300).map(|n| n % 3 == 0).collect();
        let bits = bits.slice(7, 290);
        for (first, length) in [(0, 290), (0, 0), (1, 63), (64, 65), (100, 190), (289, 1)] {
            let expected = (first..first + length).filter(|row| bits.value(*row)).count() as u64;
            assert_eq!(ones(&bits, first, length), expected, "{first} {length}");
        }
    }
}
