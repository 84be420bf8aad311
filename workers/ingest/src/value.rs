//! The grammar of values: which texts are numbers, days, instants and booleans, and what they are worth.
//!
//! Exactness decides: a text is a number only when the number shows the same text's value again. Whatever is doubtful (leading
//! zeros, a plus sign, exponents, more digits than a double holds) is no number, and its column becomes text.

/// Integers up to this magnitude are doubles without loss.
pub(crate) const EXACT_IN_DOUBLE: u64 = 1 << 53;

/// Microseconds in a day.
const DAY: i64 = 86_400_000_000;

/// Days from 1970-01-01 to 0001-01-01 and to 9999-12-31: what a four-digit year can show.
const FIRST_DAY: i64 = -719_162;
const LAST_DAY: i64 = 2_932_896;

/// `0` or `-?[1-9][0-9]*`, in range.
pub(crate) fn int64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = sign(text);
    match digits {
        b"0" => return (!negative).then_some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let magnitude = decimal(digits)?;
    if negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// `-?(0|[1-9][0-9]*)\.[0-9]+` whose digits a double shows again.
///
/// Zeros at the fraction's end do not count. Fifteen significant digits always survive; sixteen and seventeen do when the shortest
/// text of the parsed double has the same ones.
pub(crate) fn float64(text: &[u8]) -> Option<f64> {
    let (negative, rest) = sign(text);
    let dot = rest.iter().position(|&byte| byte == b'.')?;
    let (whole, fraction) = (&rest[..dot], &rest[dot + 1..]);
    if !matches!(whole, b"0" | [b'1'..=b'9', ..]) || fraction.is_empty() {
        return None;
    }
    let fraction = trim_zeros(fraction);
    if whole.len() + fraction.len() <= 15 {
        // Both are whole doubles, so the division rounds once, which is what parsing must do.
        let mut digits = whole.iter().chain(fraction);
        let mantissa = digits.try_fold(0_u64, |number, &byte| Some(number * 10 + digit(byte)?))?;
        let value = mantissa as f64 / POWERS_OF_TEN[fraction.len()];
        return Some(if negative { -value } else { value });
    }
    if !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    shows_again(value, whole, fraction).then_some(value)
}

/// [`float64`] of a column that is declared so: integers and exponents too, rounded to the nearest double, never to infinity.
pub(crate) fn declared_float64(text: &[u8]) -> Option<f64> {
    if let Some(value) = float64(text) {
        return Some(value);
    }
    let (_, rest) = sign(text);
    let whole = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return None;
    }
    let mut rest = &rest[whole..];
    if let [b'.', fraction @ ..] = rest {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        rest = &fraction[digits..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let (_, digits) = if let [b'+', digits @ ..] = exponent { (false, digits) } else { sign(exponent) };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
    } else if !rest.is_empty() {
        return None;
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// `true` and `false` in lower case, upper case or with a capital.
pub(crate) fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"true" | b"True" | b"TRUE" => Some(true),
        b"false" | b"False" | b"FALSE" => Some(false),
        _ => None,
    }
}

/// `YYYY-MM-DD`, a real day of the years 1 to 9999: days since 1970-01-01.
pub(crate) fn date(text: &[u8]) -> Option<i32> {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = two(y1, y2)? * 100 + two(y3, y4)?;
    let (month, day) = (two(m1, m2)?, two(d1, d2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => return None,
    };
    if year == 0 || day == 0 || day > last {
        return None;
    }
    Some(days_since_epoch(year.cast_signed(), month.cast_signed(), day.cast_signed()))
}

/// `YYYY-MM-DD[T ]HH:MM:SS[.f{1,6}]` with an optional `Z` or `±HH:MM`: microseconds since 1970-01-01 in UTC, and whether
/// there was a zone. A time without one is read as UTC.
pub(crate) fn timestamp(text: &[u8]) -> Option<(i64, bool)> {
    let (day, rest) = text.split_at_checked(10)?;
    let &[b'T' | b' ', h1, h2, b':', m1, m2, b':', s1, s2, ref rest @ ..] = rest else { return None };
    let (hour, minute, second) = (two(h1, h2)?, two(m1, m2)?, two(s1, s2)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (micros, zone) = fraction(rest)?;
    let offset_minutes = offset(zone)?;
    let days = i64::from(date(day)?);
    let seconds = i64::from((hour * 60 + minute) * 60 + second) - i64::from(offset_minutes.unwrap_or(0)) * 60;
    let instant = days * DAY + seconds * 1_000_000 + micros;
    (FIRST_DAY..=LAST_DAY).contains(&instant.div_euclid(DAY)).then_some((instant, offset_minutes.is_some()))
}

/// The microseconds at the start of `text`, if it starts with a point, and what follows.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', rest @ ..] = text else { return Some((0, text)) };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=6).contains(&digits) {
        return None;
    }
    let number = decimal(&rest[..digits])? * 10_u64.pow(u32::try_from(6 - digits).ok()?);
    Some((number.cast_signed(), &rest[digits..]))
}

/// The minutes east of UTC that a zone stands for; `Some(None)` when there is no zone.
#[allow(clippy::option_option, reason = "no zone and a wrong zone are two things")]
fn offset(zone: &[u8]) -> Option<Option<i32>> {
    match *zone {
        [] => Some(None),
        [b'Z'] => Some(Some(0)),
        [east @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let minutes = (hours * 60 + minutes).cast_signed();
            Some(Some(if east == b'-' { -minutes } else { minutes }))
        }
        _ => None,
    }
}

/// Days since 1970-01-01, after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_since_epoch(year: i32, month: i32, day: i32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Whether the shortest text of `value` has the digits of `whole.fraction`, at the same place.
fn shows_again(value: f64, whole: &[u8], fraction: &[u8]) -> bool {
    let digits: Vec<u8> = whole.iter().chain(fraction).copied().collect();
    let Some(first) = digits.iter().position(|&byte| byte != b'0') else { return true };
    let significant = trim_zeros(&digits[first..]);
    if digits.len() - first > 17 {
        return false;
    }
    let exponent = whole.len().cast_signed() - 1 - first.cast_signed();
    let shown = format!("{:e}", value.abs());
    let Some((shown_digits, shown_exponent)) = shown.split_once('e') else { return false };
    let same_digits = shown_digits.bytes().filter(|&byte| byte != b'.').eq(significant.iter().copied());
    same_digits && shown_exponent.parse() == Ok(exponent)
}

/// The digits without the zeros at their end.
fn trim_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().rev().take_while(|&&byte| byte == b'0').count();
    &digits[..digits.len() - zeros]
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
    if let [b'-', rest @ ..] = text { (true, rest) } else { (false, text) }
}

/// The number that at most 19 digits spell.
fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, &byte| Some(number * 10 + digit(byte)?))
}

fn two(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| u32::from(tens) * 10 + u32::from(ones))
}

fn digit(byte: u8) -> Option<u64> {
    let digit = byte.wrapping_sub(b'0');
    (digit <= 9).then_some(u64::from(digit))
}

const POWERS_OF_TEN: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp, civil};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_are_what_the_standard_library_reads(text in "-?[0-9]{0,21}|[-+ 0-9a-z]{0,5}") {
            let shown_again = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
            prop_assert_eq!(int64(text.as_bytes()), shown_again);
        }

        #[test]
        fn every_integer_is_read(number: i64) {
            prop_assert_eq!(int64(number.to_string().as_bytes()), Some(number));
        }

        #[test]
        fn fractions_are_what_the_standard_library_reads(text in "-?(0|[1-9][0-9]{0,17})\\.[0-9]{1,18}") {
            if let Some(value) = float64(text.as_bytes()) {
                prop_assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits());
            }
        }

        #[test]
        fn fractions_show_again(text in "-?(0|[1-9][0-9]{0,17})\\.[0-9]{1,18}") {
            let (whole, fraction) = text.trim_start_matches('-').split_once('.').unwrap();
            let digits = format!("{whole}{}", fraction.trim_end_matches('0'));
            let significant = digits.trim_start_matches('0').len();
            // Rust shows a double with the fewest digits that lead back to it, and never with an exponent here.
            let shown = format!("{:?}", text.parse::<f64>().unwrap().abs());
            let same = shown.trim_end_matches(".0") == format!("{whole}.{fraction}").trim_end_matches('0').trim_end_matches('.');
            let expected = significant <= 15 || (significant <= 17 && same);
            if !shown.contains('e') {
                prop_assert_eq!(float64(text.as_bytes()).is_some(), expected, "{} {}", text, shown);
            }
        }

        #[test]
        fn every_double_that_shows_without_an_exponent_is_read(number in -1e15_f64..1e15) {
            let text = format!("{number:?}");
            prop_assume!(!text.contains('e') && text.contains('.'));
            prop_assert_eq!(float64(text.as_bytes()), Some(number));
        }

        #[test]
        fn declared_fractions_are_what_the_standard_library_reads(text in "-?[0-9]{1,3}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{0,3})?") {
            let whole = text.trim_start_matches('-').split(['.', 'e', 'E']).next().unwrap();
            let plain = whole == "0" || !whole.starts_with('0');
            let ends_well = !text.ends_with('.') && !text.contains(".e") && !text.contains(".E");
            let expected = text.parse::<f64>().ok().filter(|value| value.is_finite() && plain && ends_well);
            prop_assert_eq!(declared_float64(text.as_bytes()), expected);
        }

        #[test]
        fn days_are_what_a_calendar_says(year in 0_i16..=9999, month in 0_i8..14, day in 0_i8..33) {
            let text = format!("{year:04}-{month:02}-{day:02}");
            let epoch = civil::date(1970, 1, 1);
            let expected = civil::Date::new(year, month, day).ok().filter(|_| year > 0);
            let expected = expected.map(|day| day.since(epoch).unwrap().get_days());
            prop_assert_eq!(date(text.as_bytes()), expected);
        }

        #[test]
        fn instants_are_what_a_calendar_says(
            seconds in -62_135_500_000_i64..253_402_200_000, micros in 0_i32..1_000_000, minutes in -1439_i32..1440,
        ) {
            let instant = Timestamp::new(seconds, micros * 1000).unwrap();
            let local = instant.checked_add(SignedDuration::from_mins(i64::from(minutes))).unwrap();
            let local = local.to_zoned(jiff::tz::TimeZone::UTC).datetime();
            let sign = if minutes < 0 { '-' } else { '+' };
            let text = format!(
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{micros:06}{sign}{:02}:{:02}",
                local.year(), local.month(), local.day(), local.hour(), local.minute(), local.second(),
                minutes.abs() / 60, minutes.abs() % 60,
            );
            prop_assume!((1..=9999).contains(&local.year()));
            prop_assert_eq!(timestamp(text.as_bytes()), Some((instant.as_microsecond(), true)), "{}", text);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text: Vec<u8>, start in "[-0-9.: TZ+eE]{0,30}") {
            for text in [text.as_slice(), start.as_bytes()] {
                let (_, _, _) = (int64(text), float64(text), declared_float64(text));
                let (_, _, _) = (boolean(text), date(text), timestamp(text));
            }
        }
    }
}
