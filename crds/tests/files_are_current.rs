//! The definitions in `yaml/` are those of the types. `UPDATE=1` writes them.

use std::{env, fs, path::Path};

use lakehouse_crds::definitions;

#[test]
fn the_yaml_files_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    for definition in definitions::all() {
        let path = folder.join(definitions::file_name(&definition));
        let text = format!(
            "# Generated from crds/src by `make generate`; edits are overwritten.\n{}",
            serde_saphyr::to_string(&definition).unwrap()
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
