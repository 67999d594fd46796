//! What of the remote an agent follows: the branch of the actions, the claim, and the branch of the results.

use std::sync::{Mutex, PoisonError};

use super::{
    Error, OpsRepo, Settings, Tips,
    mirror::{BRANCH, Followed, Mirror},
};
use crate::ids::Revision;

/// Where the remote's results branch stands in the mirror.
pub(super) const RESULTS: &str = "refs/mirror/results";
/// Where the claim stands in the mirror.
const OWNER: &str = "refs/mirror/owner";
/// Where the claim stands in the remote.
pub(super) const REMOTE_OWNER: &str = "refs/consign/owner";

impl OpsRepo {
    /// Opens the mirror, and makes it where it is absent or damaged. The remote is not contacted.
    pub async fn open(settings: Settings) -> Result<Self, Error> {
        check(&settings)?;
        let mirror = Mirror::open(settings.remote.clone(), &settings.mirror).await?;
        for branch in std::iter::once(&settings.branch).chain(&settings.results_branch) {
            mirror.check_branch(branch).await?;
        }
        Ok(Self { settings, mirror, claim: Mutex::default() })
    }

    /// Where the remote's references stand, in one question to it.
    pub async fn tips(&self) -> Result<Tips, Error> {
        let (branch, results) = self.sources();
        let names = [Some(branch.as_str()), Some(REMOTE_OWNER), results.as_deref()];
        let mut seen = self.mirror.look(&names.into_iter().flatten().collect::<Vec<_>>()).await?;
        Ok(Tips {
            branch: seen.remove(&branch),
            owner: seen.remove(REMOTE_OWNER),
            results: results.and_then(|results| seen.remove(&results)),
        })
    }

    /// Refuses to go on where the claim that it is worked under does not stand any more: [`Error::Superseded`].
    pub fn is_ours(&self, tips: &Tips) -> Result<(), Error> {
        let claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*claim, &tips.owner) {
            (None, _) => Ok(()),
            (Some(claim), Some(owner)) if claim == owner => Ok(()),
            // To git an empty page of some proxy's is a repository without references: no word about the claim.
            (Some(_), None) if tips.branch.is_none() => {
                Err(Error::Answer { operation: "read the claim on the ops repo" })
            }
            _ => Err(Error::Superseded),
        }
    }

    /// Brings the mirror up to date with what [`Self::tips`] saw, or newer. A damaged mirror is made
    /// anew on the way.
    pub async fn fetch(&self, tips: &Tips) -> Result<(), Error> {
        let (branch, results) = self.sources();
        self.mirror.fetch(&followed(tips, &branch, results.as_deref())).await
    }

    /// Brings the references that `known` has up to date without a question where they stand, and says where they
    /// stand then. It fails where one of them is gone, and does not see a results branch that is new.
    pub async fn refresh(&self, known: &Tips) -> Result<Tips, Error> {
        let (branch, results) = self.sources();
        let there: Vec<Followed<'_>> = followed(known, &branch, results.as_deref())
            .into_iter()
            .filter(|one| one.tip.is_some())
            .collect();
        let ((), fetched) = tokio::join!(self.mirror.reader.prepare(), self.mirror.fetch(&there));
        fetched?;
        let [branch, owner, results] = self.mirror.references([BRANCH, OWNER, RESULTS]).await?;
        // What was not asked for may stand in the mirror from an earlier day.
        let asked = |there: Option<Revision>, known: &Option<Revision>| there.filter(|_| known.is_some());
        Ok(Tips {
            branch: asked(branch, &known.branch),
            owner: asked(owner, &known.owner),
            results: asked(results, &known.results),
        })
    }

    /// As [`Self::fetch`], for a caller that holds the writer's turn.
    pub(super) async fn fetch_in_turn(&self, tips: &Tips) -> Result<(), Error> {
        let (branch, results) = self.sources();
        self.mirror.fetch_in_turn(&followed(tips, &branch, results.as_deref())).await
    }

    /// Whether something in the mirror could not be read: the next [`Self::fetch`] makes it anew.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.mirror.is_damaged()
    }

    /// Takes note that something in the mirror could not be read.
    pub fn suspect(&self) {
        self.mirror.suspect();
    }

    /// Keeps `revision` in the mirror, also when the remote's history is rewritten; it replaces the one kept before.
    pub async fn pin(&self, revision: &Revision) -> Result<(), Error> {
        self.mirror.pin(revision).await
    }

    /// Packs the mirror's loose objects and drops what nothing refers to for two weeks. It holds up
    /// fetches and pushes meanwhile, seconds in a large repo.
    pub async fn collect_garbage(&self) -> Result<(), Error> {
        self.mirror.collect_garbage().await
    }

    /// Whether the mirror holds the commit.
    pub async fn has_commit(&self, revision: &Revision) -> Result<bool, Error> {
        self.mirror.has_commit(revision).await
    }

    /// The branch of its own that results go to.
    pub(super) fn separate_results(&self) -> Option<&str> {
        self.settings.results_branch.as_deref().filter(|name| *name != self.settings.branch)
    }

    /// The names of the branch, and of the separate branch of the results.
    fn sources(&self) -> (String, Option<String>) {
        let name = |branch: &str| format!("refs/heads/{branch}");
        (name(&self.settings.branch), self.separate_results().map(name))
    }
}

fn followed<'tips>(
    tips: &'tips Tips,
    branch: &'tips str,
    results: Option<&'tips str>,
) -> [Followed<'tips>; 3] {
    [
        Followed { source: branch, target: BRANCH, tip: tips.branch.as_ref() },
        Followed { source: REMOTE_OWNER, target: OWNER, tip: tips.owner.as_ref() },
        Followed { source: results.unwrap_or_default(), target: RESULTS, tip: tips.results.as_ref() },
    ]
}

/// Refuses settings that git would misread, and keys that cannot be read.
fn check(settings: &Settings) -> Result<(), Error> {
    for (setting, folder) in
        [("the actions folder", &settings.actions), ("the formulas folder", &settings.formulas)]
    {
        let legal = folder.split('/').all(|part| !matches!(part, "" | "." | ".."))
            && !folder.starts_with('-')
            && !folder.chars().any(char::is_control);
        if !legal {
            let reason = "it has to be a relative path without empty, `.` or `..` parts";
            return Err(Error::Setting { setting, value: folder.clone(), reason });
        }
    }
    for (setting, text) in
        [("the author's name", &settings.author_name), ("the author's address", &settings.author_email)]
    {
        if text.trim().is_empty()
            || text.chars().any(|character| character.is_control() || "<>".contains(character))
        {
            let reason = "it has to be a text without `<`, `>` and control characters";
            return Err(Error::Setting { setting, value: text.clone(), reason });
        }
    }
    settings.keys.contents().map(drop)
}
