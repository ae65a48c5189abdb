//! Is there never more than one leader, and always one again, whatever clocks and the network do?

use super::*;
use proptest::prelude::*;

/// The API server with one Lease.
#[derive(Default)]
struct Server {
    lease: Option<Record>,
    version: u64,
    writes: u64,
}

impl Server {
    fn ask(&mut self, step: Step, body: &Value) -> Result<Record, Refusal> {
        match (step, &self.lease) {
            (Step::Look, None) | (Step::Claim | Step::Renew, None) => Err(Refusal::Absent),
            (Step::Look, Some(lease)) => Ok(lease.clone()),
            (Step::Create, Some(_)) => Err(Refusal::Conflict),
            (_, Some(lease)) if body["metadata"]["resourceVersion"] != lease.version.as_str() => Err(Refusal::Conflict),
            (_, lease) => {
                let old = lease.clone().unwrap_or_default();
                self.version += 1;
                self.writes += 1;
                let spec = &body["spec"];
                self.lease = Some(Record {
                    version: self.version.to_string(),
                    holder: spec["holderIdentity"].as_str().unwrap().into(),
                    duration: DURATION,
                    transitions: spec["leaseTransitions"].as_i64().unwrap_or(old.transitions),
                    // Two renewals within one microsecond are none.
                    renewed: self.writes.to_string(),
                    ..old
                });
                Ok(self.lease.clone().unwrap())
            }
        }
    }
}

/// Runs the next step of one gate at once.
fn step(gate: &mut Election, server: &mut Server, now: Instant) {
    let (what, _) = gate.next();
    let answer = server.ask(what, &gate.body("l"));
    gate.heard(now, now, answer);
}

/// Runs all gates until `end`, each step at its time.
fn run(gates: &mut [&mut Election], server: &mut Server, mut now: Instant, end: Instant) {
    while now < end {
        for gate in gates.iter_mut() {
            if gate.next().1 <= now {
                step(gate, server, now);
            }
        }
        assert!(gates.iter().filter(|gate| gate.leads(now)).count() <= 1);
        now += Duration::from_millis(50);
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn the_first_gate_leads_and_goes_on_leading() {
    let (mut server, start) = (Server::default(), Instant::now());
    let (mut a, mut b) = (Election::new("a", start), Election::new("b", start));
    run(&mut [&mut a, &mut b], &mut server, start, start + seconds(120));
    assert!(a.leads(start + seconds(120)) && !b.leads(start + seconds(120)));
    assert_eq!(server.lease.unwrap().transitions, 0);
    assert!((24..=32).contains(&server.writes), "renewed every 4 to 5 s: {}", server.writes);
}

#[test]
fn a_dead_leader_is_followed_after_the_duration_and_not_before() {
    let (mut server, start) = (Server::default(), Instant::now());
    let (mut a, mut b) = (Election::new("a", start), Election::new("b", start));
    run(&mut [&mut a, &mut b], &mut server, start, start + seconds(20));
    let died = start + seconds(20);
    run(&mut [&mut b], &mut server, died, died + seconds(9));
    assert!(!b.leads(died + seconds(9)));
    run(&mut [&mut b], &mut server, died + seconds(9), died + seconds(19));
    assert!(b.leads(died + seconds(19)));
    assert_eq!(server.lease.unwrap().transitions, 1);
}

#[test]
fn a_leader_that_steps_down_is_followed_within_two_seconds() {
    let (mut server, start) = (Server::default(), Instant::now());
    let (mut a, mut b) = (Election::new("a", start), Election::new("b", start));
    run(&mut [&mut a, &mut b], &mut server, start, start + seconds(20));
    let end = start + seconds(20);
    let body = a.release(end).unwrap();
    server.ask(Step::Renew, &body).unwrap();
    assert!(b.release(end).is_none(), "a follower has nothing to give back");
    run(&mut [&mut b], &mut server, end, end + seconds(3));
    assert!(b.leads(end + seconds(3)));
}

#[test]
fn a_leader_that_gets_no_answer_stops_leading_before_another_may_begin() {
    let (mut server, start) = (Server::default(), Instant::now());
    let mut a = Election::new("a", start);
    step(&mut a, &mut server, start);
    step(&mut a, &mut server, start);
    assert!(a.leads(start));
    let mut now = start;
    while a.leads(now) {
        now = a.next().1.min(a.until().unwrap());
        a.heard(now, now, Err(Refusal::Failed));
    }
    assert!(now - start < DURATION && now - start >= RENEW);
    assert_eq!(a.next().0, Step::Look);
}

#[test]
fn a_renewal_whose_answer_was_lost_costs_no_leadership() {
    let (mut server, start) = (Server::default(), Instant::now());
    let mut a = Election::new("a", start);
    step(&mut a, &mut server, start);
    step(&mut a, &mut server, start);
    let later = start + seconds(5);
    server.ask(Step::Renew, &a.body("l")).unwrap();
    a.heard(later, later, Err(Refusal::Failed));
    for _ in 0..3 {
        step(&mut a, &mut server, later);
        assert!(a.leads(later));
    }
    assert_eq!(server.lease.unwrap().transitions, 0);
}

#[test]
fn a_lease_that_was_deleted_is_made_again() {
    let (mut server, start) = (Server::default(), Instant::now());
    let mut a = Election::new("a", start);
    run(&mut [&mut a], &mut server, start, start + seconds(7));
    server.lease = None;
    run(&mut [&mut a], &mut server, start + seconds(7), start + seconds(20));
    assert!(a.leads(start + seconds(20)) && server.lease.is_some());
}

proptest! {
    #[test]
    fn there_is_never_more_than_one_leader_whatever_is_lost(losses in prop::collection::vec((0u8..3, 0u8..8), 0..400)) {
        let (mut server, start) = (Server::default(), Instant::now());
        // Each gate's clock is somewhere else: it may compare only what it saw itself.
        let skew = [seconds(0), seconds(3_600), seconds(7)];
        let mut gates: Vec<Election> =
            (0..3).map(|i| Election::new(format!("gate-{i}"), start + skew[i])).collect();
        let mut now = start;
        for (who, fate) in losses {
            let who = usize::from(who);
            now += Duration::from_millis(400);
            let (gate, mine) = (&mut gates[who], now + skew[who]);
            if gate.next().1 > mine {
                continue;
            }
            let (what, body) = (gate.next().0, gate.body("l"));
            let answer = match fate {
                0 => Err(Refusal::Failed),
                1 => server.ask(what, &body).and(Err(Refusal::Failed)),
                _ => server.ask(what, &body),
            };
            gate.heard(mine, mine, answer);
            let leading = gates.iter().zip(skew).filter(|(gate, skew)| gate.leads(now + *skew)).count();
            prop_assert!(leading <= 1);
        }
    }
}
