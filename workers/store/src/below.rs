//! The part of a bucket below a prefix, as a bucket of its own: a tenant's, or the `prefix` of `s3://bucket/prefix`.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use lakehouse_contract::Key;

use crate::{ByteRange, Condition, Error, Etag, Listed, Meta, Object, Objects, Page, Payload, Result};

/// Puts a prefix before every key on the way in and takes it off on the way out.
#[derive(Debug)]
pub(crate) struct Below {
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) prefix: Key,
}

impl Below {
    fn full(&self, key: &Key) -> Result<Key> {
        Key::parse(self.full_text(key.as_str()))
            .map_err(|error| Error::UnfitKey { key: key.clone(), message: error.to_string() })
    }

    fn full_text(&self, text: &str) -> String {
        format!("{}/{text}", self.prefix)
    }

    fn short(&self, listed: Listed) -> Option<Listed> {
        let key = listed.key.as_str().strip_prefix(self.prefix.as_str())?.strip_prefix('/')?;
        Some(Listed { key: Key::parse(key).ok()?, meta: listed.meta })
    }
}

#[async_trait]
impl Objects for Below {
    async fn put(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
        self.objects.put(&self.full(key)?, body, condition).await.map_err(|error| error.about(key))
    }

    async fn put_large(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
        self.objects.put_large(&self.full(key)?, body, condition).await.map_err(|error| error.about(key))
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object> {
        let full = self.full(key).map_err(|_| Error::NotFound { key: key.clone() })?;
        let object = self.objects.get(&full, range).await.map_err(|error| error.about(key))?;
        let key = key.clone();
        Ok(Object { body: object.body.map_err(move |error| error.about(&key)).boxed(), ..object })
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        let full = self.full(key).map_err(|_| Error::NotFound { key: key.clone() })?;
        self.objects.head(&full).await.map_err(|error| error.about(key))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        let after = after.map(|after| self.full_text(after));
        let page = self.objects.list(&self.full_text(prefix), after.as_deref(), limit).await?;
        let objects = page.objects.into_iter().filter_map(|listed| self.short(listed)).collect();
        Ok(Page { objects, more: page.more })
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        match self.full(key) {
            Ok(full) => self.objects.delete(&full).await.map_err(|error| error.about(key)),
            // Under a key that cannot be, nothing is.
            Err(_) => Ok(()),
        }
    }

    async fn delete_once(&self, key: &Key) -> Result<()> {
        match self.full(key) {
            Ok(full) => self.objects.delete_once(&full).await.map_err(|error| error.about(key)),
            Err(_) => Ok(()),
        }
    }

    fn local_file(&self, key: &Key) -> Option<PathBuf> {
        self.objects.local_file(&self.full(key).ok()?)
    }
}
