//! Following one attempt to its end: what an allocation says, and what that means.
//!
//! `judge` is pure: allocation and report in, ending out. Nomad's status words alone are not
//! believed: an allocation that was killed and replaced comes back as `complete`.

pub mod artifact;
pub mod judge;
pub mod log;
