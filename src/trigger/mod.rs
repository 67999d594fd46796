//! Triggers: what starts work by itself.
//!
//! A source (an HTTP request, a watched tree, a schedule, a branch, an issue's label) tells of an event. [`state`] decides what
//! becomes of it: a pure function of the trigger's rules, its state and the time. [`attend`] performs that, puts
//! it on record and follows the run to its end. `docs/design/2026-11-21-triggers.md` gives the reasons.

pub mod access;
pub mod attend;
pub mod case;
pub mod follow;
pub mod globs;
pub mod issues;
pub mod labels;
pub mod ledger;
pub mod schedule;
pub mod settings;
pub mod state;
pub mod view;
pub mod watch;

pub use settings::{Keys, Trigger, Triggers};
