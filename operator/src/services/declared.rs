//! What a gateway has been told of each Dataset and has acknowledged.
//!
//! The gateway keeps it in the bucket, so one telling is enough for all its pods, now and later. Another operator knows nothing of
//! it and tells once more.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lakehouse_contract::catalog::Declaration;
use lakehouse_crds::DatasetSpec;

#[derive(Debug, Default)]
pub(super) struct Declared(Mutex<HashMap<(String, String), Declaration<DatasetSpec>>>);

impl Declared {
    pub(super) fn knows(
        &self,
        namespace: &str,
        dataset: &str,
        declaration: &Declaration<DatasetSpec>,
    ) -> bool {
        self.all().get(&key(namespace, dataset)) == Some(declaration)
    }

    pub(super) fn put(&self, namespace: &str, dataset: &str, declaration: Declaration<DatasetSpec>) {
        self.all().insert(key(namespace, dataset), declaration);
    }

    pub(super) fn forget(&self, namespace: &str, dataset: &str) {
        self.all().remove(&key(namespace, dataset));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<(String, String), Declaration<DatasetSpec>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What uploads depend on: the whole spec where clients send the rows, and otherwise only that they do not.
pub(super) fn declaration(spec: &DatasetSpec) -> Declaration<DatasetSpec> {
    let spec = match spec.source.upload {
        Some(_) => spec.clone(),
        None => DatasetSpec { source: spec.source.clone(), ..DatasetSpec::default() },
    };
    Declaration { spec }
}

fn key(namespace: &str, dataset: &str) -> (String, String) {
    (namespace.to_owned(), dataset.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_source_that_is_read_by_itself_only_the_source_is_told() {
        let told = |spec| {
            let spec: DatasetSpec = serde_json::from_value(spec).unwrap();
            serde_json::to_value(declaration(&spec)).unwrap()
        };
        let upload = json!({"source": {"upload": {}}, "keepVersions": 5});
        assert_eq!(told(upload.clone()), json!({ "spec": upload }));
        let source = json!({"configMap": {"name": "a", "key": "b.csv"}});
        assert_eq!(told(json!({"source": source, "keepVersions": 5})), json!({"spec": {"source": source}}));
    }
}
