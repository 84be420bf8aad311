//! What every definition promises to the cluster that installs it.

use kube::Resource;
use lakehouse_crds::{API_VERSION, ChatProvider, Dataset, GROUP, VERSION, VectorIndex, definitions};
use serde_json::Value;

#[test]
fn every_kind_is_of_the_same_version_and_category_and_has_its_short_name() {
    for (definition, short_name) in definitions::all().iter().zip(["lhd", "lhv", "lhc"]) {
        let names = &definition.spec.names;
        assert_eq!(names.short_names.as_deref(), Some([short_name.to_owned()].as_slice()));
        assert_eq!(names.categories.as_deref(), Some(["lakehouse".to_owned()].as_slice()));
        assert_eq!((definition.spec.group.as_str(), definition.spec.scope.as_str()), (GROUP, "Namespaced"));
        let [version] = definition.spec.versions.as_slice() else { panic!("one version") };
        assert_eq!((version.name.as_str(), version.served, version.storage), (VERSION, true, true));
        assert!(version.subresources.as_ref().is_some_and(|subresources| subresources.status.is_some()));
        assert!(version.additional_printer_columns.as_ref().is_some_and(|columns| !columns.is_empty()));
    }
    for api_version in
        [Dataset::api_version(&()), VectorIndex::api_version(&()), ChatProvider::api_version(&())]
    {
        assert_eq!(api_version, API_VERSION);
    }
}

#[test]
fn a_column_that_tells_of_a_condition_names_it() {
    for definition in definitions::all() {
        for column in definition.spec.versions[0].additional_printer_columns.iter().flatten() {
            let path = &column.json_path;
            assert!(!path.contains("conditions") || path.contains(r#"conditions[?(@.type==""#), "{path}");
        }
    }
}

#[test]
fn no_schema_holds_what_makes_a_stored_object_differ_from_the_written_one() {
    each_schema(|path, schema| {
        assert!(schema.get("nullable").is_none(), "{path} has `nullable`");
        // The root's status alone, which no tool writes.
        assert_eq!(schema.get("default").is_some(), path == ".status", "{path} and `default`");
        let format = schema["format"].as_str().unwrap_or("int64");
        assert!(["int32", "int64", "double", "date-time"].contains(&format), "{path} has format `{format}`");
    });
}

#[test]
fn every_field_is_described() {
    each_schema(|path, schema| {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            // The root's own fields are those of every object.
            assert!(path.is_empty() || property["description"].is_string(), "{path}.{name} is not described");
        }
    });
}

#[test]
fn what_a_rule_reads_is_bounded_so_that_its_cost_is() {
    each_schema(|path, schema| {
        if schema["x-kubernetes-validations"].is_array() && schema["type"] == "string" {
            assert!(schema["maxLength"].is_u64(), "{path} has a rule and no `maxLength`");
        }
        if path.starts_with(".spec") && schema["type"] == "array" {
            assert!(schema["maxItems"].is_u64(), "{path} has no `maxItems`");
            assert!(schema["x-kubernetes-list-type"].is_string(), "{path} has no list type");
        }
    });
}

/// Every schema of every definition with its path, such as `.spec.columns[]`.
fn each_schema(visit: impl Fn(&str, &Value)) {
    for definition in definitions::all() {
        let schema = definitions::schema(&definition).expect("a definition has a schema");
        walk("", &serde_json::to_value(schema).expect("a schema has a JSON form"), &visit);
    }
}

fn walk(path: &str, schema: &Value, visit: &impl Fn(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    for (word, sign) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(word) {
            walk(&format!("{path}{sign}"), inner, visit);
        }
    }
}
