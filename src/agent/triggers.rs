//! The triggers of the configuration: who may call them, and the sources that tell of events.

use std::collections::{BTreeMap, BTreeSet};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Error, settings::forge_settings};
use crate::{
    config::{self, Config},
    forge,
    telemetry::chain,
    trigger::{
        Trigger,
        access::Access,
        attend::{Handle, times},
        follow, issues,
        labels::Issues,
        settings::Source,
        watch,
    },
};

/// The triggers, and what their callers show.
pub fn read(config: &Config) -> Result<Vec<(Trigger, Access)>, Error> {
    let with_access = |trigger: &Trigger| {
        if let Source::Forge(issues) = &trigger.source
            && !config.forge.contains_key(&issues.forge)
        {
            let problem = format!("trigger {:?}: there is no [forge.{}]", trigger.name, issues.forge);
            return Err(Error::Setting { key: "[[trigger]] forge", problem });
        }
        let access = Access::read(trigger).map_err(|error| Error::Setting {
            key: "[[trigger]] token_file, hmac_file",
            problem: format!("trigger {:?}: cannot use {error}", trigger.name),
        })?;
        Ok((trigger.clone(), access))
    };
    config.trigger.0.iter().map(with_access).collect()
}

/// A client for the issues of each trigger that is by those of a forge, by its name.
pub fn forges(config: &Config) -> Result<BTreeMap<String, forge::Client>, Error> {
    let of_issues = config.trigger.0.iter().filter_map(|trigger| match &trigger.source {
        Source::Forge(issues) => Some((&trigger.name, issues, config.forge.get(&issues.forge)?)),
        _ => None,
    });
    let client = |(name, issues, settings): (&String, &Issues, &config::Forge)| {
        let client = forge::Client::new(&forge_settings(settings, &issues.repository)?);
        let client = client.map_err(|error| Error::Setting {
            key: "[[trigger]] repo",
            problem: format!("trigger {name:?}: {}", chain(&error)),
        })?;
        Ok((name.clone(), client))
    };
    of_issues.map(client).collect()
}

/// Starts whatever tells of events by itself; `forges` are those of [`forges`].
pub fn start_sources(
    config: &Config,
    mut forges: BTreeMap<String, forge::Client>,
    handle: &Handle,
    ending: &CancellationToken,
    tasks: &TaskTracker,
) {
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
            Source::Forge(issues) => {
                let Some(forge) = forges.remove(&name) else { continue };
                let (trigger, issues) = (trigger.clone(), issues.clone());
                let source = issues::Source { trigger, issues, forge, handle };
                tasks.spawn(source.run(ending));
            }
        }
    }
    tasks.spawn_blocking(move || follow::remove_others(&mirrors, &needed));
}
