//! What a commit's signature is worth at this moment: git verifies it, with keys given for the one run.

use std::{fs, io, path::PathBuf};

use super::{
    Error, OpsRepo,
    git::Invocation,
    mirror::{private_file, private_folder},
};
use crate::{approval::signed::Signature, ids::Revision};

const OPERATION: &str = "verify a commit's signature";

/// How gpg is to see the keys: those that it is given are all taken for genuine, no others are looked for, and no
/// process of its own outlives it.
const GPG_CONFIGURATION: &str =
    "trust-model always\nno-auto-key-retrieve\ndisable-dirmngr\nno-autostart\nbatch\n";

/// Whose signatures count. The files are read at each verification, so that a change counts at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// The allowed signers, as ssh reads them.
    pub signers: Option<PathBuf>,
    /// Revoked ssh keys: a key revocation list, or public keys.
    pub revoked: Option<PathBuf>,
    /// Exported OpenPGP public keys.
    pub openpgp: Option<PathBuf>,
}

impl Keys {
    /// Every file, by the key of the configuration that names it.
    fn files(&self) -> [(&'static str, Option<&PathBuf>); 3] {
        [
            ("[approval] signers", self.signers.as_ref()),
            ("[approval] revoked", self.revoked.as_ref()),
            ("[approval] openpgp_keys", self.openpgp.as_ref()),
        ]
    }

    /// What the files say at this moment; another value where one of them changed.
    pub fn contents(&self) -> Result<Vec<Vec<u8>>, Error> {
        let files = self.files().into_iter().filter_map(|(setting, path)| Some((setting, path?.clone())));
        let read = |(setting, path): (&'static str, PathBuf)| {
            fs::read(&path).map_err(|source| Error::Keys { setting, path, source })
        };
        files.map(read).collect()
    }
}

/// What git found.
struct Found {
    /// Git's letter for it.
    letter: String,
    signer: String,
    key: String,
    primary_key: String,
}

impl OpsRepo {
    /// What the signature of a commit is worth.
    pub async fn signature(&self, commit: &Revision) -> Result<Signature, Error> {
        // Git takes a list of revoked keys that it cannot read for an empty one.
        self.settings.keys.contents()?;
        let object = Invocation::new(OPERATION, ["cat-file", "commit", commit.as_str()]);
        let object = self.mirror.git.output(object).await?;
        match armour(&object) {
            None => Ok(Signature::Absent),
            Some(text) if text.starts_with("-----BEGIN SSH SIGNATURE-----") => {
                self.by_ssh(commit, text).await
            }
            Some(text) if text.starts_with("-----BEGIN PGP ") => self.by_openpgp(commit).await,
            Some(_) => Ok(Signature::Foreign),
        }
    }

    async fn by_ssh(&self, commit: &Revision, armour: String) -> Result<Signature, Error> {
        let Keys { signers, revoked, .. } = &self.settings.keys;
        let signers = signers.clone().unwrap_or_else(|| PathBuf::from("/dev/null"));
        let allowed = format!("gpg.ssh.allowedSignersFile={}", signers.display());
        let unrevoked = vec!["-c".to_owned(), allowed];
        let mut settings = unrevoked.clone();
        if let Some(revoked) = revoked {
            settings.extend(["-c".to_owned(), format!("gpg.ssh.revocationFile={}", revoked.display())]);
        }
        let found = self.ask(commit, settings).await?;
        let key = found.key;
        if found.letter == "B" {
            let is_revoked = revoked.is_some() && self.ask(commit, unrevoked).await?.letter != "B";
            return Ok(if is_revoked { Signature::Revoked } else { Signature::Bad });
        }
        // Git asks whether the key was valid when the commit says that it was made, which is free to choose.
        let path = signers.display().to_string();
        let now = ["-Y", "find-principals", "-s", "/dev/stdin", "-f", &path];
        let now = Invocation::new(OPERATION, now).program("ssh-keygen").input(armour);
        let now = self.mirror.git.run(now).await?;
        let expired = now.stderr.contains("expired") || now.stderr.contains("not yet valid");
        let names: Vec<String> = if now.succeeded() {
            String::from_utf8_lossy(&now.stdout).lines().map(ToOwned::to_owned).collect()
        } else {
            Vec::new()
        };
        Ok(match found.letter.as_str() {
            "G" if !names.is_empty() => Signature::Good { names, key },
            "G" => Signature::Expired { key },
            "U" if expired || !names.is_empty() => Signature::Expired { key },
            "U" => Signature::Unknown { key },
            _ => Signature::Bad,
        })
    }

    async fn by_openpgp(&self, commit: &Revision) -> Result<Signature, Error> {
        // One home for gpg at a time, made anew so that it has no key but those of the file.
        let _guard = self.mirror.exclusive().await;
        let home = self.mirror.git.home.join("gnupg");
        let prepare = || -> io::Result<()> {
            match fs::remove_dir_all(&home) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => (),
            }
            private_folder(&home)?;
            // An empty one keeps newer versions from keeping keys with a process of their own.
            private_file(&home.join("common.conf"), "")?;
            private_file(&home.join("gpg.conf"), GPG_CONFIGURATION)
        };
        prepare().map_err(|source| Error::Mirror { path: home.clone(), source })?;
        if let Some(keys) = &self.settings.keys.openpgp {
            let import = ["--quiet", "--import", "--", &keys.display().to_string()].map(ToOwned::to_owned);
            let import = Invocation::new("read [approval] openpgp_keys", import).program("gpg");
            self.mirror.git.output(import.variable("GNUPGHOME", &home)).await?;
        }
        let invocation = Self::question(commit, Vec::new()).variable("GNUPGHOME", &home);
        let Found { letter, signer, key, primary_key } = self.answer(invocation).await?;
        let address = signer.rsplit_once('<').and_then(|(_, rest)| rest.strip_suffix('>'));
        let address = address.map(ToOwned::to_owned);
        Ok(match letter.as_str() {
            "G" => {
                let names = [Some(signer), address, Some(key.clone()), Some(primary_key)];
                let names = names.into_iter().flatten().filter(|name| !name.is_empty()).collect();
                Signature::Good { names, key }
            }
            "X" | "Y" => Signature::Expired { key },
            "R" => Signature::Revoked,
            "E" => Signature::Unknown { key },
            _ => Signature::Bad,
        })
    }

    async fn ask(&self, commit: &Revision, settings: Vec<String>) -> Result<Found, Error> {
        self.answer(Self::question(commit, settings)).await
    }

    fn question(commit: &Revision, mut arguments: Vec<String>) -> Invocation {
        let format = "--format=%G?%x00%GS%x00%GF%x00%GK%x00%GP";
        arguments
            .extend(["log", "-1", "--no-show-signature", format, commit.as_str()].map(ToOwned::to_owned));
        Invocation::new(OPERATION, arguments)
    }

    async fn answer(&self, question: Invocation) -> Result<Found, Error> {
        let text = String::from_utf8_lossy(&self.mirror.git.output(question).await?).into_owned();
        let words: Vec<String> = text.trim_end_matches('\n').split('\0').map(ToOwned::to_owned).collect();
        let [letter, signer, fingerprint, key, primary_key] =
            <[String; 5]>::try_from(words).map_err(|_| Error::Answer { operation: OPERATION })?;
        // Of a key that it does not have, gpg knows no fingerprint.
        let key = if fingerprint.is_empty() { key } else { fingerprint };
        Ok(Found { letter, signer, key, primary_key })
    }
}

/// The signature in a commit object; of several, a text that is none.
fn armour(object: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(object);
    let (header, _) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in header.split('\n') {
        if let (true, Some(rest), Some(armour)) = (inside, line.strip_prefix(' '), found.last_mut()) {
            armour.push_str(rest);
            armour.push('\n');
            continue;
        }
        inside = line.starts_with("gpgsig");
        if inside {
            let (_, rest) = line.split_once(' ').unwrap_or_default();
            found.push(format!("{rest}\n"));
        }
    }
    match found.len() {
        0 | 1 => found.pop(),
        _ => Some(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_found_in_the_header_alone() {
        let commit =
            |header: &str| armour(format!("tree t\nauthor a\n{header}\nmessage\ngpgsig x\n").as_bytes());
        assert_eq!(commit(""), None);
        let one = "gpgsig -----BEGIN SSH SIGNATURE-----\n line\n -----END SSH SIGNATURE-----\n";
        let text = "-----BEGIN SSH SIGNATURE-----\nline\n-----END SSH SIGNATURE-----\n";
        assert_eq!(commit(one).as_deref(), Some(text));
        assert_eq!(commit(&format!("{one}encoding x\n other\n")).as_deref(), Some(text));
        assert_eq!(commit(&format!("{one}{one}")).as_deref(), Some(""));
        assert_eq!(commit("gpgsig\n").as_deref(), Some("\n"));
    }
}
