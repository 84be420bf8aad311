//! Which model's vectors an index has, and whether a request's fit to them.

use lakehouse_contract::{IndexName, embed::ModelIdentity, vectors::Shape};
use lakehouse_embed::{EmbedError, Embedder, Reason};

use crate::{Error, Result, snapshot::Snapshot};

/// The model of an index that is made for the vectors of `model`. A model that nobody here can run is known by its name alone.
pub(crate) async fn for_create(
    embedder: Option<&dyn Embedder>,
    model: &str,
    shape: &Shape,
) -> Result<ModelIdentity> {
    let identity = match named(embedder, model).await? {
        Some(identity) => identity,
        None => unknown(model, shape.dimension),
    };
    if identity.dimension != shape.dimension {
        return Err(Error::Invalid(format!(
            "`dimension` is {}, and the vectors of `{}` have {} numbers",
            shape.dimension, identity.model, identity.dimension
        )));
    }
    Ok(identity)
}

/// Refuses vectors of another model than the index's.
pub(crate) async fn check(embedder: Option<&dyn Embedder>, snapshot: &Snapshot, model: &str) -> Result<()> {
    let own = of(snapshot)?;
    if own.model == model {
        return Ok(());
    }
    let request = named(embedder, model).await?.unwrap_or_else(|| unknown(model, own.dimension));
    compare(&snapshot.manifest.name, own, request)
}

/// The vector of a text, by the index's own model.
pub(crate) async fn embed(
    embedder: Option<&dyn Embedder>,
    snapshot: &Snapshot,
    text: &str,
) -> Result<Vec<f32>> {
    let own = of(snapshot)?;
    let Some(embedder) = embedder else {
        let message = "no embedder is set up here, so a text cannot be searched for; search by `vector`";
        return Err(EmbedError::new(Reason::Unavailable, message).into());
    };
    if text.trim().is_empty() {
        return Err(Error::Invalid("`text` is empty".into()));
    }
    let answer = embedder.embed(&own.model, &[text.to_owned()]).await?;
    compare(&snapshot.manifest.name, own, answer.identity)?;
    match answer.vectors.first() {
        Some(vector) => Ok(vector.to_vec()),
        None => Err(EmbedError::new(Reason::BadAnswer, "the embedder gave no vector for the text").into()),
    }
}

fn of(snapshot: &Snapshot) -> Result<&ModelIdentity> {
    let manifest = &snapshot.manifest;
    manifest.embedding.as_ref().ok_or_else(|| Error::NoModel(manifest.name.clone()))
}

/// The model that answers to a name; `None` when none does.
async fn named(embedder: Option<&dyn Embedder>, model: &str) -> Result<Option<ModelIdentity>> {
    let Some(embedder) = embedder else { return Ok(None) };
    match embedder.identity(model).await {
        Ok(identity) => Ok(Some(identity)),
        Err(error) if error.reason == Reason::UnknownModel => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn unknown(model: &str, dimension: u32) -> ModelIdentity {
    ModelIdentity { model: model.to_owned(), digest: String::new(), dimension, normalised: false }
}

fn compare(name: &IndexName, index: &ModelIdentity, request: ModelIdentity) -> Result<()> {
    // Where weights are not known, the name is all there is.
    let same_weights = index.digest == request.digest || index.digest.is_empty() || request.digest.is_empty();
    if index.model == request.model && same_weights {
        return Ok(());
    }
    Err(Error::ModelMismatch {
        name: name.clone(),
        index: Box::new(index.clone()),
        request: Box::new(request),
    })
}
