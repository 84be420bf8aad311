//! chatd: from a request to the provider that answers it.
//!
//! ```text
//! ask ─► route ─► for each candidate: rest? ─► place ─► [turn ─► send ─► first piece] × tries ─► answer
//! ```
//! Up to the first piece of an answer nothing was sent to the client, so anything may be tried again, or elsewhere. After it
//! nothing is: a failure is the stream's last event.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::http::header;
use bytes::Bytes;
use lakehouse_contract::provider::Providers;
use opentelemetry::trace::SpanContext;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info};

use crate::{
    ChatError, Settings,
    ask::Ask,
    door::Labels,
    event::Facts,
    fleet::{Candidate, Fleet},
    live::{Begun, Live, Meter},
    metrics::Numbers,
    protocol::{Outgoing, Protocol, openai},
    trace::Call,
    upstream::{Deadline, Upstream},
};

/// The service, in this process. Cheap to clone; clones are one.
#[derive(Clone, Debug)]
pub struct Chatd(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) fleet: ArcSwap<Fleet>,
    pub(crate) numbers: Numbers,
    /// Ends what follows the list and the keys.
    _following: DropGuard,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) provider: Arc<str>,
    pub(crate) body: AnswerBody,
}

pub(crate) enum AnswerBody {
    /// JSON.
    Whole(Bytes),
    /// Pieces, the first of which is there.
    Pieces(Live),
}

impl Chatd {
    /// Serves the providers of the list as it is, and follows it. Needs a tokio runtime, and a crypto provider of rustls.
    pub fn new(settings: Settings, providers: watch::Receiver<Providers>) -> Self {
        let numbers = Numbers::register(&settings.metrics);
        let mut providers = providers;
        let fleet = Fleet::new(&providers.borrow_and_update(), None, &settings, &numbers);
        let (end, poll) = (CancellationToken::new(), settings.key_poll);
        let inner = Arc::new(Inner {
            settings,
            fleet: ArcSwap::from_pointee(fleet),
            numbers,
            _following: end.clone().drop_guard(),
        });
        let (lists, keys) =
            (follow_list(Arc::downgrade(&inner), providers), follow_keys(Arc::downgrade(&inner), poll));
        tokio::spawn(end.clone().run_until_cancelled_owned(lists));
        tokio::spawn(end.run_until_cancelled_owned(keys));
        Self(inner)
    }

    /// Answers a request that came at `asked`.
    pub(crate) async fn answer(&self, ask: Ask, asked: Instant) -> Result<Answer, ChatError> {
        let candidates = self.0.fleet.load().candidates(&ask.model)?;
        let (mut first, mut span): (Option<ChatError>, _) = (None, None);
        let count = candidates.len();
        for (place, candidate) in candidates.into_iter().enumerate() {
            let name = candidate.0.name.clone();
            let error = match Box::pin(self.ask(candidate, &ask, asked, &mut span)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let goes_on = error.fallback_helps() && place + 1 < count;
            let told = match first.take() {
                None => error,
                // The provider that was asked for is the one whose status counts; the others are told of.
                Some(earlier) => {
                    ChatError { message: format!("{}; {}", earlier.message, error.message), ..earlier }
                }
            };
            if !goes_on {
                return Err(told);
            }
            info!(provider = %name, error = %told, "`{name}` did not answer; another provider is asked");
            self.0.numbers.fell_back(&name);
            first = Some(told);
        }
        Err(first.unwrap_or_else(|| ChatError::field("model", "leads to no provider")))
    }

    /// Asks one provider, again where that helps. `span` is that of the provider before it, and then its own.
    async fn ask(
        &self,
        (upstream, model): Candidate,
        ask: &Ask,
        asked: Instant,
        span: &mut Option<SpanContext>,
    ) -> Result<Answer, ChatError> {
        let settings = &self.0.settings;
        let mut outgoing =
            upstream.protocol.request(ask, &model, upstream.config.kind, upstream.is_openai())?;
        let call = Call::begin(settings.tracer.as_deref(), ask, &upstream, &model, span);
        outgoing.trace = call.headers(ask);
        let (origin, numbers) = (ask.origin.clone(), self.0.numbers.clone());
        let mut meter = Meter::new(upstream.clone(), model, origin, numbers, call);
        if let Err(error) = meter.enter().await {
            meter.failed(&error);
            return Err(error);
        }
        let mut tries = 0;
        loop {
            let error = match Box::pin(attempt(&upstream, &outgoing, ask, asked, &mut meter)).await {
                Ok(Attempt::Pieces(begun)) => {
                    return Ok(Answer {
                        provider: upstream.name.clone(),
                        body: AnswerBody::Pieces(begun.metered(meter)),
                    });
                }
                Ok(Attempt::Whole(body, facts)) => {
                    meter.answered(&facts);
                    return Ok(Answer { provider: upstream.name.clone(), body: AnswerBody::Whole(body) });
                }
                Err(error) => error,
            };
            let pause = error.retry_after.unwrap_or_else(|| backoff(settings.backoff, tries));
            if tries >= settings.retries || !error.retry_helps() || pause > settings.max_pause {
                meter.failed(&error);
                return Err(error);
            }
            debug!(provider = %upstream.name, %error, ?pause, "`{}` is asked again", upstream.name);
            tries += 1;
            meter.retried(&error);
            sleep(pause).await;
        }
    }
}

/// What one try brought.
enum Attempt {
    Pieces(Box<Begun>),
    Whole(Bytes, Facts),
}

async fn attempt(
    upstream: &Arc<Upstream>,
    outgoing: &Outgoing,
    ask: &Ask,
    asked: Instant,
    meter: &mut Meter,
) -> Result<Attempt, ChatError> {
    let start = Instant::now();
    let labels = Labels { provider: upstream.name.clone(), model: meter.model().to_owned(), asked };
    let total = Deadline::total(start, upstream.timeouts.total);
    if outgoing.stream {
        let first = Deadline::silence(upstream.timeouts.first_token).or(total);
        let answer = upstream.send(outgoing, first).await?;
        let media_type = answer.headers().get(header::CONTENT_TYPE);
        // Lines of JSON may go by that name; events do not.
        let is_whole =
            media_type.is_some_and(|media_type| media_type.as_bytes().starts_with(b"application/json"));
        if is_whole && upstream.protocol != Protocol::Ollama {
            return Err(upstream.unstreamed(answer, first).await);
        }
        let mut begun = Begun::new(answer, upstream, ask, labels.clone(), total);
        begun.first_piece(upstream, first).await?;
        meter.first_token(start.elapsed());
        if ask.stream {
            return Ok(Attempt::Pieces(Box::new(begun)));
        }
        let (collected, facts) = begun.collect(upstream).await?;
        return Ok(Attempt::Whole(Ask::whole(ask.door, labels, collected), facts));
    }
    let answer = upstream.send(outgoing, total).await?;
    let body = upstream.whole(answer, total).await?;
    let fault = |fault| upstream.fault(fault);
    let facts = upstream.protocol.glance(&body).map_err(fault)?;
    if upstream.protocol.passes(ask.door) {
        return Ok(Attempt::Whole(body.into(), facts));
    }
    let collected = openai::collect(&body, &facts).map_err(fault)?;
    Ok(Attempt::Whole(Ask::whole(ask.door, labels, collected), facts))
}

/// Twice as long each time, and half of it by chance: those who failed together do not come back together.
fn backoff(first: Duration, tries: u32) -> Duration {
    let longest = first.saturating_mul(1 << tries.min(16));
    longest.mul_f64(rand::random_range(0.5..=1.0))
}

/// Takes every new list over. The old one goes on where there is no new one: its sender may be gone.
async fn follow_list(chatd: Weak<Inner>, mut providers: watch::Receiver<Providers>) {
    while providers.changed().await.is_ok() {
        let Some(chatd) = chatd.upgrade() else { return };
        let before = chatd.fleet.load_full();
        let fleet =
            Fleet::new(&providers.borrow_and_update(), Some(&before), &chatd.settings, &chatd.numbers);
        chatd.fleet.store(Arc::new(fleet));
    }
}

async fn follow_keys(chatd: Weak<Inner>, poll: Duration) {
    loop {
        sleep(poll).await;
        let Some(fleet) = chatd.upgrade().map(|chatd| chatd.fleet.load_full()) else { return };
        let read = tokio::task::spawn_blocking(move || {
            fleet.upstreams.iter().for_each(|upstream| upstream.refresh_key());
        });
        if read.await.is_err() {
            // The runtime is ending.
            return;
        }
    }
}
