//! The datasets that queries see, as of one refresh.

use std::{collections::BTreeMap, sync::Arc};

use lakehouse_contract::{
    DatasetManifest,
    catalog::Damaged,
    sql::{ViewInfo, Views},
};

use crate::database::Database;

/// A database and what its views are. Replaced as a whole; whoever holds one keeps what it saw.
pub(crate) struct Generation {
    pub(crate) database: Arc<Database>,
    /// By the lower case of the name: DuckDB does not tell `sales` from `Sales`.
    pub(crate) entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// A view stands for it.
    View(Arc<DatasetManifest>),
    /// It has no view, and this is why.
    Broken { name: String, message: String },
}

/// What a name means.
pub(crate) enum Known<'a> {
    Dataset,
    Broken { dataset: &'a str, message: &'a str },
    Nothing,
}

impl Generation {
    /// A database without views.
    pub(crate) fn empty(database: Database) -> Self {
        Self { database: Arc::new(database), entries: BTreeMap::new() }
    }

    pub(crate) fn find(&self, lower_case_name: &str) -> Known<'_> {
        match self.entries.get(lower_case_name) {
            Some(Entry::View(_)) => Known::Dataset,
            Some(Entry::Broken { name, message }) => Known::Broken { dataset: name, message },
            None => Known::Nothing,
        }
    }

    /// The manifest behind a view.
    pub(crate) fn manifest(&self, lower_case_name: &str) -> Option<&Arc<DatasetManifest>> {
        match self.entries.get(lower_case_name)? {
            Entry::View(manifest) => Some(manifest),
            Entry::Broken { .. } => None,
        }
    }

    /// A dataset's name as it is spelled, whether or not a view stands for it.
    pub(crate) fn spelled(&self, lower_case_name: &str) -> Option<&str> {
        Some(match self.entries.get(lower_case_name)? {
            Entry::View(manifest) => manifest.name.as_str(),
            Entry::Broken { name, .. } => name,
        })
    }

    pub(crate) fn is_reserved(&self, lower_case_name: &str) -> bool {
        self.database.is_reserved(lower_case_name)
    }

    /// The dataset whose name is most like this one, if any is.
    pub(crate) fn nearest(&self, name: &str) -> Option<&str> {
        let name = name.to_lowercase();
        let likeness = |entry: &str| strsim::jaro_winkler(entry, &name);
        let names = self.entries.iter().filter_map(|(lower, entry)| match entry {
            Entry::View(manifest) => Some((likeness(lower), manifest.name.as_str())),
            Entry::Broken { .. } => None,
        });
        let best = names.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
        (best.0 > 0.8).then_some(best.1)
    }

    pub(crate) fn views(&self) -> Views {
        let mut all = Views::default();
        for entry in self.entries.values() {
            match entry {
                Entry::View(manifest) => all.views.push(ViewInfo {
                    name: manifest.name.to_string(),
                    version: manifest.version,
                    row_count: manifest.row_count,
                }),
                Entry::Broken { name, message } => {
                    all.damaged.push(Damaged { name: name.clone(), message: message.clone() });
                }
            }
        }
        all
    }
}
