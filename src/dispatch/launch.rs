//! Registers the base jobs: when absent or changed, never over a job that consign did not register.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::base_job::{self, BaseJob, MARKER};
use crate::nomad;

/// The base jobs that this agent dispatches, ready to register.
#[derive(Debug, Clone)]
pub struct BaseJobs {
    rendered: Arc<BTreeMap<String, base_job::Rendered>>,
}

/// Why a base job cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be rendered for this configuration.
    #[error("the base job {name} cannot be rendered")]
    Render {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: base_job::Error,
    },
    /// Nomad has a job of that name that consign did not register.
    #[error(
        "Nomad has a job {name} that consign did not register: rename or purge it (`nomad job stop -purge {name}`), \
         or use another namespace"
    )]
    Foreign {
        /// Which.
        name: String,
    },
    /// Nomad did not take it.
    #[error("Nomad did not take the base job {name}")]
    Nomad {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: nomad::Error,
    },
}

/// What became of a base job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// It was there, unchanged.
    Unchanged,
    /// It was registered for the first time.
    New,
    /// A changed one was registered.
    Changed,
}

impl BaseJobs {
    /// Renders `jobs` for this configuration.
    pub fn render(jobs: &[BaseJob], settings: &base_job::Settings) -> Result<Self, Error> {
        let mut rendered = BTreeMap::new();
        for job in jobs {
            let text = job
                .render(settings)
                .map_err(|source| Error::Render { name: job.name().to_owned(), source })?;
            rendered.insert(job.name().to_owned(), text);
        }
        Ok(Self { rendered: Arc::new(rendered) })
    }

    /// The Nomad job that is dispatched for the base job `name`; `None` where there is none.
    #[must_use]
    pub fn parent(&self, name: &str) -> Option<String> {
        self.rendered.contains_key(name).then(|| name.to_owned())
    }

    /// Every Nomad job whose children are followed.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.rendered.keys().map(String::as_str)
    }

    /// Says what [`Self::ensure`] would do.
    pub async fn survey(&self, nomad: &nomad::Client) -> Result<Vec<(String, Registered)>, Error> {
        let mut found = Vec::new();
        for (name, rendered) in self.rendered.iter() {
            found.push((name.clone(), state(nomad, name, rendered).await?.0));
        }
        Ok(found)
    }

    /// Registers what is absent or changed.
    pub async fn ensure(&self, nomad: &nomad::Client) -> Result<Vec<(String, Registered)>, Error> {
        let mut done = Vec::new();
        for (name, rendered) in self.rendered.iter() {
            let failed = |source| Error::Nomad { name: name.clone(), source };
            let (registered, index) = state(nomad, name, rendered).await?;
            if registered != Registered::Unchanged {
                let job = nomad.parse(&rendered.hcl).await.map_err(failed)?;
                nomad.register(&with_id(job, name), index).await.map_err(failed)?;
            }
            done.push((name.clone(), registered));
        }
        Ok(done)
    }
}

/// How a base job stands in Nomad, and the modify index of what is there.
async fn state(
    nomad: &nomad::Client,
    name: &str,
    rendered: &base_job::Rendered,
) -> Result<(Registered, u64), Error> {
    let present = nomad.job(name).await.map_err(|source| Error::Nomad { name: name.to_owned(), source })?;
    let Some(job) = present else { return Ok((Registered::New, 0)) };
    let index = job["JobModifyIndex"].as_u64().unwrap_or_default();
    match job["Meta"][MARKER].as_str() {
        None => Err(Error::Foreign { name: name.to_owned() }),
        Some(marker) if marker == rendered.marker && job["Stop"] != true => {
            Ok((Registered::Unchanged, index))
        }
        Some(_) => Ok((Registered::Changed, index)),
    }
}

/// The parsed job under the name of its file.
fn with_id(mut job: Value, name: &str) -> Value {
    job["ID"] = name.into();
    job["Name"] = name.into();
    job
}
