//! Reading a log's objects, and finding where it ends.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use lakehouse_contract::Key;

use super::{MAX_BYTES, MAX_RECORDS, Record, codec};
use crate::{Error, Result, Store};

/// The largest object that is read. What [`codec`] adds to the records is far below their own limit.
const MAX_OBJECT: u64 = 2 * MAX_BYTES as u64;

/// Where a log ends.
pub(super) struct End {
    /// The number of the next record.
    pub(super) next: u64,
    /// The last object and what is wrong with it.
    pub(super) damage: Option<(Key, String)>,
}

/// The object that starts with record `number`.
pub(super) fn key(prefix: &str, number: u64) -> Result<Key> {
    let text = format!("{prefix}{number:020}");
    Key::parse(&text)
        .map_err(|error| Error::Unfit { message: format!("no log can lie below `{prefix}`: {error}") })
}

/// The first record of an object; `None` for an object that is not of a log.
pub(super) fn number(prefix: &str, key: &Key) -> Option<u64> {
    let digits = key.as_str().strip_prefix(prefix)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Finds the end of a log that is known to have records up to `known`.
pub(super) async fn end(store: &Store, prefix: &str, known: Option<u64>) -> Result<End> {
    let mut last = None;
    let mut after = known.map(|known| before(prefix, known)).transpose()?.flatten();
    loop {
        let page = store.list(prefix, after.as_ref().map(Key::as_str), 1000).await?;
        last = page.objects.iter().rev().find_map(|listed| number(prefix, &listed.key)).or(last);
        match page.objects.last() {
            Some(listed) if page.more => after = Some(listed.key.clone()),
            _ => break,
        }
    }
    let Some(first) = last else { return Ok(End { next: known.unwrap_or(0), damage: None }) };
    let key = key(prefix, first)?;
    let object = store.get(&key, None).await?.bytes(MAX_OBJECT).await?;
    let decoded = codec::decode(first, object);
    Ok(End { next: following(first, &decoded), damage: decoded.damage.map(|message| (key, message)) })
}

/// The number after an object. A damaged one takes at least the number of its name: that name is not free.
fn following(first: u64, decoded: &codec::Decoded) -> u64 {
    first + (decoded.records.len() as u64).max(1)
}

/// A key before every object that may hold record `number`.
fn before(prefix: &str, number: u64) -> Result<Option<Key>> {
    number.checked_sub(MAX_RECORDS as u64 + 1).map(|number| key(prefix, number)).transpose()
}

/// The first object that starts at record `wanted` or later.
pub(super) async fn starts_from(store: &Store, prefix: &str, wanted: u64) -> Result<Option<u64>> {
    let after = wanted.checked_sub(1).map(|number| key(prefix, number)).transpose()?;
    let page = store.list(prefix, after.as_ref().map(Key::as_str), 1).await?;
    Ok(page.objects.first().and_then(|listed| number(prefix, &listed.key)))
}

/// The records from `number` on.
pub(super) fn records(store: Store, prefix: String, number: u64) -> BoxStream<'static, Result<Record>> {
    let reader = Reader { store, prefix, wanted: number, place: None, ready: VecDeque::new(), damage: None };
    stream::try_unfold(
        reader,
        |mut reader| async move { Ok(reader.next().await?.map(|record| (record, reader))) },
    )
    .boxed()
}

struct Reader {
    store: Store,
    prefix: String,
    /// Records before this one are passed over.
    wanted: u64,
    /// The object to read next, once the first one is found.
    place: Option<u64>,
    ready: VecDeque<Record>,
    /// What was wrong with the object before `place`.
    damage: Option<Error>,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Record>> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Ok(Some(record));
            }
            let place = match self.place {
                Some(place) => place,
                None => match self.find().await? {
                    Some(place) => place,
                    None => return Ok(None),
                },
            };
            let Some(object) = self.open(place).await? else {
                return self.at_the_end(place).await.map(|()| None);
            };
            let decoded = codec::decode(place, object);
            self.place = Some(following(place, &decoded));
            let key = key(&self.prefix, place)?;
            self.damage = decoded.damage.map(|message| Error::Damaged { key, message });
            let wanted = self.wanted;
            let records = (place..).zip(decoded.records).map(|(number, content)| Record { number, content });
            self.ready.extend(records.filter(|record| record.number >= wanted));
        }
    }

    /// The object that holds the first record that is wanted; `None` when the log ends before it.
    async fn find(&self) -> Result<Option<u64>> {
        let mut after = before(&self.prefix, self.wanted)?;
        let mut found = None;
        loop {
            let page = self.store.list(&self.prefix, after.as_ref().map(Key::as_str), 1000).await?;
            for first in page.objects.iter().filter_map(|listed| number(&self.prefix, &listed.key)) {
                match found {
                    None if first > self.wanted => {
                        return Err(Error::Gone { log: self.prefix.clone(), first });
                    }
                    Some(_) if first > self.wanted => return Ok(found),
                    _ => found = Some(first),
                }
            }
            match page.objects.last() {
                Some(listed) if page.more => after = Some(listed.key.clone()),
                _ => return Ok(found),
            }
        }
    }

    async fn open(&self, first: u64) -> Result<Option<Bytes>> {
        match self.store.get(&key(&self.prefix, first)?, None).await {
            Ok(object) => object.bytes(MAX_OBJECT).await.map(Some),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// There is no object at `place`: either the log ends here, or something before its end is missing.
    async fn at_the_end(&mut self, place: u64) -> Result<()> {
        let Some(first) = starts_from(&self.store, &self.prefix, place).await? else { return Ok(()) };
        if first == place {
            // It was appended just now; the next read begins with it.
            return Ok(());
        }
        Err(self.damage.take().unwrap_or(Error::Damaged {
            key: key(&self.prefix, place)?,
            message: format!("records {place} to {} are missing", first - 1),
        }))
    }
}
