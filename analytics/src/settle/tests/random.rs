//! Random groups: agreement with the model, independence of order, and counts that cannot be negative.

use proptest::prelude::*;

use super::*;

/// Any group at all: spans hang anywhere (also in cycles and under unknown parents), times and ids collide.
pub(super) fn any_group(rows: std::ops::Range<usize>) -> impl Strategy<Value = (Vec<Facts>, Vec<Link>)> {
    rows.prop_flat_map(|rows| {
        let count = rows as u64;
        (
            prop::collection::vec(any_facts(count), rows),
            prop::collection::vec((0..count + 8, any::<bool>(), any_threshold()), 6),
        )
            .prop_map(move |(mut facts, links)| {
                for (facts, n) in facts.iter_mut().zip(1..) {
                    facts.seq = n;
                    facts.row_id = row_id(n);
                    if facts.signal == Signal::Span {
                        facts.span_id = n;
                    }
                }
                let links = (links.into_iter().zip(count + 1..))
                    .map(|((parent_span_id, remote_parent, threshold), span_id)| Link {
                        span_id,
                        parent_span_id,
                        remote_parent: remote_parent && threshold % 2 == 1,
                        threshold,
                    })
                    .collect();
                (facts, links)
            })
    })
}

fn any_threshold() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(NO_THRESHOLD), 1 => 0..3u64]
}

fn any_facts(count: u64) -> impl Strategy<Value = Facts> {
    let kind = prop_oneof![8 => Just(Kind::Tool), 2 => Just(Kind::Model), 1 => Just(Kind::Agent)];
    let layer = prop::sample::select(Layer::ALL);
    let signal = prop_oneof![3 => Just(Signal::Span), 1 => Just(Signal::Log)];
    let whose = (prop_oneof![3 => Just(0), 2 => 1..3u64], prop_oneof![4 => Just(0), 1 => 1..2u64], 0..3u64);
    let names = (prop_oneof![1 => Just(0), 9 => 1..3u64], prop_oneof![2 => Just(0), 1 => 1..3u64], 0..3u64, 0..3u64);
    let places = (0..count + 8, 0..count + 8, 0..3u64);
    let times = (0..12i64, prop_oneof![6 => 0..4i64, 1 => -2..12i64]);
    let marks = (
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop_oneof![5 => Just(0), 1 => 1..4u32],
        any_threshold(),
        prop::bool::weighted(0.1),
    );
    let all = (kind, layer, signal, names, places, times, marks, whose);
    all.prop_map(|(kind, layer, signal, names, places, times, marks, whose)| Facts {
        session: whose.0,
        user: whose.1,
        agent: whose.2,
        kind,
        layer,
        signal,
        tool: if kind == Kind::Tool { names.0 } else { 0 },
        asked: kind == Kind::Tool && signal == Signal::Span && marks.4,
        server: names.1,
        call_id: names.2,
        arguments: names.3,
        span_id: places.0,
        parent_span_id: places.1,
        source: places.2,
        start_ns: times.0 * 10,
        end_ns: (times.0 + times.1) * 10,
        failed: marks.0,
        asks_retry: marks.0 && marks.1,
        says_attempt: marks.2,
        threshold: marks.3,
        ..span(0)
    })
}

/// What holds of any decided group, and shows that logical calls are paths of attempts.
fn check_paths(facts: &[Facts], decided: &BTreeMap<RowId, Named>) {
    for facts in facts {
        let one = &decided[&facts.row_id];
        assert_eq!(one.is_final, one.retried_by.is_none());
        assert!(one.attempt >= 1);
        if let Some(retry) = one.retried_by {
            assert!(one.failed, "only a failure is retried");
            assert_eq!(decided[&retry].retry_of, Some(facts.row_id));
            assert!(decided[&retry].attempt > one.attempt);
            assert_eq!(decided[&retry].counted, one.counted);
        }
        if let Some(failure) = one.retry_of {
            assert_eq!(decided[&failure].retried_by, Some(facts.row_id));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_model((facts, links) in any_group(1..14)) {
        prop_assert_eq!(named(&facts, &decide(&facts, &links)), model::decide(&facts, &links));
    }

    #[test]
    fn order_does_not_matter((facts, links) in any_group(1..14), seed in any::<u64>()) {
        let (mut shuffled, mut turned) = (facts.clone(), links.clone());
        shuffled.sort_by_key(|facts| facts.row_id.as_bytes()[0].wrapping_mul(seed as u8 | 1) ^ (seed >> 8) as u8);
        turned.reverse();
        turned.extend_from_slice(&links);
        for (facts, seq) in shuffled.iter_mut().zip(100..) {
            facts.seq = seq;
        }
        let there = named(&facts, &decide(&facts, &links));
        prop_assert_eq!(there, named(&shuffled, &decide(&shuffled, &turned)));
    }

    #[test]
    fn logical_calls_are_paths_and_never_negative((facts, links) in any_group(1..14)) {
        let decided = named(&facts, &decide(&facts, &links));
        check_paths(&facts, &decided);
        // Whatever is asked for, by tool, server, layer or minute, or by all of them.
        let keys: [&dyn Fn(&Facts) -> u64; 5] =
            [&|f| f.tool, &|f| f.server, &|f| f.layer as u64, &|f| f.end_ns.rem_euclid(60) as u64, &|f| f.parent_span_id];
        for subset in 0..32 {
            let mut counts = BTreeMap::new();
            for facts in &facts {
                let key = keys.map(|key| key(facts)).iter().enumerate()
                    .map(|(bit, key)| if subset >> bit & 1 == 1 { *key } else { 0 }).collect::<Vec<_>>();
                let one = &decided[&facts.row_id];
                let (logical, failed): &mut (i64, i64) = counts.entry((key, one.counted)).or_default();
                *logical += i64::from(one.is_final);
                *failed += i64::from(one.is_final && one.failed);
            }
            prop_assert!(counts.values().all(|(logical, failed)| logical >= failed && *failed >= 0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn large_groups_agree_with_the_model((facts, links) in any_group(60..120)) {
        prop_assert_eq!(named(&facts, &decide(&facts, &links)), model::decide(&facts, &links));
    }
}
