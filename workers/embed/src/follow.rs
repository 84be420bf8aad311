//! The providers' file, followed while anybody wants to know what it says.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use lakehouse_contract::provider::Providers;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::models::LOCAL;

/// How often the file is read again. Modification times are not asked: a mounted `ConfigMap` changes by a swap of links.
const POLL: Duration = Duration::from_secs(2);

/// A file of providers that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("`{}` cannot be read: {cause}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// It holds something else.
    #[error("`{}` is no list of providers: {cause}", .file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where.
        cause: String,
    },
}

/// The file's providers (YAML or JSON), now and whenever it changes. While it cannot be used, the last good ones stay.
pub async fn follow(file: PathBuf) -> Result<watch::Receiver<Providers>, FileError> {
    let (sender, receiver) = watch::channel(read(&file).await?);
    tokio::spawn(async move {
        let mut complaint = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = sender.closed() => return,
            }
            match read(&file).await {
                Ok(providers) => {
                    complaint = None;
                    let count = providers.providers.len();
                    let changed = sender.send_if_modified(|current| {
                        let differs = *current != providers;
                        if differs {
                            *current = providers;
                        }
                        differs
                    });
                    if changed {
                        info!(file = %file.display(), providers = count, "The providers changed");
                    }
                }
                Err(error) => {
                    let sentence = error.to_string();
                    if complaint.as_ref() != Some(&sentence) {
                        warn!(%error, "The file of providers cannot be used; the last good ones stay");
                        complaint = Some(sentence);
                    }
                }
            }
        }
    });
    Ok(receiver)
}

async fn read(file: &Path) -> Result<Providers, FileError> {
    let text = tokio::fs::read_to_string(file)
        .await
        .map_err(|cause| FileError::Io { file: file.to_owned(), cause })?;
    parse(&text).map_err(|cause| FileError::Content { file: file.to_owned(), cause })
}

fn parse(text: &str) -> Result<Providers, String> {
    let providers: Providers = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    for provider in &providers.providers {
        let name = provider.name.as_str();
        if name.is_empty() || name.contains('/') {
            return Err(format!("`{name}` is no name of a provider: it is not empty and has no `/`"));
        }
        if name == LOCAL {
            return Err(format!("no provider can be named `{LOCAL}`: that names the models of this process"));
        }
    }
    Ok(providers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_seen_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("providers.yaml");
        std::fs::write(&file, "providers: [{name: a, type: Ollama}]").unwrap();
        let mut seen = follow(file.clone()).await.unwrap();
        assert_eq!(names(&seen), ["a"]);

        std::fs::write(&file, "providers: [{name: a").unwrap();
        tokio::time::sleep(3 * POLL).await;
        assert!(!seen.has_changed().unwrap());

        std::fs::write(&file, r#"{"providers": [{"name": "b", "type": "Voyage"}]}"#).unwrap();
        seen.changed().await.unwrap();
        assert_eq!(names(&seen), ["b"]);
    }

    #[test]
    fn names_that_would_be_mistaken_are_refused() {
        for (name, said) in [("local", "`local`"), ("a/b", "`a/b`"), ("\"\"", "not empty")] {
            let refusal = parse(&format!("providers: [{{name: {name}, type: Ollama}}]")).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
        assert!(parse("providers: [{name: a, type: Ollama, color: red}]").unwrap_err().contains("color"));
    }

    fn names(seen: &watch::Receiver<Providers>) -> Vec<String> {
        seen.borrow().providers.iter().map(|provider| provider.name.clone()).collect()
    }
}
