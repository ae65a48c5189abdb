//! Which tests run, beside which others, and what is said when one fails?

use super::cluster::Cluster;
use super::sandbox;
use super::test::Test;
use libtest_mimic::{Arguments, Failed, Trial};
use std::any::Any;
use std::cell::RefCell;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// The scenarios of one file: its name and its cases.
pub type Scenarios = (&'static str, &'static [Case]);

/// One test.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// Whether it disturbs others, such as by killing the API server.
    pub alone: bool,
    pub run: fn(Test) -> Pin<Box<dyn Future<Output = ()>>>,
}

/// A test that runs beside others: `beside!(a_route_is_served)`, where `async fn a_route_is_served(test: Test)`.
#[macro_export]
macro_rules! beside {
    ($name:ident) => {
        $crate::harness::suite::Case { name: stringify!($name), alone: false, run: |test| Box::pin($name(test)) }
    };
}

/// A test that needs the cluster for itself; it runs after the others.
#[macro_export]
macro_rules! alone {
    ($name:ident) => {
        $crate::harness::suite::Case { name: stringify!($name), alone: true, run: |test| Box::pin($name(test)) }
    };
}

/// Tests wait more than they compute.
const THREADS: usize = 4;

/// Outside of the sandbox: goes into it when there is a test to run.
pub fn outside(scenarios: &[Scenarios]) -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = trials(scenarios, &Arc::default());
    if arguments.list || !trials.iter().any(|trial| chosen(trial, &arguments)) {
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    if let Err(why) = sandbox::missing() {
        eprintln!("cluster: {why}");
        return ExitCode::FAILURE;
    }
    sandbox::enter("suite")
}

/// Inside: runs the tests.
pub fn run(scenarios: &[Scenarios]) -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        LAST_PANIC.with(|last| *last.borrow_mut() = format!("{}\n  at {place}", message(panic.payload())));
    }));
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    libtest_mimic::run(&arguments, trials(scenarios, &Arc::default())).exit_code()
}

/// Those that need the cluster for themselves last.
fn trials(scenarios: &[Scenarios], suite: &Arc<Suite>) -> Vec<Trial> {
    let all = scenarios.iter().flat_map(|(group, cases)| cases.iter().map(move |case| (*group, *case)));
    let (alone, beside): (Vec<_>, Vec<_>) = all.partition(|(_, case)| case.alone);
    let trial = |(group, case): (&str, Case)| {
        let suite = Arc::clone(suite);
        let name = format!("{group}::{}", case.name);
        Trial::test(name.clone(), move || suite.run(&name, &case))
    };
    beside.into_iter().chain(alone).map(trial).collect()
}

/// As the test runner chooses.
fn chosen(trial: &Trial, arguments: &Arguments) -> bool {
    let fits = |filter: &String| if arguments.exact { trial.name() == filter } else { trial.name().contains(filter) };
    arguments.filter.as_ref().is_none_or(fits) && !arguments.skip.iter().any(fits) && !arguments.ignored
}

/// What all tests of a run share.
#[derive(Default)]
struct Suite {
    /// Started by the first test.
    cluster: OnceLock<Result<Arc<Cluster>, String>>,
    turns: RwLock<()>,
}

thread_local! {
    static LAST_PANIC: RefCell<String> = RefCell::default();
}

impl Suite {
    fn run(&self, name: &str, case: &Case) -> Result<(), Failed> {
        let _alone = case.alone.then(|| self.turns.write().unwrap_or_else(PoisonError::into_inner));
        let _beside = (!case.alone).then(|| self.turns.read().unwrap_or_else(PoisonError::into_inner));
        let cluster = self.cluster.get_or_init(|| Cluster::start().map(Arc::new));
        let cluster = cluster.as_ref().map_err(|why| format!("the cluster does not start: {why}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let local = tokio::task::LocalSet::new();
        let test = local.block_on(&runtime, Test::new(name, Arc::clone(cluster)))?;
        let run = || local.block_on(&runtime, (case.run)(test.clone()));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let outcome = outcome.map_err(|_| {
            let why = LAST_PANIC.with(RefCell::take);
            let evidence = local.block_on(&runtime, test.evidence());
            let stopped = cluster.control_plane.running().err().unwrap_or_default();
            Failed::from(format!("{why}\n{}{evidence}{stopped}", test.logs()))
        });
        local.block_on(&runtime, test.clean());
        outcome
    }
}

fn message(payload: &dyn Any) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".into())
}
