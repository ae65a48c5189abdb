//! How are the streams of one connection run, without a task for each?
//!
//! A stream is served in a lane: a future that is made once and serves one stream after the other, because to make it anew for
//! each, some kilobytes, was a tenth of what a request cost. The task of the connection runs its lanes, each when it was woken, and
//! what they have to say leaves in one write.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// What a lane does, for ever.
pub(super) type Work = Pin<Box<dyn Future<Output = ()>>>;

/// The lanes of one connection. `J` is what a stream begins with.
pub(super) struct Lanes<J> {
    make: Box<dyn Fn(Inbox<J>) -> Work>,
    lanes: Vec<Lane<J>>,
    /// Places of the lanes that serve nothing.
    free: Vec<usize>,
    /// Kept for its memory.
    due: Vec<usize>,
    bell: Arc<Bell>,
}

struct Lane<J> {
    work: Work,
    inbox: Inbox<J>,
    busy: bool,
    rope: Arc<Rope>,
    waker: Waker,
}

/// Where a lane finds its next stream.
pub(super) struct Inbox<J>(Rc<Slot<J>>);

struct Slot<J> {
    next: Cell<Option<J>>,
    waits: Cell<bool>,
}

impl<J> Inbox<J> {
    /// The next stream; whoever puts it in runs the lane.
    pub(super) async fn next(&self) -> J {
        poll_fn(|_| {
            let next = self.0.next.take();
            self.0.waits.set(next.is_none());
            next.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl<J> Lanes<J> {
    /// No lanes yet; `make` makes one, which waits for what comes into its inbox whenever it has nothing to do.
    pub(super) fn new(make: impl Fn(Inbox<J>) -> Work + 'static) -> Self {
        let bell = Arc::new(Bell::default());
        Self { make: Box::new(make), lanes: Vec::new(), free: Vec::new(), due: Vec::new(), bell }
    }

    /// Wakes the connection's task for what is not a lane.
    pub(super) fn outer(&self) -> Waker {
        Arc::new(Rope { bell: Arc::clone(&self.bell), place: None, rung: AtomicBool::new(false) }).into()
    }

    /// How many lanes serve a stream.
    pub(super) fn busy(&self) -> usize {
        self.lanes.len() - self.free.len()
    }

    /// Gives a stream to a lane, which runs with the others that are due.
    pub(super) fn begin(&mut self, stream: J) {
        let place = self.free.pop().unwrap_or_else(|| self.add());
        if let Some(lane) = self.lanes.get_mut(place) {
            lane.inbox.0.next.set(Some(stream));
            lane.busy = true;
            lane.waker.wake_by_ref();
        }
    }

    fn add(&mut self) -> usize {
        let place = self.lanes.len();
        let slot = Rc::new(Slot { next: Cell::new(None), waits: Cell::new(false) });
        let rope = Rope { bell: Arc::clone(&self.bell), place: Some(place), rung: AtomicBool::new(false) };
        let rope = Arc::new(rope);
        let work = (self.make)(Inbox(Rc::clone(&slot)));
        self.lanes.push(Lane { work, inbox: Inbox(slot), busy: true, waker: Arc::clone(&rope).into(), rope });
        place
    }

    /// Forgets the lanes, if none is busy.
    pub(super) fn clear(&mut self) {
        if self.busy() == 0 {
            (self.lanes, self.free, self.due) = (Vec::new(), Vec::new(), Vec::new());
        }
    }

    /// The task runs: until [`Self::sleep`], nothing needs to wake it.
    pub(super) fn wake(&self, task: &Waker) {
        let mut state = self.bell.lock();
        state.awake = true;
        if !state.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            state.task = Some(task.clone());
        }
    }

    /// Runs the lanes that were woken, then says whether [`Self::outer`] was.
    pub(super) fn run(&mut self) -> bool {
        let mut due = std::mem::take(&mut self.due);
        std::mem::swap(&mut due, &mut self.bell.lock().lanes);
        for place in due.drain(..) {
            self.step(place);
        }
        self.due = due;
        std::mem::take(&mut self.bell.lock().outer)
    }

    fn step(&mut self, place: usize) {
        // What was woken may be gone: a kept connection to an upstream still knows who waited for it last.
        let Some(lane) = self.lanes.get_mut(place) else { return };
        lane.rope.rung.store(false, Ordering::Release);
        let _never = lane.work.as_mut().poll(&mut Context::from_waker(&lane.waker));
        if lane.busy && lane.inbox.0.waits.get() {
            lane.busy = false;
            self.free.push(place);
        }
    }

    /// The task sleeps until something wakes it; at once where something has.
    pub(super) fn sleep(&self) {
        let mut state = self.bell.lock();
        state.awake = !state.lanes.is_empty() || state.outer;
        if let (true, Some(task)) = (state.awake, &state.task) {
            task.wake_by_ref();
        }
    }
}

impl<J> Drop for Lanes<J> {
    fn drop(&mut self) {
        // Ropes outlive this; the task must not be kept by them.
        self.bell.lock().task = None;
    }
}

/// Who was woken. Wakers may be used by any thread: a place at an endpoint is given back by another worker.
#[derive(Default)]
struct Bell(Mutex<State>);

#[derive(Default)]
struct State {
    lanes: Vec<usize>,
    outer: bool,
    /// The task runs, or was woken already.
    awake: bool,
    task: Option<Waker>,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes one lane, or what is outside of them.
struct Rope {
    bell: Arc<Bell>,
    place: Option<usize>,
    rung: AtomicBool,
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.place.is_some() && self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.bell.lock();
        match self.place {
            Some(place) => state.lanes.push(place),
            None => state.outer = true,
        }
        if !std::mem::replace(&mut state.awake, true)
            && let Some(task) = &state.task
        {
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    type Log = Rc<RefCell<Vec<u32>>>;

    /// A stream: its number, and how often it has to be woken before it ends. Wakers are left behind.
    type Stream = (u32, u32);

    fn lanes(log: &Log, wakers: &Rc<RefCell<Vec<Waker>>>) -> Lanes<Stream> {
        let (log, wakers) = (Rc::clone(log), Rc::clone(wakers));
        Lanes::new(move |inbox: Inbox<Stream>| {
            let (log, wakers) = (Rc::clone(&log), Rc::clone(&wakers));
            Box::pin(async move {
                loop {
                    let (number, mut waits) = inbox.next().await;
                    poll_fn(|cx| {
                        wakers.borrow_mut().push(cx.waker().clone());
                        waits = waits.saturating_sub(1);
                        if waits == 0 { Poll::Ready(()) } else { Poll::Pending }
                    })
                    .await;
                    log.borrow_mut().push(number);
                }
            })
        })
    }

    #[test]
    fn a_lane_serves_one_stream_after_the_other() {
        let (log, wakers) = (Log::default(), Rc::default());
        let mut lanes = lanes(&log, &wakers);
        for number in 0..3 {
            lanes.begin((number, 1));
            lanes.run();
        }
        assert_eq!((log.take(), lanes.lanes.len(), lanes.busy()), (vec![0, 1, 2], 1, 0));
        lanes.begin((3, 2));
        lanes.begin((4, 1));
        lanes.run();
        assert_eq!((log.take(), lanes.lanes.len(), lanes.busy()), (vec![4], 2, 1));
        lanes.clear();
        assert_eq!(lanes.lanes.len(), 2, "one is busy");
    }

    #[test]
    fn only_lanes_that_were_woken_run_and_the_task_is_woken_once() {
        let (log, wakers) = (Log::default(), Rc::<RefCell<Vec<Waker>>>::default());
        let mut lanes = lanes(&log, &wakers);
        let count = Arc::new(Counter::default());
        lanes.wake(&Arc::clone(&count).into());
        for number in 0..3 {
            lanes.begin((number, 2));
        }
        assert!(!lanes.run() && log.borrow().is_empty());
        lanes.sleep();
        assert_eq!(count.0.load(Ordering::SeqCst), 0, "nothing is left to do");
        for waker in wakers.take().iter().take(2).chain(&[lanes.outer()]) {
            waker.wake_by_ref();
            waker.wake_by_ref();
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(lanes.run(), "what is outside was woken, too");
        assert_eq!((log.take(), lanes.busy()), (vec![0, 1], 1));
        lanes.outer().wake();
        lanes.sleep();
        assert_eq!(count.0.load(Ordering::SeqCst), 2, "what came meanwhile is not forgotten");
    }

    #[test]
    fn a_waker_of_a_lane_that_is_gone_wakes_nobody() {
        let (log, wakers) = (Log::default(), Rc::<RefCell<Vec<Waker>>>::default());
        let mut lanes = lanes(&log, &wakers);
        lanes.begin((1, 1));
        lanes.run();
        lanes.clear();
        wakers.borrow().iter().for_each(Waker::wake_by_ref);
        assert!(!lanes.run() && lanes.lanes.is_empty());
        let task = Arc::new(Counter::default());
        lanes.wake(&Arc::clone(&task).into());
        drop(lanes);
        assert_eq!(Arc::strong_count(&task), 1, "kept wakers do not keep the task");
    }
}
