//! Did a client notice?

use super::gate::Gate;
use super::http::{Connection, get};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Requests without a pause, on some connections at once, until it is stopped.
pub struct Traffic {
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<Tally>>,
    answered: watch::Sender<usize>,
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers of each pod.
    pub by: BTreeMap<IpAddr, usize>,
    /// What was no answer of a pod, and what it was.
    pub failed: Vec<String>,
}

/// Between two requests of a client: enough for a thousand requests a second in all, on a small machine.
const PACE: Duration = Duration::from_millis(4);

impl Gate {
    /// Clients that ask for this as fast as they are answered.
    pub fn traffic(&self, host: &str, path: &str) -> Traffic {
        let (stop, answered) = (watch::Sender::new(false), watch::Sender::new(0));
        let client = |_| tokio::spawn(ask(self.http(), host.into(), path.into(), stop.subscribe(), answered.clone()));
        let clients = (0..4).map(client).collect();
        Traffic { stop, clients, answered }
    }
}

impl Traffic {
    /// Waits until so many more requests have been answered or have failed.
    pub async fn more(&self, n: usize) {
        let mut answered = self.answered.subscribe();
        let goal = *answered.borrow_and_update() + n;
        let reached = tokio::time::timeout(super::LONG, answered.wait_for(|count| *count >= goal)).await;
        assert!(reached.is_ok(), "not {n} more answers within {:?}", super::LONG);
    }

    pub async fn stop(self) -> Tally {
        self.stop.send_replace(true);
        let mut all = Tally::default();
        for client in self.clients {
            let tally = client.await.unwrap();
            all.failed.extend(tally.failed);
            for (pod, count) in tally.by {
                *all.by.entry(pod).or_default() += count;
            }
        }
        all
    }
}

impl Tally {
    pub fn answered(&self) -> usize {
        self.by.values().sum()
    }

    /// A failed test when a request failed.
    #[track_caller]
    pub fn assert_none_failed(&self) {
        let Self { by, failed } = self;
        let first = &failed[..failed.len().min(5)];
        assert!(failed.is_empty(), "{} of {} failed: {first:#?}\n{by:?}", failed.len(), failed.len() + self.answered());
        assert!(self.answered() > 0, "nothing was asked");
    }
}

async fn ask(
    to: SocketAddr,
    host: String,
    path: String,
    stop: watch::Receiver<bool>,
    answered: watch::Sender<usize>,
) -> Tally {
    let mut tally = Tally::default();
    let mut kept = None;
    while !*stop.borrow() {
        match one(to, &mut kept, &host, &path).await {
            Ok(pod) => *tally.by.entry(pod).or_default() += 1,
            Err(why) => tally.failed.push(why),
        }
        answered.send_modify(|count| *count += 1);
        tokio::time::sleep(PACE).await;
    }
    tally
}

/// One request; on the connection of the one before, unless the gate closed it.
async fn one(to: SocketAddr, kept: &mut Option<Connection>, host: &str, path: &str) -> Result<IpAddr, String> {
    let mut connection = match kept.take().filter(|connection| !connection.closed()) {
        Some(connection) => connection,
        None => Connection::open(to).await?,
    };
    let response = connection.send(get(host, path)).await?.expect(200)?;
    *kept = Some(connection);
    Ok(response.echo()?.address)
}
