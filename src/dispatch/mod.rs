//! From an approved run to what Nomad is asked for: the base job and one dispatch of it.

pub mod base_job;
pub mod launch;
pub mod report;
pub mod request;
