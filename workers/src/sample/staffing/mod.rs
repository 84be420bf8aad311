//! The workers of a staffing agency.
//!
//! Each worker is drawn from the numbers of its row alone, as of [`AS_OF`], then written as one CSV record.

mod names;
mod places;
mod roles;

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use jiff::{
    ToSpan,
    civil::{Date, date},
};

use self::{
    places::{PLACES, Place},
    roles::{ROLES, Role},
};
use super::{csv_writer, io_error, random::Random};

const COLUMNS: [&str; 19] = [
    "worker_id",
    "name",
    "role",
    "city",
    "state",
    "zip",
    "email",
    "phone",
    "skills",
    "hourly_rate",
    "bill_rate",
    "years_experience",
    "hired",
    "end_date",
    "last_active",
    "available",
    "drug_screened",
    "rating",
    "resume_text",
];

/// The agency's first day.
const SINCE: Date = date(2012, 1, 1);

/// The day the table was "exported": nothing in it is later. Fixed, since a clock would change the bytes.
const AS_OF: Date = date(2026, 10, 1);

const CLOSINGS: [&str; 6] = [
    "Reliable, on time, and glad to learn.",
    "Looking for steady work close to home.",
    "References on request.",
    "Available for nights and weekends.",
    "Prefers early shifts; has own transport.",
    "Said by the last supervisor: \"hire again without a second thought\".",
];

/// Writes the header and `rows` workers.
pub(super) fn write(rows: u64, seed: u64, out: impl Write) -> io::Result<()> {
    let agency = Agency::new();
    let mut csv = csv_writer(out);
    csv.write_record(COLUMNS).map_err(io_error)?;
    let mut text = String::new();
    for row in 0..rows {
        agency.worker(seed, row).write(&agency, &mut text, &mut csv).map_err(io_error)?;
    }
    csv.flush()
}

/// What all rows share, worked out once.
struct Agency {
    given: Vec<Name>,
    family: Vec<Name>,
    /// Every day from [`SINCE`] to [`AS_OF`].
    days: Vec<Day>,
}

struct Day {
    /// As `2012-01-01`.
    text: String,
    year: usize,
}

struct Name {
    text: &'static str,
    mailbox: String,
}

impl Agency {
    fn new() -> Self {
        let names = |all: &[&'static str]| {
            all.iter().map(|&text| Name { text, mailbox: names::mailbox(text) }).collect()
        };
        let days = SINCE
            .series(1.day())
            .take_while(|&day| day <= AS_OF)
            .map(|day| Day { text: day.to_string(), year: day.year().unsigned_abs().into() })
            .collect();
        Self { given: names(names::GIVEN), family: names(names::FAMILY), days }
    }

    fn worker(&self, seed: u64, row: u64) -> Worker<'_> {
        let random = &mut Random::of_row(seed, row);
        let role = random.pick_early(ROLES);
        let today = self.days.len() - 1;
        // The later of two days: an agency that grows hired more people lately.
        let hired = random.below(self.days.len()).max(random.below(self.days.len()));
        let ended = random.percent(22).then(|| random.between(hired, today));
        let last_active = match ended {
            Some(day) => day,
            None => today - random.below(90).min(today - hired),
        };
        let (duty, employer) = (random.below(4), random.below(4));
        let earlier_years = random.below(15);
        let years = earlier_years + (today - hired) / 365;
        let hourly_rate = role.starting_rate + years * random.between(15, 60) + random.below(400);
        Worker {
            number: row + 1,
            given: random.pick_early(&self.given),
            family: random.pick_early(&self.family),
            role,
            place: random.pick_early(PLACES),
            zip_suffix: random.between(1, 99),
            phone: random.percent(88).then(|| random.between(100, 199)),
            skills: Skills::draw(role, random),
            hourly_rate,
            bill_rate: hourly_rate * random.between(132, 168) / 100,
            years,
            hired,
            ended,
            last_active,
            second_of_day: random.below(24 * 60 * 60),
            available: ended.is_none() && random.percent(64),
            drug_screened: random.percent(91),
            rating: random.percent(75).then(|| random.between(21, 50)),
            job: Job { duty, employer },
            // Neither the same duty again nor the same employer.
            earlier_job: Job {
                duty: (duty + random.between(1, 3)) % 4,
                employer: (employer + random.between(1, 3)) % 4,
            },
            earlier_years,
            closing: CLOSINGS[random.below(CLOSINGS.len())],
        }
    }
}

/// One row. Days count from [`SINCE`], money is in cents, the rating in tenths.
struct Worker<'a> {
    number: u64,
    given: &'a Name,
    family: &'a Name,
    role: &'static Role,
    place: &'static Place,
    zip_suffix: usize,
    /// The line in the 555-0100 to 555-0199 block, which is kept for fiction.
    phone: Option<usize>,
    skills: Skills,
    hourly_rate: usize,
    bill_rate: usize,
    years: usize,
    hired: usize,
    ended: Option<usize>,
    last_active: usize,
    second_of_day: usize,
    available: bool,
    drug_screened: bool,
    rating: Option<usize>,
    job: Job,
    /// Told when it lasted at least a year.
    earlier_job: Job,
    earlier_years: usize,
    closing: &'static str,
}

/// Indexes into a role's duties and employers.
struct Job {
    duty: usize,
    employer: usize,
}

/// Three to five different skills of a role.
struct Skills {
    all: &'static [&'static str; 8],
    count: usize,
    first: usize,
    step: usize,
}

impl Skills {
    fn draw(role: &'static Role, random: &mut Random) -> Self {
        // An odd step visits all eight before it comes back to the first.
        let step = *random.pick(&[1, 3, 5, 7]);
        Self { all: &role.skills, count: random.between(3, 5), first: random.below(8), step }
    }

    fn iter(&self) -> impl Iterator<Item = &'static str> {
        (0..self.count).map(|i| self.all[(self.first + i * self.step) % 8])
    }
}

impl Worker<'_> {
    /// Writes the record; `text` is room for one field.
    fn write(
        &self,
        agency: &Agency,
        text: &mut String,
        csv: &mut csv::Writer<impl Write>,
    ) -> csv::Result<()> {
        let Self { number, given, family, role, place, .. } = self;
        let mut field = |write: &dyn Fn(&mut String)| {
            text.clear();
            write(text);
            csv.write_field(text.as_bytes())
        };
        field(&|f| put(f, format_args!("{number:08}")))?;
        field(&|f| push_all(f, &[given.text, " ", family.text]))?;
        field(&|f| f.push_str(role.title))?;
        field(&|f| f.push_str(place.city))?;
        field(&|f| f.push_str(place.state))?;
        field(&|f| put(f, format_args!("{:03}{:02}", place.zip_prefix, self.zip_suffix)))?;
        field(&|f| {
            push_all(f, &[&given.mailbox, ".", &family.mailbox]);
            put(f, format_args!("{number}@example.com"));
        })?;
        field(&|f| {
            if let Some(line) = self.phone {
                put(f, format_args!("({}) 555-0{line}", place.area_code));
            }
        })?;
        field(&|f| self.push_skills(f))?;
        field(&|f| push_money(f, self.hourly_rate))?;
        field(&|f| push_money(f, self.bill_rate))?;
        field(&|f| put(f, format_args!("{}", self.years)))?;
        field(&|f| f.push_str(&agency.days[self.hired].text))?;
        field(&|f| f.push_str(self.ended.map_or("", |day| &agency.days[day].text)))?;
        field(&|f| {
            let (minute, second) = (self.second_of_day / 60, self.second_of_day % 60);
            f.push_str(&agency.days[self.last_active].text);
            put(f, format_args!("T{:02}:{:02}:{second:02}Z", minute / 60, minute % 60));
        })?;
        field(&|f| f.push_str(if self.available { "true" } else { "false" }))?;
        field(&|f| f.push_str(if self.drug_screened { "true" } else { "false" }))?;
        field(&|f| {
            if let Some(tenths) = self.rating {
                put(f, format_args!("{}.{}", tenths / 10, tenths % 10));
            }
        })?;
        field(&|f| self.push_resume(agency, f))?;
        csv.write_record(None::<&[u8]>)
    }

    fn push_skills(&self, text: &mut String) {
        for (i, skill) in self.skills.iter().enumerate() {
            text.push_str(if i == 0 { "" } else { ", " });
            text.push_str(skill);
        }
    }

    fn push_resume(&self, agency: &Agency, text: &mut String) {
        let Place { city, state, .. } = self.place;
        let hired_in = agency.days[self.hired].year;
        push_all(text, &[self.role.title, " with "]);
        match self.years {
            0 => text.push_str("a fresh certificate"),
            1 => text.push_str("a year of experience"),
            years => put(text, format_args!("{years} years of experience")),
        }
        push_all(text, &[" in ", city, ", ", state, ".\n\nExperience\n"]);
        match self.ended {
            Some(day) => put(text, format_args!("{hired_in}–{}: ", agency.days[day].year)),
            None => put(text, format_args!("{hired_in}–today: ")),
        }
        self.push_job(text, &self.job);
        push_all(text, &[", ", city, ".\n"]);
        if self.earlier_years > 0 {
            put(text, format_args!("{}–{hired_in}: ", hired_in - self.earlier_years));
            self.push_job(text, &self.earlier_job);
            text.push_str(".\n");
        }
        text.push_str("\nSkills: ");
        self.push_skills(text);
        push_all(text, &[".\n", self.closing]);
    }

    fn push_job(&self, text: &mut String, job: &Job) {
        push_all(text, &[self.role.duties[job.duty], "; ", self.role.employers[job.employer]]);
    }
}

fn push_all(text: &mut String, parts: &[&str]) {
    for part in parts {
        text.push_str(part);
    }
}

fn push_money(text: &mut String, cents: usize) {
    put(text, format_args!("{}.{:02}", cents / 100, cents % 100));
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use sha2::{Digest, Sha256};

    use super::*;

    /// Whoever changes the generator changes everybody's measurements: the new digest must be wanted.
    #[test]
    fn the_same_rows_and_seed_give_the_same_bytes_for_ever() {
        let digest = lakehouse_contract::dataset::hex(&Sha256::digest(table(1000, 1)));
        assert_eq!(digest, "7bdefdfd4c805f4d6a6c74d82f4a2fb4951eec2f28dc0d14a6ed42dfd0b16314");
        assert_ne!(table(10, 1), table(10, 2));
    }

    #[test]
    fn a_longer_sample_begins_with_the_shorter_one() {
        assert!(table(200, 7).starts_with(&table(100, 7)));
    }

    #[test]
    fn rows_have_the_size_that_the_help_promises() {
        let rows = 20_000;
        let bytes = table(rows, 1).len() as u64 / rows;
        assert!((565..580).contains(&bytes), "{bytes} bytes a row");
    }

    #[test]
    fn a_table_holds_what_careless_readers_spoil() {
        let rows = records(2000);
        assert_eq!(rows[0][0], *"00000001");
        let any = |what: &str, holds: &dyn Fn(&csv::StringRecord) -> bool| {
            assert!(rows.iter().any(holds), "no row has {what}");
        };
        any("a zip with a leading zero", &|row| row[5].starts_with('0'));
        any("a comma in skills", &|row| row[8].contains(','));
        any("a quote in skills", &|row| row[8].contains('"'));
        any("a résumé over several lines", &|row| row[18].contains('\n'));
        any("a quote in a résumé", &|row| row[18].contains('"'));
        any("a name beyond ASCII", &|row| !row[1].is_ascii());
        for column in [7, 13, 17] {
            let empty = rows.iter().filter(|row| row[column].is_empty()).count();
            assert!((100..1900).contains(&empty), "{} is empty in {empty} of 2000", COLUMNS[column]);
        }
    }

    #[test]
    fn a_row_agrees_with_itself() {
        for row in records(2000) {
            let (hired, ended, last_active) = (&row[12], &row[13], &row[14]);
            assert!(hired <= last_active, "{row:?}");
            assert!(ended.is_empty() || (hired <= ended && last_active.starts_with(ended)), "{row:?}");
            assert!(ended.is_empty() || &row[15] == "false", "who left is not available: {row:?}");
            let (rate, bill): (f64, f64) = (row[9].parse().unwrap(), row[10].parse().unwrap());
            assert!(rate < bill, "{row:?}");
            let resume = &row[18];
            assert!(resume.starts_with(&row[2]), "the role: {row:?}");
            assert!(resume.contains(&format!(" in {}, {}.", &row[3], &row[4])), "the city: {row:?}");
            assert!(resume.contains(&format!("Skills: {}.", &row[8])), "the skills: {row:?}");
        }
    }

    #[test]
    fn ids_and_addresses_are_unique() {
        let rows = records(2000);
        for column in [0, 6] {
            assert_eq!(rows.iter().map(|row| &row[column]).collect::<HashSet<_>>().len(), rows.len());
        }
    }

    #[test]
    fn no_worker_has_a_skill_twice() {
        for row in 0..200 {
            let random = &mut Random::of_row(1, row);
            let skills: Vec<_> = Skills::draw(&ROLES[0], random).iter().collect();
            assert_eq!(skills.iter().collect::<HashSet<_>>().len(), skills.len());
        }
    }

    fn table(rows: u64, seed: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(rows, seed, &mut bytes).unwrap();
        bytes
    }

    fn records(rows: u64) -> Vec<csv::StringRecord> {
        let table = table(rows, 1);
        csv::Reader::from_reader(&table[..]).records().collect::<Result<_, _>>().unwrap()
    }
}
