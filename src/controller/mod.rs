//! The order of things: the only room that knows which step follows which.
//!
//! One task, the [`driver`], owns every live job. Whatever is heard, from Nomad's event stream, the
//! periodic scan, the ops repo or a clock, only says which job to look at. [`plan`] then decides the
//! next step from the job's record and what was seen of it; [`step`] performs it in a task of its own,
//! commits the record and hands the job back. A job has one slot: while a step is under way no other
//! begins. After a crash the same plan goes on from the records: recovery has no code of its own, but
//! for work whose record was lost with the store (`recover`).
//!
//! What keeps a task from starting twice is not this order but the launch gate: an attempt's one
//! allocation is a row that is committed before the gate is opened for it.

pub mod adopt;
pub mod awake;
pub mod driver;
pub mod health;
mod meet;
pub mod plan;
pub mod prune;
pub mod publish;
pub mod reconcile;
pub mod record;
pub mod recover;
mod scan;
pub mod statuses;
pub mod step;
pub mod stopwatch;
pub mod submit;
pub mod sweep;
pub mod watch;

use jiff::Timestamp;

use crate::{ambient, ids::JobId};

/// The present time, to the millisecond that records keep.
fn now() -> Timestamp {
    let now = ambient::now();
    now.round(jiff::Unit::Millisecond).unwrap_or(now)
}

/// What carries a job's id through every log line about it, in whatever room. It is a span of its own, not of
/// the present one, so that each line has the id once; and of the level that no filter leaves out alone.
fn span(job_id: JobId) -> tracing::Span {
    tracing::error_span!(parent: None, "job", %job_id)
}
