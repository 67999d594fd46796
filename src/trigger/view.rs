//! What is told of a trigger: by the API, by the command line, by `check`.

use jiff::{Timestamp, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    settings::{Source, Trigger},
    state::{Course, Decision, Own, Standing, Wait},
};

/// How many of a schedule's next times are shown.
const NEXT: usize = 3;

/// A trigger as lists have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// What starts it: webhook, watch, schedule, git or forge.
    pub kind: String,
    /// The group that it shares run and cooldown with.
    pub cooldown_group: Option<String>,
    /// Whether it may run, and since when or why not.
    #[serde(flatten)]
    pub check: Check,
    /// Whether its cooldown may be passed over.
    pub allow_force: bool,
    /// The job of the run that goes on; null where none does, or its job is not on record yet.
    pub running: Option<String>,
    /// The event that waits to run.
    pub pending: Option<String>,
    /// What that waits for: debounce, `already_running` or `cooldown_active`.
    pub waits_for: Option<String>,
    /// The next times of its schedule.
    #[schemars(with = "Vec<String>")]
    pub next_runs: Vec<Timestamp>,
    /// How its source stands, such as how a tree is watched; null where there is nothing to say.
    pub source: Option<String>,
}

/// Whether a trigger may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// Whether an event would start a run now.
    pub should_train: bool,
    /// `no_previous_training`, `cooldown_expired`, `cooldown_active_5h` with the hours that are left, rounded up,
    /// or `already_running`.
    pub reason: String,
    /// When the run before ended that the cooldown is counted from.
    #[schemars(with = "Option<String>")]
    pub last_trained: Option<Timestamp>,
    /// How long ago that was.
    pub elapsed_seconds: Option<i64>,
    /// How long the cooldown is.
    pub cooldown_seconds: u64,
    /// From when on it may run; null while a run goes on.
    #[schemars(with = "Option<String>")]
    pub next_allowed: Option<Timestamp>,
}

impl Check {
    /// What a trigger's course allows.
    #[must_use]
    pub fn of(trigger: &Trigger, course: &Course, now: Timestamp) -> Self {
        let mut course = course.clone();
        course.rebase(now);
        let last = trigger.rules.last(&course);
        let standing = trigger.rules.standing(&course, now);
        let expired = last.map_or(now, |last| super::state::later(last, trigger.rules.cooldown));
        let (reason, next_allowed) = match standing {
            Standing::NoPrevious => ("no_previous_training".to_owned(), Some(now)),
            Standing::Expired => ("cooldown_expired".to_owned(), Some(expired)),
            Standing::Active(until) => (format!("cooldown_active_{}h", hours(now, until)), Some(until)),
            Standing::Running => ("already_running".to_owned(), None),
        };
        Self {
            should_train: matches!(standing, Standing::NoPrevious | Standing::Expired),
            reason,
            last_trained: last,
            elapsed_seconds: last.map(|last| now.duration_since(last).as_secs()),
            cooldown_seconds: trigger.rules.cooldown.as_secs(),
            next_allowed: next_allowed.map(to_the_second),
        }
    }

    /// The lines that a script reads: `key=value`, with nothing after `=` where there is no value.
    #[must_use]
    pub fn lines(&self) -> String {
        let time = |at: Option<Timestamp>| at.map(|at| to_the_second(at).to_string()).unwrap_or_default();
        let elapsed = self.elapsed_seconds.map(|seconds| seconds.to_string()).unwrap_or_default();
        format!(
            "should_train={}\nreason={}\nlast_trained={}\nelapsed_seconds={elapsed}\ncooldown_seconds={}\nnext_allowed={}\n",
            self.should_train,
            self.reason,
            time(self.last_trained),
            self.cooldown_seconds,
            time(self.next_allowed),
        )
    }
}

impl Summary {
    /// What lists have of a trigger; `source` says how its source stands.
    #[must_use]
    pub fn of(trigger: &Trigger, own: &Own, course: &Course, source: Option<String>, now: Timestamp) -> Self {
        let run = course.run.as_ref();
        let waits_for = own.pending.as_ref().map(|pending| {
            match trigger.rules.decide(course, pending, now) {
                Decision::Wait(wait) => wait,
                // It is decided in a moment.
                Decision::Run | Decision::Skip(_) => Wait::Debounce(now),
            }
            .as_str()
            .to_owned()
        });
        let next_runs = match &trigger.source {
            Source::Schedule(schedule) => {
                std::iter::successors(schedule.next(now), |at| schedule.next(*at)).take(NEXT).collect()
            }
            _ => Vec::new(),
        };
        Self {
            name: trigger.name.clone(),
            kind: trigger.kind().to_owned(),
            cooldown_group: trigger.group.clone(),
            check: Check::of(trigger, course, now),
            allow_force: trigger.allow_force,
            running: run.and_then(|run| run.job_id).map(|job_id| job_id.to_string()),
            pending: own.pending.as_ref().map(|pending| pending.event.to_string()),
            waits_for,
            next_runs,
            source,
        }
    }
}

/// The hours between two times, rounded up.
fn hours(now: Timestamp, until: Timestamp) -> i64 {
    let left = until.duration_since(now);
    let seconds = left.as_secs() + i64::from(left.subsec_nanos() > 0);
    (seconds + 3599).div_euclid(3600)
}

fn to_the_second(at: Timestamp) -> Timestamp {
    at.round(Unit::Second).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger() -> Trigger {
        let text = "name = \"train\"\nkind = \"schedule\"\ncron = \"0 3 * * 0\"\ncooldown = \"6h\"\n\
                    action = { formula = \"train\" }\n";
        toml::from_str(text).unwrap()
    }

    fn ended(at: &str) -> Course {
        Course { ended_at: Some(at.parse().unwrap()), ..Course::default() }
    }

    #[test]
    fn a_script_reads_what_is_allowed() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let check = |course: &Course| Check::of(&trigger(), course, now).lines();
        assert_eq!(
            check(&Course::default()),
            "should_train=true\nreason=no_previous_training\nlast_trained=\nelapsed_seconds=\n\
             cooldown_seconds=21600\nnext_allowed=2026-11-21T12:00:00Z\n"
        );
        assert_eq!(
            check(&ended("2026-11-21T10:30:00Z")),
            "should_train=false\nreason=cooldown_active_5h\nlast_trained=2026-11-21T10:30:00Z\n\
             elapsed_seconds=5400\ncooldown_seconds=21600\nnext_allowed=2026-11-21T16:30:00Z\n"
        );
        assert!(check(&ended("2026-11-21T06:00:01Z")).contains("reason=cooldown_active_1h\n"));
        assert!(check(&ended("2026-11-21T12:00:00Z")).contains("reason=cooldown_active_6h\n"));
        let expired = check(&ended("2026-11-21T06:00:00Z"));
        assert!(expired.starts_with("should_train=true\nreason=cooldown_expired\n"), "{expired}");
        let run = super::super::state::Run {
            trigger: "train".to_owned(),
            event: ulid::Ulid::nil(),
            by: None,
            content: None,
            job_id: None,
            begun_at: now,
        };
        let running = check(&Course { run: Some(run), ..ended("2026-11-21T06:00:00Z") });
        assert!(
            running.contains("reason=already_running\n") && running.ends_with("next_allowed=\n"),
            "{running}"
        );
    }

    #[test]
    fn the_next_runs_of_a_schedule_are_shown() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let summary = Summary::of(&trigger(), &Own::default(), &Course::default(), None, now);
        let next: Vec<String> = summary.next_runs.iter().map(ToString::to_string).collect();
        assert_eq!(next, ["2026-11-22T03:00:00Z", "2026-11-29T03:00:00Z", "2026-12-06T03:00:00Z"]);
    }
}
