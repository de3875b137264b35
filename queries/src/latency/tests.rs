use toolgauge_analytics::hist::{bucket_end, nearest_rank};

use super::*;

/// Deterministic durations from a microsecond to minutes.
fn durations(n: usize, seed: u64) -> Vec<i64> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 20
    };
    (0..n).map(|_| (next() % (1 << (10 + next() % 28))).cast_signed()).collect()
}

fn column(durations: &[i64]) -> ArrayRef {
    Arc::new(durations.iter().map(|duration| Some(*duration)).collect::<Int64Array>())
}

fn groups(output: Output) -> Groups {
    Groups { input: Input::Durations, output, quantiles: vec![0.0, 0.07, 0.5, 0.99, 1.0], recorders: Vec::new() }
}

/// The quantiles of durations, the long way.
fn expected(durations: &[i64], quantiles: &[f64]) -> Vec<Option<i64>> {
    let mut micros: Vec<u64> = durations.iter().map(|duration| micros_of(*duration)).collect();
    micros.sort_unstable();
    let at = |q: &f64| micros[nearest_rank(*q, micros.len() as u64) as usize - 1];
    quantiles.iter().map(|q| Some((bucket_end(at(q)) * 1_000).cast_signed())).collect()
}

/// Several groups, filtered, in parts, through every way that an engine may take.
#[test]
fn every_way_through_the_stages_gives_the_same_answer() {
    const GROUPS: usize = 7;
    let list = durations(20_000, 3);
    let group_of: Vec<usize> =
        list.iter().enumerate().map(|(row, duration)| (row ^ *duration as usize) % GROUPS).collect();
    let passes: Vec<Option<bool>> = list.iter().map(|d| if d % 11 == 0 { None } else { Some(d % 5 != 0) }).collect();
    let parts: Vec<_> = list.chunks(3_001).zip(group_of.chunks(3_001)).zip(passes.chunks(3_001)).collect();

    let (mut whole, mut by_state, mut by_rows) =
        (groups(Output::Quantiles), groups(Output::Quantiles), groups(Output::Quantiles));
    for ((durations, group_of), passes) in &parts {
        let (values, filter) = ([column(durations)], BooleanArray::from(passes.to_vec()));
        whole.update_batch(&values, group_of, Some(&filter), GROUPS).unwrap();
        let mut part = groups(Output::Quantiles);
        part.update_batch(&values, group_of, Some(&filter), GROUPS).unwrap();
        // Emitted in two halves, as a sorted aggregation does.
        let first = part.state(EmitTo::First(2)).unwrap();
        by_state.merge_batch(&first, &[0, 1], GROUPS).unwrap();
        let rest = part.state(EmitTo::All).unwrap();
        by_state.merge_batch(&rest, &[2, 3, 4, 5, 6], GROUPS).unwrap();
        let rows = part.convert_to_state(&values, Some(&filter)).unwrap();
        by_rows.merge_batch(&rows, group_of, GROUPS).unwrap();
    }
    let answer = whole.evaluate(EmitTo::All).unwrap();
    assert_eq!(&by_state.evaluate(EmitTo::All).unwrap(), &answer);
    assert_eq!(&by_rows.evaluate(EmitTo::All).unwrap(), &answer);
    for group in 0..GROUPS {
        let rows = (0..list.len()).filter(|row| group_of[*row] == group && passes[*row] == Some(true));
        let counted: Vec<i64> = rows.map(|row| list[row]).collect();
        let got = answer.as_list::<i32>().value(group);
        let got: Vec<_> = got.as_primitive::<Int64Type>().iter().collect();
        assert_eq!(got, expected(&counted, &whole.quantiles));

        let mut one = One(Groups { recorders: vec![Recorder::default()], ..groups(Output::Quantiles) });
        let (left, right) = counted.split_at(counted.len() / 3);
        one.update_batch(&[column(left)]).unwrap();
        let mut other = One(Groups { recorders: vec![Recorder::default()], ..groups(Output::Quantiles) });
        other.update_batch(&[column(right)]).unwrap();
        let state: Vec<ArrayRef> = other.state().unwrap().iter().map(|state| state.to_array().unwrap()).collect();
        one.merge_batch(&state).unwrap();
        assert_eq!(one.evaluate().unwrap(), ScalarValue::try_from_array(&answer, group).unwrap());
    }
}

#[test]
fn without_durations_every_answer_is_null() {
    let nothing: ArrayRef = Arc::new(Int64Array::from(vec![None, None]));
    for output in [Output::Payload, Output::Quantile, Output::Quantiles] {
        let mut none = groups(output);
        none.update_batch(&[Arc::clone(&nothing)], &[0, 0], None, 2).unwrap();
        assert_eq!(none.evaluate(EmitTo::All).unwrap().logical_null_count(), 2);
    }
}

#[test]
fn memory_is_told() {
    let mut groups = groups(Output::Payload);
    let before = groups.size();
    groups.update_batch(&[column(&durations(10_000, 1))], &vec![0; 10_000], None, 1).unwrap();
    assert!(groups.size() > before + 1_000);
}
