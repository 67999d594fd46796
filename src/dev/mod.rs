//! The development mode: everything on one machine, on real servers.
//!
//! [`servers`] starts Nomad and Vault; the tests start theirs through the same code.

pub mod servers;
mod session;
mod stage;
mod whereabouts;

pub use session::{Error, run};
pub use whereabouts::Whereabouts;
