//! Every test that needs real servers, in one program: they share one Nomad and one Vault.

mod crashes;
mod layering;
mod outcomes;
mod secrets;
mod servers;
mod support;
