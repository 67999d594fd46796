//! What signatures amount to: pure.

use super::{Decision, Need, fits};
use crate::{
    ids::Revision,
    outcome::result_file::{Approval, Evidence},
};

/// What a commit's signature is worth at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// The commit has none.
    Absent,
    /// It verifies, and its key is allowed now and was so when the commit says that it was made.
    Good {
        /// Whose key it is: the principals of the allowed signers that it fits, or user id, address and
        /// fingerprints of an OpenPGP key. The first is for people.
        names: Vec<String>,
        /// The key's fingerprint.
        key: String,
    },
    /// It verifies, and nobody is allowed to sign with its key.
    Unknown {
        /// The key's fingerprint.
        key: String,
    },
    /// Its key or certificate has expired, or is not valid yet.
    Expired {
        /// The key's fingerprint.
        key: String,
    },
    /// Its key was revoked.
    Revoked,
    /// It does not verify, or it is not for git commits.
    Bad,
    /// It is of a kind that is not taken.
    Foreign,
}

/// The commits that gave one file its content, with their signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The file.
    pub path: String,
    /// The commits.
    pub commits: Vec<(Revision, Signature)>,
}

/// Decides by the commits that gave the action and its formula their content: each has to be signed by
/// somebody whom the rule allows.
#[must_use]
pub fn judge(need: Need, files: &[Provenance], digest: String) -> Decision {
    if files.is_empty() {
        return waiting(&need, "there is no commit to look at");
    }
    let mut by = Vec::new();
    let mut evidence = Vec::new();
    for Provenance { path, commits } in files {
        if commits.is_empty() {
            return waiting(&need, &format!("which commit gave {path} its content cannot be told"));
        }
        for (commit, signature) in commits {
            let (signer, key) = match signer(&need, signature) {
                Ok(signer) => signer,
                Err(fault) => {
                    return waiting(
                        &need,
                        &format!("the commit {commit}, which gave {path} its content, {fault}"),
                    );
                }
            };
            if !by.contains(&signer) {
                by.push(signer.clone());
            }
            evidence.push(Evidence::Signature {
                path: path.clone(),
                commit: commit.to_string(),
                signer,
                key,
            });
        }
    }
    Decision::Approved(Approval { rule: need.rule, by, digest, evidence })
}

fn waiting(need: &Need, fault: &str) -> Decision {
    Decision::waiting(format!(
        "its approval, {}: {fault}; let an allowed signer commit a change to it with a signature (a comment is \
         enough), and where it is the formula, then one to the action, so that both are read again",
        need.rule
    ))
}

/// Who signed and with which key; or what is wrong with it.
fn signer(need: &Need, signature: &Signature) -> Result<(String, String), String> {
    match signature {
        Signature::Good { names, key } => {
            let allowed = |name: &&String| {
                need.signers
                    .as_ref()
                    .is_none_or(|patterns| patterns.iter().any(|pattern| fits(pattern, name)))
            };
            match names.iter().find(allowed) {
                Some(name) => Ok((name.clone(), key.clone())),
                None => Err(format!(
                    "is signed by {}, who is not among those that the rule names",
                    names.first().unwrap_or(key)
                )),
            }
        }
        Signature::Absent => Err("is not signed".to_owned()),
        Signature::Unknown { key } => {
            Err(format!("is signed with the key {key}, which is not among the allowed signers"))
        }
        Signature::Expired { key } => {
            Err(format!("is signed with the key {key}, which is not within its time of validity"))
        }
        Signature::Revoked => Err("is signed with a key that was revoked".to_owned()),
        Signature::Bad => {
            Err("has a signature that does not verify, or that its key must not make for git".to_owned())
        }
        Signature::Foreign => Err("is signed neither by ssh nor by OpenPGP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        action::BlastRadius,
        approval::{Requirement, review},
    };

    fn need(signers: Option<&[&str]>) -> Need {
        Need {
            tier: BlastRadius::High,
            requirement: Requirement::Signed,
            signers: signers.map(|signers| signers.iter().map(ToString::to_string).collect()),
            review: review::Need { forge: None, approvals: 1, team: None, admin_merge: false },
            is_direct: false,
            rule: "signed (high blast radius)".to_owned(),
        }
    }

    fn good(names: &[&str]) -> Signature {
        Signature::Good { names: names.iter().map(ToString::to_string).collect(), key: "SHA256:x".to_owned() }
    }

    fn files(signatures: Vec<Signature>) -> Vec<Provenance> {
        let commit = |signature| (Revision::parse(&"c".repeat(40)).unwrap(), signature);
        let action =
            Provenance { path: "actions/a.toml".to_owned(), commits: vec![commit(good(&["ann@x"]))] };
        let commits = signatures.into_iter().map(commit).collect();
        vec![action, Provenance { path: "formulas/f.sh".to_owned(), commits }]
    }

    #[test]
    fn everybody_who_signed_is_named_with_the_evidence() {
        let files = files(vec![good(&["ann@x"]), good(&["bob@x", "ops"])]);
        let Decision::Approved(approval) = judge(need(None), &files, "d".to_owned()) else { panic!() };
        assert_eq!(approval.to_string(), "ann@x, bob@x: signed (high blast radius)");
        assert_eq!((approval.digest.as_str(), approval.evidence.len()), ("d", 3));
        let Decision::Approved(approval) = judge(need(Some(&["ann*", "ops"])), &files, "d".to_owned()) else {
            panic!()
        };
        assert_eq!(approval.by, ["ann@x", "ops"]);
    }

    #[test]
    fn nothing_at_all_is_no_evidence() {
        assert!(matches!(judge(need(None), &[], String::new()), Decision::Waiting { .. }));
    }

    #[test]
    fn one_commit_that_is_not_signed_as_the_rule_asks_is_enough_to_wait() {
        let key = || "SHA256:k".to_owned();
        for (signatures, said) in [
            (vec![], "cannot be told"),
            (vec![Signature::Absent], "is not signed"),
            (vec![good(&["ann@x"]), Signature::Absent], "is not signed"),
            (vec![Signature::Unknown { key: key() }], "SHA256:k, which is not among the allowed signers"),
            (vec![Signature::Expired { key: key() }], "SHA256:k, which is not within its time"),
            (vec![Signature::Revoked], "revoked"),
            (vec![Signature::Bad], "does not verify"),
            (vec![Signature::Foreign], "neither by ssh nor by OpenPGP"),
        ] {
            let Decision::Waiting { reason, again } = judge(need(None), &files(signatures), "d".to_owned())
            else {
                panic!("approved: {said}")
            };
            assert!(reason.contains(said) && reason.contains("formulas/f.sh"), "{reason}");
            assert_eq!(again, None);
        }
        let Decision::Waiting { reason, .. } =
            judge(need(Some(&["bob*"])), &files(vec![good(&["bob"])]), String::new())
        else {
            panic!()
        };
        assert!(reason.contains("signed by ann@x, who is not among"), "{reason}");
    }
}
