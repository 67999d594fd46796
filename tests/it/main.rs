//! Every test that needs real servers, in one program: they share one Nomad and one Vault.

mod adoption;
mod artifacts;
mod commands;
mod crashes;
mod development;
mod doctor;
mod documents;
mod hooks;
mod invalid;
mod layering;
mod mounts;
mod outages;
mod outcomes;
mod ownership;
mod queue;
mod remotes;
mod rewrites;
mod secrets;
mod servers;
mod support;
mod training;
mod variants;
mod vault;
