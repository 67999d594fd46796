//! From an approved run to what Nomad is asked for: the base job or a variant of it, and one
//! dispatch.

pub mod base_job;
pub mod launch;
pub mod limits;
pub mod mount;
pub mod needs;
pub mod nodes;
pub mod report;
pub mod request;
pub mod shape;
pub mod variant;
