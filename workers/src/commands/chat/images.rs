//! Images for a model to look at.

use std::{fs, path::PathBuf};

use anyhow::{Context, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};

/// How the files of each kind begin.
const KINDS: [&[u8]; 4] = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF"];

/// A file's image in base64.
pub(super) fn read(file: &PathBuf) -> anyhow::Result<String> {
    let shown = file.display();
    let bytes = fs::read(file).with_context(|| format!("--image {shown}"))?;
    if !KINDS.iter().any(|start| bytes.starts_with(start)) {
        bail!("--image {shown}: it is no PNG, JPEG, GIF or WebP");
    }
    Ok(BASE64_STANDARD.encode(bytes))
}
