//! Texts become vectors, however often the embedding service must be asked.

use std::time::Duration;

use lakehouse_contract::{build::Phase, embed::ModelIdentity};
use lakehouse_embed::{EmbedError, Embedder, Reason, Vector};
use tokio::time::Instant;

use crate::{Error, Tracker};

/// The first wait after a failure that may pass; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A model that answers to a name, and how long it is waited for.
#[derive(Clone, Copy)]
pub(crate) struct Model<'a> {
    pub(crate) embedder: &'a dyn Embedder,
    pub(crate) identity: &'a ModelIdentity,
    /// How long a service that turns texts away is asked again.
    pub(crate) patience: Duration,
    pub(crate) tracker: &'a Tracker,
}

impl Model<'_> {
    /// A vector for each text, or why the model does not take it.
    ///
    /// A service that is too busy or away is waited for. A request that takes too long is cut in two, and so is one whose refusal
    /// does not say which text is meant.
    pub(crate) async fn vectors(self, texts: &[String]) -> Result<Vec<Result<Vector, String>>, Error> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let (mut wait, mut first_failure) = (FIRST_WAIT, None);
        loop {
            let error = match self.embedder.embed(&self.identity.model, texts).await {
                Ok(embedded) if embedded.identity != *self.identity => {
                    let (expected, found) = (Box::new(self.identity.clone()), Box::new(embedded.identity));
                    return Err(Error::ModelChanged { expected, found });
                }
                Ok(embedded) => {
                    if first_failure.is_some() {
                        self.tracker.enter(Phase::Embedding);
                    }
                    return Ok(embedded.vectors.into_iter().map(Ok).collect());
                }
                Err(error) => error,
            };
            match (refused(&error), texts.len()) {
                (Some(Place::At(item)), _) if item < texts.len() => {
                    let mut vectors = Box::pin(self.vectors(&texts[..item])).await?;
                    vectors.push(Err(error.message));
                    vectors.extend(Box::pin(self.vectors(&texts[item + 1..])).await?);
                    return Ok(vectors);
                }
                (Some(Place::Somewhere), 1) => return Ok(vec![Err(error.message)]),
                (Some(Place::Somewhere), _) => return self.halves(texts).await,
                (None, 2..) if error.reason == Reason::Timeout => return self.halves(texts).await,
                _ if !error.retry_helps() => return Err(error.into()),
                _ => {}
            }
            let since = *first_failure.get_or_insert_with(Instant::now);
            let pause = error.retry_after.unwrap_or(wait);
            if since.elapsed() + pause > self.patience {
                return Err(error.into());
            }
            self.tracker.wait(format!(
                "{} It is asked again in {} s.",
                sentence(&error.message),
                pause.as_secs().max(1)
            ));
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn halves(self, texts: &[String]) -> Result<Vec<Result<Vector, String>>, Error> {
        let (first, second) = texts.split_at(texts.len() / 2);
        let mut vectors = Box::pin(self.vectors(first)).await?;
        vectors.extend(Box::pin(self.vectors(second)).await?);
        Ok(vectors)
    }
}

/// Where the text is that a model does not take.
enum Place {
    At(usize),
    Somewhere,
}

/// Whether an error is about a text. One that names no text and speaks of no length may be about all of them.
fn refused(error: &EmbedError) -> Option<Place> {
    match (error.reason, error.item) {
        (Reason::TooLong | Reason::Refused | Reason::EmptyText, Some(item)) => Some(Place::At(item)),
        (Reason::TooLong, None) => Some(Place::Somewhere),
        _ => None,
    }
}

fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use async_trait::async_trait;
    use lakehouse_contract::IndexName;
    use lakehouse_embed::Embedded;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_service_that_turns_texts_away_is_asked_again_until_it_answers() {
        let fake = Fake::new(|asked, texts| match asked {
            0 => Err(EmbedError::new(Reason::RateLimited, "`ollama` answers 429")
                .after(Some(Duration::from_secs(7)))),
            1 | 2 => Err(EmbedError::new(Reason::Unavailable, "`ollama` answers 503")),
            _ => Ok(texts.len()),
        });
        let (started, tracker) = (Instant::now(), tracker());
        let vectors = fake.model(&tracker).vectors(&texts(&["a", "b"])).await.unwrap();
        assert_eq!(vectors, [Ok(vector("a")), Ok(vector("b"))]);
        assert_eq!(started.elapsed().as_secs(), 7 + 2 + 4, "its own wish first, then ours");
        assert_eq!(tracker.progress().phase, Phase::Embedding);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_with_what_the_service_said() {
        let fake = Fake::new(|_, _| Err(EmbedError::new(Reason::Unavailable, "`ollama` cannot be reached")));
        let (started, tracker) = (Instant::now(), tracker());
        let error = fake.model(&tracker).vectors(&texts(&["a"])).await.unwrap_err();
        assert_eq!(error.to_string(), "`ollama` cannot be reached");
        assert!(started.elapsed() <= PATIENCE && started.elapsed() > PATIENCE / 2);
        let told = tracker.progress().message.unwrap();
        assert!(told.starts_with("`ollama` cannot be reached. It is asked again in "), "{told}");
    }

    #[tokio::test]
    async fn a_refused_text_is_set_aside_and_the_others_go_on() {
        let long = |texts: &[String]| texts.iter().position(|text| text.len() > 3);
        for is_told in [true, false] {
            let fake = Fake::new(move |_, texts| {
                let refused = EmbedError::new(Reason::TooLong, "too long");
                match long(texts) {
                    Some(item) if is_told => Err(refused.at(item)),
                    Some(_) => Err(refused),
                    None => Ok(texts.len()),
                }
            });
            let vectors =
                fake.model(&tracker()).vectors(&texts(&["a", "long", "b", "longer"])).await.unwrap();
            let refused = || Err("too long".to_owned());
            assert_eq!(vectors, [Ok(vector("a")), refused(), Ok(vector("b")), refused()]);
        }
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_cut_in_two() {
        let fake = Fake::new(|_, texts| match texts.len() {
            0..=2 => Ok(texts.len()),
            _ => Err(EmbedError::new(Reason::Timeout, "nothing came in 60 s")),
        });
        let vectors = fake.model(&tracker()).vectors(&texts(&["a", "b", "c", "d", "e"])).await.unwrap();
        assert_eq!(vectors.len(), 5);
    }

    #[tokio::test]
    async fn what_no_waiting_mends_ends_the_build_at_once() {
        for reason in [Reason::Credentials, Reason::Refused, Reason::BadAnswer, Reason::UnknownModel] {
            let fake = Fake::new(move |_, _| Err(EmbedError::new(reason, "no")));
            assert!(matches!(
                fake.model(&tracker()).vectors(&texts(&["a", "b"])).await,
                Err(Error::Embed(_))
            ));
            assert_eq!(*fake.asked.lock().unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn vectors_of_another_model_are_not_taken() {
        let fake = Fake::new(|_, texts| Ok(texts.len()));
        let tracker = tracker();
        let other = ModelIdentity { digest: "sha256:11".into(), ..identity() };
        let model = Model { identity: &other, ..fake.model(&tracker) };
        let error = model.vectors(&texts(&["a"])).await.unwrap_err();
        assert!(error.to_string().contains("it was sha256:11 with 1 numbers and is sha256:00"), "{error}");
    }

    const PATIENCE: Duration = Duration::from_mins(10);

    struct Fake<F> {
        asked: Mutex<u32>,
        answer: F,
        identity: ModelIdentity,
    }

    impl<F: Fn(u32, &[String]) -> Result<usize, EmbedError> + Send + Sync + 'static> Fake<F> {
        fn new(answer: F) -> Self {
            Self { asked: Mutex::new(0), answer, identity: identity() }
        }

        fn model<'a>(&'a self, tracker: &'a Tracker) -> Model<'a> {
            Model { embedder: self, identity: &self.identity, patience: PATIENCE, tracker }
        }
    }

    #[async_trait]
    impl<F: Fn(u32, &[String]) -> Result<usize, EmbedError> + Send + Sync + 'static> Embedder for Fake<F> {
        async fn embed(&self, _: &str, texts: &[String]) -> Result<Embedded, EmbedError> {
            let asked = {
                let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                *asked += 1;
                *asked - 1
            };
            (self.answer)(asked, texts)?;
            let vectors = texts.iter().map(|text| vector(text)).collect();
            Ok(Embedded { identity: self.identity.clone(), vectors })
        }

        async fn identity(&self, _: &str) -> Result<ModelIdentity, EmbedError> {
            Ok(self.identity.clone())
        }
    }

    fn identity() -> ModelIdentity {
        ModelIdentity {
            model: "ollama/tiny".into(),
            digest: "sha256:00".into(),
            dimension: 1,
            normalised: false,
        }
    }

    fn vector(text: &str) -> Vector {
        Vector::from([f32::from(text.as_bytes()[0])])
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn tracker() -> Tracker {
        Tracker::new(IndexName::parse("shelf").unwrap())
    }
}
