//! Numbers for people.

use jiff::SignedDuration;

/// Bytes in binary units with one decimal, such as `12.3 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut amount = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// A whole number with a comma between thousands, such as `3,376`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of rows, such as `1 row` or `3,376 rows`.
pub fn rows(number: u64) -> String {
    format!("{} {}", count(number), if number == 1 { "row" } else { "rows" })
}

/// How long work took, such as `85ms`, `1.2s` or `3m10s`.
pub fn duration(milliseconds: u64) -> String {
    match milliseconds {
        0..1000 => format!("{milliseconds}ms"),
        // From here one decimal would be rounded up to a whole minute.
        1000..59_950 => format!("{:.1}s", milliseconds as f64 / 1000.0),
        _ => {
            let seconds = (milliseconds + 500) / 1000;
            match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
                (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
                (hours, minutes, _) => format!("{hours}h{minutes}m"),
            }
        }
    }
}

/// How long ago, in the words of `kubectl get` (`k8s.io/apimachinery/pkg/util/duration.HumanDuration`).
pub fn age(span: SignedDuration) -> String {
    let seconds = span.as_secs();
    // Clocks of two machines may differ a little; more than that is no age.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    match () {
        () if seconds < 120 => format!("{}s", seconds.max(0)),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => pair(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () if days < 2920 => pair(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_never_a_thousand_units() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (12_897_485, "12.3 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!([0, 999, 1000, 3_376, 1_234_567].map(count), ["0", "999", "1,000", "3,376", "1,234,567"]);
        assert_eq!([0, 1, 3_376].map(rows), ["0 rows", "1 row", "3,376 rows"]);
    }

    #[test]
    fn durations_grow_coarser_as_they_grow_longer() {
        for (milliseconds, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1249, "1.2s"),
            (59_949, "59.9s"),
            (59_950, "1m0s"),
            (190_000, "3m10s"),
            (7_500_000, "2h5m"),
        ] {
            assert_eq!(duration(milliseconds), text);
        }
    }

    #[test]
    fn ages_are_those_of_kubectl() {
        // From the table of k8s.io/apimachinery/pkg/util/duration/duration_test.go.
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (1, "1s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (599, "9m59s"),
            (600, "10m"),
            (179 * 60 + 59, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (8 * 3600 - 1, "7h59m"),
            (8 * 3600, "8h"),
            (48 * 3600 - 1, "47h"),
            (48 * 3600, "2d"),
            (49 * 3600, "2d1h"),
            (8 * 86_400 - 1, "7d23h"),
            (8 * 86_400, "8d"),
            (729 * 86_400, "729d"),
            (730 * 86_400, "2y"),
            (731 * 86_400, "2y1d"),
            (2919 * 86_400, "7y364d"),
            (2920 * 86_400, "8y"),
        ] {
            assert_eq!(age(SignedDuration::from_secs(seconds)), text, "{seconds}");
        }
    }
}
