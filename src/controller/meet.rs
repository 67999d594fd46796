//! Meets a child that no live job knows: adopts it, stops it, or lets it be.

use super::{
    adopt::{self, Adoption},
    step::{Error, Rooms},
};
use crate::{
    lifecycle::{Cancellation, Event, Job},
    nomad::Child,
    outcome::Cause,
    store::dispatch_id_of,
};

/// What became of a child.
#[derive(Debug)]
pub(super) enum Met {
    /// It is an ended job's, another agent's, or dead: nothing to do.
    Old,
    /// Nomad does not know it: no longer, or not yet, for it tells of a change a moment before that can be read.
    Absent,
    /// It was stopped, because it looks like one of consign's own and is none.
    Stopped,
    /// It is followed from now on.
    Adopted(Box<Job>),
}

/// Meets a child.
pub(super) async fn meet(rooms: &Rooms, rules: &adopt::Rules, child_id: &str) -> Result<Met, Error> {
    if rooms.store.job_of_child(child_id).await?.is_some() {
        return Ok(Met::Old);
    }
    if let Some(dispatch_id) = dispatch_id_of(child_id)
        && rooms.store.knows_dispatch(dispatch_id).await?
    {
        // A second child of an attempt that is over: its allocation waits at the gate in vain.
        stop(rooms, child_id).await?;
        return Ok(Met::Stopped);
    }
    let Some(child) = rooms.nomad.child(child_id).await? else { return Ok(Met::Absent) };
    if dispatch_id_of(child_id).is_some() || !child.dispatch_idempotency_token.is_empty() {
        if !rooms.owns_repo().await? {
            return Ok(Met::Old);
        }
        stop(rooms, child_id).await?;
        rooms.tell_of_child(
            child_id,
            "stopped",
            "it looks like one of consign's own, but this agent did not dispatch it",
        );
        return Ok(Met::Stopped);
    }
    if child.status == "dead" {
        return Ok(Met::Old);
    }
    let now = super::now();
    let base = rooms.base_jobs.base_of(&child.parent_id).unwrap_or(&child.parent_id);
    let impossible = rooms.base_jobs.impossible(base);
    let job = adopted(&child, adopt::decide(&child, base, impossible, rules), now)?;
    rooms.store.save(&job, "adopted", now).await?;
    rooms.tell(&job, "adopted", child_id);
    Ok(Met::Adopted(Box::new(job)))
}

fn adopted(child: &Child, adoption: Adoption, now: jiff::Timestamp) -> Result<Job, Error> {
    let mut job = Job::adopt(&child.id, &child.parent_id, adoption.note, adoption.work, now);
    match adoption.refused {
        Some(reason) => {
            job.apply(Event::Cancelled(Cancellation { cause: Cause::NotAdopted, reason }), now)?;
        }
        None => job.approved_by = Some("dispatched by hand, as [adopt] allows".to_owned()),
    }
    Ok(job)
}

/// Stops a child and takes every right from its allocations.
pub(super) async fn stop(rooms: &Rooms, child_id: &str) -> Result<(), Error> {
    let allocations = rooms.nomad.job_allocations(child_id).await?;
    rooms.nomad.deregister(child_id).await?;
    for allocation in allocations {
        rooms.grants.withdraw(&allocation.id).await?;
    }
    Ok(())
}
