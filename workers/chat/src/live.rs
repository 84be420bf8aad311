//! An answer in pieces, from the provider's bytes to the client's. Dropped when the client leaves, and its connection with it: so
//! the provider learns of it at once.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use reqwest::Response;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::{
    ChatError,
    ask::{Ask, Door},
    door::{Labels, Writer},
    event::{Collected, Event, Facts, Fault},
    gate::Place,
    metrics::{Numbers, Outcome, Whose},
    origin::Origin,
    protocol::{Decoder, Passing},
    trace::Call,
    upstream::{Deadline, Upstream, innermost},
};

/// How long a connection may stay open after the last piece of its answer, so that it can be used again.
const LINGER: Duration = Duration::from_millis(500);

/// What becomes of the provider's bytes.
enum Flow {
    Pass(Passing),
    Translate { decoder: Decoder, writer: Writer },
    Collect { decoder: Decoder, collected: Box<Collected> },
}

/// A request to a provider: waiting for its place, then worked on. When it is dropped without a verdict, the client has left.
pub(crate) struct Meter {
    upstream: Arc<Upstream>,
    model: String,
    origin: Origin,
    numbers: Numbers,
    call: Call,
    begun: Instant,
    /// There while the provider works on it.
    place: Option<Place>,
    judged: bool,
}

impl Meter {
    pub(crate) fn new(
        upstream: Arc<Upstream>,
        model: String,
        origin: Origin,
        numbers: Numbers,
        call: Call,
    ) -> Self {
        Self { upstream, model, origin, numbers, call, begun: Instant::now(), place: None, judged: false }
    }

    /// Waits for the right to ask.
    pub(crate) async fn enter(&mut self) -> Result<(), ChatError> {
        self.place = Some(self.upstream.enter().await?);
        self.numbers.begun(&self.upstream.name);
        self.begun = Instant::now();
        Ok(())
    }

    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    pub(crate) fn first_token(&mut self, after: Duration) {
        self.numbers.first_token(self.whose(), after);
        self.call.first_token();
        self.upstream.worked();
    }

    /// It failed, and is tried again.
    pub(crate) fn retried(&mut self, error: &ChatError) {
        self.numbers.retried(&self.upstream.name);
        self.call.retried(error);
    }

    /// The answer is whole.
    pub(crate) fn answered(mut self, facts: &Facts) {
        self.upstream.worked();
        self.end(Outcome::Answered, None, facts);
    }

    pub(crate) fn failed(mut self, error: &ChatError) {
        self.upstream.failed(error);
        self.end(Outcome::Failed(error.kind), error.upstream_status, &Facts::default());
    }

    fn end(&mut self, outcome: Outcome, upstream_status: Option<u16>, facts: &Facts) {
        self.judged = true;
        if self.place.take().is_some() {
            self.numbers.left(&self.upstream.name);
        }
        self.numbers.ended(self.whose(), outcome, self.begun.elapsed(), facts.usage);
        self.call.ended(outcome, upstream_status, facts);
    }

    fn whose(&self) -> Whose<'_> {
        Whose { provider: &self.upstream.name, model: &self.model, key: self.origin.key() }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if !self.judged {
            self.end(Outcome::ClientLeft, None, &Facts::default());
        }
    }
}

/// An answer whose first piece is waited for.
pub(crate) struct Begun {
    response: Response,
    flow: Flow,
    door: Door,
    idle: Duration,
    total: Deadline,
    /// What can be sent on.
    out: BytesMut,
    /// Whether a piece has come.
    opened: bool,
    ended: bool,
    facts: Facts,
}

impl Begun {
    pub(crate) fn new(
        mut response: Response,
        upstream: &Upstream,
        ask: &Ask,
        labels: Labels,
        total: Deadline,
    ) -> Self {
        // They would keep all that was read with them for as long as the stream is open.
        response.headers_mut().clear();
        let decoder = || Decoder::new(upstream.protocol);
        let flow = match Passing::new(upstream.protocol, ask.door) {
            _ if !ask.stream => Flow::Collect { decoder: decoder(), collected: Box::default() },
            Some(passing) => Flow::Pass(passing),
            None => Flow::Translate { decoder: decoder(), writer: Writer::new(ask.door, labels) },
        };
        Self {
            response,
            flow,
            door: ask.door,
            idle: upstream.timeouts.idle,
            total,
            out: BytesMut::new(),
            opened: false,
            ended: false,
            facts: Facts::default(),
        }
    }

    /// Waits for the first piece, or for an answer that ends without one.
    pub(crate) async fn first_piece(
        &mut self,
        upstream: &Upstream,
        deadline: Deadline,
    ) -> Result<(), ChatError> {
        while !self.opened && !self.ended {
            self.step(deadline).await.map_err(|fault| upstream.fault(fault))?;
        }
        Ok(())
    }

    /// Waits for all of it.
    pub(crate) async fn collect(mut self, upstream: &Upstream) -> Result<(Collected, Facts), ChatError> {
        while !self.ended {
            let deadline = Deadline::silence(self.idle).or(self.total);
            self.step(deadline).await.map_err(|fault| upstream.fault(fault))?;
        }
        let collected = match self.flow {
            Flow::Collect { collected, .. } => *collected,
            Flow::Pass(_) | Flow::Translate { .. } => Collected::default(),
        };
        Ok((collected, self.facts))
    }

    pub(crate) fn metered(self: Box<Self>, meter: Meter) -> Live {
        Live { begun: self, meter: Some(Box::new(meter)) }
    }

    /// Takes the next bytes of the provider.
    async fn step(&mut self, deadline: Deadline) -> Result<(), Fault> {
        match timeout_at(deadline.at(), self.response.chunk()).await {
            Ok(Ok(Some(bytes))) => self.take(&bytes),
            Ok(Ok(None)) => self.finish(),
            // The answer was whole before the connection broke.
            Ok(Err(_)) | Err(_) if self.is_done() => self.finish(),
            Ok(Err(error)) => Err(Fault::Cut(innermost(&error))),
            Err(_) => Err(deadline.fault()),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut events = Vec::new();
        let taken = match &mut self.flow {
            Flow::Pass(passing) => {
                let taken = passing.push(bytes, &mut self.out);
                self.opened |= !self.out.is_empty();
                taken
            }
            Flow::Translate { decoder, .. } | Flow::Collect { decoder, .. } => {
                decoder.push(bytes, &mut events)
            }
        };
        // What came before the fault is the client's.
        self.hand_on(events);
        taken
    }

    fn finish(&mut self) -> Result<(), Fault> {
        self.ended = true;
        let mut events = Vec::new();
        let ended = match &mut self.flow {
            Flow::Pass(passing) => {
                let ended = passing.end(&mut self.out);
                self.facts = passing.facts().clone();
                ended
            }
            Flow::Translate { decoder, .. } | Flow::Collect { decoder, .. } => {
                self.facts.model = decoder.model().cloned();
                decoder.end(&mut events)
            }
        };
        self.hand_on(events);
        if let (Ok(()), Flow::Translate { writer, .. }) = (&ended, &mut self.flow) {
            writer.end(&mut self.out);
        }
        ended
    }

    fn hand_on(&mut self, events: Vec<Event>) {
        self.opened |= !events.is_empty();
        for event in events {
            match event {
                Event::Usage(usage) => self.facts.usage = usage,
                Event::Finish(finish) => self.facts.finish = Some(finish),
                _ => {}
            }
            match &mut self.flow {
                Flow::Translate { writer, .. } => writer.write(event, &mut self.out),
                Flow::Collect { collected, .. } => collected.add(event),
                Flow::Pass(_) => {}
            }
        }
    }

    fn is_done(&self) -> bool {
        match &self.flow {
            Flow::Pass(passing) => passing.is_done(),
            Flow::Translate { decoder, .. } | Flow::Collect { decoder, .. } => decoder.is_done(),
        }
    }
}

/// An answer in pieces that goes to a client.
pub(crate) struct Live {
    begun: Box<Begun>,
    /// Gone when the answer has its verdict.
    meter: Option<Box<Meter>>,
}

impl Live {
    /// The client's bytes. The stream itself never fails: a failure is its last event.
    pub(crate) fn pieces(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
        stream::unfold(self, |mut live| async move { live.next().await.map(|piece| (Ok(piece), live)) })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.begun.out.is_empty() {
                return Some(self.begun.out.split().freeze());
            }
            // A verdict and nothing left to send: that was all.
            self.meter.as_ref()?;
            if self.begun.ended {
                self.judge(None);
                return None;
            }
            let begun = &mut self.begun;
            let patience = if begun.is_done() { LINGER } else { begun.idle };
            let deadline = Deadline::silence(patience).or(begun.total);
            if let Err(fault) = begun.step(deadline).await {
                self.judge(Some(fault));
            } else if self.begun.ended {
                self.judge(None);
            }
        }
    }

    /// Counts the answer, and tells the client where it broke off.
    fn judge(&mut self, fault: Option<Fault>) {
        let Some(meter) = self.meter.take() else { return };
        match fault {
            None => meter.answered(&self.begun.facts),
            Some(fault) => {
                let error = meter.upstream.fault(fault);
                warn!(provider = %meter.upstream.name, model = meter.model, %error, "An answer broke off");
                meter.failed(&error);
                Ask::failed(self.begun.door, error, &mut self.begun.out);
            }
        }
    }
}
