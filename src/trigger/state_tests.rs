//! Six hours pass in no time.

use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules {
    cooldown: Duration::from_hours(6),
    cooldown_on: CooldownOn::End,
    debounce: Duration::from_mins(5),
    max_wait: Duration::from_mins(30),
    overlap: Overlap::Skip,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

/// A trigger by itself, attended as the attendant does it, without effects.
struct Simulated {
    rules: Rules,
    course: Course,
    pending: Option<Pending>,
    runs: Vec<Timestamp>,
    skips: Vec<Skip>,
    events: u128,
}

impl Simulated {
    fn new(rules: Rules) -> Self {
        let (course, pending) = (Course::default(), None);
        Self { rules, course, pending, runs: Vec::new(), skips: Vec::new(), events: 0 }
    }

    fn event(&mut self, forced: bool, now: Timestamp) -> Option<Decision> {
        self.events += 1;
        let arrival = Arrival { event: Ulid(self.events), forced, by: None, content: None };
        self.pending = Some(Rules::arrive(self.pending.as_ref(), arrival, now));
        self.look(now)
    }

    fn look(&mut self, now: Timestamp) -> Option<Decision> {
        let mut pending = self.pending.take()?;
        self.course.rebase(now);
        pending.rebase(now);
        let decision = self.rules.decide(&self.course, &pending, now);
        match decision {
            Decision::Run => {
                assert!(self.course.run.is_none(), "two runs at once");
                self.course.run = Some(pending.run("t", now));
                self.runs.push(now);
            }
            Decision::Skip(skip) => self.skips.push(skip),
            Decision::Wait(wait) => {
                pending.held |= wait == Wait::Run;
                self.pending = Some(pending);
            }
        }
        Some(decision)
    }

    fn end(&mut self, succeeded: bool, now: Timestamp) {
        self.course.end(succeeded, now);
    }
}

#[test]
fn five_saves_give_one_run_and_a_burst_in_the_cooldown_gives_none() {
    let mut trigger = Simulated::new(RULES);
    for second in [0, 60, 120, 180, 240] {
        let until = at(second + 300);
        assert_eq!(trigger.event(false, at(second)), Some(Decision::Wait(Wait::Debounce(until))));
    }
    assert!(matches!(trigger.look(at(539)), Some(Decision::Wait(_))));
    assert_eq!(trigger.look(at(540)), Some(Decision::Run));
    trigger.end(false, at(600));
    let cooled = at(600 + 6 * 3600);
    trigger.event(false, at(700));
    assert_eq!(trigger.look(at(1000)), Some(Decision::Skip(Skip::CooldownActive(cooled))));
    assert_eq!(trigger.event(true, at(1001)), Some(Decision::Run), "a forced one runs at once");
    assert_eq!(trigger.event(true, at(1002)), Some(Decision::Skip(Skip::AlreadyRunning)));
    trigger.end(true, at(1003));
    trigger.event(false, at(1003 + 6 * 3600 - 299));
    assert_eq!(trigger.look(at(1003 + 6 * 3600 + 1)), Some(Decision::Run), "decided when it would run");
}

#[test]
fn unrest_is_not_waited_out_for_ever() {
    let mut trigger = Simulated::new(RULES);
    for minute in 0..29 {
        assert!(matches!(trigger.event(false, at(minute * 60)), Some(Decision::Wait(_))));
    }
    assert_eq!(trigger.event(false, at(30 * 60)), Some(Decision::Run));
}

#[test]
fn a_failed_run_cools_down_unless_only_success_does() {
    for (cooldown_on, standing) in
        [(CooldownOn::End, Standing::Active(at(10 + 6 * 3600))), (CooldownOn::Success, Standing::NoPrevious)]
    {
        let rules = Rules { cooldown_on, debounce: Duration::ZERO, ..RULES };
        let mut trigger = Simulated::new(rules);
        assert_eq!(trigger.event(false, at(0)), Some(Decision::Run));
        assert_eq!(rules.standing(&trigger.course, at(5)), Standing::Running);
        trigger.end(false, at(10));
        assert_eq!(rules.standing(&trigger.course, at(11)), standing);
    }
}

#[test]
fn what_is_queued_runs_after_the_run_and_its_cooldown() {
    let rules =
        Rules { overlap: Overlap::Queue, debounce: Duration::ZERO, max_wait: Duration::ZERO, ..RULES };
    let mut trigger = Simulated::new(rules);
    trigger.event(false, at(0));
    for second in 1..9 {
        assert_eq!(trigger.event(false, at(second)), Some(Decision::Wait(Wait::Run)));
    }
    trigger.end(true, at(10));
    let cooled = at(10 + 6 * 3600);
    assert_eq!(trigger.look(at(11)), Some(Decision::Wait(Wait::Cooldown(cooled))));
    assert_eq!(trigger.look(cooled), Some(Decision::Run));
    assert_eq!(trigger.runs.len(), 2);
    trigger.end(true, at(7 * 3600));
    let skipped = trigger.event(false, at(7 * 3600 + 1));
    assert!(matches!(skipped, Some(Decision::Skip(Skip::CooldownActive(_)))), "nothing held it");
}

#[test]
fn a_clock_that_is_set_does_no_harm() {
    // Back by an hour in the cooldown: it is as long as it always is, from now.
    let mut course = Course { ended_at: Some(at(0)), ..Course::default() };
    course.rebase(at(-3600));
    assert_eq!(RULES.standing(&course, at(-3600)), Standing::Active(at(-3600 + 6 * 3600)));
    // Back by an hour in a debounce: it waits for one debounce.
    let mut trigger = Simulated::new(RULES);
    trigger.event(false, at(0));
    assert_eq!(trigger.look(at(-3600)), Some(Decision::Wait(Wait::Debounce(at(-3600 + 300)))));
    assert_eq!(trigger.look(at(-3300)), Some(Decision::Run));
    // Forward by an hour: the run comes early, and once.
    let mut trigger = Simulated::new(RULES);
    trigger.event(false, at(0));
    assert_eq!(trigger.look(at(3600)), Some(Decision::Run));
    assert_eq!(trigger.look(at(3601)), None);
}

proptest! {
    /// Whatever happens and whatever the clock does, no two runs overlap, nothing waits for ever, and two runs
    /// that nobody forced are a cooldown apart as the clock tells it.
    #[test]
    fn no_two_runs_overlap_and_nothing_waits_for_ever(
        steps in proptest::collection::vec((0_u8..4, -4000_i64..40_000), 1..80),
        queue in any::<bool>(),
        on_success in any::<bool>(),
    ) {
        let overlap = if queue { Overlap::Queue } else { Overlap::Skip };
        let cooldown_on = if on_success { CooldownOn::Success } else { CooldownOn::End };
        let mut trigger = Simulated::new(Rules { cooldown_on, overlap, ..RULES });
        let mut now = 0;
        let mut forward = true;
        let mut ended: Option<i64> = None;
        for (step, seconds) in steps {
            now += seconds;
            forward &= seconds >= 0;
            let before = trigger.runs.len();
            let forced = step == 1 || trigger.pending.as_ref().is_some_and(|pending| pending.forced);
            match step {
                0 | 1 => drop(trigger.event(step == 1, at(now))),
                2 => {
                    if trigger.course.run.is_some() {
                        trigger.end(true, at(now));
                        ended = Some(now);
                    }
                    trigger.look(at(now));
                }
                _ => drop(trigger.look(at(now))),
            }
            if trigger.runs.len() > before && forward && !forced {
                prop_assert!(ended.is_none_or(|end| now - end >= 6 * 3600), "{} after an end", now);
            }
        }
        // From here on the clock goes as it should, and all is quiet.
        if trigger.course.run.is_some() {
            trigger.end(true, at(now));
        }
        trigger.look(at(now));
        trigger.look(at(now + 3600));
        if trigger.course.run.is_some() {
            trigger.end(true, at(now + 3600));
        }
        trigger.look(at(now + 3600 + 6 * 3600));
        prop_assert!(trigger.pending.is_none(), "{:?}", trigger.pending);
    }
}
