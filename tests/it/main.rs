//! Every test that needs real servers, in one program: they share one Nomad and one Vault.

mod hooks;
mod layering;
mod outages;
mod outcomes;
mod rewrites;
mod secrets;
mod servers;
mod support;
