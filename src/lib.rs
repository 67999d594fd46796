//! consign: runs approved work on Nomad from a git repository.
//!
//! Data flows one way: ops repo → action → approval → queue → dispatch → track → outcome → ops repo.
//! `docs/architecture.md` names what flows where.

pub mod action;
pub mod diagnostic;
pub mod dispatch;
pub mod duration;
pub mod formula;
pub mod ids;
pub mod outcome;
