//! The kinds that are read, each with its schema and rules.

use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use lakehouse_crds::{API_VERSION, definitions};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use super::{Fault, Resource, schema::nearest, yaml::Node};
use crate::DEFAULT_NAMESPACE;

/// Every kind that is read.
pub(super) struct Kinds(Vec<Kind>);

/// A kind with its schema and rules.
pub(super) struct Kind {
    api_version: &'static str,
    name: String,
    schema: Json,
    rules: Option<CompiledSchema>,
    typed: fn(Json) -> Result<Resource, serde_json::Error>,
}

impl Kinds {
    pub(super) fn new() -> Self {
        let [dataset, vector_index, chat_provider] = definitions::all();
        Self(vec![
            Kind::own(&dataset, |json| boxed(json).map(Resource::Dataset)),
            Kind::own(&vector_index, |json| boxed(json).map(Resource::VectorIndex)),
            Kind::own(&chat_provider, |json| boxed(json).map(Resource::ChatProvider)),
            Kind {
                api_version: "v1",
                name: "ConfigMap".to_owned(),
                schema: schema_of::<ConfigMap>(),
                rules: None,
                typed: |json| boxed(json).map(Resource::ConfigMap),
            },
            Kind {
                api_version: "v1",
                name: "Secret".to_owned(),
                schema: schema_of::<Secret>(),
                rules: None,
                typed: |json| boxed(json).map(Resource::Secret),
            },
        ])
    }

    /// The kind that a document says it is of.
    pub(super) fn of(&self, root: &Node) -> Result<&Kind, Vec<Fault>> {
        let said = |field: &str, example: &str| match root.field(field).map(Node::text) {
            Some(Some(text)) => Ok(text),
            Some(None) => Err(Fault::new(field, format!("must be a text, such as `{example}`"))),
            None => Err(Fault::new(
                field,
                format!("is missing; a document starts with it, such as `{field}: {example}`"),
            )),
        };
        let (api_version, name) = match (said("apiVersion", API_VERSION), said("kind", "Dataset")) {
            (Ok(api_version), Ok(name)) => (api_version, name),
            (api_version, name) => {
                return Err([api_version.err(), name.err()].into_iter().flatten().collect());
            }
        };
        match self.0.iter().find(|kind| kind.name == name) {
            Some(kind) if kind.api_version == api_version => Ok(kind),
            Some(kind) => Err(vec![Fault::new(
                "apiVersion",
                format!("`{api_version}` is not read for kind `{name}`; write `{}`", kind.api_version),
            )]),
            None => Err(vec![Fault::new("kind", self.unknown(api_version, name))]),
        }
    }

    fn unknown(&self, api_version: &str, name: &str) -> String {
        let names: Vec<&str> = self.0.iter().map(|kind| kind.name.as_str()).collect();
        match nearest(name, names.iter().copied()) {
            Some(near) => format!("`{name}` is not known; did you mean `{near}`?"),
            None => {
                format!("`{name}` ({api_version}) is not read here; the kinds that are: {}", names.join(", "))
            }
        }
    }
}

impl Kind {
    fn own(
        definition: &CustomResourceDefinition,
        typed: fn(Json) -> Result<Resource, serde_json::Error>,
    ) -> Self {
        let schema = serde_json::to_value(definitions::schema(definition))
            .expect("a schema is plain data with texts as keys, and always has a JSON form");
        Self {
            api_version: API_VERSION,
            name: definition.spec.names.kind.clone(),
            rules: Some(compile_schema(&schema)),
            schema: with_envelope(schema),
            typed,
        }
    }

    pub(super) fn schema(&self) -> &Json {
        &self.schema
    }

    /// The sentences of the CEL rules that an object breaks.
    pub(super) fn broken_rules(&self, object: &Json) -> Vec<Fault> {
        let Some(rules) = &self.rules else { return Vec::new() };
        let Err(errors) = Validator::new().validate_compiled(rules, object, None) else { return Vec::new() };
        // A rule that cannot be evaluated has met a value of a wrong type, which the schema tells better.
        errors
            .into_iter()
            .filter(|error| error.kind == ErrorKind::ValidationFailure)
            .map(|error| Fault::new(error.field_path, error.message))
            .collect()
    }

    /// The object as its type, in its namespace.
    pub(super) fn typed(&self, mut object: Json) -> Result<Resource, String> {
        if let Some(fields) = object.as_object_mut() {
            // The status is the executor's to write; a resource that was printed with one can be read back.
            fields.remove("status");
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Json::as_object_mut) {
            metadata.entry("namespace").or_insert_with(|| json!(DEFAULT_NAMESPACE));
        }
        // A Secret's values must not reach a message; its schema has told everything about them already.
        (self.typed)(object).map_err(|error| match self.name.as_str() {
            "Secret" => "cannot be read as a Secret".to_owned(),
            name => format!("cannot be read as a {name}: {error}"),
        })
    }
}

fn boxed<T: DeserializeOwned>(json: Json) -> Result<Box<T>, serde_json::Error> {
    serde_json::from_value(json).map(Box::new)
}

/// A definition's schema with the fields that every object has.
fn with_envelope(mut schema: Json) -> Json {
    let metadata = schema_of::<ObjectMeta>();
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
        properties.insert("kind".to_owned(), json!({"type": "string"}));
        properties.insert("metadata".to_owned(), metadata);
    }
    schema
}

/// The schema of a type of Kubernetes' own, without references.
fn schema_of<T: JsonSchema>() -> Json {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}
