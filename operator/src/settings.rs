//! Reads the operator's settings file.

use std::path::Path;

use anyhow::Context;
use lakehouse_plan::cluster::Settings;

/// Reads and checks the file. Every problem is told, each with its field.
pub fn read(path: &Path) -> anyhow::Result<Settings> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the settings file {} cannot be read", path.display()))?;
    Settings::parse(&text)
        .map_err(|problems| anyhow::anyhow!("the settings file {}: {problems}", path.display()))
}
