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
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use lakehouse_crds::{ChatProvider, Dataset, VectorIndex};

use crate::dataset;
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
    /// An index of vectors.
    VectorIndex(Box<VectorIndex>),
    /// A route to language models.
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

    /// The value of an entry of a ConfigMap or a Secret; `None` for an unknown entry and for any other kind.
    pub fn entry(&self, key: &str) -> Option<Cow<'_, [u8]>> {
        let text = |texts: &'_ Option<BTreeMap<String, String>>| -> Option<Vec<u8>> {
            Some(texts.as_ref()?.get(key)?.clone().into_bytes())
        };
        match self {
            Self::ConfigMap(map) => text(&map.data)
                .or_else(|| Some(map.binary_data.as_ref()?.get(key)?.0.clone()))
                .map(Cow::Owned),
            // The API server lets `stringData` win, too.
            Self::Secret(secret) => text(&secret.string_data)
                .or_else(|| Some(secret.data.as_ref()?.get(key)?.0.clone()))
                .map(Cow::Owned),
            Self::Dataset(_) | Self::VectorIndex(_) | Self::ChatProvider(_) => None,
        }
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
                documents.push(Document { file: file.to_owned(), line: root.place.line, resource, places })
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
    match &resource {
        Resource::Dataset(dataset) => {
            let Err(refusal) = dataset::check(dataset) else { return Ok(resource) };
            let fault = |problem: &dataset::Problem| Fault::new(&problem.field, &problem.message);
            Err(refusal.problems().iter().map(fault).collect())
        }
        Resource::VectorIndex(_)
        | Resource::ChatProvider(_)
        | Resource::ConfigMap(_)
        | Resource::Secret(_) => Ok(resource),
    }
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
