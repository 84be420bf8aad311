//! Days, times and instants as text, over DuckDB's whole range: jiff and chrono end long before it.

use std::io::Write;

use super::text;

/// Where a day is infinite in DuckDB.
const INFINITE_DAY: i32 = i32::MAX;

/// The number of units in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit(pub(super) i64);

/// `2024-02-29`. Years beyond 9999 and before 0 have a sign, as in ISO 8601's expanded form.
pub(super) fn date(days: i32, out: &mut Vec<u8>) {
    match days {
        INFINITE_DAY => out.extend_from_slice(b"infinity"),
        days if days == -INFINITE_DAY => out.extend_from_slice(b"-infinity"),
        days => day(i64::from(days), out),
    }
}

/// `2024-02-29T13:05:00.5Z`: RFC 3339, in UTC.
pub(super) fn timestamp(value: i64, unit: Unit, out: &mut Vec<u8>) {
    match value {
        i64::MAX => out.extend_from_slice(b"infinity"),
        value if value == -i64::MAX => out.extend_from_slice(b"-infinity"),
        value => {
            let in_a_day = 86_400 * unit.0;
            day(value.div_euclid(in_a_day), out);
            out.push(b'T');
            time(value.rem_euclid(in_a_day), unit, out);
            out.push(b'Z');
        }
    }
}

/// `13:05:00.5`. The end of a day is `24:00:00`.
pub(super) fn time(value: i64, unit: Unit, out: &mut Vec<u8>) {
    let seconds = value / unit.0;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    text::two(hour, out);
    out.push(b':');
    text::two(minute, out);
    out.push(b':');
    text::two(second, out);
    fraction(value % unit.0, unit, out);
}

/// ISO 8601: `P1Y2M3DT4H5M6.7S`; nothing at all is `PT0S`. Each part keeps its own sign.
pub(super) fn interval(months: i32, days: i32, nanoseconds: i64, out: &mut Vec<u8>) {
    const NANO: Unit = Unit(1_000_000_000);
    out.push(b'P');
    for (count, letter) in [(months / 12, 'Y'), (months % 12, 'M'), (days, 'D')] {
        if count != 0 {
            write(out, format_args!("{count}{letter}"));
        }
    }
    let seconds = nanoseconds / NANO.0;
    if nanoseconds != 0 || (months, days) == (0, 0) {
        out.push(b'T');
    }
    for (count, letter) in [(seconds / 3600, 'H'), (seconds / 60 % 60, 'M')] {
        if count != 0 {
            write(out, format_args!("{count}{letter}"));
        }
    }
    let rest = nanoseconds % (60 * NANO.0);
    if rest != 0 || (months, days, nanoseconds) == (0, 0, 0) {
        let sign = if rest < 0 { "-" } else { "" };
        let rest = rest.abs();
        write(out, format_args!("{sign}{}", rest / NANO.0));
        fraction(rest % NANO.0, NANO, out);
        out.push(b'S');
    }
}

/// `.5`: as many digits as there are, and nothing for zero.
fn fraction(value: i64, unit: Unit, out: &mut Vec<u8>) {
    if value != 0 {
        let digits = unit.0.ilog10() as usize;
        write(out, format_args!(".{value:0digits$}"));
        while out.ends_with(b"0") {
            out.pop();
        }
    }
}

/// The day that is so many days after 1970-01-01, in the proleptic Gregorian calendar.
///
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn day(days: i64, out: &mut Vec<u8>) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    match year {
        0..=9999 => {
            text::two(year / 100, out);
            text::two(year % 100, out);
        }
        _ => write(out, format_args!("{year:+05}")),
    }
    out.push(b'-');
    text::two(month, out);
    out.push(b'-');
    text::two(day, out);
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes any bytes");
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, civil::Date};
    use proptest::prelude::*;

    use super::*;

    const MICRO: Unit = Unit(1_000_000);

    proptest! {
        #[test]
        fn days_agree_with_jiff(days in -719_528..2_932_896) {
            let expected = Date::new(1970, 1, 1).unwrap() + jiff::Span::new().days(days);
            prop_assert_eq!(text(|out| date(days, out)), expected.to_string());
        }

        #[test]
        fn instants_agree_with_jiff(micros in -62_135_596_800_000_000_i64..253_402_200_000_000_000) {
            let text = text(|out| timestamp(micros, MICRO, out));
            prop_assert_eq!(text.parse::<Timestamp>().unwrap(), Timestamp::from_microsecond(micros).unwrap());
        }

        #[test]
        fn intervals_are_read_back_the_same(months in 0..5000_i32, days in 0..5000_i32, micros in 0..1_i64 << 50) {
            // jiff has one sign for all parts, so negative ones are in a test of their own.
            let text = text(|out| interval(months, days, micros * 1000, out));
            let span: jiff::Span = text.parse().unwrap();
            let time = i64::from(span.get_hours()) * 3_600_000_000 + span.get_minutes() * 60_000_000
                + span.get_seconds() * 1_000_000 + span.get_milliseconds() * 1000 + span.get_microseconds();
            prop_assert_eq!(
                (i32::from(span.get_years()) * 12 + span.get_months(), span.get_days(), time),
                (months, days, micros)
            );
        }
    }

    #[test]
    fn years_outside_four_digits_have_a_sign() {
        assert_eq!(text(|out| date(2_932_897, out)), "+10000-01-01");
        assert_eq!(text(|out| date(-719_529, out)), "-0001-12-31");
        assert_eq!(text(|out| date(i32::MAX, out)), "infinity");
        assert_eq!(text(|out| date(-i32::MAX, out)), "-infinity");
        assert_eq!(text(|out| timestamp(-i64::MAX, MICRO, out)), "-infinity");
    }

    #[test]
    fn fractions_have_the_digits_that_they_need() {
        assert_eq!(text(|out| time(86_400_000_000, MICRO, out)), "24:00:00");
        assert_eq!(text(|out| time(1, MICRO, out)), "00:00:00.000001");
        assert_eq!(text(|out| timestamp(-1, Unit(1_000_000_000), out)), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(text(|out| timestamp(500, Unit(1000), out)), "1970-01-01T00:00:00.5Z");
    }

    #[test]
    fn an_interval_names_the_parts_that_it_has() {
        assert_eq!(text(|out| interval(0, 0, 0, out)), "PT0S");
        assert_eq!(text(|out| interval(14, 3, 14_706_700_000_000, out)), "P1Y2M3DT4H5M6.7S");
        assert_eq!(text(|out| interval(-1, 2, -500_000_000, out)), "P-1M2DT-0.5S");
        assert_eq!(text(|out| interval(12, 0, 0, out)), "P1Y");
    }

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }
}
