//! Where texts are looked up: the cache, and the flights that are about to fill it.
//!
//! Receives the texts of a request; hands on vectors that are there, and flights to wait for. A text that another request is
//! waiting for, or that occurs twice, is embedded once. A flight goes on while anybody waits for it, and ends with the last.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use lakehouse_contract::embed::{EmbedStats, ModelIdentity};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    EmbedError, Vector,
    cache::{Cache, Key},
    deadline::Deadline,
    metrics::Metrics,
};

/// What became of each text of a flight.
pub(crate) type Outcome = Arc<Vec<Result<Vector, EmbedError>>>;
/// Texts on their way to a model. Everybody who waits for one holds it.
pub(crate) type Flight = Shared<BoxFuture<'static, Outcome>>;

/// One per embedd.
#[derive(Debug)]
pub(crate) struct Board {
    state: Mutex<State>,
    metrics: Metrics,
}

#[derive(Debug)]
struct State {
    cache: Cache,
    /// A model's number in keys. A model that changes is another one, so that no old vector is taken for a new one.
    numbers: HashMap<ModelIdentity, u32>,
    seats: HashMap<Key, Seat>,
    flights: u64,
}

/// A text's place in a flight.
#[derive(Debug)]
struct Seat {
    flight: WeakShared<BoxFuture<'static, Outcome>>,
    number: u64,
    at: usize,
    deadline: Deadline,
}

/// What a request found.
#[derive(Default)]
pub(crate) struct Found {
    /// By text; `None` where a flight brings it.
    pub(crate) vectors: Vec<Option<Vector>>,
    /// Which text waits for which place in which flight.
    pub(crate) waiting: Vec<Waiting>,
}

pub(crate) struct Waiting {
    pub(crate) flight: Flight,
    /// `(the request's text, the flight's text)`
    pub(crate) texts: Vec<(usize, usize)>,
}

/// The seats of a flight: what the one who flies it holds, and gives back whatever happens.
#[derive(Debug)]
pub(crate) struct Claim {
    board: Arc<Board>,
    number: u64,
    keys: Vec<Key>,
    /// Until when anybody waits.
    pub(crate) deadline: Deadline,
}

impl Board {
    pub(crate) fn new(cache: Cache, metrics: Metrics) -> Arc<Self> {
        let state = State { cache, numbers: HashMap::new(), seats: HashMap::new(), flights: 0 };
        Arc::new(Self { state: Mutex::new(state), metrics })
    }

    /// Looks all texts up. Those that are neither there nor on their way are given to `fly`, which says how they are embedded. The caller
    /// waits until `deadline`, and so does every flight that brings a text for him.
    pub(crate) fn find(
        self: &Arc<Self>,
        model: &ModelIdentity,
        texts: &[String],
        deadline: Instant,
        fly: impl FnOnce(Vec<String>, Claim) -> BoxFuture<'static, Outcome>,
    ) -> Found {
        let hashes: Vec<[u8; 32]> = texts.iter().map(|text| Sha256::digest(text).into()).collect();
        let mut found = Found { vectors: Vec::with_capacity(texts.len()), waiting: Vec::new() };
        let mut others: HashMap<u64, Waiting> = HashMap::new();
        // Texts for a flight of our own, by key; and which of ours want them.
        let mut fresh: HashMap<Key, usize> = HashMap::new();
        let (mut keys, mut wanted, mut own) = (Vec::new(), Vec::new(), Vec::new());

        let mut state = self.state();
        let number = state.number(model);
        for (at, hash) in hashes.into_iter().enumerate() {
            let key = (number, hash);
            let vector = state.cache.get(&key);
            if vector.is_none() {
                let seat = state.seats.get(&key);
                if let Some((seat, flight)) = seat.and_then(|seat| Some((seat, seat.flight.upgrade()?))) {
                    seat.deadline.extend(deadline);
                    let waiting =
                        others.entry(seat.number).or_insert_with(|| Waiting { flight, texts: Vec::new() });
                    waiting.texts.push((at, seat.at));
                } else {
                    let place = *fresh.entry(key).or_insert_with(|| {
                        keys.push(key);
                        wanted.push(texts[at].clone());
                        keys.len() - 1
                    });
                    own.push((at, place));
                }
            }
            found.vectors.push(vector);
        }
        let hits = found.vectors.iter().flatten().count();
        self.metrics.looked_up(hits, found.vectors.len() - hits);
        found.waiting.extend(others.into_values());
        if !keys.is_empty() {
            let flight = state.take_off(self, keys, deadline, |claim| fly(wanted, claim));
            found.waiting.push(Waiting { flight, texts: own });
        }
        found
    }

    pub(crate) fn stats(&self) -> EmbedStats {
        self.state().cache.stats()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self, model: &ModelIdentity) -> u32 {
        if let Some(number) = self.numbers.get(model) {
            return *number;
        }
        let number = u32::try_from(self.numbers.len()).expect("a process does not meet four billion models");
        self.numbers.insert(model.clone(), number);
        number
    }

    fn take_off(
        &mut self,
        board: &Arc<Board>,
        keys: Vec<Key>,
        deadline: Instant,
        fly: impl FnOnce(Claim) -> BoxFuture<'static, Outcome>,
    ) -> Flight {
        self.flights += 1;
        let number = self.flights;
        let deadline = Deadline::at(deadline);
        let claim = Claim { board: board.clone(), number, keys: keys.clone(), deadline: deadline.clone() };
        let flight = fly(claim).shared();
        for (at, key) in keys.into_iter().enumerate() {
            let weak = flight.downgrade().expect("a flight that nobody has waited for is not over");
            self.seats.insert(key, Seat { flight: weak, number, at, deadline: deadline.clone() });
        }
        flight
    }
}

impl Claim {
    /// Keeps the vectors of some of the flight's texts, whatever becomes of the others.
    pub(crate) fn keep<'a>(&self, results: impl Iterator<Item = (usize, &'a Result<Vector, EmbedError>)>) {
        let mut state = self.board.state();
        for (at, result) in results {
            if let Ok(vector) = result {
                state.cache.put(self.keys[at], vector.clone());
            }
        }
        self.board.metrics.cached(state.cache.size(), state.cache.bytes());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.board.state();
        for key in mem::take(&mut self.keys) {
            if state.seats.get(&key).is_some_and(|seat| seat.number == self.number) {
                state.seats.remove(&key);
            }
        }
    }
}
