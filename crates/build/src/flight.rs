//! Equal work in flight is done once.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// Work by key. Whoever comes first does it, whoever comes meanwhile gets the same result.
#[derive(Debug)]
pub(crate) struct Flights<K, V> {
    running: Mutex<HashMap<K, watch::Receiver<Option<V>>>>,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self { running: Mutex::default() }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Flights<K, V> {
    /// Does `work` under `key`, or waits for whoever does it already; says which (`true`: did it).
    ///
    /// `waiting` is called once before the first wait. When the one who did it was cut off, one of
    /// those who wait does the work instead.
    pub(crate) async fn run<F>(
        &self,
        key: &K,
        waiting: impl FnOnce(),
        work: impl FnOnce() -> F,
    ) -> (V, bool)
    where
        F: Future<Output = V>,
    {
        let mut waiting = Some(waiting);
        loop {
            let (sender, mut running) = {
                let mut map = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                match map.get(key) {
                    Some(running) => (None, running.clone()),
                    None => {
                        let (sender, receiver) = watch::channel(None);
                        map.insert(key.clone(), receiver.clone());
                        (Some(sender), receiver)
                    }
                }
            };
            if let Some(sender) = sender {
                // The entry goes however the work ends, and before its result is seen: who comes
                // after that starts anew.
                let landing = Landing { flights: self, key };
                let value = work().await;
                drop(landing);
                sender.send_replace(Some(value.clone()));
                return (value, true);
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            if let Ok(value) = running.wait_for(Option::is_some).await {
                return (value.clone().expect("it was waited for"), false);
            }
        }
    }
}

struct Landing<'a, K: Eq + Hash, V> {
    flights: &'a Flights<K, V>,
    key: &'a K,
}

impl<K: Eq + Hash, V> Drop for Landing<'_, K, V> {
    fn drop(&mut self) {
        self.flights.running.lock().unwrap_or_else(PoisonError::into_inner).remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn equal_work_is_done_once() {
        let flights = Arc::new(Flights::<u32, usize>::default());
        let runs = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::new(AtomicUsize::new(0));
        let go = Arc::new(Notify::new());
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (flights, runs, waiting, go) =
                    (flights.clone(), runs.clone(), waiting.clone(), go.clone());
                tokio::spawn(async move {
                    let count = || {
                        waiting.fetch_add(1, Ordering::SeqCst);
                    };
                    flights
                        .run(&1, count, || async {
                            let run = runs.fetch_add(1, Ordering::SeqCst);
                            go.notified().await;
                            run
                        })
                        .await
                })
            })
            .collect();
        while waiting.load(Ordering::SeqCst) < 7 {
            tokio::task::yield_now().await;
        }
        go.notify_one();
        let mut led = 0;
        for task in tasks {
            let (value, did_it) = task.await.unwrap();
            assert_eq!(value, 0);
            led += usize::from(did_it);
        }
        assert_eq!((led, runs.load(Ordering::SeqCst)), (1, 1));

        let (value, did_it) = flights.run(&1, || (), || async { 7 }).await;
        assert_eq!((value, did_it), (7, true), "what has landed is not in flight");
    }

    #[tokio::test]
    async fn a_waiter_takes_over_from_one_that_was_cut_off() {
        let flights = Arc::new(Flights::<u32, u32>::default());
        let first = {
            let flights = flights.clone();
            tokio::spawn(async move {
                flights.run(&1, || (), std::future::pending::<u32>).await;
            })
        };
        while flights.running.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let waits = Arc::new(AtomicUsize::new(0));
        let second = {
            let (flights, waits) = (flights.clone(), waits.clone());
            tokio::spawn(async move {
                let count = || {
                    waits.fetch_add(1, Ordering::SeqCst);
                };
                flights.run(&1, count, || async { 2 }).await
            })
        };
        while waits.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert_eq!(second.await.unwrap(), (2, true));
    }
}
