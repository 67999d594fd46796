//! Where the files that decide what a job runs came from, and who signed that.

use super::Rooms;
use crate::{
    approval::signed::Provenance,
    forge::evidence::File,
    ids::{FormulaName, Revision},
    lifecycle::{Job, Origin},
    ops_repo::{self, Entry},
    outcome::result_file::Evidence,
};

/// Why there is no provenance to judge.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfounded {
    /// The ops repo could not be asked.
    #[error(transparent)]
    OpsRepo(#[from] ops_repo::Error),
    /// The branch does not have what the job would run.
    #[error("{0}")]
    Because(String),
}

impl Rooms {
    /// The commits that gave action and formula their content, with their signatures as they are worth now.
    pub(super) async fn provenance(&self, job: &Job) -> Result<Vec<Provenance>, Unfounded> {
        let _permit = self.permits.judgements.acquire().await;
        let mut files = Vec::new();
        for (path, origins) in self.origins(job).await? {
            let mut commits = Vec::new();
            for commit in origins {
                let signature = self.repo.signature(&commit).await?;
                commits.push((commit, signature));
            }
            files.push(Provenance { path, commits });
        }
        Ok(files)
    }

    /// The files with the commits that gave them their content.
    async fn origins(&self, job: &Job) -> Result<Vec<(String, Vec<Revision>)>, Unfounded> {
        let recorded = signed_commits(job);
        if !job.attempts.is_empty() && !recorded.is_empty() {
            // After its launch the file may go or change: what was approved then still is.
            return Ok(recorded);
        }
        let mut origins = Vec::new();
        for file in self.files(job).await? {
            let commits = self.repo.origins(&file.revision, &file.path).await?;
            origins.push((file.path, commits));
        }
        Ok(origins)
    }

    /// The files that decide what a job runs, the action first: as they are on the branch, or, once it was launched,
    /// as they were read.
    pub(super) async fn files(&self, job: &Job) -> Result<Vec<File>, Unfounded> {
        let because = |reason: String| Err(Unfounded::Because(reason));
        let Origin::Action { path, blob, revision, .. } = &job.origin else {
            return because("it has no commit".to_owned());
        };
        let files = |tip: Revision, at: &Revision, formula: Entry| {
            let action = File { path: path.clone(), blob: blob.clone(), revision: tip };
            let blob = formula.content.blob.as_str().to_owned();
            Ok(vec![action, File { path: formula.path, blob, revision: at.clone() }])
        };
        if !job.attempts.is_empty() {
            let formula = self.formula_at(job.work.formula.as_ref(), revision).await?;
            let Some(formula) = formula else { return because(format!("{revision} is gone")) };
            return files(revision.clone(), revision, formula);
        }
        let Some(tip) = self.tip().await? else { return because("the branch is gone".to_owned()) };
        let on_branch = self.repo.files_at(&tip, &[path]).await?;
        if !on_branch.iter().any(|entry| entry.content.blob.as_str() == blob) {
            return because(format!("the branch no longer has {path} as it was read at {revision}"));
        }
        let rewritten = !self.repo.is_ancestor(revision, &tip).await?;
        let at = if rewritten { &tip } else { revision };
        let formula = self.formula_at(job.work.formula.as_ref(), at).await?;
        let Some(formula) = formula else { return because(format!("{at} does not have its formula")) };
        if rewritten && self.formula_at(job.work.formula.as_ref(), revision).await?.as_ref() != Some(&formula)
        {
            return because(format!(
                "the branch was rewritten, and {} is not as it was read at {revision}: commit the action changed, \
                 and it is looked at again",
                formula.path
            ));
        }
        files(tip.clone(), at, formula)
    }

    /// Where the branch stands in the remote, and by now in the mirror too.
    async fn tip(&self) -> Result<Option<Revision>, ops_repo::Error> {
        let tips = self.repo.tips().await?;
        if let Some(tip) = &tips.branch
            && !self.repo.has_commit(tip).await?
        {
            self.repo.fetch(&tips).await?;
        }
        Ok(tips.branch)
    }

    /// The file of a formula at a revision; none where either is not there.
    async fn formula_at(
        &self,
        name: Option<&FormulaName>,
        revision: &Revision,
    ) -> Result<Option<Entry>, ops_repo::Error> {
        let Some(name) = name else { return Ok(None) };
        let folder = self.repo.settings().formulas.trim_end_matches('/');
        let [program, steps] = ["sh", "toml"].map(|ending| format!("{folder}/{name}.{ending}"));
        match self.repo.files_at(revision, &[&program, &steps]).await {
            Ok(entries) => Ok(entries.into_iter().next()),
            Err(ops_repo::Error::UnknownRevision { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The commits that a job's approval rests on, by the files that they gave their content.
fn signed_commits(job: &Job) -> Vec<(String, Vec<Revision>)> {
    let evidence = job.approval.iter().flat_map(|approval| &approval.evidence);
    let commits = evidence.filter_map(|evidence| match evidence {
        Evidence::Signature { path, commit, .. } => Some((path.clone(), vec![Revision::parse(commit).ok()?])),
        Evidence::Merged { .. } | Evidence::Person { .. } | Evidence::Review { .. } => None,
    });
    commits.collect()
}
