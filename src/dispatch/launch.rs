//! Registers base jobs and their variants: when absent or changed, never over a job that consign did not
//! register. A variant is the content that its id names, so it is registered and never changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, PoisonError},
};

use serde_json::Value;
use tokio::sync::Mutex;

use super::{
    base_job::{self, BaseJob, Declared, MARKER},
    needs::Volume,
    shape::Shape,
    variant::{self, DIGITS, Parent, VARIANT_OF},
};
use crate::{fail_point, nomad};

/// How many compiled variants are kept. Each takes about as much memory as its text, some 10 KiB.
const COMPILED: usize = 256;

/// The base jobs that this agent dispatches, ready to register.
#[derive(Debug, Clone)]
pub struct BaseJobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    jobs: BTreeMap<String, BaseJob>,
    settings: base_job::Settings,
    plain: BTreeMap<String, Arc<Parent>>,
    /// Variants that were compiled, by base job and shape: most work has one of a few shapes, and each is asked for
    /// several times.
    compiled: std::sync::Mutex<HashMap<(String, String), Arc<Parent>>>,
    /// The variants that are known to stand in Nomad. Held while one is registered or stopped.
    registered: Mutex<BTreeSet<String>>,
}

/// Why a base job or a variant cannot be registered.
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
    /// Nomad finds it wrong.
    #[error("Nomad does not take a job of this shape: {}", problems.join("; "))]
    Refused {
        /// Which.
        name: String,
        /// Nomad's own words.
        problems: Vec<String>,
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
        let mut plain = BTreeMap::new();
        for job in jobs {
            let parent = variant::compile(job, settings, &Shape::default())
                .map_err(|source| Error::Render { name: job.name().to_owned(), source })?;
            plain.insert(job.name().to_owned(), Arc::new(parent));
        }
        let jobs = jobs.iter().map(|job| (job.name().to_owned(), job.clone())).collect();
        let settings = settings.clone();
        let inner = Inner {
            jobs,
            settings,
            plain,
            compiled: std::sync::Mutex::default(),
            registered: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the base job `name` declares; nothing where there is no such base job.
    #[must_use]
    pub fn declared(&self, name: &str) -> Declared {
        self.inner.jobs.get(name).map(BaseJob::declared).cloned().unwrap_or_default()
    }

    /// What the base job `name` itself needs and no cluster could give, in words.
    #[must_use]
    pub fn impossible(&self, name: &str) -> Option<String> {
        self.inner.plain.get(name)?.needs.impossible().map(|(_, why)| why)
    }

    /// The Nomad job that is dispatched for the base job `name` in this shape; `None` where there is no such
    /// base job.
    pub fn parent(&self, name: &str, shape: &Shape) -> Result<Option<Arc<Parent>>, base_job::Error> {
        if shape.is_plain() {
            return Ok(self.inner.plain.get(name).cloned());
        }
        let Some(job) = self.inner.jobs.get(name) else { return Ok(None) };
        let key = (name.to_owned(), shape.canonical());
        let compiled = || self.inner.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parent) = compiled().get(&key) {
            return Ok(Some(Arc::clone(parent)));
        }
        let parent = Arc::new(variant::compile(job, &self.inner.settings, shape)?);
        let mut compiled = compiled();
        if compiled.len() >= COMPILED {
            compiled.clear();
        }
        compiled.insert(key, Arc::clone(&parent));
        Ok(Some(parent))
    }

    /// The names of the base jobs. Their children are followed, and those of their variants.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.plain.keys().map(String::as_str)
    }

    /// The host volumes that the base jobs themselves mount, whatever actions ask for.
    pub fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.inner.plain.values().flat_map(|parent| &parent.needs.volumes)
    }

    /// The base job that a Nomad job is, or is a variant of.
    #[must_use]
    pub fn base_of<'id>(&self, parent: &'id str) -> Option<&'id str> {
        let known = |name: &&str| self.inner.plain.contains_key(*name);
        Some(parent).filter(known).or_else(|| variant::base_of(parent).filter(known))
    }

    /// Whether a Nomad job is a child of a base job or a variant.
    #[must_use]
    pub fn is_child(&self, id: &str) -> bool {
        id.split_once("/dispatch-").is_some_and(|(parent, _)| self.base_of(parent).is_some())
    }

    /// Says what [`Self::ensure`] would do.
    pub async fn survey(&self, nomad: &nomad::Client) -> Result<Vec<(String, Registered)>, Error> {
        let mut found = Vec::new();
        for (name, parent) in &self.inner.plain {
            found.push((name.clone(), state(nomad, parent).await?.0));
        }
        Ok(found)
    }

    /// Registers the base jobs that are absent or changed.
    pub async fn ensure(&self, nomad: &nomad::Client) -> Result<Vec<(String, Registered)>, Error> {
        let mut done = Vec::new();
        for (name, parent) in &self.inner.plain {
            done.push((name.clone(), register(nomad, parent).await?));
        }
        Ok(done)
    }

    /// Registers a variant where it is absent or stopped. It is looked for once; after that it counts as there until
    /// [`Self::forget`].
    pub async fn ensure_variant(&self, nomad: &nomad::Client, parent: &Parent) -> Result<(), Error> {
        let mut registered = self.inner.registered.lock().await;
        if !registered.contains(&parent.id) {
            fail_point::before("variant registered");
            register(nomad, parent).await?;
            fail_point::after("variant registered");
            registered.insert(parent.id.clone());
        }
        Ok(())
    }

    /// A variant may not be there after all.
    pub async fn forget(&self, id: &str) {
        self.inner.registered.lock().await.remove(id);
    }

    /// Stops a variant, unless `in_use` says meanwhile that it is needed; gives whether it is gone. Nomad
    /// collects what is stopped, so that the agent needs no right to purge. A job that consign did not
    /// register stays.
    pub async fn stop_variant<E: From<nomad::Error>>(
        &self,
        nomad: &nomad::Client,
        id: &str,
        in_use: impl AsyncFnOnce() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let mut registered = self.inner.registered.lock().await;
        if in_use().await? {
            return Ok(false);
        }
        if nomad.job(id).await?.is_some_and(|job| is_variant(&job["Meta"]) && !is_stopped(&job)) {
            nomad.deregister(id).await?;
        }
        registered.remove(id);
        Ok(true)
    }
}

/// Whether a job's meta says that consign registered it as a variant.
fn is_variant(meta: &Value) -> bool {
    meta[MARKER].is_string() && meta[VARIANT_OF].is_string()
}

/// Whether a job in its JSON form was stopped: nothing can be dispatched from it, until it is registered again.
#[must_use]
pub fn is_stopped(job: &Value) -> bool {
    job["Stop"] == true
}

/// The regular expression of the ids of a base job's children, and of its variants' children.
#[must_use]
pub fn children_pattern(base: &str) -> String {
    format!("^{}(-[0-9a-f]{{{DIGITS}}})?/dispatch-", plain(base))
}

/// The regular expression of the ids of a base job's variants.
#[must_use]
pub fn variants_pattern(base: &str) -> String {
    format!("^{}-[0-9a-f]{{{DIGITS}}}$", plain(base))
}

/// A base job's name as a regular expression; of what a name may hold only the dot means something there.
fn plain(name: &str) -> String {
    name.replace('.', "[.]")
}

async fn register(nomad: &nomad::Client, parent: &Parent) -> Result<Registered, Error> {
    let failed = |source| Error::Nomad { name: parent.id.clone(), source };
    let (registered, index) = state(nomad, parent).await?;
    if registered != Registered::Unchanged {
        let job = with_id(nomad.parse(&parent.rendered.hcl).await.map_err(failed)?, &parent.id);
        let problems = nomad.validate(&job).await.map_err(failed)?;
        if !problems.is_empty() {
            return Err(Error::Refused { name: parent.id.clone(), problems });
        }
        nomad.register(&job, index).await.map_err(failed)?;
    }
    Ok(registered)
}

/// How a job stands in Nomad, and the modify index of what is there.
async fn state(nomad: &nomad::Client, parent: &Parent) -> Result<(Registered, u64), Error> {
    let name = &parent.id;
    let present = nomad.job(name).await.map_err(|source| Error::Nomad { name: name.clone(), source })?;
    let Some(job) = present else { return Ok((Registered::New, 0)) };
    let index = job["JobModifyIndex"].as_u64().unwrap_or_default();
    let marker = job["Meta"][MARKER].as_str();
    let same = marker == Some(parent.rendered.marker.as_str());
    // Whatever else a variant's id names was not registered by consign.
    if marker.is_none() || parent.is_variant() && !(same && is_variant(&job["Meta"])) {
        return Err(Error::Foreign { name: name.clone() });
    }
    let unchanged = same && !is_stopped(&job);
    Ok((if unchanged { Registered::Unchanged } else { Registered::Changed }, index))
}

/// The parsed job under the name of its file.
fn with_id(mut job: Value, name: &str) -> Value {
    job["ID"] = name.into();
    job["Name"] = name.into();
    job
}
