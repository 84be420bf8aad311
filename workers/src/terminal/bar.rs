//! Bars of running ingests and builds on standard error; nothing at all where that is no terminal.

use indicatif::{MultiProgress, ProgressStyle};
use lakehouse_contract::{
    build,
    ingest::{Phase, Progress},
};
use lakehouse_plan::human;

use super::printable;

const WITH_TOTAL: &str = "{prefix} {bar:16} {percent:>3}% {msg}";
const WITHOUT_TOTAL: &str = "{prefix} {spinner} {msg}";

/// Bars below each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bars(MultiProgress);

impl Bars {
    /// A bar for one resource, below the others.
    pub(crate) fn add(&self, name: &str) -> Bar {
        let bar = indicatif::ProgressBar::no_length().with_prefix(name.to_owned());
        Bar(self.0.add(bar.with_style(style(WITHOUT_TOTAL))))
    }

    /// Runs what writes lines of its own, with the bars out of its way.
    pub(crate) fn aside(&self, write: impl FnOnce()) {
        self.0.suspend(write);
    }
}

/// The bar of one ingest or build. It vanishes when dropped: what came of it is told in a line of its own.
#[derive(Debug)]
pub(crate) struct Bar(indicatif::ProgressBar);

impl Bar {
    /// Shows how far the ingest has come.
    pub(crate) fn update(&self, progress: &Progress) {
        self.show(progress.bytes, progress.total_bytes, message(progress));
    }

    /// Shows how far the build has come.
    pub(crate) fn update_build(&self, progress: &build::Progress) {
        self.show(progress.done, progress.total, build_message(progress));
    }

    fn show(&self, done: u64, total: Option<u64>, message: String) {
        if let Some(total) = total
            && self.0.length() != Some(total)
        {
            self.0.set_length(total);
            self.0.set_style(style(WITH_TOTAL));
        }
        self.0.set_position(done);
        self.0.set_message(message);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a template of known keys").progress_chars("━╸ ")
}

/// `converting 120,000 rows, 210.0 MiB/s, 3s left`
fn message(progress: &Progress) -> String {
    let mut parts = vec![match progress.phase {
        Phase::Fetching => format!("reading {}", human::bytes(progress.bytes)),
        Phase::Converting => format!("converting {}", human::rows(progress.rows)),
        Phase::Uploading => "writing to the store".to_owned(),
        Phase::Publishing => "publishing".to_owned(),
        Phase::Done => "done".to_owned(),
        Phase::Failed => "failed".to_owned(),
    }];
    if progress.rejected_rows > 0 {
        parts.push(format!("{} rejected", human::count(progress.rejected_rows)));
    }
    if matches!(progress.phase, Phase::Fetching | Phase::Converting) {
        if progress.bytes_per_second > 0 {
            parts.push(format!("{}/s", human::bytes(progress.bytes_per_second)));
        }
        if let Some(left) = progress.remaining_ms {
            parts.push(format!("{} left", human::duration(left)));
        }
    }
    parts.join(", ")
}

/// `embedding 1,200 rows, 300 rows/s, 3s left`
fn build_message(progress: &build::Progress) -> String {
    let aside = || progress.message.as_deref().map(|message| printable(message).into_owned());
    match progress.phase {
        build::Phase::Reading => format!("reading {}", human::rows(progress.rows)),
        build::Phase::Embedding => {
            let mut parts = vec![format!("embedding {}", human::rows(progress.done))];
            if progress.reused > 0 {
                parts.push(format!("{} kept", human::count(progress.reused)));
            }
            if progress.rows_per_second > 0 {
                parts.push(format!("{}/s", human::rows(progress.rows_per_second)));
            }
            if let Some(left) = progress.remaining_ms {
                parts.push(format!("{} left", human::duration(left)));
            }
            parts.join(", ")
        }
        build::Phase::Waiting => aside().unwrap_or_else(|| "waiting".to_owned()),
        build::Phase::Indexing => {
            format!("indexing{}", aside().map(|aside| format!(" {aside}")).unwrap_or_default())
        }
        build::Phase::Checking => "checking its searches".to_owned(),
        build::Phase::Publishing => "publishing".to_owned(),
        build::Phase::Done => "done".to_owned(),
        build::Phase::Failed => "failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_tells_rows_rate_and_time_left_while_they_matter() {
        let mut progress = Progress {
            name: "workers".into(),
            phase: Phase::Converting,
            bytes: 100 << 20,
            total_bytes: Some(273 << 20),
            rows: 183_000,
            rejected_rows: 0,
            elapsed_ms: 500,
            bytes_per_second: 200 << 20,
            remaining_ms: Some(900),
            message: None,
        };
        assert_eq!(message(&progress), "converting 183,000 rows, 200.0 MiB/s, 900ms left");
        progress.phase = Phase::Publishing;
        progress.rejected_rows = 2;
        assert_eq!(message(&progress), "publishing, 2 rejected");
    }
}
