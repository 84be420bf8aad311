//! The definitions in `yaml/` are those of the types. `UPDATE=1` writes them.

use std::{collections::BTreeMap, env, fs, path::Path};

use lakehouse_crds::definitions;
use serde_json::{Value, json};

#[test]
fn the_yaml_files_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    for definition in definitions::all() {
        let path = folder.join(definitions::file_name(&definition));
        let text = format!(
            "# Generated from crds/src by `make generate`; edits are overwritten.\n{}",
            serde_saphyr::to_string(&plain(serde_json::to_value(&definition).unwrap())).unwrap()
        );
        if env::var_os("UPDATE").is_some_and(|update| update == "1") {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let on_disk = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            on_disk == text,
            "{} is not what the types say; `make generate` (or `UPDATE=1 cargo test -p lakehouse-crds`) writes it",
            path.file_name().unwrap().display()
        );
    }
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
