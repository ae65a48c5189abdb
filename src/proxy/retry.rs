//! May this attempt be repeated? Pure.

use super::error::{ProxyError, RetryRule};
use crate::model::{RetryOn, RetrySpec};
use http::{Method, StatusCode};
use std::time::Duration;

/// What is known about the attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Method of the request.
    pub method: &'a Method,
    /// Attempts made so far, this one included.
    pub made: u32,
    /// Whether bytes of the request's body were taken from the client: they cannot be sent again.
    pub body_begun: bool,
}

/// Whether a failed attempt may be repeated by the route's rules.
pub fn after_error(error: &ProxyError, spec: &RetrySpec, attempt: Attempt<'_>) -> bool {
    if attempt.body_begun || attempt.made >= spec.attempts {
        return false;
    }
    let wanted = match error {
        ProxyError::Connect(_) | ProxyError::ConnectTimeout(_) => spec.on.contains(&RetryOn::Connect),
        ProxyError::Reset | ProxyError::Stale => spec.on.contains(&RetryOn::Reset),
        ProxyError::Timeout => spec.on.contains(&RetryOn::Timeout),
        _ => false,
    };
    wanted && allowed(error.row().retry, attempt.method)
}

/// Whether an answer with this status may be dropped and asked for again.
pub fn after_status(status: StatusCode, spec: &RetrySpec, attempt: Attempt<'_>) -> bool {
    !attempt.body_begun
        && attempt.made < spec.attempts
        && attempt.method.is_idempotent()
        && spec.on.contains(&RetryOn::Status(status.as_u16()))
}

/// Whether a request that met a closed kept connection may go out again on a new one: it is not the upstream's answer but
/// the race of RFC 9112 section 9.3.1, so it costs no attempt.
pub fn after_stale(attempt: Attempt<'_>) -> bool {
    !attempt.body_begun && attempt.method.is_idempotent()
}

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long to wait after so many attempts. The second attempt goes out at once, to another endpoint; before the third there is
/// the route's pause, doubled for each further one. Up to a half of it is left out by chance (`below` draws a number below its
/// argument), so that requests which failed together do not come back together.
pub fn pause(spec: &RetrySpec, made: u32, below: impl FnOnce(u64) -> u64) -> Duration {
    let Some(doublings) = made.checked_sub(2) else { return Duration::ZERO };
    let pause = spec.backoff.saturating_mul(1 << doublings.min(6)).min(LONGEST_PAUSE);
    let half = pause / 2;
    let part = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    pause - half + Duration::from_nanos(below(part.saturating_add(1)))
}

fn allowed(rule: RetryRule, method: &Method) -> bool {
    match rule {
        RetryRule::Never => false,
        RetryRule::NothingSent => true,
        RetryRule::Idempotent => method.is_idempotent(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::random;

    fn spec(attempts: u32, on: &[RetryOn]) -> RetrySpec {
        RetrySpec { attempts, on: on.into(), backoff: Duration::ZERO }
    }

    fn attempt(method: &Method, made: u32, body_begun: bool) -> Attempt<'_> {
        Attempt { method, made, body_begun }
    }

    #[test]
    fn a_reset_is_repeated_for_idempotent_methods_alone() {
        let spec = spec(2, &[RetryOn::Reset]);
        assert!(after_error(&ProxyError::Reset, &spec, attempt(&Method::GET, 1, false)));
        assert!(after_error(&ProxyError::Reset, &spec, attempt(&Method::PUT, 1, false)));
        assert!(!after_error(&ProxyError::Reset, &spec, attempt(&Method::POST, 1, false)));
    }

    #[test]
    fn attempts_are_counted_and_a_body_that_began_is_never_sent_again() {
        let spec = spec(2, &[RetryOn::Reset]);
        assert!(!after_error(&ProxyError::Reset, &spec, attempt(&Method::GET, 2, false)));
        assert!(!after_error(&ProxyError::Reset, &spec, attempt(&Method::PUT, 1, true)));
    }

    #[test]
    fn only_what_the_route_names_is_repeated() {
        let spec = spec(3, &[RetryOn::Status(503)]);
        assert!(!after_error(&ProxyError::Timeout, &spec, attempt(&Method::GET, 1, false)));
        assert!(after_status(StatusCode::SERVICE_UNAVAILABLE, &spec, attempt(&Method::GET, 1, false)));
        assert!(!after_status(StatusCode::BAD_GATEWAY, &spec, attempt(&Method::GET, 1, false)));
        assert!(!after_status(StatusCode::SERVICE_UNAVAILABLE, &spec, attempt(&Method::POST, 1, false)));
    }

    #[test]
    fn pauses_are_doubled_and_the_second_attempt_goes_out_at_once() {
        let spec = RetrySpec { backoff: Duration::from_millis(100), ..RetrySpec::default() };
        let longest = |made| pause(&spec, made, |n| n - 1).as_millis();
        assert_eq!([0, 1, 2, 3, 4, 5].map(longest), [0, 0, 100, 200, 400, 800]);
        assert_eq!([8, 9, u32::MAX].map(longest), [5000, 5000, 5000], "and never longer than this");
        let none = RetrySpec { backoff: Duration::ZERO, ..RetrySpec::default() };
        assert_eq!(pause(&none, 9, random::below), Duration::ZERO);
    }

    #[test]
    fn up_to_a_half_of_a_pause_is_left_to_chance() {
        let spec = RetrySpec { backoff: Duration::from_millis(100), ..RetrySpec::default() };
        assert_eq!(pause(&spec, 3, |_| 0), Duration::from_millis(100));
        let drawn: Vec<_> = (0..1000).map(|_| pause(&spec, 3, random::below)).collect();
        assert!(drawn.iter().all(|p| (100..=200).contains(&p.as_millis())));
        for quarter in 0..4 {
            let (from, to) = (100 + quarter * 25, 125 + quarter * 25);
            let there = drawn.iter().filter(|p| (from..to).contains(&p.as_millis())).count();
            assert!(there > 100, "{there} of 1000 from {from} to {to} ms");
        }
    }

    #[test]
    fn a_stale_connection_costs_no_attempt() {
        assert!(after_stale(attempt(&Method::GET, 9, false)));
        assert!(!after_stale(attempt(&Method::POST, 1, false)));
        assert!(!after_stale(attempt(&Method::GET, 1, true)));
    }
}
