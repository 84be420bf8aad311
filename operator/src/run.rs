//! Joins everything, and runs until it is told to end.
//!
//! ```text
//! watch ─► stores ─► keys ─► queue ─► reconcile (while leading) ─► API server
//! ```
//! Every operator watches, so that a new leader knows everything at once; only the leader reconciles. One that is told to
//! end finishes what runs, then gives the leadership back.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use futures::FutureExt;
use kube::Client;
use lakehouse_http::{Auth, Readiness, Service};
use lakehouse_plan::{Retry, cluster::Settings};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, info, warn};

use crate::{
    apply::{Applier, Memory},
    chat_provider,
    context::{Context, Refusals},
    dataset,
    error::Error,
    key::Key,
    lease::{Election, Timing, while_leading},
    metrics::Metrics,
    namespace,
    observe::Reader,
    queue::{Next, Queue},
    report::Reporter,
    services::{LOOK_EVERY, Services},
    store::Scope,
    vector_index,
    watch::Health,
    world::{WATCHES, Wake, World},
};

/// How many reconciles run beside each other.
const AT_ONCE: usize = 16;
/// A reconcile sends a handful of requests; one that takes longer hangs.
const LONGEST_RECONCILE: Duration = Duration::from_mins(1);
/// How soon a key is looked at again whose namespace is not known in full.
const UNTIL_KNOWN: Duration = Duration::from_secs(2);
/// What may run on when the end has come.
const GRACE: Duration = Duration::from_secs(20);

/// How this operator runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespaces to look at; all of them when empty.
    pub namespaces: Vec<String>,
    /// The namespace of the Lease; without one, this operator takes itself for the only one.
    pub lease_namespace: Option<String>,
    /// The name of the Lease: operators that share it take turns.
    pub lease: String,
    /// Tells this operator from its siblings.
    pub identity: String,
    /// How the leadership is kept.
    pub timing: Timing,
}

/// Runs the operator until `shutdown`, and shows its health and numbers on `listener`.
pub async fn run(
    listener: TcpListener,
    client: Client,
    metrics: Metrics,
    settings: Settings,
    options: Options,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let scopes: Vec<Scope> = match options.namespaces.as_slice() {
        [] => vec![Scope::All],
        namespaces => namespaces.iter().cloned().map(Scope::Namespace).collect(),
    };
    let readiness = Readiness::default();
    let health = Health::new(scopes.len() * WATCHES, readiness.clone(), metrics.clone());
    let context = context(client.clone(), settings, options.identity.clone())?;
    let queue = context.wake.queue.clone();
    metrics.show_depth(move || queue.depth());

    let service = Service::new("operator", Router::new())
        .with_readiness(readiness)
        .with_metrics(metrics.registry().clone());
    let settings = lakehouse_http::Settings { auth: Auth::open(), ..Default::default() };
    let server =
        tokio::spawn(lakehouse_http::serve(listener, service, settings, stop.clone().cancelled_owned()));
    tokio::spawn({
        let stop = stop.clone();
        async move {
            shutdown.await;
            stop.cancel();
        }
    });

    let watches = context.wake.world.watch(&client, &scopes, &context.wake, &health);
    let leading = watch::Sender::new(options.lease_namespace.is_none());
    let retired = CancellationToken::new();
    let election = options.lease_namespace.map(|namespace| {
        let election = Election::new(client, &namespace, options.lease, options.identity, options.timing);
        let (leading, retired, health) = (leading.clone(), retired.clone(), health.clone());
        begin(async move {
            // Who knows nothing yet leaves the lead to who does.
            if retired.run_until_cancelled(health.complete()).await.is_some() {
                election.run(&leading, retired).await;
            }
        })
    });
    let work = || lead(context.clone(), metrics.clone(), health.clone(), stop.clone());
    while_leading(leading.subscribe(), &stop, work).await;

    retired.cancel();
    if let Some(election) = election {
        election.await.context("the election of a leader broke off")?;
    }
    drop(watches);
    server.await.context("the server of health and metrics broke off")??;
    Ok(())
}

/// A task that ends with whoever began it.
fn begin<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

fn context(client: Client, settings: Settings, identity: String) -> anyhow::Result<Context> {
    let settings = Arc::new(settings);
    let (world, queue, memory) = (World::default(), Queue::default(), Memory::default());
    let services = Services::new(client.clone(), world.clone(), queue.clone(), &settings)
        .context("the HTTP client cannot be made")?;
    let wake = Wake {
        world: world.clone(),
        queue,
        memory: memory.clone(),
        services: services.clone(),
        settings: Arc::clone(&settings),
    };
    Ok(Context {
        settings,
        wake,
        services,
        reader: Reader::new(client.clone(), world.clone()),
        applier: Applier::new(client.clone(), world, memory),
        datasets: Reporter::new(client.clone(), identity.clone()),
        indexes: Reporter::new(client.clone(), identity.clone()),
        providers: Reporter::new(client, identity),
        refusals: Refusals::default(),
    })
}

/// Reconciles until `stop`, or until it is dropped because the leadership is lost.
async fn lead(context: Context, metrics: Metrics, health: Health, stop: CancellationToken) {
    if stop.run_until_cancelled(health.complete()).await.is_none() {
        return;
    }
    let _leadership = Leadership::begin(&context, &metrics);
    let mut running = JoinSet::new();
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = running.join_next() => {}
            _ = look.tick() => {
                context.services.look_everywhere();
                context.settle();
            }
            key = context.wake.queue.next(), if running.len() < AT_ONCE => {
                let turn = Turn { queue: context.wake.queue.clone(), key, next: Next::After(Duration::ZERO) };
                running.spawn(take(turn, context.clone(), metrics.clone(), health.clone()));
            }
        }
    }
    info!(running = running.len(), "The operator ends; what runs is finished first");
    let finished = timeout(GRACE, async { while running.join_next().await.is_some() {} });
    if finished.await.is_err() {
        warn!(running = running.len(), "What still runs is given up; whoever leads next does it again");
    }
}

/// The time of a leadership: who must not work without one hears of its end, however it comes.
struct Leadership {
    services: Services,
    metrics: Metrics,
}

impl Leadership {
    fn begin(context: &Context, metrics: &Metrics) -> Self {
        context.services.lead(true);
        metrics.leads(true);
        context.wake.all();
        Self { services: context.services.clone(), metrics: metrics.clone() }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.services.lead(false);
        self.metrics.leads(false);
    }
}

/// A key that was taken. However its run ends, the queue gets it back.
struct Turn {
    queue: Queue<Key>,
    key: Key,
    next: Next,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.done(&self.key, self.next);
    }
}

async fn take(mut turn: Turn, context: Context, metrics: Metrics, health: Health) {
    let (start, key) = (Instant::now(), &turn.key);
    if !health.knows(key.namespace()) {
        turn.next = Next::After(UNTIL_KNOWN);
        return;
    }
    let work = AssertUnwindSafe(reconcile(&context, key)).catch_unwind();
    let ended = match timeout(LONGEST_RECONCILE, work).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(panic)) => Err(Error::Panicked(words(&*panic))),
        Err(_) => Err(Error::TookTooLong(LONGEST_RECONCILE.as_secs())),
    };
    metrics.reconciled(key.kind(), ended.as_ref().err().map(Error::stage), start.elapsed());
    turn.next = match ended {
        Ok(next) => next,
        Err(error) if error.retry() == Retry::OnEdit => {
            debug!("{key} is left alone: {error}");
            Next::Settled
        }
        Err(error) => {
            warn!(namespace = key.namespace(), "{key} is tried again: {error}");
            Next::Failed
        }
    };
}

async fn reconcile(context: &Context, key: &Key) -> Result<Next, Error> {
    match key {
        Key::Dataset { namespace, name } => Box::pin(dataset::reconcile(context, namespace, name)).await,
        Key::VectorIndex { namespace, name } => {
            Box::pin(vector_index::reconcile(context, namespace, name)).await
        }
        Key::ChatProvider { namespace, name } => {
            Box::pin(chat_provider::reconcile(context, namespace, name)).await
        }
        Key::Namespace(namespace) => Box::pin(namespace::reconcile(context, namespace)).await,
    }
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}
