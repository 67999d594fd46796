//! Vault, in Vault's own words: one method per thing that consign asks of it.
//!
//! The connection is vaultrs's. Its ready-made requests are not used: they send what is unset as
//! null, which a Vault policy with `allowed_parameters` refuses. Every request goes through
//! [`Vault::request`] instead and carries the given fields only.
//!
//! rustify and vaultrs log each refused request at level ERROR, a 404 that was expected too: the log
//! filter should leave the targets `rustify` and `vaultrs` out.

mod client;
mod error;
mod identity;
mod kv;
pub mod policy;
mod system;
mod token;

pub use client::{Method, Response, Settings, Vault};
pub use error::{Asked, Error, Kind};
pub use identity::{Entity, Group};
pub use kv::Entry;
pub use system::{Health, Mount};
pub use token::TokenFacts;
