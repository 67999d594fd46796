//! The triggers of the configuration: who may call them, and the sources that tell of events.

use std::collections::BTreeSet;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Error;
use crate::{
    config::Config,
    trigger::{
        Trigger,
        access::Access,
        attend::{Handle, times},
        follow,
        settings::Source,
        watch,
    },
};

/// The triggers, and what their callers show.
pub fn read(config: &Config) -> Result<Vec<(Trigger, Access)>, Error> {
    let with_access = |trigger: &Trigger| {
        let access = Access::read(trigger).map_err(|error| Error::Setting {
            key: "[[trigger]] token_file, hmac_file",
            problem: format!("trigger {:?}: cannot use {error}", trigger.name),
        })?;
        Ok((trigger.clone(), access))
    };
    config.trigger.0.iter().map(with_access).collect()
}

/// Starts whatever tells of events by itself.
pub fn start_sources(config: &Config, handle: &Handle, ending: &CancellationToken, tasks: &TaskTracker) {
    let mirrors = config.store.path.join("mirrors");
    let mut needed = BTreeSet::new();
    for trigger in &config.trigger.0 {
        let (name, handle, ending) = (trigger.name.clone(), handle.clone(), ending.clone());
        match &trigger.source {
            Source::Webhook(_) => {}
            Source::Schedule(schedule) => {
                tasks.spawn(times::run(name, schedule.clone(), handle, ending));
            }
            Source::Watch(watch) => {
                tasks.spawn(watch::run(name, watch.clone(), handle, ending));
            }
            Source::Git(git) => {
                let mirror = follow::mirror(&mirrors, &name, git);
                needed.insert(mirror.clone());
                tasks.spawn(follow::run(name, git.clone(), mirror, handle, ending));
            }
        }
    }
    tasks.spawn_blocking(move || follow::remove_others(&mirrors, &needed));
}
