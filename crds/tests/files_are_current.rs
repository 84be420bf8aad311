//! The definitions in `yaml/` and in the chart are those of the types. `UPDATE=1` writes them.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::{collections::BTreeMap, env, fs, path::Path};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use lakehouse_crds::definitions;
use serde_json::{Value, json};

#[test]
fn the_yaml_files_are_current() {
    for mut definition in definitions::all() {
        let name = definitions::file_name(&definition);
        keep(&format!("crds/yaml/{name}"), &text(&definition));
        // Without its definition every resource of a kind would go: `helm uninstall` leaves it.
        definition.metadata.annotations =
            Some([("helm.sh/resource-policy".to_owned(), "keep".to_owned())].into());
        let template = text(&definition);
        assert!(!template.contains("{{"), "Helm would take a part of {name} for its own");
        keep(&format!("charts/lakehouse-crds/templates/{name}"), &template);
    }
}

/// The file of a definition.
fn text(definition: &CustomResourceDefinition) -> String {
    let definition = serde_json::to_value(definition).unwrap();
    format!(
        "# Generated from crds/src by `make generate`; edits are overwritten.\n{}",
        serde_saphyr::to_string(&plain(definition)).unwrap()
    )
}

/// Compares a file of this repository with what it must be, and writes it when asked to.
fn keep(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if env::var_os("UPDATE").is_some_and(|update| update == "1") {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
    }
    assert!(
        fs::read_to_string(&file).unwrap_or_default() == text,
        "{path} is not what the types say; `make generate` (or `UPDATE=1 cargo test -p lakehouse-crds`) writes it"
    );
}

/// The bounds of numbers are floats to the types; a person writes `minimum: 1`.
fn plain(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(plain).collect(),
        // By name, whichever order `serde_json` was built to keep.
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> =
                fields.into_iter().map(|(name, value)| (name, plain(value))).collect();
            fields.into_iter().collect()
        }
        Value::Number(number) => match number.as_f64() {
            #[allow(clippy::cast_possible_truncation, reason = "only whole numbers far below 2^53 come here")]
            Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => json!(float as i64),
            _ => Value::Number(number),
        },
        other => other,
    }
}
