//! Which background tasks run, and who notices when one of them ends?
//!
//! The only place that spawns tasks of the control plane. A proxy whose publisher or health checks died silently would serve
//! stale configuration for weeks: so a task that ends before the process does is news, and `app` stops.

use std::borrow::Cow;
use std::future::Future;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

/// Starts tasks by name; clones start them in the same group.
#[derive(Clone, Debug)]
pub struct Tasks(mpsc::UnboundedSender<Ended>);

/// Where the group's early ends arrive.
#[derive(Debug)]
pub struct Ending(mpsc::UnboundedReceiver<Ended>);

/// A task that ended before it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The name it was started with.
    pub task: Cow<'static, str>,
    /// Whether it panicked; otherwise it returned.
    pub panicked: bool,
}

/// A running task; dropping it ends the task, and that is no news.
#[derive(Debug)]
#[must_use = "dropping it ends the task"]
pub struct Task(Option<AbortHandle>);

impl Tasks {
    /// An empty group.
    pub fn new() -> (Self, Ending) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Ending(receiver))
    }

    /// Starts a task that is to run until it is dropped.
    pub fn spawn(&self, name: impl Into<Cow<'static, str>>, future: impl Future<Output = ()> + Send + 'static) -> Task {
        Task::of(&tokio::spawn(self.watched(name.into(), true, future)))
    }

    /// The same for a future that stays on this thread; needs a `LocalSet`.
    pub fn spawn_local(&self, name: impl Into<Cow<'static, str>>, future: impl Future<Output = ()> + 'static) -> Task {
        Task::of(&tokio::task::spawn_local(self.watched(name.into(), true, future)))
    }

    /// Starts a task that may return when its work is done (an admin connection, checks of a cluster that goes away); only a
    /// panic is news. It runs on when the handle is dropped by [`Task::detach`].
    pub fn spawn_passing(
        &self,
        name: impl Into<Cow<'static, str>>,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Task {
        Task::of(&tokio::spawn(self.watched(name.into(), false, future)))
    }

    fn watched<F: Future<Output = ()>>(
        &self,
        task: Cow<'static, str>,
        essential: bool,
        future: F,
    ) -> impl Future<Output = ()> + use<F> {
        let bell = Bell { task, sender: self.0.clone(), armed: false };
        async move {
            let mut bell = bell;
            future.await;
            bell.armed = essential;
        }
    }
}

/// Rings when it is dropped by a panic, or armed; not when the task was ended from outside.
struct Bell {
    task: Cow<'static, str>,
    sender: mpsc::UnboundedSender<Ended>,
    armed: bool,
}

impl Drop for Bell {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        if self.armed || panicked {
            let _ = self.sender.send(Ended { task: std::mem::take(&mut self.task), panicked });
        }
    }
}

impl Ending {
    /// The first (or next) early end; waits for ever while there is none.
    pub async fn next(&mut self) -> Ended {
        match self.0.recv().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }
}

impl Task {
    fn of(handle: &JoinHandle<()>) -> Self {
        Self(Some(handle.abort_handle()))
    }

    /// Lets the task run on without its handle.
    pub fn detach(mut self) {
        self.0 = None;
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(AbortHandle::is_finished)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.abort();
        }
    }
}

/// Does long work on another thread, while this one goes on. A panic there is one here.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await, // The runtime is ending.
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_task_that_returns_is_news() {
        let (tasks, mut ending) = Tasks::new();
        let _task = tasks.spawn("publisher", async {});
        assert_eq!(ending.next().await, Ended { task: "publisher".into(), panicked: false });
    }

    #[tokio::test]
    async fn a_panic_is_news_even_of_a_passing_task() {
        let (tasks, mut ending) = Tasks::new();
        tasks.spawn_passing("check", async {}).detach();
        tasks.spawn_passing(format!("check {}", 2), async { panic!("as the test wants") }).detach();
        assert_eq!(ending.next().await, Ended { task: "check 2".into(), panicked: true });
    }

    #[tokio::test]
    async fn dropping_the_handle_ends_the_task_and_is_no_news() {
        let (tasks, mut ending) = Tasks::new();
        let (alive, gone) = oneshot::channel::<()>();
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let task = tasks.spawn_local("watch", async {
                    pending::<()>().await;
                    drop(alive);
                });
                tokio::task::yield_now().await;
                drop(task);
                assert!(gone.await.is_err());
            })
            .await;
        drop(tasks);
        let nothing = tokio::time::timeout(std::time::Duration::ZERO, ending.next()).await;
        assert!(nothing.is_err());
    }
}
