//! Money, exact: from what a producer reports to `decimal(18,9)`.

/// Digits after the point of `cost_usd`.
const SCALE: i32 = 9;
/// 18 digits in all.
const MAX: i128 = 999_999_999_999_999_999;

/// A double's shortest decimal text, rounded half to even to 9 places, in units of 10^-9. `None` if it is negative,
/// not finite or too large.
pub(crate) fn from_f64(value: f64) -> Option<i128> {
    if !value.is_finite() || value < 0.0 {
        return None;
    }
    // Rust prints the shortest text that reads back as the same double.
    from_text(&format!("{value:e}"))
}

/// A decimal number in text, with or without an exponent, as [`from_f64`] rounds.
pub(crate) fn from_text(text: &str) -> Option<i128> {
    let text = text.trim();
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{}{fraction}", whole.strip_prefix('+').unwrap_or(whole));
    if digits.is_empty() || digits.len() > 400 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    // The value is `digits` x 10^shift in units of 10^-9.
    let shift = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?.checked_add(SCALE)?;
    let kept = i32::try_from(digits.len()).ok()?.checked_add(shift.min(0))?;
    if digits.is_empty() || kept < 0 {
        return Some(0);
    }
    if kept.checked_add(shift.max(0))? > 18 {
        return None;
    }
    let (kept, dropped) = digits.split_at(usize::try_from(kept).ok()?);
    let mut value: i128 = if kept.is_empty() { 0 } else { kept.parse().ok()? };
    value *= 10i128.pow(u32::try_from(shift.max(0)).ok()?);
    let half = dropped.as_bytes().first().map_or(std::cmp::Ordering::Less, |first| {
        first.cmp(&b'5').then(if dropped[1..].bytes().any(|b| b != b'0') {
            std::cmp::Ordering::Greater
        } else {
            std::cmp::Ordering::Equal
        })
    });
    let up = half.is_gt() || (half.is_eq() && value % 2 == 1);
    value += i128::from(up);
    (value <= MAX).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_become_their_shortest_text_rounded_half_to_even() {
        let cases = [
            (0.0, Some(0)),
            (0.0021, Some(2_100_000)),
            (3.6e-05, Some(36_000)),
            (0.1 + 0.2, Some(300_000_000)),
            (1.0, Some(1_000_000_000)),
            (2.5e-9, Some(2)),
            (3.5e-9, Some(4)),
            (2.500_000_1e-9, Some(3)),
            (4e-10, Some(0)),
            (5e-10, Some(0)),
            (6e-10, Some(1)),
            (1e-300, Some(0)),
            (999_999_999.0, Some(999_999_999_000_000_000)),
            (1e9, None),
            (1e300, None),
            (-0.1, None),
            (f64::NAN, None),
        ];
        for (value, expect) in cases {
            assert_eq!(from_f64(value), expect, "{value}");
        }
    }

    #[test]
    fn texts_are_read_like_doubles_or_refused() {
        assert_eq!(from_text(" 0.000000001 "), Some(1));
        assert_eq!(from_text("+1.5"), Some(1_500_000_000));
        for bad in ["", "-1", "1,5", "abc", "1e", "0x1", "."] {
            assert_eq!(from_text(bad), None, "{bad:?}");
        }
    }
}
