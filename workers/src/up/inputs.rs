//! What the command line's paths hold: resources from YAML, and data files for them.
//!
//! A path is a YAML file, a data file, or a folder of both. A data file whose stem names a Dataset with `source.upload`
//! fills that one; any other becomes a Dataset of its own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use lakehouse_contract::{DatasetName, ingest::Format};
use lakehouse_crds::{
    ChatProvider, Dataset, DatasetSpec, VectorIndex,
    dataset::{Source, UploadSource},
};
use lakehouse_plan::{
    DEFAULT_NAMESPACE,
    documents::{self, Document, Resource},
};

/// Everything that was found, whole: with a single mistake there are no inputs.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    /// Datasets by name.
    pub(crate) datasets: BTreeMap<DatasetName, Declared>,
    /// `ConfigMap`s and `Secret`s, by kind and name.
    pub(crate) texts: BTreeMap<(&'static str, String), Resource>,
    /// VectorIndexes by name.
    pub(crate) indexes: BTreeMap<String, VectorIndex>,
    /// ChatProviders by name.
    pub(crate) providers: BTreeMap<String, ChatProvider>,
}

/// A Dataset, and the file that fills it where it is an upload.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) dataset: Dataset,
    pub(crate) file: Option<PathBuf>,
    /// When the file was last written and how long it was: another stamp is another look at its content.
    pub(crate) stamp: Option<Stamp>,
}

impl Declared {
    /// Whether this is the same Dataset, filled by the same content as far as a look at its file can tell.
    pub(crate) fn asks_the_same(&self, other: &Self) -> bool {
        let Self { dataset, file, stamp } = self;
        let metadata =
            |dataset: &Dataset| (dataset.metadata.annotations.clone(), dataset.metadata.labels.clone());
        dataset.spec == other.dataset.spec
            && metadata(dataset) == metadata(&other.dataset)
            && (file, stamp) == (&other.file, &other.stamp)
    }
}

/// Time of the last write, and bytes.
pub(crate) type Stamp = (SystemTime, u64);

/// Why the inputs cannot be used: every mistake, one a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct Mistakes(pub(crate) Vec<String>);

/// Reads all paths. The same paths may be read again and again as their files change.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Inputs, Mistakes> {
    let mut found = Found::default();
    for path in paths {
        found.add(path);
    }
    let texts = found.yaml.iter().map(|(file, text)| (file.as_str(), text.as_str()));
    let documents::Read { documents, problems } = documents::read(texts);
    found.mistakes.extend(problems.iter().map(ToString::to_string));
    let mut inputs = Inputs::default();
    for document in documents {
        inputs.add_document(document, &mut found.mistakes);
    }
    for file in found.data {
        inputs.add_data_file(file, &mut found.mistakes);
    }
    if found.mistakes.is_empty() { Ok(inputs) } else { Err(Mistakes(found.mistakes)) }
}

/// The files below the paths, by what they are.
#[derive(Default)]
struct Found {
    yaml: Vec<(String, String)>,
    data: Vec<PathBuf>,
    mistakes: Vec<String>,
}

impl Found {
    fn add(&mut self, path: &Path) {
        let shown = path.display();
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.add_folder(path),
            Ok(_) if is_yaml(path) => self.add_yaml(path),
            Ok(_) if is_data(path) => self.data.push(path.to_owned()),
            Ok(_) => self.mistakes.push(format!(
                "{shown}: its ending tells neither resources (.yaml, .yml) nor data (.csv, .tsv, .ndjson, .jsonl, .parquet)"
            )),
            Err(error) => self.mistakes.push(format!("{shown}: {error}")),
        }
    }

    /// Only the files of the folder itself, as `kubectl apply -f` does; files that are neither are nobody's mistake.
    fn add_folder(&mut self, folder: &Path) {
        let listed = fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>());
        match listed {
            Ok(mut files) => {
                files.sort();
                for file in files.iter().filter(|file| file.is_file() && (is_yaml(file) || is_data(file))) {
                    self.add(file);
                }
            }
            Err(error) => self.mistakes.push(format!("{}: {error}", folder.display())),
        }
    }

    fn add_yaml(&mut self, path: &Path) {
        match fs::read_to_string(path) {
            Ok(text) => self.yaml.push((path.display().to_string(), text)),
            Err(error) => self.mistakes.push(format!("{}: {error}", path.display())),
        }
    }
}

impl Inputs {
    fn add_document(&mut self, document: Document, mistakes: &mut Vec<String>) {
        if document.namespace() != DEFAULT_NAMESPACE {
            let sentence = format!(
                "`{}`: without a cluster there is one namespace, `{DEFAULT_NAMESPACE}`; remove the field",
                document.namespace()
            );
            mistakes.push(document.problem("metadata.namespace", sentence).to_string());
            return;
        }
        let name = document.name().to_owned();
        match document.resource {
            Resource::Dataset(dataset) => match DatasetName::parse(name) {
                Ok(name) => {
                    self.datasets.insert(name, Declared { dataset: *dataset, file: None, stamp: None });
                }
                Err(error) => mistakes.push(format!("{}: metadata.name: {error}", document.file)),
            },
            resource @ (Resource::ConfigMap(_) | Resource::Secret(_)) => {
                self.texts.insert((resource.kind(), name), resource);
            }
            Resource::VectorIndex(index) => {
                self.indexes.insert(name, *index);
            }
            Resource::ChatProvider(provider) => {
                self.providers.insert(name, *provider);
            }
        }
    }

    fn add_data_file(&mut self, path: PathBuf, mistakes: &mut Vec<String>) {
        let shown = path.display();
        let Some(name) = DatasetName::of_file(&path) else {
            mistakes.push(format!(
                "{shown}: its name has no letter or digit to name a dataset by; rename the file"
            ));
            return;
        };
        match self.datasets.get_mut(&name) {
            None => {
                let dataset = upload(&name);
                self.datasets.insert(name, Declared { dataset, stamp: stamp(&path), file: Some(path) });
            }
            Some(Declared { file: Some(other), .. }) => {
                mistakes
                    .push(format!("{shown}: the dataset `{name}` is filled by {} already", other.display()));
            }
            Some(Declared { dataset, .. }) if dataset.spec.source.upload.is_none() => mistakes.push(format!(
                "{shown}: the Dataset `{name}` has a source of its own; rename the file, or give the Dataset \
                 `source: {{upload: {{}}}}`"
            )),
            Some(declared) => {
                declared.stamp = stamp(&path);
                declared.file = Some(path);
            }
        }
    }

    /// An entry of a ConfigMap or Secret, or a sentence that says which part of it is missing.
    pub(crate) fn entry(&self, kind: &'static str, name: &str, key: &str) -> Result<Vec<u8>, String> {
        let resource = self.text(kind, name)?;
        match resource.entry(key) {
            Some(value) => Ok(value.to_vec()),
            None => Err(format!("the {kind} `{name}` has no entry `{key}`")),
        }
    }

    /// A ConfigMap or Secret, or a sentence that says that it is missing.
    pub(crate) fn text(&self, kind: &'static str, name: &str) -> Result<&Resource, String> {
        self.texts
            .get(&(kind, name.to_owned()))
            .ok_or_else(|| format!("there is no {kind} `{name}` among the resources"))
    }
}

/// The Dataset that a data file or an upload alone stands for.
pub(crate) fn upload(name: &DatasetName) -> Dataset {
    let source = Source { upload: Some(UploadSource {}), ..Source::default() };
    let mut dataset = Dataset::new(name.as_str(), DatasetSpec { source, ..DatasetSpec::default() });
    dataset.metadata.namespace = Some(DEFAULT_NAMESPACE.to_owned());
    dataset
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml")
    })
}

fn is_data(path: &Path) -> bool {
    path.file_name().and_then(|name| Format::of_name(&name.to_string_lossy())).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_file_alone_is_a_dataset() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = read(&[file(&folder, "Sales Q1.csv", "a\n1\n")]).unwrap();
        let (name, declared) = inputs.datasets.first_key_value().unwrap();
        assert_eq!(name.as_str(), "Sales_Q1");
        assert!(declared.dataset.spec.source.upload.is_some());
        assert!(declared.file.as_ref().unwrap().ends_with("Sales Q1.csv"));
    }

    #[test]
    fn a_folder_joins_resources_and_the_files_that_fill_them() {
        let folder = tempfile::tempdir().unwrap();
        file(&folder, "sales.csv", "a\n1\n");
        file(&folder, "sales.yaml", &dataset("sales", "{upload: {}}"));
        file(&folder, "notes.txt", "not for us");
        let inputs = read(&[folder.path().to_owned()]).unwrap();
        assert_eq!(inputs.datasets.len(), 1);
        assert!(inputs.datasets.values().next().unwrap().file.is_some());
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [
            file(&folder, "a.csv", ""),
            file(&folder, "a.ndjson", ""),
            file(&folder, "b.csv", ""),
            file(&folder, "b.yaml", &dataset("b", "{configMap: {name: m, key: k.csv}}")),
            file(&folder, "c.yaml", "kind: ["),
            file(&folder, "d.doc", ""),
            folder.path().join("none.csv"),
        ];
        let Mistakes(mistakes) = read(&paths).unwrap_err();
        for part in [
            "a.ndjson: the dataset `a` is filled by",
            "b.csv: the Dataset `b` has a source",
            "c.yaml:1",
            "d.doc: its ending",
            "none.csv: ",
        ] {
            assert!(
                mistakes.iter().any(|mistake| mistake.contains(part)),
                "{part} is missing in {mistakes:#?}"
            );
        }
        assert_eq!(mistakes.len(), 5, "{mistakes:#?}");
    }

    #[test]
    fn another_namespace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = dataset("a", "{upload: {}}").replace("{name: a}", "{name: a, namespace: team}");
        let Mistakes(mistakes) = read(&[file(&folder, "a.yaml", &text)]).unwrap_err();
        assert!(mistakes[0].contains("metadata.namespace"), "{mistakes:?}");
    }

    #[test]
    fn a_missing_text_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {k: v}\n";
        let inputs = read(&[file(&folder, "m.yaml", map)]).unwrap();
        assert_eq!(inputs.entry("ConfigMap", "m", "k").unwrap(), b"v");
        assert_eq!(inputs.entry("ConfigMap", "m", "x").unwrap_err(), "the ConfigMap `m` has no entry `x`");
        assert_eq!(
            inputs.entry("Secret", "m", "k").unwrap_err(),
            "there is no Secret `m` among the resources"
        );
    }

    fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn dataset(name: &str, source: &str) -> String {
        format!(
            "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: {name}}}\nspec: {{source: {source}}}\n"
        )
    }
}
