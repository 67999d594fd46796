//! consign: runs approved work on Nomad from a git repository.
//!
//! Data flows one way: ops repo → action → approval → queue → dispatch → track → outcome → ops repo.
//! `docs/architecture.md` names what flows where.

// The contract suite is part of the integration tests as well, and names the crate as they do.
#[cfg(test)]
extern crate self as consign;

pub mod action;
pub mod agent;
mod ambient;
pub mod approval;
pub mod artifact;
pub mod bootstrap;
pub mod cli;
pub mod client;
pub mod config;
pub mod controller;
pub mod credential;
pub mod dev;
pub mod diagnostic;
pub mod dispatch;
pub mod doctor;
pub mod duration;
pub mod fail_point;
pub mod forge;
pub mod formula;
pub mod grant;
pub mod hexadecimal;
pub mod http;
pub mod ids;
pub mod intake;
pub mod lifecycle;
pub mod metrics;
pub mod nomad;
pub mod ops_repo;
pub mod outcome;
pub mod page;
pub mod program;
pub mod queue;
pub mod retry;
pub mod sample;
pub mod schema;
pub mod secret;
pub mod store;
pub mod table;
pub mod telemetry;
pub mod tokens;
pub mod track;
pub mod trigger;
pub mod validation;
pub mod vault;
pub mod webhook;
