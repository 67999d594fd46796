//! What the agent holds in memory, its tokens above all, stays there.

use rustix::{
    io::Result,
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
};

/// Keeps core dumps from being written, of this process and of what it starts, and other processes of the same user
/// from reading this one's memory and environment, or tracing it.
pub(super) fn close() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum })
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn neither_a_core_dump_nor_another_process_shows_the_memory() {
        close().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
    }
}
