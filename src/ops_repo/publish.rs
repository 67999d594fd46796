//! Writing: result files, and records of submitted work beside theirs, as one commit on top of the branch.
//!
//! The commit is made by `git fast-import` from the tip's own tree, compared with that tip before it
//! leaves, and pushed on condition that the remote's branch still stands at that tip. So it can
//! neither touch another file nor bring back history that was rewritten meanwhile.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{
    Error, OpsRepo, Published, ResultEntry,
    git::{Ended, Invocation, TRANSFER_LIMIT},
    mirror::BRANCH,
    tips::RESULTS,
};
use crate::{
    action::record::is_record,
    fail_point,
    ids::{DispatchId, Revision},
};

/// How often a push is tried while others move the branch.
const TRIES: u32 = 10;

impl OpsRepo {
    /// Commits the files and pushes the commit. Files that the branch already holds with the same
    /// content are left out; [`Error::Moved`] and outages lose nothing: call again with the same files. Whose claim does
    /// not stand any more writes nothing: a successor answers for its work.
    pub async fn publish(&self, files: &[ResultEntry], subject: &str) -> Result<Published, Error> {
        let _guard = self.mirror.exclusive().await;
        let (branch, mirrored) = match self.separate_results() {
            Some(name) => (name, RESULTS),
            None => (self.settings.branch.as_str(), BRANCH),
        };
        let (mut files, mut refused) = self.sort_out(files);
        let mut base = self.look(mirrored).await?;
        let mut attempt = 0;
        while attempt < TRIES {
            if base.is_none() && mirrored == BRANCH {
                return Err(Error::EmptyRemote { branch: branch.to_owned() });
            }
            if files.is_empty() {
                return Ok(Published { commit: None, refused });
            }
            fail_point::before("result commit");
            let mut commit = self.import(&files, subject, base.as_ref()).await?;
            fail_point::after("result commit");
            if let Some(base) = &base {
                let changes = self.mirror.difference(base, &commit, &[]).await?;
                if changes.is_empty() {
                    return Ok(Published { commit: None, refused });
                }
                let written: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
                let foreign: Vec<String> = changes
                    .into_iter()
                    .filter(|change| !written.contains(change.path.as_str()) || change.after.is_none())
                    .map(|change| change.path)
                    .collect();
                if !foreign.is_empty() {
                    let (blocked, kept): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| {
                        foreign.iter().any(|path| is_within(path, &file.path) || is_within(&file.path, path))
                    });
                    if blocked.is_empty() {
                        return Err(Error::Answer { operation: "write a result commit" });
                    }
                    refused.extend(
                        blocked.into_iter().map(|file| (file.path, "another file stands in its way")),
                    );
                    files = kept;
                    continue;
                }
            }
            if self.settings.signing_key.is_some() {
                commit = self.sign(&commit, subject, base.as_ref()).await?;
            }
            fail_point::before("push");
            let ended = self.push(&commit, branch, base.as_ref()).await?;
            fail_point::after("push");
            if ended.succeeded() {
                let arguments = ["update-ref", mirrored, commit.as_str()];
                self.mirror.git.output(Invocation::new("note the pushed commit", arguments)).await?;
                return Ok(Published { commit: Some(commit), refused });
            }
            if let Some(error) = verdict(ended, branch) {
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(delay(attempt)).await;
            base = self.look(mirrored).await?;
        }
        Err(Error::Moved { branch: branch.to_owned(), tries: TRIES })
    }

    /// Separates what may be written from what may not.
    fn sort_out(&self, files: &[ResultEntry]) -> (Vec<ResultEntry>, Vec<(String, &'static str)>) {
        let (mut good, mut refused) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for file in files {
            match fault(&file.path, &self.settings.actions) {
                Some(reason) => refused.push((file.path.clone(), reason)),
                None if !seen.insert(&file.path) => refused.push((file.path.clone(), "it is given twice")),
                None => good.push(file.clone()),
            }
        }
        (good, refused)
    }

    /// Asks the remote, fetches what is new, and says where a reference of the mirror stands now.
    async fn look(&self, name: &str) -> Result<Option<Revision>, Error> {
        let tips = self.tips().await?;
        self.is_ours(&tips)?;
        let there = if name == RESULTS { &tips.results } else { &tips.branch };
        let [here] = self.mirror.references([name]).await?;
        if here == *there {
            return Ok(here);
        }
        self.fetch_in_turn(&tips).await?;
        let [here] = self.mirror.references([name]).await?;
        Ok(here)
    }

    /// Makes the commit in the mirror, from the tree of `base`.
    async fn import(
        &self,
        files: &[ResultEntry],
        subject: &str,
        base: Option<&Revision>,
    ) -> Result<Revision, Error> {
        let operation = "write a result commit";
        let draft = format!("refs/drafts/{}", DispatchId::new());
        let who = format!(
            "{} <{}> {} +0000",
            self.settings.author_name,
            self.settings.author_email,
            Timestamp::now().as_second()
        );
        let message = message(subject);
        let mut stream = format!(
            "feature done\ncommit {draft}\nmark :1\nauthor {who}\ncommitter {who}\ndata {}\n{message}\n",
            message.len()
        )
        .into_bytes();
        if let Some(base) = base {
            stream.extend_from_slice(format!("from {base}\n").as_bytes());
        }
        for file in files {
            let header = format!("M 100644 inline {}\ndata {}\n", quote(&file.path), file.content.len());
            stream.extend_from_slice(header.as_bytes());
            stream.extend_from_slice(&file.content);
            stream.push(b'\n');
        }
        stream.extend_from_slice(b"get-mark :1\ndone\n");
        let arguments = ["fast-import", "--quiet", "--done", "--date-format=raw"];
        let text = self.mirror.git.text(Invocation::new(operation, arguments).input(stream)).await?;
        self.mirror.git.output(Invocation::new(operation, ["update-ref", "-d", &draft])).await?;
        Revision::parse(text.trim()).map_err(|_| Error::Answer { operation })
    }

    /// The same commit, signed.
    async fn sign(
        &self,
        commit: &Revision,
        subject: &str,
        base: Option<&Revision>,
    ) -> Result<Revision, Error> {
        let Some(key) = &self.settings.signing_key else { return Ok(commit.clone()) };
        let tree = format!("{commit}^{{tree}}");
        let key_setting = format!("user.signingkey={}", key.display());
        let mut arguments =
            vec!["-c", "gpg.format=ssh", "-c", &key_setting, "commit-tree", "-S", &tree, "-F", "-"];
        if let Some(base) = base {
            arguments.extend(["-p", base.as_str()]);
        }
        let operation = "sign a result commit";
        let invocation = Invocation::new(operation, arguments).input(message(subject));
        let ended = self.mirror.git.run(self.authored(invocation, Timestamp::now().as_second())).await?;
        if !ended.succeeded() {
            return Err(Error::Signing { key: key.clone(), stderr: ended.stderr });
        }
        Revision::parse(ended.text()?.trim()).map_err(|_| Error::Answer { operation })
    }

    /// Pushes exactly `commit`, on condition that the branch stands at its parent.
    async fn push(&self, commit: &Revision, branch: &str, base: Option<&Revision>) -> Result<Ended, Error> {
        let lease = format!("--force-with-lease=refs/heads/{branch}:{}", base.map_or("", Revision::as_str));
        let target = format!("{commit}:refs/heads/{branch}");
        let arguments = [
            "push",
            "--porcelain",
            "--no-verify",
            "--no-follow-tags",
            &lease,
            "--",
            self.settings.remote.address(),
            &target,
        ];
        self.mirror.git.run(Invocation::new("push results", arguments).remote(TRANSFER_LIMIT)).await
    }
}

/// What a failed push means; `None` where the branch had moved.
fn verdict(ended: Ended, branch: &str) -> Option<Error> {
    let report = String::from_utf8_lossy(&ended.stdout);
    // Without a report on the reference the remote was not reached, or broke off.
    let Some(line) = report.lines().find(|line| line.starts_with('!')) else { return Some(ended.error()) };
    let moved = [
        "stale info",
        "fetch first",
        "non-fast-forward",
        "cannot lock ref",
        "failed to update ref",
        "incorrect old value",
    ];
    if line.contains("checked out") {
        Some(Error::CheckedOut { branch: branch.to_owned() })
    } else if moved.iter().any(|phrase| line.contains(phrase)) {
        None
    } else {
        let reason = if ended.stderr.is_empty() { line.to_owned() } else { ended.stderr.clone() };
        Some(Error::PushRefused { reference: branch.to_owned(), reason })
    }
}

/// A pause that grows with each try and differs between pushers.
fn delay(attempt: u32) -> Duration {
    let mut random = [0_u8; 1];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).unwrap_or_default();
    Duration::from_millis(u64::from(random[0]) * u64::from(attempt) / 4)
}

fn message(subject: &str) -> String {
    let line: String = subject.chars().filter(|character| !character.is_control()).collect();
    format!("{}\n\n[skip ci]\n", line.trim())
}

/// Whether `path` is `folder` or below it.
fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path as `git fast-import` reads it.
fn quote(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Why nothing may be written at `path`: only result files may, and records of submitted work.
fn fault(path: &str, actions: &str) -> Option<&'static str> {
    let is_git = |part: &str| {
        let part = part.to_ascii_lowercase();
        part == "git~1"
            || part
                .strip_prefix(".git")
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '.', ':']))
    };
    if path.chars().any(char::is_control) {
        Some("its path has control characters")
    } else if path.split('/').any(|part| matches!(part, "" | "." | "..") || is_git(part)) {
        Some("its path has parts that git does not allow")
    } else if !path.ends_with(".result.json") && !is_record(path, actions) {
        Some("it is neither a result nor the record of submitted work")
    } else if !is_within(path, actions) || path == actions {
        Some("its path is not in the actions folder")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_results_and_records_in_the_actions_folder_may_be_written() {
        let record = |folder: &str| format!("{folder}/2026/11/{}.toml", DispatchId::new());
        for good in ["actions/a \"b\"/ö.result.json", &record("actions/api")] {
            assert_eq!(fault(good, "actions"), None, "{good}");
        }
        for bad in [
            "/actions/a.result.json",
            "actions/../a.result.json",
            "actions/a.json",
            "a.result.json",
            "actions/.GIT/a.result.json",
            "actionsx/a.result.json",
            "actions/a\n.result.json",
            "actions//a.result.json",
            "actions/a.toml",
            "actions/api/a.toml",
            "actions/api/../a.toml",
            &record("actions"),
            &record("actions/api/.."),
            &record("formulas/api"),
        ] {
            assert!(fault(bad, "actions").is_some(), "{bad:?}");
        }
    }
}
