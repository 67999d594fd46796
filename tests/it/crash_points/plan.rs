//! Where the agent is killed, and what work brings it there.

use consign::fail_point::CHANGES;

use crate::support::Random;

/// The changes of a start on a store that is new, or on an ops repo that was another store's. They come to pass in this
/// order, and the last four once.
const OF_A_START: [&str; 5] = ["migrated", "take-over begun", "claimed", "recovered", "take-over ended"];
/// So many migrations each store has at least.
const MIGRATIONS: u64 = 11;
/// How many moments there are: before and after each change.
pub(super) const POINTS: usize = CHANGES.len() * 2;

/// One kill.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Which of all it is.
    pub(super) number: u64,
    pub(super) change: &'static str,
    pub(super) point: String,
    /// How often the point is passed before.
    pub(super) passes: u64,
    seed: u64,
}

/// What comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A commit of two actions, of which the second waits for the first.
    Commit,
    /// A submission over HTTP that somebody else approves.
    Submission,
    /// A submission that is cancelled while it works.
    Cancelled,
    /// A submission that fails twice: it runs again by itself, and then because somebody asks for it.
    Retried,
    /// A trigger's event.
    Event,
}

impl Plan {
    /// The kill of that number: all points have their turn before one has its second.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut random = Random::from_seed(seed ^ number.wrapping_mul(0x9e37_79b9));
        let points = u64::try_from(POINTS).unwrap();
        // Coprime to the number of points.
        let index = usize::try_from((number * 37 + seed % points) % points).unwrap();
        let change = CHANGES[index / 2];
        let when = if index % 2 == 0 { "before" } else { "after" };
        let passes = match change {
            "migrated" => random.between(0, MIGRATIONS),
            // The trigger's next event waits until what the first one started has ended.
            "trigger recorded" | "trigger's job noted" => 0,
            _ if OF_A_START.contains(&change) => 0,
            _ => random.between(0, 2),
        };
        Self { number, change, point: format!("{when} {change}"), passes, seed }
    }

    /// Where it comes among the kills in a start, and whether after the change; `None` where it is in none.
    pub(super) fn in_a_start(&self) -> Option<(usize, bool)> {
        let place = OF_A_START.iter().position(|change| *change == self.change)?;
        Some((place, self.point.starts_with("after")))
    }

    /// Whether it needs an ops repo that was another store's.
    pub(super) fn takes_over(&self) -> bool {
        ["take-over begun", "recovered", "take-over ended"].contains(&self.change)
    }

    /// What comes in as the `piece`-th piece of work so that the agent gets there.
    pub(super) fn kind(&self, piece: u64) -> Kind {
        match self.change {
            "submitted" | "submission answered" | "approved" => Kind::Submission,
            "trigger recorded" | "trigger's job noted" => Kind::Event,
            "cancelled" | "child stopped" | "stopped" => Kind::Cancelled,
            "again" | "retried" => Kind::Retried,
            "taken in" | "released" | "variant registered" => Kind::Commit,
            _ => {
                let mut random = Random::from_seed(self.seed ^ (self.number << 8 | piece));
                [Kind::Commit, Kind::Submission, Kind::Cancelled, Kind::Event]
                    [usize::try_from(random.between(0, 4)).unwrap()]
            }
        }
    }
}
