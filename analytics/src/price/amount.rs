//! Exact decimals: from text to integers, and rounded once.

/// Digits after the point of `cost_usd`.
pub(super) const COST_PLACES: u32 = 9;
/// Digits after the point of a price per call, second, byte or token, in dollars.
pub(super) const PRICE_PLACES: u32 = 18;
/// Greatest `cost_usd`, in units of 10^-9: it has 18 digits.
pub(super) const COST_MAX: i128 = 10_i128.pow(18) - 1;

/// A decimal that is not negative, in units of 10^-`places`. `None` if it is none, has more digits after the point than that,
/// or is 10^18 and more.
pub(super) fn decimal(text: &str, places: u32) -> Option<i128> {
    let text = text.replace('_', "");
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (&*text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = whole.strip_prefix('+').unwrap_or(whole);
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 60 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // The value is `digits` x 10^shift in the units asked for.
    let shift = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?.checked_add(i32::try_from(places).ok()?)?;
    let digits = digits.trim_start_matches('0');
    let kept = if shift < 0 {
        let cut = digits.len().checked_sub(usize::try_from(-shift).ok()?);
        let (kept, dropped) = digits.split_at(cut.unwrap_or(0));
        if dropped.bytes().any(|digit| digit != b'0') {
            return None;
        }
        kept
    } else {
        digits
    };
    if kept.is_empty() {
        return Some(0);
    }
    let value = kept.parse::<i128>().ok()?.checked_mul(10_i128.checked_pow(u32::try_from(shift.max(0)).ok()?)?)?;
    (value < 10_i128.checked_pow(places + 18)?).then_some(value)
}

/// `amount / unit`, rounded half to even; both not negative, `unit` not 0.
pub(super) fn half_even(amount: i128, unit: i128) -> i128 {
    let (quotient, rest) = (amount / unit, amount % unit);
    // rest < unit - rest, without overflow.
    let up = match rest.cmp(&(unit - rest)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient % 2 == 1,
        std::cmp::Ordering::Greater => true,
    };
    quotient + i128::from(up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_exactly_or_not_at_all() {
        let cases = [
            ("0", 9, Some(0)),
            ("0.15", 9, Some(150_000_000)),
            ("1_000.5", 3, Some(1_000_500)),
            ("1e-6", 9, Some(1_000)),
            ("2.50e1", 0, Some(25)),
            ("+3", 2, Some(300)),
            ("0.0000000010", 9, Some(1)),
            ("0.0000000001", 9, None),
            ("999999999999999999", 18, Some(999_999_999_999_999_999 * 10_i128.pow(18))),
            ("1e18", 18, None),
            ("1e99", 9, None),
            ("-1", 9, None),
            ("", 9, None),
            (".", 9, None),
            ("1,5", 9, None),
            ("inf", 9, None),
            ("nan", 9, None),
            ("0x10", 9, None),
        ];
        for (text, places, expect) in cases {
            assert_eq!(decimal(text, places), expect, "{text}");
        }
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        let rounded = [4, 5, 6, 14, 15, 16, 25, 26].map(|amount| half_even(amount, 10));
        assert_eq!(rounded, [0, 0, 1, 1, 2, 2, 2, 3]);
        assert_eq!(half_even(i128::MAX, i128::MAX), 1);
    }
}
