//! When a source is read again.

use std::fmt;

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use jiff::Timestamp;

/// A cron expression that was understood: five fields in UTC, or one of the `@` names.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    crontab: Crontab,
}

impl Schedule {
    /// Understands a text, or says in a sentence what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            fields => fields,
        };
        let count = fields.split_ascii_whitespace().count();
        if count != 5 {
            return Err(format!(
                "`{text}` has {count} fields; a schedule has five (minute, hour, day, month, weekday), such as `0 * * * *`"
            ));
        }
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let crontab = cronexpr::parse_crontab_with(&cronexpr::normalize_crontab(fields), options)
            .map_err(|error| format!("`{text}` is no schedule: {}", one_line(&error.to_string())))?;
        let schedule = Self { text: text.to_owned(), crontab };
        match schedule.next_after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(format!("`{text}` never comes")),
        }
    }

    /// The first time after `now`.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.crontab.find_next(MakeTimestamp(now)).ok().map(|next| next.timestamp())
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// The parser draws a picture with a caret over several lines; a condition's message is one sentence.
fn one_line(text: &str) -> String {
    let mut words =
        text.lines().map(|line| line.trim_matches([' ', '^', '|'])).filter(|line| !line.is_empty());
    words.next_back().unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_follows_the_clock_that_is_handed_in() {
        for (text, next) in [
            ("0 * * * *", "2026-11-20T13:00:00Z"),
            ("*/15 * * * *", "2026-11-20T12:45:00Z"),
            ("@daily", "2026-11-21T00:00:00Z"),
            ("@monthly", "2026-12-01T00:00:00Z"),
            ("30 6 * * MON", "2026-11-23T06:30:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
        ] {
            let schedule = Schedule::parse(text).unwrap();
            assert_eq!(schedule.next_after(at("2026-11-20T12:30:00Z")), Some(at(next)), "{text}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_a_sentence() {
        for (text, part) in [
            ("hourly", "has 1 fields"),
            ("* * * *", "has 4 fields"),
            ("0 0 * * * UTC", "has 6 fields"),
            ("61 * * * *", "61"),
            ("0 0 31 2 *", "never comes"),
        ] {
            let sentence = Schedule::parse(text).unwrap_err();
            assert!(sentence.contains(part) && !sentence.contains('\n'), "{sentence}");
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }
}
