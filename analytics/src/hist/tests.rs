use hdrhistogram::Histogram as Reference;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn reference() -> Reference<u64> {
    Reference::new_with_bounds(1, MICROS_MAX, DIGITS).unwrap()
}

fn counted(values: &[(u64, u64)]) -> (Histogram, Reference<u64>) {
    let (mut ours, mut theirs) = (Recorder::default(), reference());
    for (micros, n) in values {
        ours.record_n(*micros, *n);
        theirs.record_n((*micros).clamp(1, MICROS_MAX), *n).unwrap();
    }
    (ours.finish(), theirs)
}

fn payload(histogram: &Histogram) -> Vec<u8> {
    let mut payload = Vec::new();
    histogram.payload(&mut payload);
    payload
}

/// Values of every size, many of them close to each other.
fn value() -> impl Strategy<Value = u64> {
    let any_size = (0_u32..45, any::<u64>()).prop_map(|(bits, value)| value >> (63 - bits.min(63)));
    prop_oneof![any_size, 900_u64..1_100, Just(0), Just(MICROS_MAX), Just(u64::MAX)]
}

fn values() -> impl Strategy<Value = Vec<(u64, u64)>> {
    vec((value(), prop_oneof![4 => Just(1_u64), 1 => 0_u64..1 << 40]), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn payload_is_that_of_the_crate_and_reads_back(values in values()) {
        let (ours, theirs) = counted(&values);
        let mut expected = Vec::new();
        V2Serializer::new().serialize(&theirs, &mut expected).unwrap();
        let written = payload(&ours);
        prop_assert_eq!(&written, &expected);
        prop_assert_eq!(&Histogram::from_payload(&written).unwrap(), &ours);
        let read: Reference<u64> = Deserializer::new().deserialize(&mut written.as_slice()).unwrap();
        prop_assert_eq!(read, theirs);
    }

    #[test]
    fn counts_and_shares_are_those_of_the_crate(values in values(), limits in vec(value(), 1..20)) {
        let (ours, theirs) = counted(&values);
        prop_assert_eq!(ours.len(), theirs.len());
        for limit in limits {
            let limit = limit.min(MICROS_MAX);
            prop_assert_eq!(ours.count_up_to(limit), theirs.count_between(0, limit));
            if !theirs.is_empty() {
                prop_assert_eq!(ours.fraction_below(limit).unwrap(), theirs.quantile_below(limit));
            }
            prop_assert_eq!(bucket_end(limit), theirs.highest_equivalent(limit.max(1)));
        }
    }

    #[test]
    fn quantiles_are_the_nearest_rank_within_a_thousandth(values in vec(value(), 1..600), q in 0.0..=1.0_f64) {
        let (ours, _) = counted(&values.iter().map(|value| (*value, 1)).collect::<Vec<_>>());
        let mut sorted: Vec<u64> = values.iter().map(|value| (*value).clamp(1, MICROS_MAX)).collect();
        sorted.sort_unstable();
        for q in [q, 0.0, 0.5, 0.99, 1.0] {
            let exact = sorted[nearest_rank(q, sorted.len() as u64) as usize - 1];
            let got = ours.quantile(q).unwrap();
            prop_assert!(got >= exact && got - exact <= exact / 1_000, "{q}: {got} for {exact}");
        }
    }

    #[test]
    fn parts_in_any_order_are_the_whole(values in values(), seed in any::<u64>(), parts in 1_usize..6) {
        let (whole, _) = counted(&values);
        let (mut merged, mut added, mut recorded) = (Histogram::default(), Recorder::default(), Recorder::default());
        let mut shuffled = values;
        shuffled.sort_by_key(|(value, n)| (value ^ n).wrapping_mul(seed | 1));
        for part in shuffled.chunks(shuffled.len().div_ceil(parts).max(1)) {
            let mut recorder = Recorder::default();
            part.iter().for_each(|(value, n)| recorder.record_n(*value, *n));
            recorded.add_recorded(&recorder);
            let part = recorder.finish();
            merged.merge(&part);
            added.add_payload(&payload(&part)).unwrap();
        }
        prop_assert_eq!(&merged, &whole);
        prop_assert_eq!(&added.finish(), &whole);
        prop_assert_eq!(&recorded.finish(), &whole);
    }

    /// A crowd of values that moves, and others far off: what an array counts, what it leaves outside, and what it had to
    /// take in when it grew.
    #[test]
    fn a_crowd_is_counted_as_the_crate_counts_it(
        crowds in vec((2_000_u64..100_000, 1_u64..3_000, 0_usize..2_500), 1..5), strays in vec(value(), 0..40), parts in 1_usize..4,
    ) {
        let crowd = crowds.iter().flat_map(|(start, width, n)| {
            (0..*n as u64).map(move |i| start + i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % width)
        });
        let mut values: Vec<(u64, u64)> = crowd.map(|micros| (micros, 1 + micros % 3)).collect();
        for (n, stray) in strays.into_iter().enumerate() {
            values.insert(n * values.len() / 40, (stray, 1));
        }
        let (ours, theirs) = counted(&values);
        let mut expected = Vec::new();
        V2Serializer::new().serialize(&theirs, &mut expected).unwrap();
        prop_assert_eq!(&payload(&ours), &expected);
        let (mut recorded, mut added, mut read) = (Recorder::default(), Recorder::default(), Recorder::default());
        for part in values.chunks(values.len().div_ceil(parts).max(1)) {
            let mut recorder = Recorder::default();
            part.iter().for_each(|(micros, n)| recorder.record_n(*micros, *n));
            recorded.add_recorded(&recorder);
            added.add(&recorder.histogram());
            read.add_payload(&payload(&recorder.finish())).unwrap();
        }
        prop_assert_eq!(&recorded.finish(), &ours);
        prop_assert_eq!(&added.finish(), &ours);
        prop_assert_eq!(&read.finish(), &ours);
    }

    #[test]
    fn broken_payloads_are_refused_or_read_but_never_harm(
        values in values(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let (ours, _) = counted(&values);
        let whole = payload(&ours);
        prop_assert!(Histogram::from_payload(&whole[..cut.index(whole.len())]).is_err());
        let mut broken = whole.clone();
        broken[at.index(whole.len())] = byte;
        let mut recorder = Recorder::default();
        recorder.record(7);
        match recorder.add_payload(&broken) {
            // What is read stays a histogram: in order, nothing of 0.
            Ok(()) => {
                let read = recorder.finish();
                prop_assert!(read.entries.is_sorted_by(|a, b| a.bucket() < b.bucket()));
                prop_assert!(read.entries.iter().all(|entry| entry.count() > 0 && entry.bucket() < BUCKETS));
            }
            Err(_) => prop_assert_eq!(recorder.finish().len(), 1),
        }
    }
}

#[test]
fn no_values_have_no_quantile_but_a_payload() {
    let (ours, theirs) = counted(&[]);
    assert_eq!((ours.quantile(0.5), ours.fraction_below(1), ours.len()), (None, None, 0));
    let mut expected = Vec::new();
    V2Serializer::new().serialize(&theirs, &mut expected).unwrap();
    assert_eq!(payload(&ours), expected);
    assert!(Histogram::from_payload(&expected).unwrap().is_empty());
}

/// Golden bytes: 1 us twice, 3 us once, 5,000 us three times.
#[test]
fn payload_is_as_specified() {
    let (ours, _) = counted(&[(1, 2), (3, 1), (5_000, 3)]);
    let mut expected = vec![0x1c, 0x84, 0x93, 0x13, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1];
    expected.extend(2_592_000_000_000_u64.to_be_bytes());
    expected.extend(1_f64.to_be_bytes());
    // Bucket 0 is empty, 1 has 2, 2 is empty, 3 has 1, 4 to 3,297 are empty, 3,298 has 3.
    expected.extend([0, 4, 0, 2, 0xbb, 0x33, 6]);
    assert_eq!(payload(&ours), expected);
}

#[test]
fn other_histograms_are_refused() {
    for other in [Reference::<u64>::new_with_bounds(1, MICROS_MAX, 2), Reference::new_with_bounds(16, MICROS_MAX, 3)] {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&other.unwrap(), &mut bytes).unwrap();
        assert_eq!(Histogram::from_payload(&bytes).unwrap_err(), PayloadError("its buckets are others"));
    }
    let mut long = payload(&counted(&[(5, 1)]).0);
    long.push(0);
    assert_eq!(Histogram::from_payload(&long).unwrap_err(), PayloadError("bytes follow it"));
    let message = Histogram::from_payload(b"").unwrap_err().to_string();
    assert_eq!(message, "not a latency histogram (HDR V2, lowest value 1, 3 digits): it is cut off");
}

#[test]
fn a_crowd_takes_less_memory_than_its_values_and_strays_do_not_spread_it() {
    let mut recorder = Recorder::default();
    for n in 0..200_000_u64 {
        recorder.record(if n % 1_000 == 0 { 1 << (n / 1_000 % 41) } else { 50_000 + n * 7_919 % 50_000 });
    }
    assert!(!recorder.dense.is_empty(), "it has an array");
    assert!(recorder.dense.len() <= 2_048, "of the crowd, not {} buckets", recorder.dense.len());
    assert!(recorder.entries.len() < 2 * DENSE_MIN, "of {} strays", recorder.entries.len());
    assert!(recorder.heap_bytes() < 20_000, "{} bytes", recorder.heap_bytes());
    // Values that are all over are not worth one.
    let mut spread = Recorder::default();
    (0..2_000_u64).for_each(|n| spread.record(1 << (n % 41)));
    assert!(spread.dense.is_empty() && spread.heap_bytes() < 2_048);
}

#[test]
fn a_full_bucket_stays_full() {
    let mut recorder = Recorder::default();
    recorder.record_n(5, u64::MAX);
    recorder.record_n(5, 9);
    assert_eq!(recorder.finish().buckets().collect::<Vec<_>>(), [(5, 5, COUNT_MAX)]);
}

#[test]
fn ranks_do_not_step_over_a_rounding_error() {
    assert_eq!(nearest_rank(0.07, 100), 7);
    assert_eq!(nearest_rank(0.99, 100), 99);
    assert_eq!(nearest_rank(0.5, 3), 2);
    assert_eq!(nearest_rank(0.0, 3), 1);
    assert_eq!(nearest_rank(1.0, 3), 3);
}

#[test]
fn durations_beyond_the_range_are_counted_at_its_ends() {
    assert_eq!(micros_of(-5), 1);
    assert_eq!(micros_of(0), 1);
    assert_eq!(micros_of(1_001), 2);
    assert_eq!(micros_of(i64::MAX), MICROS_MAX);
}
