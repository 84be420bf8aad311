//! Vectors, one by one or by the thousand: add, get, delete, merge.

use axum::extract::Query;
use axum::{Json, body::Body, extract::State, http::HeaderMap};
use lakehouse_contract::{
    IndexName,
    vectors::{AddAnswer, AddRequest, DeleteAnswer, GetAnswer, IdsRequest, Item, MergeAnswer, MergeRequest},
};
use lakehouse_http::{Problem, body};

use super::{
    Name,
    bodies::{self, Add},
    checked,
    search::{Part, call, on_part},
};
use crate::{
    Error, Result,
    live::checked_writes,
    merge, models,
    record::{Op, Removal},
    snapshot::{Allowance, Snapshot},
    value,
    vectord::Vectord,
};

/// The most ids of one get: what they give must fit into memory.
const MAX_GET: usize = 10_000;
/// The most fields that the vectors of an index have together.
const MAX_FIELDS: usize = 1024;

pub(super) async fn add(
    State(vectord): State<Vectord>,
    name: Name,
    body: Body,
) -> Result<Json<AddAnswer>, Problem> {
    let name = checked(name)?;
    let live = vectord.live(&name).await?;
    live.pushed()?;
    let AddRequest { items, model } = bodies::read::<Add>(body).await?.into();
    let snapshot = live.snapshot();
    if let Some(model) = model.filter(|model| !model.is_empty()) {
        models::check(vectord.inner().embedder.as_deref(), &snapshot, &model).await?;
    }
    if items.is_empty() {
        return Ok(Json(AddAnswer { added: 0, replaced: 0, length: snapshot.length }));
    }
    check_fields(&snapshot, &items)?;
    let writes = checked_writes(&snapshot.manifest.shape, items)?;
    let done = live.write(Op::Upsert(writes)).await?;
    vectord.inner().numbers.wrote(done.written);
    Ok(Json(AddAnswer { added: done.written, replaced: done.replaced, length: done.length }))
}

/// Refuses the field that is one too many: each costs every segment a column.
pub(crate) fn check_fields(snapshot: &Snapshot, items: &[Item]) -> Result<()> {
    let mut new = std::collections::HashSet::new();
    for (index, item) in items.iter().enumerate() {
        for field in item.metadata.iter().flat_map(|metadata| metadata.keys()) {
            let known = snapshot.fields.contains_key(field.as_str());
            if !known && new.insert(field.as_str()) && snapshot.fields.len() + new.len() > MAX_FIELDS {
                let message = format!(
                    "metadata `{field}` would be one field too many; an index has at most {MAX_FIELDS}"
                );
                return Err(Error::item(index, message));
            }
        }
    }
    Ok(())
}

pub(super) async fn get(
    State(vectord): State<Vectord>,
    name: Name,
    part: Query<Part>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<GetAnswer>, Problem> {
    let name = checked(name)?;
    let live = vectord.live(&name).await?;
    let IdsRequest { ids } = bodies::read(body).await?;
    check_ids(&ids)?;
    if ids.len() > MAX_GET {
        let message = format!("`ids` has {}; at most {MAX_GET} are given at once", ids.len());
        return Err(Problem::bad_request(message));
    }
    let snapshot = on_part(&vectord, &live, &part).await?;
    let (local, ids_of) = (snapshot.clone(), ids.clone());
    let mut found: Vec<Option<Item>> = tokio::task::spawn_blocking(move || {
        let answer = Allowance::new("ids");
        let item = |id: &String| {
            let Some((part, row)) = local.find(id) else { return Ok(None) };
            let item = local.item(part, row);
            answer.take(bytes_of(&item))?;
            Ok(Some(item))
        };
        ids_of.iter().map(item).collect::<Result<_>>()
    })
    .await
    .map_err(|_| Problem::unavailable("the process is stopping", 1))??;
    if let Some((peers, call)) = call(&vectord, &snapshot, &part, &headers) {
        let missing = ids.iter().zip(&found).filter(|(_, item)| item.is_none()).map(|(id, _)| id.clone());
        let missing: Vec<String> = missing.collect();
        if !missing.is_empty() {
            for item in peers.get(&call, missing).await?.into_iter().flat_map(|answer| answer.items) {
                for (id, place) in ids.iter().zip(&mut found) {
                    if *id == item.id {
                        *place = Some(item.clone());
                    }
                }
            }
        }
    }
    let missing = ids.into_iter().zip(&found).filter(|(_, item)| item.is_none()).map(|(id, _)| id).collect();
    Ok(Json(GetAnswer { items: found.into_iter().flatten().collect(), missing }))
}

/// About the bytes of an item.
pub(crate) fn bytes_of(Item { id, vector, metadata }: &Item) -> usize {
    id.len() + size_of_val(vector.as_slice()) + metadata.as_ref().map_or(0, value::bytes_of)
}

pub(super) async fn delete(
    State(vectord): State<Vectord>,
    name: Name,
    body: Body,
) -> Result<Json<DeleteAnswer>, Problem> {
    let name = checked(name)?;
    let live = vectord.live(&name).await?;
    live.pushed()?;
    let IdsRequest { ids } = bodies::read(body).await?;
    check_ids(&ids)?;
    if ids.is_empty() {
        return Ok(Json(DeleteAnswer { deleted: 0, length: live.snapshot().length }));
    }
    let removals = ids.into_iter().map(|id| Removal { id, stamp: 0 }).collect();
    let done = live.write(Op::Remove(removals)).await?;
    Ok(Json(DeleteAnswer { deleted: done.removed, length: done.length }))
}

fn check_ids(ids: &[String]) -> Result<()> {
    for (index, id) in ids.iter().enumerate() {
        value::check_id(id).map_err(|message| Error::Item { list: "ids", index, message })?;
    }
    Ok(())
}

pub(super) async fn merge(
    State(vectord): State<Vectord>,
    name: Name,
    body::Json(request): body::Json<MergeRequest>,
) -> Result<Json<MergeAnswer>, Problem> {
    let name = checked(name)?;
    let MergeRequest { dest, clear_source } = request;
    let dest = IndexName::parse(dest).map_err(|error| Problem::bad_request(format!("`dest`: {error}")))?;
    if dest == name {
        return Err(Problem::bad_request("`dest` is the source itself"));
    }
    let (source, dest) = (vectord.live(&name).await?, vectord.live(&dest).await?);
    Ok(Json(merge::merge(&source, &dest, clear_source).await?))
}
