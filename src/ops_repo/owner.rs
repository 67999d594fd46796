//! The claim on the repo: one reference that says which store works for it.

use std::sync::PoisonError;

use super::{
    ClaimError, Error, OpsRepo, Owner,
    git::{Ended, Invocation, TRANSFER_LIMIT},
    tips::REMOTE_OWNER,
};
use crate::{fail_point, ids::Revision};

impl OpsRepo {
    /// Who owns the repo at present, as the remote says.
    pub async fn owner(&self) -> Result<Option<(Revision, Owner)>, Error> {
        let tips = self.tips().await?;
        let Some(revision) = tips.owner.clone() else { return Ok(None) };
        self.fetch(&tips).await?;
        let bytes = self
            .mirror
            .git
            .output(Invocation::new(
                "read the claim on the ops repo",
                ["cat-file", "commit", revision.as_str()],
            ))
            .await?;
        match parse_owner(&bytes) {
            Some(owner) => Ok(Some((revision, owner))),
            None => Err(Error::UnreadableOwner { revision }),
        }
    }

    /// Makes `owner` the owner, if the claim still stands at `expected` (`None`: nobody owns it).
    /// A repetition of a claim that succeeded succeeds.
    pub async fn claim_owner(
        &self,
        owner: &Owner,
        expected: Option<&Revision>,
    ) -> Result<Revision, ClaimError> {
        // A look first: it makes the mirror one of the remote's object format.
        self.fetch(&self.tips().await?).await?;
        let claim = self.write_claim(owner).await?;
        let lease = format!("--force-with-lease={REMOTE_OWNER}:{}", expected.map_or("", Revision::as_str));
        let target = format!("{claim}:{REMOTE_OWNER}");
        let arguments =
            ["push", "--porcelain", "--no-verify", &lease, "--", self.settings.remote.address(), &target];
        let invocation = Invocation::new("claim the ops repo", arguments).remote(TRANSFER_LIMIT);
        fail_point::before("claimed");
        let ended = self.mirror.git.run(invocation).await?;
        fail_point::after("claimed");
        let claim = if ended.succeeded() { Ok(claim) } else { self.claimed(owner, expected, ended).await };
        if let Ok(claim) = &claim {
            self.hold(claim);
        }
        claim
    }

    /// Works under a claim that was made before.
    pub fn hold(&self, claim: &Revision) {
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = Some(claim.clone());
    }

    /// What came of a claim that was refused: it may be there already.
    async fn claimed(
        &self,
        owner: &Owner,
        expected: Option<&Revision>,
        ended: Ended,
    ) -> Result<Revision, ClaimError> {
        match self.owner().await? {
            Some((revision, holder)) if holder == *owner => Ok(revision),
            Some((revision, owner)) if Some(&revision) != expected => {
                Err(ClaimError::Held { revision, owner })
            }
            _ => Err(ClaimError::Failed(ended.error())),
        }
    }

    /// A commit without files or parents whose message is the claim.
    async fn write_claim(&self, owner: &Owner) -> Result<Revision, Error> {
        let operation = "write the claim on the ops repo";
        let tree = Invocation::new(operation, ["hash-object", "-t", "tree", "-w", "--stdin"]).input("");
        let tree = self.mirror.git.text(tree).await?;
        let json = serde_json::to_string(owner).map_err(|_| Error::Answer { operation })?;
        let commit = Invocation::new(operation, ["commit-tree", tree.trim(), "-F", "-"])
            .input(format!("consign owner\n\n{json}\n"));
        let commit = self.mirror.git.text(self.authored(commit, owner.claimed_at.as_second())).await?;
        Revision::parse(commit.trim()).map_err(|_| Error::Answer { operation })
    }

    /// Gives a commit its author and its time in seconds since 1970.
    pub(super) fn authored(&self, invocation: Invocation, seconds: i64) -> Invocation {
        let date = format!("@{seconds} +0000");
        invocation
            .variable("GIT_AUTHOR_NAME", &self.settings.author_name)
            .variable("GIT_AUTHOR_EMAIL", &self.settings.author_email)
            .variable("GIT_AUTHOR_DATE", &date)
            .variable("GIT_COMMITTER_NAME", &self.settings.author_name)
            .variable("GIT_COMMITTER_EMAIL", &self.settings.author_email)
            .variable("GIT_COMMITTER_DATE", &date)
    }
}

/// The claim in a commit's last line.
fn parse_owner(commit: &[u8]) -> Option<Owner> {
    let line = std::str::from_utf8(commit).ok()?.lines().rfind(|line| !line.trim().is_empty())?;
    serde_json::from_str(line).ok()
}
