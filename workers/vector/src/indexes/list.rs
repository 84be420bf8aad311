//! Finding all indexes of a store.

use std::collections::BTreeSet;

use lakehouse_contract::{IndexName, keys};

use super::Indexes;
use crate::Result;

/// Objects that one request lists.
const PAGE: usize = 1000;

impl Indexes {
    /// The names under which anything lies, in alphabetical order. One may have no manifest: it is about to be made, or was removed.
    pub async fn names(&self) -> Result<Vec<IndexName>> {
        let mut names = BTreeSet::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.store().list(keys::VECTORS, after.as_deref(), PAGE).await?;
            let mut last = None;
            for listed in &page.objects {
                let below = listed.key.as_str().strip_prefix(keys::VECTORS).unwrap_or_default();
                let Some((name, _)) = below.split_once('/') else { continue };
                last = Some(name);
                if let Ok(name) = IndexName::parse(name) {
                    names.insert(name);
                }
            }
            match (page.more, last) {
                // The rest of this index is passed over: `0` comes next after `/`.
                (true, Some(name)) => after = Some(format!("{}{name}0", keys::VECTORS)),
                (true, None) => after = page.objects.last().map(|listed| listed.key.to_string()),
                (false, _) => return Ok(names.into_iter().collect()),
            }
        }
    }
}
