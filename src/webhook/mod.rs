//! Webhooks out: receivers are told of each change of a job's phase.
//!
//! A change is put in the store's outbox by the transaction that records it, so a crash loses none. [`deliver`]
//! sends what is there, in order for each job and URL, and no job waits for it. What is said ([`Body`]), how it
//! is signed ([`sign`], [`verify`]), where it may go ([`Policy`]) and when ([`pause_after`]) is decided here.

mod body;
pub mod deliver;
mod policy;
pub mod resolve;
mod schedule;
mod signature;

pub use body::Body;
pub use policy::{Kind, Policy, Refused, origin};
pub use schedule::{REQUESTS, pause_after};
pub use signature::{HEADER, sign, verify};

pub(crate) use signature::is_hmac;
