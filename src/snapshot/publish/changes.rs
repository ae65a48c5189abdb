//! What is there to follow next?

use super::Publisher;
use crate::source::Slot;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::timeout;

/// How often replaced snapshots are looked at, while there are any.
const REAP: Duration = Duration::from_secs(1);

/// What the publisher has to follow.
pub(super) enum Change {
    /// A source delivered.
    Wish,
    /// Memberships were said.
    Members,
    /// No source is left.
    Over,
}

impl Publisher {
    /// Waits for a change, in a slot before all else: its publish takes memberships along.
    pub(super) async fn changed(&mut self) -> Change {
        loop {
            let (slots, members) = (&mut self.slots, &self.members);
            let change = async {
                tokio::select! {
                    biased;
                    any = any_changed(slots) => if any { Change::Wish } else { Change::Over },
                    () = members.changed() => Change::Members,
                }
            };
            if self.retired.is_empty() {
                return change.await;
            }
            if let Ok(change) = timeout(REAP, change).await {
                return change;
            }
            self.reap();
        }
    }
}

async fn any_changed(slots: &mut [Slot]) -> bool {
    let mut waiting: Vec<_> = slots.iter_mut().map(|slot| Some(Box::pin(slot.changed()))).collect();
    let any = poll_fn(|cx| {
        for place in &mut waiting {
            match place.as_mut().map(|changed| changed.as_mut().poll(cx)) {
                Some(Poll::Ready(true)) => return Poll::Ready(true),
                Some(Poll::Ready(false)) => *place = None,
                Some(Poll::Pending) | None => {}
            }
        }
        if waiting.iter().all(Option::is_none) { Poll::Ready(false) } else { Poll::Pending }
    });
    pin!(any).await
}
