//! How do records get from the workers to the log without delaying a request?
//!
//! Each thread copies its records into a batch of its own; a full batch, or one that is 250 ms old, goes to the writer thread by
//! a bounded channel. When the writer cannot keep up, whole batches are dropped and counted: a slow disk never slows a
//! request. Buffers come back from the writer and are used again.

use super::access_format::{Format, Formatter};
use super::access_record::{Entry, MAX_RECORD};
use super::families;
use super::log::Seldom;
use super::metrics::{Counter, Registry};
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

pub use super::access_record::Record;

/// A batch goes to the writer when it holds so many bytes,
const BATCH_BYTES: usize = 64 * 1024;
/// or when a record comes that is so many microseconds younger than its first.
const BATCH_AGE_US: u64 = 250_000;
/// So that the last record of a full batch never makes it grow.
const BATCH_CAPACITY: usize = BATCH_BYTES + MAX_RECORD;

/// Where and how the access log is written.
#[derive(Clone, Debug)]
pub struct AccessLogConfig {
    /// Format of the lines.
    pub format: Format,
    /// Where they go.
    pub output: Output,
    /// Batches of 64 KiB that may wait for the writer; beyond them records are dropped. Default 64.
    pub queue: usize,
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self { format: Format::Json, output: Output::Stdout, queue: 64 }
    }
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Appended to this file, created with mode 0640.
    File(PathBuf),
}

/// Takes records on any thread; clones are the same log.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Shared>>);

/// The writer thread, to be finished at exit.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    done: Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    sender: SyncSender<Message>,
    spare: Mutex<Vec<Vec<u8>>>,
    reopen: AtomicBool,
    stop: AtomicBool,
    dropped: Counter,
}

#[derive(Debug)]
enum Message {
    Batch {
        bytes: Vec<u8>,
        records: u64,
    },
    /// Look at the flags.
    Wake,
}

impl AccessLog {
    /// Opens the output and starts the writer thread.
    pub fn start(config: &AccessLogConfig, registry: &Registry) -> io::Result<(Self, Writer)> {
        let sink = match &config.output {
            Output::Stdout => Sink::Other(Box::new(io::stdout())),
            Output::File(path) => Sink::File(path.clone(), open(path)?),
        };
        Self::start_with(config, registry, sink)
    }

    fn start_with(config: &AccessLogConfig, registry: &Registry, sink: Sink) -> io::Result<(Self, Writer)> {
        let (sender, receiver) = sync_channel(config.queue);
        let dropped = registry.counter(&families::ACCESS_LOG_DROPPED, &[]);
        let shared = Arc::new(Shared {
            sender,
            spare: Mutex::default(),
            reopen: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            dropped,
        });
        let desk = Desk {
            shared: Arc::clone(&shared),
            sink,
            formatter: Formatter::new(config.format),
            lines: Vec::new(),
            written: registry.counter(&families::ACCESS_LOG_RECORDS, &[]),
            errors: registry.counter(&families::ACCESS_LOG_ERRORS, &[]),
            warn: Seldom::new(Duration::from_secs(10)),
        };
        let (ending, done) = channel();
        thread::Builder::new().name("access-log".into()).spawn(move || {
            desk.run(&receiver);
            drop(ending);
        })?;
        Ok((Self(Some(Arc::clone(&shared))), Writer { shared, done }))
    }

    /// A log that takes records and forgets them.
    pub fn off() -> Self {
        Self(None)
    }

    /// Whether records are written; where not, the caller need not make any.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Copies a record into this thread's batch.
    pub fn record(&self, record: &Record<'_>) {
        let Some(shared) = &self.0 else { return };
        // While the thread ends its batch may be gone already; such a record is as lost as the thread's other work.
        let _ = BATCH.try_with(|batch| batch.borrow_mut().push(shared, record));
    }

    /// Hands this thread's batch to the writer, however small. A worker's sweep calls it every 250 ms or more often, so that the
    /// last lines before a silence are seen, too; at the end of a thread it happens by itself.
    pub fn flush(&self) {
        let _ = BATCH.try_with(|batch| batch.borrow_mut().hand_over());
    }

    /// Opens the file anew, after it was moved by log rotation. What was recorded before may still go to the old one.
    pub fn reopen(&self) {
        if let Some(shared) = &self.0 {
            shared.reopen.store(true, Ordering::SeqCst);
            shared.wake();
        }
    }
}

impl Writer {
    /// Writes what was handed over and ends the thread; `false` when that was not done in time. To be called when the
    /// workers' threads have ended.
    pub fn finish(self, limit: Duration) -> bool {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake();
        // The sender is dropped when the thread ends: "disconnected" is what success looks like.
        self.done.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
    }
}

impl Shared {
    /// A full channel needs no wake-up: the flags are looked at after each message.
    fn wake(&self) {
        let _ = self.sender.try_send(Message::Wake);
    }

    fn spare(&self) -> Vec<u8> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(BATCH_CAPACITY))
    }
}

thread_local! {
    static BATCH: RefCell<Batch> = const { RefCell::new(Batch { log: None, bytes: Vec::new(), records: 0, first: 0 }) };
}

/// The records of one thread that have not been handed over.
struct Batch {
    log: Option<Arc<Shared>>,
    bytes: Vec<u8>,
    records: u64,
    first: u64,
}

impl Batch {
    fn push(&mut self, log: &Arc<Shared>, record: &Record<'_>) {
        if !self.log.as_ref().is_some_and(|mine| Arc::ptr_eq(mine, log)) {
            self.hand_over();
            self.log = Some(Arc::clone(log));
        }
        if self.records == 0 {
            self.first = record.time;
            if self.bytes.capacity() == 0 {
                self.bytes = log.spare();
            }
        }
        record.encode(&mut self.bytes);
        self.records += 1;
        if self.bytes.len() >= BATCH_BYTES || record.time.saturating_sub(self.first) >= BATCH_AGE_US {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let Some(log) = self.log.as_ref().filter(|_| self.records > 0) else { return };
        let message = Message::Batch { bytes: std::mem::take(&mut self.bytes), records: self.records };
        self.records = 0;
        if let Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) = log.sender.try_send(message)
            && let Message::Batch { mut bytes, records } = message
        {
            log.dropped.add(records);
            bytes.clear();
            self.bytes = bytes;
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.hand_over();
    }
}

enum Sink {
    File(PathBuf, File),
    Other(Box<dyn Write + Send>),
}

/// The writer thread's own things.
struct Desk {
    shared: Arc<Shared>,
    sink: Sink,
    formatter: Formatter,
    lines: Vec<u8>,
    written: Counter,
    errors: Counter,
    warn: Seldom,
}

impl Desk {
    fn run(mut self, receiver: &Receiver<Message>) {
        loop {
            let stopping = self.shared.stop.load(Ordering::SeqCst);
            let message = if stopping { receiver.try_recv() } else { receiver.recv().map_err(TryRecvError::from) };
            let Ok(message) = message else { return };
            if self.shared.reopen.swap(false, Ordering::SeqCst) {
                self.reopen();
            }
            if let Message::Batch { bytes, records } = message {
                self.write(&bytes, records);
                self.give_back(bytes);
            }
        }
    }

    fn write(&mut self, mut batch: &[u8], records: u64) {
        self.lines.clear();
        while let Some(entry) = Entry::decode(&mut batch) {
            self.formatter.line(&mut self.lines, &entry);
        }
        let result = match &mut self.sink {
            Sink::File(_, file) => file.write_all(&self.lines),
            Sink::Other(other) => other.write_all(&self.lines).and_then(|()| other.flush()),
        };
        match result {
            Ok(()) => self.written.add(records),
            Err(error) => {
                self.errors.add(1);
                self.shared.dropped.add(records);
                if let Some(before) = self.warn.allow() {
                    tracing::warn!(%error, before, "access log cannot be written");
                }
            }
        }
    }

    fn reopen(&mut self) {
        let Sink::File(path, file) = &mut self.sink else { return };
        match open(path) {
            Ok(new) => *file = new,
            Err(error) => {
                self.errors.add(1);
                tracing::warn!(%error, path = %path.display(), "access log cannot be opened anew; the old file is kept");
            }
        }
    }

    /// As many spare buffers as are in use at ordinary times: more would only hold memory after a burst.
    fn give_back(&self, mut bytes: Vec<u8>) {
        const SPARE: usize = 8;
        bytes.clear();
        let mut spare = self.shared.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE {
            spare.push(bytes);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::super::access_record::tests::{context, record};
    use super::*;
    use std::sync::mpsc::Sender;

    const LIMIT: Duration = Duration::from_secs(30);

    fn lines(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn to_file(path: &Path) -> AccessLogConfig {
        AccessLogConfig { output: Output::File(path.to_owned()), ..AccessLogConfig::default() }
    }

    #[test]
    fn every_record_of_every_thread_is_written_at_exit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let registry = Registry::new(2, 100);
        let (log, writer) = AccessLog::start(&to_file(&path), &registry).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let log = log.clone();
                scope.spawn(move || (0..1000).for_each(|_| log.record(&record(&context()))));
            }
        });
        // Scoped threads may still run their destructors: the count is complete when all batches came.
        log.record(&record(&context()));
        log.flush();
        while registry.counter(&families::ACCESS_LOG_RECORDS, &[]).get() < 3001 {
            std::thread::yield_now();
        }
        assert!(writer.finish(LIMIT));
        assert_eq!(lines(&path).len(), 3001);
        assert_eq!(registry.counter(&families::ACCESS_LOG_DROPPED, &[]).get(), 0);
    }

    #[test]
    fn a_batch_is_handed_over_when_a_younger_record_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let registry = Registry::new(1, 100);
        let (log, writer) = AccessLog::start(&to_file(&path), &registry).unwrap();
        let context = context();
        let first = record(&context);
        log.record(&first);
        log.record(&Record { time: first.time + BATCH_AGE_US, ..first });
        log.record(&first);
        assert!(writer.finish(LIMIT));
        assert_eq!(lines(&path).len(), 2, "the third waits in its batch");
    }

    #[test]
    fn a_moved_file_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let (log, writer) = AccessLog::start(&to_file(&path), &Registry::new(1, 100)).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        log.record(&record(&context()));
        log.flush();
        assert!(writer.finish(LIMIT));
        assert_eq!((lines(&path).len(), lines(&moved).len()), (1, 0));
    }

    /// Takes bytes only when the test lets it.
    struct Gate(Receiver<()>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated(registry: &Registry, queue: usize) -> (AccessLog, Writer, Sender<()>) {
        let (open, gate) = channel();
        let config = AccessLogConfig { queue, ..AccessLogConfig::default() };
        let (log, writer) = AccessLog::start_with(&config, registry, Sink::Other(Box::new(Gate(gate)))).unwrap();
        (log, writer, open)
    }

    #[test]
    fn a_writer_that_stands_still_costs_records_and_never_time() {
        let registry = Registry::new(1, 100);
        let (log, writer, open) = gated(&registry, 2);
        let dropped = registry.counter(&families::ACCESS_LOG_DROPPED, &[]);
        for _ in 0..20 {
            log.record(&record(&context()));
            log.flush();
        }
        assert!((17..=18).contains(&dropped.get()), "two wait, one may be with the writer: {}", dropped.get());
        drop(open);
        assert!(writer.finish(LIMIT));
        assert_eq!(dropped.get(), 20, "what cannot be written is counted, too");
        assert!(registry.counter(&families::ACCESS_LOG_ERRORS, &[]).get() >= 2);
    }

    #[test]
    fn an_exit_does_not_wait_longer_than_its_limit() {
        let (log, writer, open) = gated(&Registry::new(1, 100), 2);
        log.record(&record(&context()));
        log.flush();
        assert!(!writer.finish(Duration::ZERO));
        drop(open);
    }

    #[test]
    fn recording_allocates_nothing_once_the_buffers_are_there() {
        let registry = Registry::new(1, 100);
        let (log, writer) = AccessLog::start(
            &AccessLogConfig { output: Output::File("/dev/null".into()), ..AccessLogConfig::default() },
            &registry,
        )
        .unwrap();
        let place = || BATCH.with_borrow(|batch| (batch.bytes.as_ptr(), batch.bytes.capacity()));
        let context = context();
        let one = record(&context);
        log.record(&one);
        let first = place();
        assert_eq!(first.1, BATCH_CAPACITY);
        let long = "x".repeat(100_000);
        // Up to the brink, then the longest record there is.
        let size = BATCH.with_borrow(|batch| batch.bytes.len());
        for _ in 1..BATCH_BYTES / size {
            log.record(&one);
            assert_eq!(place(), first);
        }
        let capacity = Arc::clone(log.0.as_ref().unwrap());
        log.record(&Record { path: long.as_bytes(), query: Some(long.as_bytes()), user_agent: long.as_bytes(), ..one });
        assert!(writer.finish(LIMIT));
        let spare = capacity.spare.lock().unwrap();
        assert_eq!(spare.iter().map(Vec::capacity).collect::<Vec<_>>(), [BATCH_CAPACITY]);
        assert_eq!(spare[0].as_ptr(), first.0, "the same memory comes back");
    }

    #[test]
    fn a_log_that_is_off_keeps_nothing() {
        let log = AccessLog::off();
        log.record(&record(&context()));
        assert!(!log.is_on());
        assert!(BATCH.with_borrow(|batch| batch.records) == 0);
    }
}
