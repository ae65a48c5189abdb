//! What does the process say about itself, how loud, and how is that changed while it runs?
//!
//! Logs go to standard error. Values that came from a client or an upstream belong into fields with `?`, which escapes them.

use crate::model::ValueError;
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{MakeWriter, layer};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry, reload};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged: a level, and other levels for parts of the program: `info,tidegate::upstream=debug,rustls=off`.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    text: String,
    targets: Targets,
}

impl FromStr for Level {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut targets = quiet();
        for part in text.split(',').map(str::trim) {
            // A target without a level would be taken as "everything of it, and nothing of all others" by the usual parsers:
            // a slip of the pen such as `inof` silenced the log. Here it is an error.
            targets = match part.split_once('=') {
                None => targets.with_default(level(part)?),
                Some((target, word)) => targets.with_target(self::target(target)?, level(word)?),
            };
        }
        Ok(Self { text: text.to_owned(), targets })
    }
}

impl Default for Level {
    fn default() -> Self {
        Self { text: "info".into(), targets: quiet() }
    }
}

impl Level {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// What holds where nothing else is said. The Kubernetes client's own lines come with every attempt while the API server is away;
/// our own say it once, and what it was.
fn quiet() -> Targets {
    let targets = Targets::new().with_default(LevelFilter::INFO);
    targets.with_target("kube_client", LevelFilter::OFF).with_target("kube_runtime", LevelFilter::OFF)
}

const WORDS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

fn level(word: &str) -> Result<LevelFilter, ValueError> {
    let found = WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, level)| *level);
    found.ok_or_else(|| {
        ValueError::new(format!("{word:?} is not a log level"), "use off, error, warn, info, debug or trace")
    })
}

fn target(name: &str) -> Result<&str, ValueError> {
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b));
    let hint = "name a part of the program, such as tidegate::upstream or rustls";
    fits.then_some(name).ok_or_else(|| ValueError::new(format!("{name:?} is not a log target"), hint))
}

/// Reads and changes the level of the running process. Clones are the same.
#[derive(Clone, Debug)]
pub struct Log {
    handle: reload::Handle<Targets, Registry>,
    level: Arc<Mutex<Level>>,
    /// The handle works as long as its subscriber lives; the process's own is kept by `tracing`.
    _kept: Option<Dispatch>,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is a subscriber already.
    #[error("logging was set up before")]
    Twice(#[source] tracing::dispatcher::SetGlobalDefaultError),
    /// The subscriber is gone.
    #[error("the log level cannot be changed any more")]
    Reload(#[source] reload::Error),
}

impl Log {
    /// Logs to standard error from now on, for the whole process; once.
    pub fn start(format: LogFormat, level: Level) -> Result<Self, LogError> {
        let (subscriber, log) = Self::build(format, level, std::io::stderr, std::io::stderr().is_terminal());
        tracing::dispatcher::set_global_default(Dispatch::new(subscriber)).map_err(LogError::Twice)?;
        Ok(log)
    }

    /// A log that goes nowhere, for the parts that only need a handle.
    pub fn disconnected() -> Self {
        let (subscriber, log) = Self::build(LogFormat::Text, Level::default(), std::io::sink, false);
        Self { _kept: Some(Dispatch::new(subscriber)), ..log }
    }

    fn build<W>(format: LogFormat, level: Level, writer: W, colours: bool) -> (impl Subscriber + Send + Sync, Self)
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let (filter, handle) = reload::Layer::new(level.targets.clone());
        let lines = match format {
            LogFormat::Text => layer().with_ansi(colours).with_writer(writer).boxed(),
            LogFormat::Json => layer().json().flatten_event(true).with_writer(writer).boxed(),
        };
        let subscriber = tracing_subscriber::registry().with(filter).with(lines);
        (subscriber, Self { handle, level: Arc::new(Mutex::new(level)), _kept: None })
    }

    /// The level that holds now.
    pub fn level(&self) -> Level {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another level from now on.
    pub fn set_level(&self, level: Level) -> Result<(), LogError> {
        self.handle.reload(level.targets.clone()).map_err(LogError::Reload)?;
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = level;
        Ok(())
    }
}

/// Lets a warning that may come thousands of times a second through once in a while.
#[derive(Debug)]
pub struct Seldom {
    start: Instant,
    pause: Duration,
    /// Milliseconds after `start` at which the next may come.
    next: AtomicU64,
    held_back: AtomicU64,
}

impl Seldom {
    /// At most one in `pause`.
    pub fn new(pause: Duration) -> Self {
        Self { start: Instant::now(), pause, next: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }

    /// Whether to log now; says how many were held back since the last.
    pub fn allow(&self) -> Option<u64> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (now, next) = (millis(self.start.elapsed()), self.next.load(Relaxed));
        let mine = now >= next
            && self.next.compare_exchange(next, now.saturating_add(millis(self.pause)), Relaxed, Relaxed).is_ok();
        if mine {
            return Some(self.held_back.swap(0, Relaxed));
        }
        self.held_back.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, level: &str, say: impl FnOnce(&Log)) -> String {
        let page = Page::default();
        let writer = page.clone();
        let (subscriber, log) = Log::build(format, level.parse().unwrap(), move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, || say(&log));
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_level_is_changed_while_it_runs() {
        let text = written(LogFormat::Text, "warn", |log| {
            tracing::info!("one");
            log.set_level("debug".parse().unwrap()).unwrap();
            tracing::debug!("two");
            assert_eq!(log.level().as_str(), "debug");
            log.set_level("off".parse().unwrap()).unwrap();
            tracing::error!("three");
        });
        assert!(!text.contains("one") && text.contains("two") && !text.contains("three"), "{text}");
    }

    #[test]
    fn one_part_may_be_louder_than_the_rest() {
        let text = written(LogFormat::Text, "error, tidegate::upstream=debug", |_| {
            tracing::debug!(target: "tidegate::upstream::health", "near");
            tracing::warn!(target: "tidegate::proxy", "far");
        });
        assert!(text.contains("near") && !text.contains("far"), "{text}");
    }

    #[test]
    fn a_slip_of_the_pen_is_an_error_and_does_not_silence_the_log() {
        for wrong in ["inof", "", "info,", "a b=info", "=info", "tidegate=loud"] {
            assert!(wrong.parse::<Level>().is_err(), "{wrong}");
        }
        assert!("INFO,h2=off".parse::<Level>().is_ok());
    }

    #[test]
    fn a_json_line_is_one_object_whatever_is_logged() {
        let text = written(LogFormat::Json, "info", |_| tracing::info!(host = "a\"\n{\u{1b}", "odd\nhost"));
        assert_eq!(text.lines().count(), 1);
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((read["host"].as_str(), read["message"].as_str()), (Some("a\"\n{\u{1b}"), Some("odd\nhost")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeated_warning_comes_once_in_a_while_and_says_how_many_were_held_back() {
        let seldom = Seldom::new(Duration::from_secs(10));
        assert_eq!(seldom.allow(), Some(0));
        assert_eq!((seldom.allow(), seldom.allow()), (None, None));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(seldom.allow(), Some(2));
    }
}
