//! Which of a task's files are kept, and what is said about those that are not.
//!
//! Everything here is decided from lists of names and sizes: `track::artifact` asks Nomad for them,
//! fetches what was chosen and keeps it. Names come from the task, so none is trusted.

pub mod content_type;
pub mod described;
pub mod glob;
pub mod name;
pub mod remark;
pub mod selection;

pub use described::{Described, INLINE_LIMIT, INLINE_TOTAL};
pub use glob::Globs;
pub use remark::{Kind, Remarks};
pub use selection::{Chosen, Entry, EntryKind, Selection};

/// How much of one job is kept, and how far it is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest file, in bytes.
    pub size: u64,
    /// All files of one job together, in bytes.
    pub total: u64,
    /// The most files of one job.
    pub count: usize,
}

/// How many folders deep the working directory is searched.
pub const DEPTH: usize = 32;
/// How many entries of folders are looked at for one job.
pub const ENTRIES: usize = 20_000;
