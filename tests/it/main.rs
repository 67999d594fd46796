//! Every test that needs real servers, in one program: they share one Nomad and one Vault.

mod documents;
mod layering;
mod servers;
mod support;
