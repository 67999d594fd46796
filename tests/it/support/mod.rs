//! What the tests stand on: shared servers, a world of its own for each test, git, and waiting.

mod agent;
mod git;
mod nomad_api;
mod shared;
mod wait;
mod world;

pub(crate) use agent::action;
pub(crate) use git::Git;
pub(crate) use nomad_api::NomadApi;
pub(crate) use shared::{Servers, servers};
pub(crate) use wait::wait_for;
pub(crate) use world::World;
