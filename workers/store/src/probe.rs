//! The start-up probe: does this store honour the conditional writes on which every commit stands?
//!
//! Some servers that speak S3 ignore `If-None-Match` or `If-Match` and answer 200: two writers would both believe that
//! they won. The probe writes a few small objects below `_probe/`, tries each condition, and removes them.

use bytes::Bytes;
use futures::future::join_all;
use lakehouse_contract::Key;
use uuid::Uuid;

use crate::{Condition, Error, Etag, Objects, Payload, Result};

/// How many writers race for one key. Exactly one may win.
const RACERS: usize = 8;

/// Fails with [`Error::Unfit`], naming the store as `name`, when a condition of a write is not honoured.
pub async fn conditional_writes(objects: &dyn Objects, name: &str) -> Result<()> {
    let run = Uuid::new_v4().simple();
    let key = |part: &str| Key::parse(format!("_probe/{run}/{part}")).expect("a short key of plain letters");
    let probe = Probe { objects, name };
    let keys = [key("swap"), key("race"), key("large"), key("missing"), key("missing-large")];
    let [swap, race, large, missing, missing_large] = &keys;
    let verdict = async {
        probe.swaps(swap).await?;
        probe.one_racer_wins(race).await?;
        probe.large_bodies(large).await?;
        let stale = Condition::Matches(Etag("\"00000000000000000000000000000000\"".into()));
        let small = objects.put(missing, body("e"), stale.clone()).await;
        probe.refused("updated a key that is not there", small)?;
        let parts = objects.put_large(missing_large, body("e"), stale).await;
        probe.refused("updated a key that is not there, in parts", parts)
    }
    .await;
    if let Err(Error::Unavailable { .. }) = verdict {
        // Who does not answer a write does not answer a removal either, and each would be waited for.
        return verdict;
    }
    for key in &keys {
        // A store that forbids removal still holds what it is given.
        if let Err(error) = objects.delete(key).await {
            tracing::debug!(%key, %error, "A probe's object stays");
        }
    }
    verdict
}

struct Probe<'a> {
    objects: &'a dyn Objects,
    name: &'a str,
}

impl Probe<'_> {
    async fn swaps(&self, key: &Key) -> Result<()> {
        let first = self.objects.put(key, body("a"), Condition::Absent).await?;
        self.refused("created the same key twice", self.put(key, "b", Condition::Absent).await)?;
        let second = self.put(key, "c", Condition::Matches(first.clone())).await;
        let second = self.accepted("refused an update whose mark was right", second)?;
        if first == second {
            return Err(self.lies("gave two contents the same mark"));
        }
        self.refused(
            "updated a key with a mark that was stale",
            self.put(key, "d", Condition::Matches(first)).await,
        )?;
        let found = self.objects.get(key, None).await?;
        if found.meta.etag != second {
            return Err(self.lies("reads a key with another mark than it was written with"));
        }
        if found.bytes(16).await? != Bytes::from_static(b"c") {
            return Err(self.lies("changed a key although it refused the write"));
        }
        Ok(())
    }

    async fn one_racer_wins(&self, key: &Key) -> Result<()> {
        let racers = (0..RACERS).map(|_| self.objects.put(key, body("r"), Condition::Absent));
        let mut winners = 0;
        for answer in join_all(racers).await {
            match answer {
                Ok(_) => winners += 1,
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if winners == 1 {
            return Ok(());
        }
        Err(self.lies(&format!("let {winners} of {RACERS} writers create the same key at once")))
    }

    async fn large_bodies(&self, key: &Key) -> Result<()> {
        let first = self.objects.put_large(key, body("a"), Condition::Absent).await?;
        let again = self.objects.put_large(key, body("b"), Condition::Absent).await;
        self.refused("created the same key twice, in parts", again)?;
        let right = self.objects.put_large(key, body("c"), Condition::Matches(first.clone())).await;
        self.accepted("refused an update whose mark was right, in parts", right)?;
        let stale = self.objects.put_large(key, body("d"), Condition::Matches(first)).await;
        self.refused("updated a key with a mark that was stale, in parts", stale)
    }

    async fn put(&self, key: &Key, content: &'static str, condition: Condition) -> Result<Etag> {
        self.objects.put(key, body(content), condition).await
    }

    /// The write had to be refused; `deed` is what the store did otherwise.
    fn refused(&self, deed: &str, answer: Result<Etag>) -> Result<()> {
        match answer {
            Err(Error::Conflict { .. }) => Ok(()),
            Ok(_) => Err(self.lies(deed)),
            Err(error) => Err(error),
        }
    }

    /// The write had to be done; `deed` is what the store did otherwise.
    fn accepted(&self, deed: &str, answer: Result<Etag>) -> Result<Etag> {
        answer.map_err(|error| match error {
            Error::Conflict { .. } => self.lies(deed),
            other => other,
        })
    }

    fn lies(&self, deed: &str) -> Error {
        let name = self.name;
        let message = format!(
            "{name} does not honour conditional writes: it {deed}. Two writers would overwrite each other's work; \
             use a newer version of this server, or another store"
        );
        Error::Unfit { message }
    }
}

fn body(content: &'static str) -> Payload {
    Payload::Bytes(Bytes::from_static(content.as_bytes()))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::{ByteRange, Meta, Object, Page, memory::Memory};

    #[tokio::test]
    async fn an_honest_store_passes_and_is_left_as_it_was() {
        let memory = Memory::default();
        conditional_writes(&memory, "memory").await.unwrap();
        assert_eq!(memory.list("", None, 10).await.unwrap(), Page::default());
    }

    #[tokio::test]
    async fn a_store_that_lies_is_refused_with_its_name_and_its_deed() {
        let cases = [
            (Lie::Absent, "created the same key twice."),
            (Lie::Matches, "updated a key with a mark that was stale."),
            (Lie::Race, "writers create the same key at once"),
            (Lie::Missing, "updated a key that is not there."),
            (Lie::Parts, "created the same key twice, in parts"),
        ];
        for (lie, deed) in cases {
            let liar = Liar { memory: Memory::default(), lie };
            let error = conditional_writes(&liar, "S3 at http://liar").await.unwrap_err();
            let message = error.to_string();
            assert!(matches!(error, Error::Unfit { .. }), "{error:?}");
            assert!(message.starts_with("S3 at http://liar does not honour"), "{message}");
            assert!(message.contains(deed), "{lie:?}: {message}");
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Lie {
        Absent,
        Matches,
        Race,
        Missing,
        Parts,
    }

    /// A memory that drops one kind of condition. No real server can be made to fail in just one of these ways.
    #[derive(Debug)]
    struct Liar {
        memory: Memory,
        lie: Lie,
    }

    #[async_trait]
    impl Objects for Liar {
        async fn put(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
            let there = self.memory.head(key).await.is_ok();
            let honest = match (self.lie, &condition) {
                (Lie::Absent, Condition::Absent) => false,
                (Lie::Race, Condition::Absent) => !key.as_str().ends_with("race"),
                (Lie::Matches, Condition::Matches(_)) => !there,
                (Lie::Missing, Condition::Matches(_)) => there,
                _ => true,
            };
            self.memory.put(key, body, if honest { condition } else { Condition::Always }).await
        }

        async fn put_large(&self, key: &Key, body: Payload, condition: Condition) -> Result<Etag> {
            let condition = if self.lie == Lie::Parts { Condition::Always } else { condition };
            self.memory.put(key, body, condition).await
        }

        async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object> {
            self.memory.get(key, range).await
        }

        async fn head(&self, key: &Key) -> Result<Meta> {
            self.memory.head(key).await
        }

        async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
            self.memory.list(prefix, after, limit).await
        }

        async fn delete(&self, key: &Key) -> Result<()> {
            self.memory.delete(key).await
        }
    }
}
