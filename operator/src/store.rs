//! What was last heard of the objects of a kind, by namespace and name.
//!
//! Receives what a watch tells; hands on snapshots and, for each event, what was before beside what is now. Several watches, one
//! a namespace, may fill one store: a list that starts anew replaces what its own scope held and nothing else.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// What a watch looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every namespace.
    All,
    /// One.
    Namespace(String),
}

/// Objects of one kind. Cheap to clone; all clones are one.
#[derive(Debug)]
pub struct Store<T>(Arc<RwLock<BTreeMap<String, Names<T>>>>);

/// The objects of one namespace.
pub type Names<T> = BTreeMap<String, Arc<T>>;

/// An object before and after an event: one of the two may be absent.
#[derive(Debug)]
pub struct Change<T> {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What was known of it.
    pub before: Option<Arc<T>>,
    /// What is known of it now.
    pub after: Option<Arc<T>>,
}

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Store<T> {
    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.read().get(namespace)?.get(name).cloned()
    }

    /// Every object of a namespace, by name.
    pub fn of(&self, namespace: &str) -> Vec<Arc<T>> {
        self.read().get(namespace).map(|names| names.values().cloned().collect()).unwrap_or_default()
    }

    /// Every object of a namespace with its name.
    pub fn entries(&self, namespace: &str) -> Vec<(String, Arc<T>)> {
        let all = self.read();
        let names = all.get(namespace).into_iter().flatten();
        names.map(|(name, object)| (name.clone(), Arc::clone(object))).collect()
    }

    /// Every namespace that holds an object, and the names in it.
    pub fn names(&self) -> Vec<(String, String)> {
        let all = self.read();
        all.iter()
            .flat_map(|(namespace, names)| names.keys().map(|name| (namespace.clone(), name.clone())))
            .collect()
    }

    /// The names of a namespace's objects.
    pub fn names_of(&self, namespace: &str) -> Vec<String> {
        self.read().get(namespace).map(|names| names.keys().cloned().collect()).unwrap_or_default()
    }

    /// Every namespace that holds an object.
    pub fn namespaces(&self) -> Vec<String> {
        self.read().keys().cloned().collect()
    }

    /// An object is there, or has changed.
    pub fn put(&self, namespace: String, name: String, object: T) -> Change<T> {
        let object = Arc::new(object);
        let mut all = self.write();
        let before = all.entry(namespace.clone()).or_default().insert(name.clone(), Arc::clone(&object));
        Change { namespace, name, before, after: Some(object) }
    }

    /// An object is gone.
    pub fn remove(&self, namespace: String, name: String) -> Change<T> {
        let mut all = self.write();
        let before = all.get_mut(&namespace).and_then(|names| names.remove(&name));
        if all.get(&namespace).is_some_and(BTreeMap::is_empty) {
            all.remove(&namespace);
        }
        Change { namespace, name, before, after: None }
    }

    /// Everything that a scope holds was listed: what is not among it is gone.
    pub fn replace(&self, scope: &Scope, listed: BTreeMap<String, Names<T>>) -> Vec<Change<T>> {
        let mut all = self.write();
        let before = match scope {
            Scope::All => std::mem::take(&mut *all),
            Scope::Namespace(namespace) => all.remove_entry(namespace).into_iter().collect(),
        };
        let mut changes = Vec::new();
        for (namespace, names) in &listed {
            for (name, object) in names {
                let before = before.get(namespace).and_then(|names| names.get(name)).cloned();
                let (namespace, name, after) = (namespace.clone(), name.clone(), Some(Arc::clone(object)));
                changes.push(Change { namespace, name, before, after });
            }
        }
        for (namespace, names) in before {
            let left = names
                .into_iter()
                .filter(|(name, _)| !listed.get(&namespace).is_some_and(|names| names.contains_key(name)));
            changes.extend(left.map(|(name, object)| Change {
                namespace: namespace.clone(),
                name,
                before: Some(object),
                after: None,
            }));
        }
        all.extend(listed);
        changes
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Names<T>>> {
        // Each method leaves the maps whole, so a panic elsewhere cannot have hurt them.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Names<T>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_list_takes_away_what_it_does_not_hold() {
        let store = Store::default();
        store.put("a".into(), "one".into(), 1);
        store.put("a".into(), "two".into(), 2);
        let changes = store.replace(&Scope::All, listed(&[("a", "two", 22), ("b", "three", 3)]));
        assert_eq!(
            told(&changes),
            [("a", "two", Some(2), Some(22)), ("b", "three", None, Some(3)), ("a", "one", Some(1), None)]
        );
        assert_eq!(store.get("a", "one"), None);
        assert_eq!(store.names().len(), 2);
    }

    #[test]
    fn a_list_of_one_namespace_leaves_the_others_alone() {
        let store = Store::default();
        store.put("a".into(), "one".into(), 1);
        store.put("b".into(), "two".into(), 2);
        let changes = store.replace(&Scope::Namespace("a".into()), BTreeMap::new());
        assert_eq!(told(&changes), [("a", "one", Some(1), None)]);
        assert_eq!(store.namespaces(), ["b"]);
    }

    #[test]
    fn an_empty_namespace_is_forgotten() {
        let store = Store::default();
        store.put("a".into(), "one".into(), 1);
        let change = store.remove("a".into(), "one".into());
        assert_eq!(told(&[change]), [("a", "one", Some(1), None)]);
        assert_eq!(store.namespaces(), [""; 0]);
    }

    fn listed(objects: &[(&str, &str, i32)]) -> BTreeMap<String, Names<i32>> {
        let mut listed = BTreeMap::<String, Names<i32>>::new();
        for (namespace, name, object) in objects {
            listed.entry((*namespace).into()).or_default().insert((*name).into(), Arc::new(*object));
        }
        listed
    }

    fn told(changes: &[Change<i32>]) -> Vec<(&str, &str, Option<i32>, Option<i32>)> {
        let value = |object: &Option<Arc<i32>>| object.as_deref().copied();
        changes
            .iter()
            .map(|change| {
                (change.namespace.as_str(), change.name.as_str(), value(&change.before), value(&change.after))
            })
            .collect()
    }
}
