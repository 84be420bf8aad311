//! Who leads: one of several operators, by a Lease.
//!
//! The leader renews the Lease; whoever sees it unchanged for its whole duration may take it. Times of other machines
//! are never compared with this one's: a Lease is old when *we* have not seen it change. Every write names the version
//! it replaces, so two cannot win. A leader that could not renew stops leading at its deadline, which comes before the
//! Lease can be taken; one that is asked to end gives the Lease back.
//!
//! The library for this, `kube-lease-manager`, was tried on paper: it frees an expired Lease without naming the version
//! it saw, and keeps saying "leader" while it cannot reach the API server.

use std::{future::Future, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// The name of the Lease, unless it is said to be another one.
pub const LEASE: &str = "lakehouse-operator";

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// So long after its last change that others saw may a Lease be taken.
    pub duration: Duration,
    /// So long after its last renewal does a leader stop leading. Shorter than `duration`: the difference is what its
    /// last requests may take.
    pub deadline: Duration,
    /// How often a leader renews.
    pub renew: Duration,
    /// The wait between two looks of who waits, and after a failure.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { duration: seconds(15), deadline: seconds(10), renew: seconds(5), retry: seconds(2) }
    }
}

/// One candidate.
#[derive(Clone, Debug)]
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
}

/// A Lease that is ours.
struct Held {
    lease: Lease,
    /// Just before the request that renewed it was sent.
    since: Instant,
}

/// A Lease as it was seen, and since when it has been so.
struct Seen {
    version: Option<String>,
    since: Instant,
}

/// What came of a try to renew.
enum Renewal {
    Renewed,
    Lost,
}

impl Election {
    /// A candidate for the Lease `name`. No other process may have its identity.
    pub fn new(client: Client, namespace: &str, name: String, identity: String, timing: Timing) -> Self {
        Self { api: Api::namespaced(client, namespace), name, identity, timing }
    }

    /// Takes part until `stop`, then gives the Lease back. `leading` says whether this candidate leads.
    pub async fn run(self, leading: &watch::Sender<bool>, stop: CancellationToken) {
        loop {
            let Some(mut held) = stop.run_until_cancelled(self.acquire()).await else { return };
            info!(identity = self.identity, "This operator leads");
            leading.send_replace(true);
            let kept = stop.run_until_cancelled(self.keep(&mut held)).await;
            leading.send_replace(false);
            if kept.is_none() {
                self.release(held).await;
                return;
            }
            warn!(identity = self.identity, "This operator does not lead any more");
        }
    }

    /// Waits until the Lease is ours.
    async fn acquire(&self) -> Held {
        let mut seen = None;
        let mut told = false;
        loop {
            match in_time(timeout(self.timing.deadline, self.try_acquire(&mut seen)).await) {
                Ok(Some(held)) => return held,
                Ok(None) => told = false,
                Err(error) if told => debug!(error, "The Lease cannot be taken"),
                Err(error) => {
                    told = true;
                    warn!(error, "The Lease cannot be taken; trying again every few seconds");
                }
            }
            sleep(self.timing.retry).await;
        }
    }

    async fn try_acquire(&self, seen: &mut Option<Seen>) -> kube::Result<Option<Held>> {
        let since = Instant::now();
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(None)),
            };
            return won(self.api.create(&PostParams::default(), &lease).await, since);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone();
        let seen = match seen {
            Some(seen) if seen.version == version => seen,
            seen => seen.insert(Seen { version, since }),
        };
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let may_take = holder.is_empty()
            || holder == self.identity
            || seen.since.elapsed() >= duration.map_or(self.timing.duration, Duration::from_secs);
        if !may_take {
            return Ok(None);
        }
        let lease = Lease { spec: Some(self.spec(Some(&spec))), ..lease };
        won(self.api.replace(&self.name, &PostParams::default(), &lease).await, since)
    }

    /// Renews a Lease until it is lost or could not be renewed in time.
    async fn keep(&self, held: &mut Held) {
        loop {
            sleep_until(held.since + self.timing.renew).await;
            let deadline = held.since + self.timing.deadline;
            let renewed = timeout_at(deadline, async {
                loop {
                    match self.renew(held).await {
                        Ok(renewal) => return renewal,
                        Err(error) => warn!(%error, "The Lease was not renewed; trying again"),
                    }
                    sleep(self.timing.retry).await;
                }
            });
            if !matches!(renewed.await, Ok(Renewal::Renewed)) {
                return;
            }
        }
    }

    async fn renew(&self, held: &mut Held) -> kube::Result<Renewal> {
        let since = Instant::now();
        let mut lease = held.lease.clone();
        if let Some(spec) = &mut lease.spec {
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        match self.api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(lease) => {
                *held = Held { lease, since };
                Ok(Renewal::Renewed)
            }
            // Somebody took it, or an answer to an earlier renewal was lost, or somebody put a label on it.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                let lease = self.api.get_opt(&self.name).await?;
                match lease.filter(|lease| self.is_ours(lease)) {
                    Some(lease) => {
                        held.lease = lease;
                        Err(kube::Error::Api(status))
                    }
                    None => Ok(Renewal::Lost),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the Lease back, so that another one can take it at once.
    async fn release(&self, mut held: Held) {
        let released = timeout(self.timing.retry, async {
            loop {
                let spec = held.lease.spec.get_or_insert_default();
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
                match self.api.replace(&self.name, &PostParams::default(), &held.lease).await {
                    // A renewal was under way when the end came.
                    Err(kube::Error::Api(status)) if status.is_conflict() => {
                        match self.api.get(&self.name).await? {
                            lease if self.is_ours(&lease) => held.lease = lease,
                            _ => return Ok(()),
                        }
                    }
                    Err(error) => return Err(error),
                    Ok(_) => return Ok(()),
                }
            }
        });
        match in_time(released.await) {
            Ok(()) => info!(identity = self.identity, "The Lease was given back"),
            Err(error) => warn!(error, "The Lease could not be given back; it ends by itself"),
        }
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        holder == Some(self.identity.as_str())
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let transitions = before.map_or(0, |spec| spec.lease_transitions.unwrap_or(0).saturating_add(1));
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.duration.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// Whether a write won; another candidate's being first is no failure.
fn won(written: kube::Result<Lease>, since: Instant) -> kube::Result<Option<Held>> {
    match written {
        Ok(lease) => Ok(Some(Held { lease, since })),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

fn in_time<T>(result: Result<kube::Result<T>, tokio::time::error::Elapsed>) -> Result<T, String> {
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the API server does not answer".to_owned()),
    }
}

/// Runs `work` whenever `leading` says so, and drops it as soon as it does not. Returns when `work` does, and at `stop` while
/// nobody works.
pub async fn while_leading<F: Future<Output = ()>>(
    mut leading: watch::Receiver<bool>,
    stop: &CancellationToken,
    mut work: impl FnMut() -> F,
) {
    while matches!(stop.run_until_cancelled(leading.wait_for(|leads| *leads)).await, Some(Ok(_))) {
        tokio::select! {
            () = work() => return,
            lost = leading.wait_for(|leads| !*leads) => if lost.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_of_two_leads_and_the_other_takes_over_at_once_when_it_is_told_to_end() {
        let server = Server::default();
        let first = server.candidate("first");
        first.leads().await;
        let second = server.candidate("second");
        sleep(Duration::from_mins(10)).await;
        assert!(first.is_leading() && !second.is_leading());

        first.stop.cancel();
        let asked = Instant::now();
        second.leads().await;
        assert!(asked.elapsed() <= Timing::default().retry, "{:?}", asked.elapsed());
        assert!(!first.is_leading());
        assert_eq!(server.lease()["spec"]["leaseTransitions"], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_cannot_renew_stops_before_another_can_take_over() {
        let server = Server::default();
        let first = server.candidate("first");
        first.leads().await;
        let second = server.candidate("second");
        sleep(Duration::from_secs(7)).await;

        server.refuse("first");
        let cut = Instant::now();
        let mut watched = first.leading.subscribe();
        watched.wait_for(|leads| !*leads).await.unwrap();
        let stopped = cut.elapsed();
        assert!(stopped <= Timing::default().deadline);
        second.leads().await;
        let Timing { duration, retry, deadline, .. } = Timing::default();
        assert!(cut.elapsed() + retry + deadline >= stopped + duration, "nobody led for a while");
        assert!(cut.elapsed() <= duration + 2 * retry);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_whose_holder_died_is_taken_when_it_has_not_changed_for_its_duration() {
        let server = Server::default();
        let first = server.candidate("first");
        first.leads().await;
        first.task.abort();
        let second = server.candidate("second");
        let died = Instant::now();
        second.leads().await;
        let Timing { duration, retry, .. } = Timing::default();
        assert!(died.elapsed() >= duration && died.elapsed() <= duration + 2 * retry, "{:?}", died.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_edit_of_the_lease_by_somebody_else_costs_no_leadership() {
        let server = Server::default();
        let first = server.candidate("first");
        first.leads().await;
        let mut leading = first.leading.subscribe();
        for _ in 0..10 {
            sleep(Duration::from_secs(4)).await;
            server.touch();
        }
        assert!(!leading.has_changed().unwrap() || *leading.borrow_and_update());
        assert!(first.is_leading());
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_with_the_leadership_and_begins_again_with_it() {
        let (leading, receiver) = watch::channel(false);
        let starts = Arc::new(Mutex::new(0));
        let work = tokio::spawn({
            let starts = Arc::clone(&starts);
            async move {
                let stop = CancellationToken::new();
                let work = || {
                    *starts.lock().unwrap() += 1;
                    std::future::pending()
                };
                while_leading(receiver, &stop, work).await;
            }
        });
        for (leads, started) in [(false, 0), (true, 1), (false, 1), (true, 2)] {
            leading.send_replace(leads);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(*starts.lock().unwrap(), started);
        }
        drop(leading);
        work.await.unwrap();
    }

    /// An API server that knows one Lease and counts its versions.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<Stored>>);

    #[derive(Default)]
    struct Stored {
        lease: Option<Value>,
        version: u64,
        refused: Option<&'static str>,
    }

    struct Candidate {
        leading: watch::Sender<bool>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    impl Candidate {
        fn is_leading(&self) -> bool {
            *self.leading.borrow()
        }

        async fn leads(&self) {
            self.leading.subscribe().wait_for(|leads| *leads).await.unwrap();
        }
    }

    impl Server {
        fn candidate(&self, name: &'static str) -> Candidate {
            let server = self.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                let server = server.clone();
                async move { server.answer(name, request).await }
            });
            let client = Client::new(service, "default");
            let lease = "lakehouse-operator".to_owned();
            let election =
                Election::new(client, "lakehouse-system", lease, name.to_owned(), Timing::default());
            let (leading, stop) = (watch::Sender::new(false), CancellationToken::new());
            let task = tokio::spawn({
                let (leading, stop) = (leading.clone(), stop.clone());
                async move { election.run(&leading, stop).await }
            });
            Candidate { leading, stop, task }
        }

        fn lease(&self) -> Value {
            self.0.lock().unwrap().lease.clone().unwrap()
        }

        fn refuse(&self, name: &'static str) {
            self.0.lock().unwrap().refused = Some(name);
        }

        fn touch(&self) {
            let mut stored = self.0.lock().unwrap();
            let lease = stored.lease.clone().unwrap();
            stored.put(lease);
        }

        async fn answer(&self, from: &str, request: Request<Body>) -> Result<Response<Body>, http::Error> {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let mut stored = self.0.lock().unwrap();
            if stored.refused == Some(from) {
                return refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
            }
            let sent = || serde_json::from_slice::<Value>(&body).unwrap();
            let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
            match (head.method, stored.lease.clone()) {
                (Method::GET | Method::PUT, None) => refusal(StatusCode::NOT_FOUND, "NotFound"),
                (Method::GET, Some(lease)) => found(&lease),
                (Method::POST, Some(_)) => refusal(StatusCode::CONFLICT, "AlreadyExists"),
                (Method::POST, None) => found(&stored.put(sent())),
                (Method::PUT, Some(lease)) if version(&lease) == version(&sent()) => {
                    found(&stored.put(sent()))
                }
                (Method::PUT, Some(_)) => refusal(StatusCode::CONFLICT, "Conflict"),
                (method, _) => panic!("{method} {}", head.uri),
            }
        }
    }

    impl Stored {
        fn put(&mut self, mut lease: Value) -> Value {
            self.version += 1;
            lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.lease = Some(lease.clone());
            lease
        }
    }

    fn found(lease: &Value) -> Result<Response<Body>, http::Error> {
        Response::builder().body(Body::from(serde_json::to_vec(lease).unwrap()))
    }

    fn refusal(code: StatusCode, reason: &str) -> Result<Response<Body>, http::Error> {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "no", "reason": reason, "code": code.as_u16()});
        Response::builder().status(code).body(Body::from(serde_json::to_vec(&status).unwrap()))
    }
}
