//! Every test that needs real servers, in one program: they share few Nomads and Vaults.

mod adoption;
mod api;
mod artifacts;
mod commands;
mod container;
mod crashes;
mod development;
mod doctor;
mod documents;
mod drivers;
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
mod under_nomad;
mod variants;
mod vault;
