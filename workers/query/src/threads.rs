//! Threads for queries, each used for one after another.
//!
//! A new thread has to make its stack, and the allocators what they keep for each thread: for a small query that takes as long
//! as the query.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

/// Something that a thread is to do. It must not panic.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// Room for the deepest tree that DuckDB's parser lets through, in DuckDB's planner and in ours.
const STACK: usize = 64 << 20;

/// How long a thread is used. What deep queries have made of its stack is given back then.
const LIFE: Duration = Duration::from_mins(1);

/// Threads that wait for work, the last one that worked at the end. They end with the last reference to this.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    waiting: Mutex<Vec<(ThreadId, Sender<Work>)>>,
}

impl Threads {
    /// Gives the work to a thread that waits, or to a new one.
    pub(crate) fn run(self: &Arc<Self>, work: Work) -> io::Result<()> {
        let waiting = self.waiting().pop();
        let work = match waiting {
            None => work,
            Some((_, thread)) => match thread.send(work) {
                Ok(()) => return Ok(()),
                Err(unsent) => unsent.0,
            },
        };
        let threads = Arc::downgrade(self);
        let spawned = thread::Builder::new()
            .name("query".into())
            .stack_size(STACK)
            .spawn(move || work_on(work, &threads, LIFE));
        spawned.map(drop)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(ThreadId, Sender<Work>)>> {
        // The list is whole between any two statements that hold the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does the work, and what comes after it within a thread's life.
fn work_on(mut work: Work, threads: &Weak<Threads>, life: Duration) {
    let end = Instant::now() + life;
    loop {
        work();
        match next(threads, end) {
            Some(next) => work = next,
            None => return,
        }
    }
}

fn next(threads: &Weak<Threads>, end: Instant) -> Option<Work> {
    let (sender, receiver) = channel();
    let me = thread::current().id();
    let left = end.checked_duration_since(Instant::now())?;
    threads.upgrade()?.waiting().push((me, sender));
    match receiver.recv_timeout(left) {
        Ok(work) => Some(work),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => {
            threads.upgrade()?.waiting().retain(|(id, _)| *id != me);
            // If it was not in the list any more, whoever took it from there has work for it.
            receiver.recv().ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_used_again() {
        let threads = Arc::new(Threads::default());
        let first = id(&threads);
        while threads.waiting().is_empty() {
            thread::yield_now();
        }
        assert_eq!(id(&threads), first);
    }

    #[test]
    fn work_does_not_wait_for_work() {
        let threads = Arc::new(Threads::default());
        let (sender, receiver) = channel::<()>();
        threads.run(Box::new(move || assert!(receiver.recv().is_err()))).unwrap();
        id(&threads);
        drop(sender);
    }

    #[test]
    fn a_thread_ends_with_its_life_or_with_those_who_could_use_it() {
        for life in [Duration::from_millis(5), Duration::from_hours(1)] {
            let threads = Arc::new(Threads::default());
            let held = Arc::downgrade(&threads);
            let thread = thread::spawn(move || work_on(Box::new(|| {}), &held, life));
            if life > LIFE {
                drop(threads);
                thread.join().unwrap();
            } else {
                thread.join().unwrap();
                assert!(threads.waiting().is_empty());
            }
        }
    }

    /// The thread that does some work.
    fn id(threads: &Arc<Threads>) -> ThreadId {
        let (sender, receiver) = channel();
        threads.run(Box::new(move || sender.send(thread::current().id()).unwrap())).unwrap();
        receiver.recv().unwrap()
    }
}
