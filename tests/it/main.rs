//! Every test that needs real servers, in one program: they share one Nomad and one Vault.

mod adoption;
mod commands;
mod doctor;
mod documents;
mod invalid;
mod layering;
mod outcomes;
mod ownership;
mod secrets;
mod servers;
mod support;
mod vault;
