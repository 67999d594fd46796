//! Nomad's HTTP API, in Nomad's own words. Nothing here knows what a consign job is.
//!
//! The API version is that of Nomad 1.10.2 and newer. Every reply is read leniently: a field that is
//! missing or null has its zero value, because a newer server may leave one out.

mod acl;
mod client;
mod error;
mod events;
mod files;
mod follow;
mod model;
mod node;

pub use acl::{AclPolicy, AclState, JobBinding};
pub use client::{Client, Settings};
pub use error::{Error, Kind};
pub use events::{Event, EventStream};
pub use files::{FileKind, FileStream, FolderEntry, LogTail};
pub use follow::LogStream;
pub use model::{
    Allocation, Child, Evaluation, TaskEvent, TaskState, client_status, desired_status, placement_reasons,
};
pub use node::{DriverState, HostVolume, Node, NodeDetail, NodeDevices, NodeResources};
