//! The bearer token of each namespace, read once for each state of its Secret.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use super::Error;
use crate::{watch::chain, world::World};

/// Tokens by namespace.
pub(super) struct Tokens {
    client: Client,
    world: World,
    secret: String,
    /// For which state of the Secret, and the token.
    known: Mutex<HashMap<String, (String, Arc<str>)>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("secret", &self.secret).finish_non_exhaustive()
    }
}

impl Tokens {
    pub(super) fn new(client: Client, world: World, secret: String) -> Self {
        Self { client, world, secret, known: Mutex::default() }
    }

    /// The namespace's token: any entry of its Secret, since each is one. `None` while there is no Secret.
    pub(super) async fn of(&self, namespace: &str) -> Result<Option<Arc<str>>, Error> {
        let Some(stamp) = self.world.secrets.get(namespace, &self.secret) else {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
            return Ok(None);
        };
        let state = stamp.identity();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, token)) = known.get(namespace).filter(|(of, _)| *of == state) {
                return Ok(Some(Arc::clone(token)));
            }
        }
        let secret: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = secret.get_opt(&self.secret).await.map_err(|error| Error::Token(chain(&error)))?;
        let entries = secret.and_then(|secret| secret.data).unwrap_or_default();
        let texts = entries.values().filter_map(|value| std::str::from_utf8(&value.0).ok());
        let Some(token) = texts.map(str::trim).find(|token| !token.is_empty()) else {
            return Err(Error::Token(format!("`{}` has no entry that is a text", self.secret)));
        };
        let token: Arc<str> = Arc::from(token);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(namespace.to_owned(), (state, Arc::clone(&token)));
        Ok(Some(token))
    }
}
