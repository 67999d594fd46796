//! Where the agent is killed, and what work brings it there.

use consign::fail_point::CHANGES;

use crate::support::Random;

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
    /// A trigger's event.
    Event,
}

impl Plan {
    /// The kill of that number: all points have their turn before one has its second.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut random = Random::from_seed(seed ^ number.wrapping_mul(0x9e37_79b9));
        let points = u64::try_from(POINTS).unwrap();
        // Coprime to the number of points, which is even.
        let index = usize::try_from((number * 37 + seed % points) % points).unwrap();
        let change = CHANGES[index / 2];
        let when = if index % 2 == 0 { "before" } else { "after" };
        Self { number, change, point: format!("{when} {change}"), passes: random.between(0, 2), seed }
    }

    /// What comes in as the `piece`-th piece of work so that the agent gets there.
    pub(super) fn kind(&self, piece: u64) -> Kind {
        match self.change {
            "submitted" | "submission answered" | "approved" => Kind::Submission,
            "trigger recorded" | "trigger's job noted" => Kind::Event,
            "cancelled" | "child stopped" | "stopped" => Kind::Cancelled,
            "taken in" | "released" | "variant registered" => Kind::Commit,
            _ => {
                let mut random = Random::from_seed(self.seed ^ (self.number << 8 | piece));
                [Kind::Commit, Kind::Submission, Kind::Cancelled, Kind::Event]
                    [usize::try_from(random.between(0, 4)).unwrap()]
            }
        }
    }
}
