//! How files came onto the branch, and the heads of pull requests.

use super::{
    Error, OpsRepo,
    git::{Invocation, LOOK_LIMIT, TRANSFER_LIMIT},
};
use crate::ids::Revision;

/// How many commits after an arrival may be the end of the same pull request.
const LATER_LIMIT: usize = 50;

/// The commit of the branch's own line, merges by their first parent, that gave a file its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The commit.
    pub commit: Revision,
    /// What the branch was before; `None` where that is the branch's first commit.
    pub before: Option<Revision>,
    /// The commits after it up to the next merge, the oldest first and fifty at most: commits that were rebased
    /// onto the branch came with those that follow them.
    pub later: Vec<Revision>,
}

impl OpsRepo {
    /// When the file at `path` got the content onto the branch that it has at `tip`; `None` where it has none.
    pub async fn arrival(&self, tip: &Revision, path: &str) -> Result<Option<Arrival>, Error> {
        let operation = "look for the commit that brought a file";
        let arguments = ["rev-list", "--first-parent", "--max-count=1", tip.as_str(), "--", path];
        let text = self.mirror.git.text(Invocation::new(operation, arguments)).await?;
        let Ok(commit) = Revision::parse(text.trim()) else { return Ok(None) };
        // With a path git would give it other parents.
        let older = format!("^{commit}^@");
        let arguments = ["rev-list", "--first-parent", "--parents", "--reverse", tip.as_str(), &older, "--"];
        let text = self.mirror.git.text(Invocation::new(operation, arguments)).await?;
        let mut line = text.lines().map_while(commit_and_parents);
        let parents = line.next().map(|(_, parents)| parents).unwrap_or_default();
        let later = line.take_while(|(_, parents)| parents.len() == 1).map(|(commit, _)| commit);
        let later = later.take(LATER_LIMIT).collect();
        Ok(Some(Arrival { commit, before: parents.into_iter().next(), later }))
    }

    /// The best common ancestor; `None` where there is none.
    pub async fn common_ancestor(&self, one: &Revision, other: &Revision) -> Result<Option<Revision>, Error> {
        let operation = "compare two revisions";
        let arguments = ["merge-base", one.as_str(), other.as_str()];
        let ended = self.mirror.git.run(Invocation::new(operation, arguments)).await?;
        if ended.code == Some(1) {
            return Ok(None);
        }
        Revision::parse(ended.text()?.trim()).map(Some).map_err(|_| Error::Answer { operation })
    }

    /// The head of a pull request as its repository has it, fetched into the mirror as objects alone; `None` where
    /// there is no such pull request. Once it was merged its head stays as it was then.
    pub async fn pull_request_head(&self, number: u64) -> Result<Option<Revision>, Error> {
        let operation = "look at the head of a pull request";
        let name = format!("refs/pull/{number}/head");
        let address = self.settings.remote.address();
        let arguments = ["ls-remote", "--refs", "--", address, &name];
        let text = self.mirror.git.text(Invocation::new(operation, arguments).remote(LOOK_LIMIT)).await?;
        let Some((revision, _)) = text.lines().find_map(|line| line.split_once('\t')) else {
            return Ok(None);
        };
        let revision = Revision::parse(revision).map_err(|_| Error::Answer { operation })?;
        if !self.has_commit(&revision).await? {
            let _guard = self.mirror.exclusive().await;
            let options = ["fetch", "--quiet", "--no-tags", "--no-auto-maintenance", "--no-write-fetch-head"];
            let arguments = [&options[..], &["--no-recurse-submodules", "--", address, &name]].concat();
            let operation = "fetch the head of a pull request";
            self.mirror.git.output(Invocation::new(operation, arguments).remote(TRANSFER_LIMIT)).await?;
            if !self.has_commit(&revision).await? {
                // It was pushed to in between.
                return Err(Error::UnknownRevision { revision });
            }
        }
        Ok(Some(revision))
    }
}

/// Reads `<commit> <parent>…`.
fn commit_and_parents(line: &str) -> Option<(Revision, Vec<Revision>)> {
    let mut ids = line.split(' ').map(|id| Revision::parse(id).ok());
    Some((ids.next()??, ids.collect::<Option<_>>()?))
}
