//! Copying one index into another, while both are written to.
//!
//! What the destination has stays, decided in its log, so no write that comes at the same moment is overwritten. An item leaves the source
//! only as it was copied: one that was written again meanwhile stays. So a merge may stop anywhere and be run again.

use std::sync::Arc;

use lakehouse_contract::vectors::{Item, MergeAnswer};

use crate::{
    Error, Result,
    live::{Live, checked_writes},
    record::{Op, Removal},
    service::{bytes_of, check_fields},
};

/// Items of one step.
const STEP: usize = 1000;
/// Bytes of items of one step, roughly.
const STEP_BYTES: usize = 8 << 20;

pub(crate) async fn merge(source: &Arc<Live>, dest: &Arc<Live>, clear: bool) -> Result<MergeAnswer> {
    dest.pushed()?;
    if clear {
        source.pushed()?;
    }
    fit(source, dest)?;
    let from = source.snapshot();
    let mut answer = MergeAnswer::default();
    let mut items = from.items();
    loop {
        let taken = tokio::task::spawn_blocking(move || {
            let (mut step, mut bytes): (Vec<(Item, u64)>, usize) = (Vec::new(), 0);
            while step.len() < STEP
                && bytes < STEP_BYTES
                && let Some(next) = items.next()
            {
                bytes += bytes_of(&next.0);
                step.push(next);
            }
            (items, step)
        });
        let (rest, step) =
            taken.await.map_err(|error| Error::Local(format!("reading the source failed: {error}")))?;
        items = rest;
        if step.is_empty() {
            break;
        }
        copy(source, dest, step, clear, &mut answer).await?;
    }
    answer.length_dest = dest.snapshot().length;
    answer.length_source = source.snapshot().length;
    Ok(answer)
}

async fn copy(
    source: &Arc<Live>,
    dest: &Arc<Live>,
    step: Vec<(Item, u64)>,
    clear: bool,
    answer: &mut MergeAnswer,
) -> Result<()> {
    let removals = step.iter().map(|(item, stamp)| Removal { id: item.id.clone(), stamp: *stamp }).collect();
    let items: Vec<Item> = step.into_iter().map(|(item, _)| item).collect();
    let count = items.len() as u64;
    let into = dest.snapshot();
    let writes = check_fields(&into, &items).and_then(|()| checked_writes(&into.manifest.shape, items));
    let writes = match writes {
        Ok(writes) => writes,
        // The destination refuses what the source has; the rest is copied.
        Err(error) => {
            answer.failed += count;
            answer.first_error.get_or_insert_with(|| error.to_string());
            return Ok(());
        }
    };
    let done = dest.write(Op::Insert(writes)).await?;
    answer.merged += done.written;
    answer.skipped_already_present += done.skipped;
    if clear {
        source.write(Op::Remove(removals)).await?;
    }
    Ok(())
}

/// Refuses two indexes whose vectors cannot be compared.
fn fit(source: &Live, dest: &Live) -> Result<()> {
    let (source, dest) = (source.snapshot(), dest.snapshot());
    let (from, into) = (&source.manifest, &dest.manifest);
    if (from.shape.dimension, from.shape.metric) != (into.shape.dimension, into.shape.metric) {
        return Err(Error::Invalid(format!(
            "`{}` has {} numbers and metric {:?}, and `{}` has {} and {:?}; only indexes that agree in both can be merged",
            from.name,
            from.shape.dimension,
            from.shape.metric,
            into.name,
            into.shape.dimension,
            into.shape.metric
        )));
    }
    match (&from.embedding, &into.embedding) {
        (Some(request), Some(index)) if request != index => Err(Error::ModelMismatch {
            name: into.name.clone(),
            index: Box::new(index.clone()),
            request: Box::new(request.clone()),
        }),
        _ => Ok(()),
    }
}
