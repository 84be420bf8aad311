//! Texts on their way to a model: in pieces that it takes, each kept as soon as it is there.

use std::sync::Arc;

use futures::{StreamExt, stream};
use lakehouse_contract::embed::ModelIdentity;
use tokio::{sync::Semaphore, task::spawn_blocking, time::Instant};

use crate::{
    EmbedError, LocalModel, Reason, Vector,
    board::{Claim, Outcome},
    deadline::Deadline,
    metrics::Metrics,
    models::{LOCAL, Model},
    providers::Remote,
};

type Results = Vec<Result<Vector, EmbedError>>;

/// Texts that a local model takes at a time: between two pieces others have their turn.
const LOCAL_PIECE: usize = 64;
/// Up to so many bytes a quick model computes where it is asked.
const QUICK_BYTES: usize = 16 << 10;
/// Further requests to find the texts of a piece that a provider refuses.
const MAX_SPLITS: usize = 32;

/// Flies for everybody.
#[derive(Clone, Debug)]
pub(crate) struct Pilot {
    /// Held while a local model computes.
    pub(crate) computing: Arc<Semaphore>,
    pub(crate) metrics: Metrics,
}

impl Pilot {
    /// Embeds all texts. Vectors are kept piece by piece, so that what came before a failure need not be paid for again.
    pub(crate) async fn fly(
        &self,
        model: &Model,
        identity: &ModelIdentity,
        texts: Vec<String>,
        claim: &Claim,
    ) -> Outcome {
        let results = match model {
            Model::Local(model) => self.compute(model, texts, claim).await,
            Model::Remote(remote) => ask(remote, identity, &texts, claim).await,
        };
        Arc::new(results)
    }

    async fn compute(&self, model: &Arc<dyn LocalModel>, texts: Vec<String>, claim: &Claim) -> Results {
        let started = Instant::now();
        let results = if model.is_quick() && texts.iter().map(String::len).sum::<usize>() <= QUICK_BYTES {
            let texts: Vec<(usize, String)> = texts.into_iter().enumerate().collect();
            let results = compute_piece(&**model, &texts);
            claim.keep(texts.iter().map(|(at, _)| *at).zip(&results));
            results
        } else {
            self.compute_pieces(model, texts, claim).await
        };
        self.metrics.asked(LOCAL, LOCAL, started.elapsed());
        results
    }

    /// Texts of like length go together, since a model computes as much for each of a piece as for its longest.
    async fn compute_pieces(
        &self,
        model: &Arc<dyn LocalModel>,
        texts: Vec<String>,
        claim: &Claim,
    ) -> Results {
        let mut results: Results = vec![Err(late()); texts.len()];
        let mut waiting: Vec<(usize, String)> = texts.into_iter().enumerate().collect();
        waiting.sort_by_key(|(_, text)| text.len());
        while !waiting.is_empty() && Instant::now() < claim.deadline.now() {
            let piece: Vec<_> = waiting.drain(..LOCAL_PIECE.min(waiting.len())).collect();
            let turn = self.computing.acquire().await;
            let model = model.clone();
            let computed = spawn_blocking(move || {
                let results = compute_piece(&*model, &piece);
                (piece, results)
            });
            let computed = computed.await;
            drop(turn);
            let Ok((piece, computed)) = computed else {
                let unusable =
                    EmbedError::new(Reason::Unusable, "the model failed on a text; the log says how");
                return results.into_iter().map(|result| result.map_err(|_| unusable.clone())).collect();
            };
            claim.keep(piece.iter().map(|(at, _)| *at).zip(&computed));
            for ((at, _), result) in piece.iter().zip(computed) {
                results[*at] = result;
            }
        }
        results
    }
}

fn compute_piece(model: &dyn LocalModel, piece: &[(usize, String)]) -> Results {
    let texts: Vec<&str> = piece.iter().map(|(_, text)| text.as_str()).collect();
    match model.embed(&texts) {
        Ok(vectors) => vectors.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error); piece.len()],
    }
}

fn late() -> EmbedError {
    EmbedError::new(Reason::Timeout, "the model was busy until the deadline")
}

/// As many pieces at a time as the provider may be asked.
async fn ask(remote: &Remote, identity: &ModelIdentity, texts: &[String], claim: &Claim) -> Results {
    let pieces = remote.pieces(texts);
    let asked = pieces.into_iter().map(|piece| async move {
        let results = ask_piece(remote, identity, &texts[piece.clone()], &claim.deadline).await;
        claim.keep(piece.clone().zip(&results));
        (piece, results)
    });
    let mut results: Results = vec![Err(late()); texts.len()];
    let mut asked = stream::iter(asked).buffer_unordered(remote.max_concurrent());
    while let Some((piece, found)) = asked.next().await {
        for (at, result) in piece.zip(found) {
            results[at] = result;
        }
    }
    results
}

/// A piece that is refused is halved until it is known which text was meant.
async fn ask_piece(
    remote: &Remote,
    identity: &ModelIdentity,
    texts: &[String],
    deadline: &Deadline,
) -> Results {
    let mut results: Results = vec![Err(late()); texts.len()];
    let mut splits = 0;
    let whole = 0..texts.len();
    let mut waiting = Vec::from([whole]);
    while let Some(part) = waiting.pop() {
        match remote.embed(&texts[part.clone()], identity, deadline).await {
            Ok(vectors) => {
                for (at, vector) in part.zip(vectors) {
                    results[at] = Ok(vector);
                }
            }
            Err(error) => {
                let of_a_text = matches!(error.reason, Reason::Refused | Reason::TooLong);
                if of_a_text && part.len() > 1 && splits < MAX_SPLITS {
                    splits += 1;
                    let middle = part.start.midpoint(part.end);
                    waiting.push(middle..part.end);
                    waiting.push(part.start..middle);
                    continue;
                }
                let only = (of_a_text && part.len() == 1).then_some(part.start);
                for at in part {
                    results[at] = Err(EmbedError { item: only, ..error.clone() });
                }
            }
        }
    }
    results
}
