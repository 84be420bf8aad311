//! Whoever meets a reason finds what to do about it.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::{fs, path::Path};

use lakehouse_plan::Reason;

#[test]
fn every_reason_stands_in_the_table_of_what_to_do() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds/README.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, table) = page.split_once("## Reasons, and what to do").unwrap();
    for reason in Reason::ALL {
        assert!(
            table.contains(&format!("`{reason}`")),
            "crds/README.md does not say what to do about `{reason}`"
        );
    }
}
