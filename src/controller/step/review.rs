//! Approval by a reviewed pull request: asks the forge, and says what it said.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{super::now, Error, Rooms, provenance::Unfounded};
use crate::{
    approval::{Decision, Need},
    forge::{
        self,
        evidence::{self, Found},
    },
    lifecycle::{Event, Job},
    outcome::result_file::{Approval, Evidence},
    telemetry::chain,
};

/// The forges that review pull requests, by name.
pub type Forges = BTreeMap<String, Arc<forge::Client>>;

/// How soon a forge is asked again at the earliest, where no webhook tells of a review.
const SOONEST: Duration = Duration::from_secs(5);
/// How late it is asked again at the latest.
const LATEST: Duration = Duration::from_mins(10);
/// How late at the latest where it is not for people to do something about pull requests: the token lacks a right.
const RIGHTS: Duration = Duration::from_mins(1);

impl Rooms {
    /// Decides about a job whose action and formula need approved pull requests.
    ///
    /// A forge or an ops repo that does not answer is an error, with the reason on record: nothing is approved by it.
    pub(super) async fn reviewed(
        &self,
        job: &mut Job,
        need: Need,
        digest: String,
    ) -> Result<Decision, Error> {
        let waiting = |reason: String, again| {
            Ok(Decision::Waiting {
                reason: format!("its approval, {}: {reason}", need.rule),
                again: Some(again),
            })
        };
        let forge = match selected(&self.forges, need.review.forge.as_deref()) {
            Ok(forge) => forge,
            Err(reason) => return waiting(reason, LATEST),
        };
        let _permit = self.permits.reviews.acquire().await;
        let files = match self.files(job).await {
            Ok(files) => files,
            // It is heard of where the branch gets another.
            Err(Unfounded::Because(reason)) => return waiting(reason, LATEST),
            Err(Unfounded::OpsRepo(error)) => return self.unanswered(job, &need, digest, error.into()).await,
        };
        match evidence::reviewed(forge, &self.repo, &files, &need.review).await {
            Ok(Found::Approved(approved)) => {
                let mut by: Vec<String> = approved.iter().flat_map(|pull| pull.by.clone()).collect();
                by.sort_unstable();
                by.dedup();
                let evidence = approved
                    .into_iter()
                    .map(|pull| Evidence::Review { url: pull.url, head: pull.head.to_string(), by: pull.by })
                    .collect();
                Ok(Decision::Approved(Approval { rule: need.rule, by, digest, evidence }))
            }
            Ok(Found::Refused(reason)) => waiting(reason, pause(job.submitted_at, now())),
            Err(evidence::Error::Forge(error)) if !error.is_temporary() => waiting(chain(&error), RIGHTS),
            Err(evidence::Error::Forge(error)) => self.unanswered(job, &need, digest, error.into()).await,
            Err(evidence::Error::OpsRepo(error)) => self.unanswered(job, &need, digest, error.into()).await,
        }
    }

    /// Puts on record that somebody who has to be asked does not answer; the error has it tried again.
    async fn unanswered(
        &self,
        job: &mut Job,
        need: &Need,
        digest: String,
        error: Error,
    ) -> Result<Decision, Error> {
        let reason = format!("its approval, {}: nothing is known for now: {}", need.rule, chain(&error));
        if job.waits_for.as_ref() != Some(&reason) {
            self.record(job, Event::Unapproved { reason, digest }).await?;
        }
        Err(error)
    }
}

/// The forge of this name, or the only one.
fn selected<'forges>(forges: &'forges Forges, name: Option<&str>) -> Result<&'forges forge::Client, String> {
    let found = match name {
        Some(name) => forges.get(name).ok_or_else(|| format!("there is no [forge.{name}]")),
        None if forges.len() > 1 => {
            Err("there are several forges: name one with `forge` in a rule".to_owned())
        }
        None => forges.values().next().ok_or_else(|| {
            "no forge is configured: add a section [forge.<name>], or change the approval rules".to_owned()
        }),
    };
    found.map(AsRef::as_ref)
}

/// How long after a look the next one is taken: a quarter of the time that the job has waited so far.
fn pause(since: Timestamp, now: Timestamp) -> Duration {
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    (waited / 4).clamp(SOONEST, LATEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_longer_is_looked_at_less_often() {
        let begun = Timestamp::UNIX_EPOCH;
        let after = |seconds| pause(begun, begun + jiff::SignedDuration::from_secs(seconds));
        assert_eq!(after(-5), SOONEST);
        assert_eq!(after(0), SOONEST);
        assert_eq!(after(400), Duration::from_secs(100));
        assert_eq!(after(1_000_000), LATEST);
    }

    #[test]
    fn a_rule_names_a_forge_unless_there_is_one_alone() {
        let client = || {
            let settings = forge::Settings {
                kind: forge::Kind::GitHub,
                url: String::new(),
                repository: "acme/actions".to_owned(),
                token: crate::credential::Credential::default(),
                ca_cert: None,
            };
            Arc::new(forge::Client::new(&settings).unwrap())
        };
        let mut forges = Forges::new();
        assert!(selected(&forges, None).unwrap_err().contains("no forge is configured"));
        forges.insert("one".to_owned(), client());
        assert!(selected(&forges, None).is_ok() && selected(&forges, Some("one")).is_ok());
        assert!(selected(&forges, Some("two")).unwrap_err().contains("[forge.two]"));
        forges.insert("two".to_owned(), client());
        assert!(selected(&forges, None).unwrap_err().contains("several"));
    }
}
