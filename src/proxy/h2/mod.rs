//! How are HTTP/2 messages made from and turned into ours, on either side? hyper moves the frames.

mod body;
mod connection;
mod convert;
mod downstream;
mod response;
mod rewind;
mod upstream;

pub use body::{IncomingBody, SlotBody, SlotSender};
pub use connection::serve;
pub use rewind::Rewind;
pub use upstream::{Senders, Stream, send, stream_to};

use std::future::Future;

/// Runs the tasks of connections to upstreams on the worker's own thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
