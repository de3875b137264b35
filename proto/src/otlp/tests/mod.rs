//! The views against `prost` on real, generated and broken requests.

mod compare;
mod generate;

use std::path::{Path, PathBuf};

use compare::Verdict;
use proptest::prelude::*;

use super::*;

/// The bytes of every captured protobuf request.
fn corpora() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpora");
    let mut files = Vec::new();
    for producer in std::fs::read_dir(&folder).expect("tests/corpora").map(|entry| entry.expect("entry").path()) {
        if producer.is_dir() {
            files.extend(std::fs::read_dir(producer).expect("corpus").map(|entry| entry.expect("entry").path()));
        }
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "pb"));
    files.sort();
    files.into_iter().map(|file| (file.clone(), std::fs::read(file).expect("request"))).collect()
}

fn is_logs(file: &Path) -> bool {
    file.to_string_lossy().ends_with("-logs.pb")
}

#[test]
fn views_agree_with_prost_on_every_capture() {
    let corpora = corpora();
    assert!(corpora.len() >= 20, "found {} captures", corpora.len());
    for (file, bytes) in corpora {
        let verdict = if is_logs(&file) { compare::logs(&bytes) } else { compare::traces(&bytes) };
        assert_eq!(verdict, Verdict::Accepted, "{}", file.display());
    }
}

#[test]
fn every_cut_of_a_capture_is_judged_as_by_prost() {
    for (file, bytes) in corpora() {
        if bytes.len() < 6000 {
            for end in 0..bytes.len() {
                if is_logs(&file) {
                    compare::logs(&bytes[..end])
                } else {
                    compare::traces(&bytes[..end])
                };
            }
        }
    }
}

/// Enough entropy for requests of some kilobytes.
fn entropy() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..3000)
}

/// Replaces, inserts, removes bytes or cuts the end off, at places given as a share of the length.
fn mutate(bytes: &mut Vec<u8>, mutations: &[(u16, u8, u8)]) {
    for (place, what, byte) in mutations {
        let at = usize::from(*place) * bytes.len() / (usize::from(u16::MAX) + 1);
        match what % 8 {
            0 => bytes.insert(at, *byte),
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            2 => bytes.truncate(at),
            3 if !bytes.is_empty() => bytes[at] = bytes[at].wrapping_add(1),
            4 if !bytes.is_empty() => bytes[at] = bytes[at].wrapping_sub(1),
            _ if !bytes.is_empty() => bytes[at] = *byte,
            _ => {}
        }
    }
}

fn mutations() -> impl Strategy<Value = Vec<(u16, u8, u8)>> {
    prop::collection::vec(any::<(u16, u8, u8)>(), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_requests_read_as_prost_reads_them(entropy in entropy()) {
        prop_assert_eq!(compare::traces(&generate::traces(&entropy)), Verdict::Accepted);
        prop_assert_eq!(compare::logs(&generate::logs(&entropy)), Verdict::Accepted);
        prop_assert_eq!(compare::metrics(&generate::metrics(&entropy)), Verdict::Accepted);
    }

    #[test]
    fn mutated_requests_are_judged_as_by_prost(entropy in entropy(), mutations in mutations()) {
        let mut traces = generate::traces(&entropy);
        mutate(&mut traces, &mutations);
        compare::traces(&traces);
        let mut logs = generate::logs(&entropy);
        mutate(&mut logs, &mutations);
        compare::logs(&logs);
        let mut metrics = generate::metrics(&entropy);
        mutate(&mut metrics, &mutations);
        compare::metrics(&metrics);
    }

    #[test]
    fn mutated_captures_are_judged_as_by_prost(mutations in mutations(), pick in any::<prop::sample::Index>()) {
        let corpora = corpora();
        let (file, mut bytes) = corpora[pick.index(corpora.len())].clone();
        mutate(&mut bytes, &mutations);
        if is_logs(&file) { compare::logs(&bytes) } else { compare::traces(&bytes) };
    }

    #[test]
    fn arbitrary_bytes_are_judged_as_by_prost(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        compare::traces(&bytes);
        compare::logs(&bytes);
        compare::metrics(&bytes);
    }
}

/// `value` as the value of the one attribute of the one span of a request.
fn in_span(value: &[u8]) -> Vec<u8> {
    let attribute = generate::len(9, &generate::len(2, value));
    generate::len(1, &generate::len(2, &generate::len(2, &attribute)))
}

#[test]
fn values_nest_as_deep_as_in_prost_and_no_deeper() {
    let mut value = Vec::new();
    let mut deepest = 0;
    for depth in 0..120 {
        if compare::traces(&in_span(&value)) == Verdict::Accepted {
            deepest = depth;
        }
        value = generate::len(5, &generate::len(1, &value));
    }
    // An array takes two of the hundred levels; the request, its spans and the attribute took five.
    assert_eq!(deepest, 47);
}

#[test]
fn groups_nest_as_deep_as_in_prost_and_no_deeper() {
    let mut deepest = 0;
    for depth in 1..120 {
        let mut groups = [0xfb, 0x01].repeat(depth);
        groups.extend([0xfc, 0x01].repeat(depth));
        if compare::traces(&groups) == Verdict::Accepted {
            deepest = depth;
        }
        compare::traces(&in_span(&groups));
        let mut nested = Vec::new();
        for _ in 0..45 {
            nested = generate::len(5, &generate::len(1, &nested));
        }
        nested.extend(&groups);
        compare::traces(&in_span(&nested));
    }
    assert_eq!(deepest, 100);
}

#[test]
fn a_list_broken_by_another_value_starts_anew() {
    let array = |text: &[u8]| generate::len(5, &generate::len(1, &generate::len(1, text)));
    let value = [array(b"lost"), generate::len(1, b"breaks"), array(b"one"), array(b"two")].concat();
    let request = in_span(&value);
    assert_eq!(compare::traces(&request), Verdict::Accepted);
    let span = only_span(TracesView::new(&request).expect("request"));
    let Some(AnyValueView::Array(array)) = span.attributes().next().map(|attribute| attribute.value) else {
        panic!("no array in {span:?}");
    };
    let texts: Vec<_> = array.iter().map(|value| format!("{value:?}")).collect();
    assert_eq!(texts, [format!("{:?}", AnyValueView::String(b"one")), format!("{:?}", AnyValueView::String(b"two"))]);
}

fn only_span(view: TracesView<'_>) -> SpanView<'_> {
    let mut spans = view.resource_spans().flat_map(|part| part.scope_spans()).flat_map(|part| part.spans());
    let span = spans.next().expect("a span");
    assert!(spans.next().is_none());
    span
}

#[test]
fn strings_that_are_not_utf8_are_handed_out() {
    let request = in_span(&generate::len(1, b"\xff"));
    assert_eq!(compare::traces(&request), Verdict::NotUtf8);
    let span = only_span(TracesView::new(&request).expect("framing is sound"));
    assert!(matches!(span.attributes().next().map(|attribute| attribute.value), Some(AnyValueView::String(b"\xff"))));
}

#[test]
fn a_fault_is_named_with_its_place() {
    let check = |request: &[u8], offset, fault| {
        assert_eq!(compare::traces(request), Verdict::Refused);
        assert_eq!(TracesView::new(request).err(), Some(Malformed { offset, fault }), "{request:?}");
    };
    check(&[0x0a], 1, Fault::Varint);
    check(&[0x0a, 0x80], 1, Fault::Varint);
    check(&[0x98, 0x06, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], 2, Fault::Varint);
    check(&[0x02, 0x00], 0, Fault::FieldNumber);
    check(&[0x80, 0x80, 0x80, 0x80, 0x10, 0x00], 0, Fault::FieldNumber);
    check(&[0x0a, 0x05, 0x12, 0x00], 2, Fault::PastEnd);
    check(&[0x0a, 0x02, 0x12, 0x01], 4, Fault::PastEnd);
    check(&[0x0a, 0x02, 0x10, 0x01], 3, Fault::WireType);
    check(&[0x0a, 0x02, 0x26, 0x01], 3, Fault::UnknownWireType);
    check(&[0x9c, 0x06], 2, Fault::EndGroup);
    check(&[0x9b, 0x06, 0xa4, 0x06], 2, Fault::EndGroup);
    let malformed = TracesView::new(&[0x0a, 0x05, 0x12, 0x00]).expect_err("cut");
    assert_eq!(malformed.to_string(), "malformed protobuf at byte 2: field reaches past the end of its message");
}

#[test]
fn an_empty_request_is_a_request_of_nothing() {
    assert_eq!(TracesView::new(&[]).expect("empty").span_count(), 0);
    assert_eq!(LogsView::new(&[]).expect("empty").log_record_count(), 0);
    assert_eq!(metric_points(&[]), Ok(0));
}
