//! The time range of a request: RFC 3339 instants, or relative to now.

use toolgauge_proto::time::UnixMicros;

/// Range of a report if the request names none, in microseconds: one hour.
const DEFAULT_RANGE_MICROS: i64 = 3_600_000_000;

/// The range [`from`, `to`): by default the last hour up to now.
pub(super) fn range(from: Option<&str>, to: Option<&str>, now: UnixMicros) -> Result<(UnixMicros, UnixMicros), String> {
    let to = to.map_or(Ok(now), |text| instant("to", text, now))?;
    let from = match from {
        Some(text) => instant("from", text, now)?,
        None => UnixMicros(to.0.saturating_sub(DEFAULT_RANGE_MICROS)),
    };
    if from >= to {
        return Err("\"from\" must be before \"to\"; leave both out for the last hour".to_owned());
    }
    Ok((from, to))
}

fn instant(name: &str, text: &str, now: UnixMicros) -> Result<UnixMicros, String> {
    if text == "now" {
        return Ok(now);
    }
    let found = match text.strip_prefix('-') {
        Some(ago) => duration_micros(ago).and_then(|micros| now.0.checked_sub(micros)),
        // A plus sign that was not percent-encoded arrives as a space.
        None => chrono::DateTime::parse_from_rfc3339(&text.replace(' ', "+")).ok().map(|t| t.timestamp_micros()),
    };
    found.map(UnixMicros).ok_or_else(|| {
        format!(
            "{name:?} must be an RFC 3339 instant such as 2026-01-31T12:00:00Z, or relative such as now, -15m, -1h, -7d, \
             got {text:?}"
        )
    })
}

/// `90s`, `15m`, `1h`, `7d`, `2w`.
fn duration_micros(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds: i64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<i64>().ok()?.checked_mul(seconds)?.checked_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros(1_000_000_000_000_000);

    #[test]
    fn ranges_are_absolute_or_relative_and_the_last_hour_by_default() {
        let hour = 3_600_000_000;
        assert_eq!(range(None, None, NOW), Ok((UnixMicros(NOW.0 - hour), NOW)));
        assert_eq!(range(Some("-2h"), Some("-1h"), NOW), Ok((UnixMicros(NOW.0 - 2 * hour), UnixMicros(NOW.0 - hour))));
        assert_eq!(
            range(Some("1970-01-01T00:00:00Z"), Some("1970-01-01T01:00:00.5+00:30"), NOW),
            Ok((UnixMicros(0), UnixMicros(hour / 2 + 500_000)))
        );
        assert_eq!(range(Some("1970-01-01T01:00:00 01:00"), Some("now"), NOW), Ok((UnixMicros(0), NOW)));
    }

    #[test]
    fn faults_say_what_to_write() {
        for text in ["yesterday", "-", "-h", "-1", "-1y", "--1h", "-9999999999999999w", "2026-01-31", "", "-1é"] {
            let error = range(Some(text), None, NOW).unwrap_err();
            assert!(error.contains("\"from\" must be an RFC 3339 instant such as"), "{text}: {error}");
        }
        assert!(range(Some("now"), Some("-1h"), NOW).unwrap_err().contains("must be before"));
    }
}
