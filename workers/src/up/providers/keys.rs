//! The ChatProviders of the inputs, as chatd and embedd take them: with their keys in files.
//!
//! A key comes from a Secret among the inputs. It is written where only this user can read it, and goes when its provider does.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use lakehouse_contract::provider::{Provider, Providers};
use lakehouse_plan::{ReadyProvider, chat_provider};
use tokio::sync::watch;

use crate::up::inputs::Inputs;

/// Hands on the providers of the newest inputs.
pub(crate) struct Keys {
    folder: PathBuf,
    providers: watch::Sender<Providers>,
}

impl Keys {
    /// Keeps the keys in files below `folder`. The receiver is that of chatd and embedd.
    pub(crate) fn new(folder: PathBuf) -> (Self, watch::Receiver<Providers>) {
        let (providers, receiver) = watch::channel(Providers::default());
        (Self { folder, providers }, receiver)
    }

    /// Takes new inputs. A provider that cannot be used is a sentence, and the others go on. One whose key is missing is handed on:
    /// whoever asks for it is told so, as in a cluster.
    pub(super) fn accept(&self, inputs: &Inputs) -> Vec<String> {
        let (mut providers, mut problems, mut written) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (name, resource) in &inputs.providers {
            match chat_provider::check(resource) {
                Ok(ready) if ready.suspend => {}
                Ok(ready) => {
                    match self.write_key(&ready, inputs) {
                        Ok(file) => written.extend(file),
                        Err(why) => problems.push(format!("the ChatProvider `{name}`: {why}")),
                    }
                    providers.push(self.told(&ready));
                }
                Err(refusal) => problems.push(format!("the ChatProvider `{name}`: {refusal}")),
            }
        }
        if let Err(error) = self.remove_all_but(&written) {
            problems.push(format!("the folder of keys, {}: {error}", self.folder.display()));
        }
        let providers = Providers { providers };
        self.providers.send_if_modified(|current| {
            let differs = *current != providers;
            *current = providers;
            differs
        });
        problems
    }

    /// A provider as services are told of it.
    pub(super) fn told(&self, ready: &ReadyProvider) -> Provider {
        ready.provider(self.file(ready))
    }

    fn file(&self, ready: &ReadyProvider) -> Option<PathBuf> {
        ready.key.is_some().then(|| self.folder.join(&ready.name))
    }

    fn write_key(&self, ready: &ReadyProvider, inputs: &Inputs) -> Result<Option<PathBuf>, String> {
        let (Some(key), Some(file)) = (&ready.key, self.file(ready)) else { return Ok(None) };
        let value = inputs.entry("Secret", &key.name, &key.key)?;
        let written = write(&self.folder, &file, &value);
        written.map_err(|error| format!("its key cannot be written to {}: {error}", file.display()))?;
        Ok(Some(file))
    }

    fn remove_all_but(&self, kept: &BTreeSet<PathBuf>) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if !kept.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Replaces a file in one step, readable by its owner alone.
fn write(folder: &Path, file: &Path, content: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    let new = file.with_added_extension("new");
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    io::Write::write_all(&mut out, content)?;
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::inputs;

    #[test]
    fn a_key_is_a_file_of_its_owner_and_goes_with_its_provider() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, providers) = Keys::new(folder.path().join("keys"));
        let with = inputs_of(&folder, YAML);
        assert_eq!(keys.accept(&with), Vec::<String>::new());
        let provider = providers.borrow().providers[0].clone();
        let file = provider.key_file.unwrap();
        assert_eq!(
            (provider.name.as_str(), fs::read_to_string(&file).unwrap().as_str()),
            ("voyage", "s3cret")
        );
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        keys.accept(&Inputs::default());
        assert!(!file.exists() && providers.borrow().providers.is_empty());
    }

    #[test]
    fn a_provider_whose_secret_is_missing_is_named_and_has_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, providers) = Keys::new(folder.path().join("keys"));
        let (provider, _) = YAML.split_once("---").unwrap();
        let problems = keys.accept(&inputs_of(&folder, provider));
        assert_eq!(problems, ["the ChatProvider `voyage`: there is no Secret `voyage` among the resources"]);
        let file = providers.borrow().providers[0].key_file.clone().unwrap();
        assert!(!file.exists());
    }

    const YAML: &str = "apiVersion: lakehouse.dev/v1alpha1
kind: ChatProvider
metadata: {name: voyage}
spec:
  type: Voyage
  apiKeySecretRef: {name: voyage, key: key}
  embeddings: {models: [voyage-3]}
---
apiVersion: v1
kind: Secret
metadata: {name: voyage}
stringData: {key: s3cret}
";

    fn inputs_of(folder: &tempfile::TempDir, yaml: &str) -> Inputs {
        let file = folder.path().join("resources.yaml");
        fs::write(&file, yaml).unwrap();
        inputs::read(&[file]).unwrap()
    }
}
