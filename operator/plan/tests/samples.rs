//! Every YAML file under `manifests/` is one that the project itself reads without a problem.

use std::{fs, path::Path};

use lakehouse_plan::documents;

#[test]
fn every_sample_is_read_without_a_problem() {
    let mut files = Vec::new();
    for folder in ["samples", "samples/chat", "samples/staffing", "quickstart"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests").join(folder);
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(files.len() >= 12, "the samples are there");
    for (name, text) in &files {
        let read = documents::read([(name.as_str(), text.as_str())]);
        assert!(read.problems.is_empty(), "{:#?}", read.problems);
        assert!(!read.documents.is_empty(), "{name} holds a resource");
    }
}
