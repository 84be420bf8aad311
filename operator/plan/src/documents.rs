//! YAML files of resources, read as a good linter reads them.
//!
//! Receives the text of files; hands on [`Document`]s whose place in the file is known, and every [`Problem`] of every
//! file: syntax, unknown fields with the nearest known one, wrong values with what is allowed, and broken rules with
//! their sentence. The schemas and CEL rules are those of the definitions that a cluster installs, so the two cannot differ.
//!
//! ```text
//! text ─► yaml (places) ─► kinds (which schema) ─► schema (fields, values) ─► CEL rules ─► typed resource ─► check
//! ```

mod kinds;
mod metadata;
mod schema;
mod yaml;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use lakehouse_crds::{ChatProvider, Dataset, VectorIndex};

use crate::{chat_provider, dataset, refusal, vector_index};
use kinds::Kinds;
use yaml::{Node, Place, Places};

/// A resource, and where it stands.
#[derive(Clone)]
pub struct Document {
    /// The file's name as it was handed in.
    pub file: String,
    /// The line of the document's first field.
    pub line: usize,
    /// The resource; its namespace is filled in.
    pub resource: Resource,
    places: Places,
}

/// The kinds that are read.
#[derive(Clone)]
pub enum Resource {
    /// A source of rows. It has passed [`dataset::check`].
    Dataset(Box<Dataset>),
    /// An index of vectors. It has passed [`vector_index::check`].
    VectorIndex(Box<VectorIndex>),
    /// A route to language models. It has passed [`chat_provider::check`].
    ChatProvider(Box<ChatProvider>),
    /// Texts that resources name.
    ConfigMap(Box<ConfigMap>),
    /// Secret texts that resources name.
    Secret(Box<Secret>),
}

impl Resource {
    /// The kind's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dataset(_) => "Dataset",
            Self::VectorIndex(_) => "VectorIndex",
            Self::ChatProvider(_) => "ChatProvider",
            Self::ConfigMap(_) => "ConfigMap",
            Self::Secret(_) => "Secret",
        }
    }

    /// The resource's metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Dataset(resource) => &resource.metadata,
            Self::VectorIndex(resource) => &resource.metadata,
            Self::ChatProvider(resource) => &resource.metadata,
            Self::ConfigMap(resource) => &resource.metadata,
            Self::Secret(resource) => &resource.metadata,
        }
    }

    /// The entries of a ConfigMap or a Secret, by key; any other kind has none.
    pub fn entries(&self) -> BTreeMap<&str, &[u8]> {
        let (bytes, texts) = match self {
            Self::ConfigMap(map) => (&map.binary_data, &map.data),
            Self::Secret(secret) => (&secret.data, &secret.string_data),
            Self::Dataset(_) | Self::VectorIndex(_) | Self::ChatProvider(_) => (&None, &None),
        };
        let bytes = bytes.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice()));
        let texts = texts.iter().flatten().map(|(key, text)| (key.as_str(), text.as_bytes()));
        // Where a key stands in both, the text wins, as it does in an API server.
        bytes.chain(texts).collect()
    }

    /// One entry of a ConfigMap or a Secret.
    pub fn entry(&self, key: &str) -> Option<&[u8]> {
        self.entries().remove(key)
    }
}

impl fmt::Debug for Resource {
    /// Kind, namespace and name only: a Secret's values must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectMeta { name, namespace, .. } = self.metadata();
        let [namespace, name] = [namespace, name].map(|text| text.as_deref().unwrap_or_default());
        write!(f, "{} {namespace}/{name}", self.kind())
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {:?}", self.file, self.line, self.resource)
    }
}

impl Document {
    /// The resource's name.
    pub fn name(&self) -> &str {
        self.resource.metadata().name.as_deref().unwrap_or_default()
    }

    /// The resource's namespace.
    pub fn namespace(&self) -> &str {
        self.resource.metadata().namespace.as_deref().unwrap_or_default()
    }

    /// A problem with a field of this document, at its place or that of the nearest field around it.
    pub fn problem(&self, field: &str, message: impl Into<String>) -> Problem {
        Problem::new(&self.file, self.places.of(field), field, message)
    }
}

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name as it was handed in.
    pub file: String,
    /// Counts from 1.
    pub line: usize,
    /// Counts from 1, in characters.
    pub column: usize,
    /// The field's path, such as `spec.columns[0].type`; empty where it is about the whole document or the syntax.
    pub field: String,
    /// A sentence without the place and the field.
    pub message: String,
}

impl Problem {
    fn new(file: &str, place: Place, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            field: field.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    /// `sales.yaml:7:11: spec.columns[0].type: "int" is not allowed; one of int64, …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, field, message } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        f.write_str(message)
    }
}

impl std::error::Error for Problem {}

/// What files hold.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// The documents without a problem, in the files' order.
    pub documents: Vec<Document>,
    /// Everything that is wrong, in the files' order.
    pub problems: Vec<Problem>,
}

impl Read {
    /// The document of this kind, namespace and name.
    pub fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<&Document> {
        self.documents.iter().find(|document| {
            document.resource.kind() == kind && document.namespace() == namespace && document.name() == name
        })
    }
}

/// Reads the documents of files, each given by name and text. Two resources of one kind and name are a problem.
pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Read {
    let kinds = Kinds::new();
    let mut read = Read::default();
    for (file, text) in files {
        let first_problem = read.problems.len();
        read_file(&kinds, file, text, &mut read);
        read.problems[first_problem..].sort_by_key(|problem| (problem.line, problem.column));
    }
    let Read { documents, problems } = &mut read;
    problems.extend(repeated(documents));
    read
}

fn read_file(kinds: &Kinds, file: &str, text: &str, read: &mut Read) {
    let Read { documents, problems } = read;
    let (roots, mistakes) = yaml::documents(text);
    problems
        .extend(mistakes.into_iter().map(|mistake| Problem::new(file, mistake.place, "", mistake.message)));
    for root in roots {
        let places = Places::of_root(&root);
        match resource(kinds, &root) {
            Ok(resource) => {
                documents.push(Document { file: file.to_owned(), line: root.place.line, resource, places });
            }
            Err(faults) => problems.extend(faults.into_iter().map(|Fault { field, message, place }| {
                Problem::new(file, place.unwrap_or_else(|| places.of(&field)), field, message)
            })),
        }
    }
}

/// Something wrong with a document; without a place of its own it stands at its field.
#[derive(Debug)]
struct Fault {
    field: String,
    message: String,
    place: Option<Place>,
}

impl Fault {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), place: None }
    }

    fn at(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }
}

fn resource(kinds: &Kinds, root: &Node) -> Result<Resource, Vec<Fault>> {
    let kind = kinds.of(root)?;
    let mut faults = Vec::new();
    schema::check(kind.schema(), root, &mut faults);
    metadata::check(root, &mut faults);
    let json = root.to_json();
    let broken = kind.broken_rules(&json);
    // A rule over a value that is wrong already would only repeat it.
    let told: Vec<String> = faults.iter().map(|fault| fault.field.clone()).collect();
    let is_told = |field: &str| {
        told.iter().any(|told| {
            field
                .strip_prefix(told.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    };
    faults.extend(broken.into_iter().filter(|fault| !is_told(&fault.field)));
    if !faults.is_empty() {
        return Err(faults);
    }
    let resource = kind.typed(json).map_err(|message| vec![Fault::new("", message)])?;
    let refusal = match &resource {
        Resource::Dataset(dataset) => dataset::check(dataset).err(),
        Resource::VectorIndex(index) => vector_index::check(index).err(),
        Resource::ChatProvider(provider) => chat_provider::check(provider).err(),
        Resource::ConfigMap(_) | Resource::Secret(_) => None,
    };
    let Some(refusal) = refusal else { return Ok(resource) };
    let fault = |problem: &refusal::Problem| Fault::new(&problem.field, &problem.message);
    Err(refusal.problems().iter().map(fault).collect())
}

/// A problem for each resource that an earlier document has described already.
fn repeated(documents: &[Document]) -> Vec<Problem> {
    let mut first: HashMap<(&str, &str, &str), &Document> = HashMap::new();
    let mut problems = Vec::new();
    for document in documents {
        let (kind, namespace, name) = (document.resource.kind(), document.namespace(), document.name());
        if let Some(earlier) = first.get(&(kind, namespace, name)) {
            let Document { file, line, .. } = earlier;
            let sentence =
                format!("{kind} `{name}` in namespace `{namespace}` stands already at {file}:{line}");
            problems.push(document.problem("metadata.name", sentence));
        } else {
            first.insert((kind, namespace, name), document);
        }
    }
    problems
}
