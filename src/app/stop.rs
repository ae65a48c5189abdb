//! How does the process stop? One function, top to bottom.

use super::worker::Workers;
use super::{App, Control, Error, FLUSH};
use crate::lifecycle::Signal;
use crate::telemetry::families;
use tokio::time::Instant;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything in flight was finished.
    Drained,
    /// So many connections were cut at the deadline, or by a second signal.
    Cut(usize),
}

/// Stops after a signal, or at once after an error.
pub(super) async fn shut_down(
    app: App,
    mut control: Control,
    workers: Workers,
    outcome: Result<Signal, Error>,
) -> Result<Ended, Error> {
    // 1. Not ready: whoever asks sends nobody here any more.
    app.readiness.set_not_ready("draining");
    app.registry.gauge(&families::DRAINING, &[]).set(1);
    let cut = match &outcome {
        Ok(signal) => {
            tracing::info!(?signal, deadline = ?app.config.drain.deadline, "draining");
            drain(&app, &mut control).await
        }
        Err(_) => 0,
    };
    // 5. The cluster hears that another gate is to write for all.
    if let Some(status) = control.status.take() {
        status.end().await;
    }
    // 6. What is left is cut.
    workers.stop();
    // 7. What was recorded is written.
    if let Some(writer) = app.writer
        && !writer.finish(FLUSH)
    {
        tracing::warn!("the access log could not be written to its end");
    }
    outcome?;
    tracing::info!(cut, "stopped");
    // 8. The exit code says whether anything was cut.
    Ok(if cut == 0 { Ended::Drained } else { Ended::Cut(cut) })
}

async fn drain(app: &App, control: &mut Control) -> usize {
    // 2. Time for load balancers and DNS to notice.
    let patience = async {
        tokio::time::sleep(app.config.drain.delay).await;
        // 3. Accept loops stop and listening sockets close; connections end with the request in flight.
        app.drain.start();
        // 4. Requests in flight are finished, until the deadline.
        app.drain.wait(Instant::now() + app.config.drain.deadline).await
    };
    tokio::select! {
        held = patience => held,
        () = second(&mut control.signals) => app.drain.held(),
    }
}

/// A second SIGINT or SIGTERM: whoever waits at the terminal has waited enough.
async fn second(signals: &mut crate::lifecycle::Signals) {
    while signals.next().await == Signal::Reload {}
}
