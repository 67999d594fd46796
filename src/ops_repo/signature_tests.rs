//! Origins and signatures on real repositories, with real keys of ssh and gpg.

use std::{fs, path::PathBuf, process::Command};

use super::{
    tests::{Bench, update},
    *,
};
use crate::approval::signed::Signature;

const FILE: &str = "actions/a.toml";
/// A date that has passed, and one that comes, as ssh writes them and as git does.
const PAST: &str = "20200101";
const FUTURE: &str = "20990101";
const BEFORE_PAST: &str = "2019-06-01T00:00:00Z";

/// A repository to commit in, and keys.
struct Signing {
    bench: Bench,
}

impl Signing {
    fn new() -> Self {
        let bench = Bench::new();
        bench.git(&["-C", "work", "config", "gpg.format", "ssh"]);
        Self { bench }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bench.path().join(name)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.bench.path()).env("GNUPGHOME", self.path("gnupg"));
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes an ssh key; gives its public half.
    fn ssh_key(&self, name: &str) -> String {
        self.run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name]);
        fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap()
    }

    /// Makes an OpenPGP key; gives its fingerprint.
    fn openpgp_key(&self, name: &str, expires: &str) -> String {
        let home = self.path("gnupg");
        fs::create_dir_all(&home).unwrap();
        fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let user = format!("{name} <{name}@x>");
        let batch = ["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""];
        self.run("gpg", &[&batch[..], &["--quick-gen-key", &user, "ed25519", "sign", expires]].concat());
        let listed = self.run("gpg", &["--batch", "--with-colons", "--list-keys", &user]);
        let line = listed.lines().find(|line| line.starts_with("fpr")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// Commits a text to the file, signed with a key where one is given.
    fn commit(&self, text: &str, key: Option<&str>) -> Revision {
        self.commit_at(text, key, "2026-01-01T00:00:00Z")
    }

    fn commit_at(&self, text: &str, key: Option<&str>, date: &str) -> Revision {
        let path = self.path("work").join(FILE);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self.bench.git(&["-C", "work", "add", "-A"]);
        self.sealed(&["commit", "-q", "--allow-empty", "-m", "x"], key, date)
    }

    /// Runs a git command that makes a commit, with a signature where a key is given.
    fn sealed(&self, arguments: &[&str], key: Option<&str>, date: &str) -> Revision {
        let setting = key.map(|key| {
            let openpgp = key.len() == 40;
            let key = if openpgp { key.to_owned() } else { self.path(key).display().to_string() };
            let format = if openpgp { "openpgp" } else { "ssh" };
            [
                format!("user.signingkey={key}"),
                format!("gpg.format={format}"),
                "commit.gpgsign=true".to_owned(),
            ]
        });
        let mut all = vec!["-C", "work"];
        all.extend(setting.iter().flatten().flat_map(|setting| ["-c", setting.as_str()]));
        all.extend(arguments);
        let home = self.path("gnupg").display().to_string();
        self.bench.git_with(&all, &[("GNUPGHOME", &home), ("GIT_COMMITTER_DATE", date)]);
        Revision::parse(&self.bench.git(&["-C", "work", "rev-parse", "HEAD"])).unwrap()
    }

    /// The mirror of what was committed, with these files of keys.
    async fn repo(&self, signers: &str, revoked: Option<&str>) -> OpsRepo {
        self.bench.git(&["-C", "work", "push", "-q", "-f", "../remote.git", "HEAD:main"]);
        fs::write(self.path("signers"), signers).unwrap();
        let mut keys = Keys { signers: Some(self.path("signers")), ..Keys::default() };
        if let Some(revoked) = revoked {
            fs::write(self.path("revoked"), revoked).unwrap();
            keys.revoked = Some(self.path("revoked"));
        }
        self.mirrored(keys).await
    }

    async fn mirrored(&self, keys: Keys) -> OpsRepo {
        self.bench.git(&["-C", "work", "push", "-q", "-f", "../remote.git", "HEAD:main"]);
        let repo = OpsRepo::open(Settings { keys, ..self.bench.settings("mirror") }).await.unwrap();
        update(&repo).await;
        repo
    }

    async fn origins(&self, repo: &OpsRepo, tip: &Revision) -> Vec<String> {
        let origins = repo.origins(tip, FILE).await.unwrap();
        let mut origins: Vec<String> = origins.iter().map(ToString::to_string).collect();
        origins.sort();
        origins
    }
}

fn names(signature: &Signature) -> Vec<&str> {
    let Signature::Good { names, .. } = signature else { panic!("{signature:?}") };
    names.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn an_ssh_signature_counts_by_its_key_alone() {
    let signing = Signing::new();
    let ann = signing.ssh_key("ann");
    signing.ssh_key("mallory");
    let unsigned = signing.commit("1", None);
    let by_ann = signing.commit("2", Some("ann"));
    let by_mallory = signing.commit("3", Some("mallory"));
    let repo = signing.repo(&format!("ann@x,ops {ann}"), None).await;
    assert_eq!(repo.signature(&unsigned).await.unwrap(), Signature::Absent);
    assert_eq!(names(&repo.signature(&by_ann).await.unwrap()), ["ann@x", "ops"]);
    let Signature::Unknown { key } = repo.signature(&by_mallory).await.unwrap() else { panic!() };
    assert!(key.starts_with("SHA256:"), "{key}");
    let none = signing.mirrored(Keys::default()).await;
    assert!(matches!(none.signature(&by_ann).await.unwrap(), Signature::Unknown { .. }));
    let repo = signing.repo(&format!("ann@x namespaces=\"file\" {ann}"), None).await;
    assert_eq!(repo.signature(&by_ann).await.unwrap(), Signature::Bad, "its key is not for git");
    // A signature moved to another commit.
    let object = signing.bench.git(&["-C", "work", "cat-file", "commit", by_ann.as_str()]);
    fs::write(signing.path("forged"), format!("{}\n", object.replace("\n\nx", "\n\ny"))).unwrap();
    let forged = signing.bench.git(&["-C", "work", "hash-object", "-t", "commit", "-w", "../forged"]);
    signing.bench.git(&["-C", "work", "reset", "-q", "--hard", &forged]);
    let repo = signing.repo(&format!("ann@x {ann}"), None).await;
    assert_eq!(repo.signature(&Revision::parse(&forged).unwrap()).await.unwrap(), Signature::Bad);
}

#[tokio::test]
async fn an_expired_key_does_not_count_whatever_date_the_commit_claims() {
    let signing = Signing::new();
    let ann = signing.ssh_key("ann");
    let now = signing.commit("1", Some("ann"));
    let backdated = signing.commit_at("2", Some("ann"), BEFORE_PAST);
    for (line, good) in [
        (format!("ann@x valid-before=\"{PAST}\" {ann}"), false),
        (format!("ann@x valid-after=\"{FUTURE}\" {ann}"), false),
        (format!("ann@x valid-after=\"{PAST}\",valid-before=\"{FUTURE}\" {ann}"), true),
    ] {
        let repo = signing.repo(&line, None).await;
        let signature = repo.signature(&now).await.unwrap();
        assert_eq!(matches!(signature, Signature::Good { .. }), good, "{line}: {signature:?}");
        let signature = repo.signature(&backdated).await.unwrap();
        assert!(matches!(signature, Signature::Expired { .. }), "{line}: {signature:?}");
    }
    // The same by the certificate of an authority.
    let authority = signing.ssh_key("authority");
    let line = format!("*@x cert-authority {authority}");
    for (key, validity, good) in [("old", "20190101:20200101", false), ("new", "20190101:20990101", true)] {
        signing.ssh_key(key);
        let public = format!("{key}.pub");
        signing
            .run("ssh-keygen", &["-q", "-s", "authority", "-I", "k", "-n", "ann@x", "-V", validity, &public]);
        let commit = signing.commit_at(key, Some(&format!("{key}-cert.pub")), BEFORE_PAST);
        let signature = signing.repo(&line, None).await.signature(&commit).await.unwrap();
        assert_eq!(matches!(signature, Signature::Good { .. }), good, "{key}: {signature:?}");
    }
}

#[tokio::test]
async fn a_revoked_key_does_not_count_and_a_lost_list_of_them_stops_everything() {
    let signing = Signing::new();
    let ann = signing.ssh_key("ann");
    let bob = signing.ssh_key("bob");
    let by_ann = signing.commit("1", Some("ann"));
    let by_bob = signing.commit("2", Some("bob"));
    let repo = signing.repo(&format!("ann@x {ann}bob@x {bob}"), Some(&ann)).await;
    assert_eq!(repo.signature(&by_ann).await.unwrap(), Signature::Revoked);
    assert_eq!(names(&repo.signature(&by_bob).await.unwrap()), ["bob@x"]);
    fs::remove_file(signing.path("revoked")).unwrap();
    let error = repo.signature(&by_bob).await.unwrap_err();
    assert!(error.to_string().contains("[approval] revoked"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
}

#[tokio::test]
async fn an_openpgp_signature_counts_while_its_key_does() {
    let signing = Signing::new();
    let ann = signing.openpgp_key("ann", "never");
    let eve = signing.openpgp_key("eve", "never");
    let old = signing.openpgp_key("old", "seconds=1");
    let by_ann = signing.commit("1", Some(&ann));
    let by_eve = signing.commit("2", Some(&eve));
    let by_old = signing.commit("3", Some(&old));
    let export = |key: &str| signing.run("gpg", &["--batch", "--armor", "--export", key]);
    let keys = || Keys { openpgp: Some(signing.path("keys.asc")), ..Keys::default() };
    fs::write(signing.path("keys.asc"), export(&ann) + &export(&old)).unwrap();
    let repo = signing.mirrored(keys()).await;
    let names_of_ann = ["ann <ann@x>", "ann@x", ann.as_str(), ann.as_str()];
    assert_eq!(names(&repo.signature(&by_ann).await.unwrap()), names_of_ann);
    assert!(matches!(repo.signature(&by_eve).await.unwrap(), Signature::Unknown { .. }));
    let started = std::time::Instant::now();
    while !matches!(repo.signature(&by_old).await.unwrap(), Signature::Expired { .. }) {
        assert!(started.elapsed().as_secs() < 20, "{:?}", repo.signature(&by_old).await);
    }
    // What is taken out of the file counts no more.
    fs::write(signing.path("keys.asc"), export(&eve)).unwrap();
    assert!(matches!(repo.signature(&by_ann).await.unwrap(), Signature::Unknown { .. }));
    let revocation = signing.path(&format!("gnupg/openpgp-revocs.d/{eve}.rev"));
    let revocation = fs::read_to_string(revocation).unwrap().replace(":-----BEGIN", "-----BEGIN");
    fs::write(signing.path("eve.rev"), revocation).unwrap();
    signing.run("gpg", &["--batch", "--quiet", "--import", "eve.rev"]);
    fs::write(signing.path("keys.asc"), export(&eve)).unwrap();
    assert_eq!(repo.signature(&by_eve).await.unwrap(), Signature::Revoked);
    signing.run("gpgconf", &["--kill", "all"]);
}

#[tokio::test]
async fn merges_are_followed_to_the_commits_that_wrote_the_file() {
    let signing = Signing::new();
    let date = "2026-01-01T00:00:00Z";
    let git = |arguments: &[&str]| signing.bench.git(&[&["-C", "work"], arguments].concat());
    let first = signing.commit("1", None);
    git(&["checkout", "-q", "-b", "branch"]);
    let second = signing.commit("2", None);
    git(&["checkout", "-q", "main"]);
    signing.bench.git(&["-C", "work", "commit", "-q", "--allow-empty", "-m", "elsewhere"]);
    let clean = signing.sealed(&["merge", "-q", "--no-ff", "-m", "m", "branch"], None, date);
    let repo = signing.mirrored(Keys::default()).await;
    assert_eq!(signing.origins(&repo, &clean).await, [second.as_str()]);
    assert_eq!(signing.origins(&repo, &first).await, [first.as_str()]);
    // The merge keeps the old state against the branch.
    git(&["reset", "-q", "--hard", "HEAD~1"]);
    let kept = signing.sealed(&["merge", "-q", "--no-ff", "-s", "ours", "-m", "m", "branch"], None, date);
    let repo = signing.mirrored(Keys::default()).await;
    assert_eq!(signing.origins(&repo, &kept).await, [kept.as_str()]);
    // The merge has a text of its own.
    git(&["reset", "-q", "--hard", clean.as_str()]);
    fs::write(signing.path("work").join(FILE), "evil").unwrap();
    let evil = signing.sealed(&["commit", "-q", "--amend", "-a", "-m", "m"], None, date);
    let repo = signing.mirrored(Keys::default()).await;
    assert_eq!(signing.origins(&repo, &evil).await, [evil.as_str()]);
    // A file that was deleted comes back by merging its old commit.
    git(&["reset", "-q", "--hard", clean.as_str()]);
    git(&["rm", "-q", FILE]);
    signing.sealed(&["commit", "-q", "-m", "gone"], None, date);
    let restored = signing.commit("2", None);
    let hidden = signing.sealed(&["merge", "-q", "--no-ff", "-m", "m", "-s", "ours", "branch"], None, date);
    let repo = signing.mirrored(Keys::default()).await;
    // Git says that the branch is merged already, so the history is told of without it.
    assert_eq!(signing.origins(&repo, &hidden).await, [restored.as_str()]);
    let tree = format!("{restored}^{{tree}}");
    let forged = git(&["commit-tree", &tree, "-p", second.as_str(), "-p", restored.as_str(), "-m", "m"]);
    git(&["reset", "-q", "--hard", &forged]);
    let repo = signing.mirrored(Keys::default()).await;
    let mut both = [second.as_str(), restored.as_str()];
    both.sort_unstable();
    assert_eq!(signing.origins(&repo, &Revision::parse(&forged).unwrap()).await, both);
    // Another path with the same content is another file.
    git(&["mv", FILE, "actions/b.toml"]);
    let moved = signing.sealed(&["commit", "-q", "-m", "moved"], None, date);
    let repo = signing.mirrored(Keys::default()).await;
    assert!(signing.origins(&repo, &moved).await.is_empty());
    assert_eq!(repo.origins(&moved, "actions/b.toml").await.unwrap(), [moved]);
}

#[tokio::test]
async fn replaced_grafted_and_shallow_histories_hide_nothing() {
    let signing = Signing::new();
    let first = signing.commit("1", None);
    let second = signing.commit("2", None);
    let repo = signing.mirrored(Keys::default()).await;
    let repository = signing.path("mirror/repository.git");
    let replaced = repository.join("refs/replace");
    fs::create_dir_all(&replaced).unwrap();
    fs::write(replaced.join(second.as_str()), format!("{first}\n")).unwrap();
    fs::create_dir_all(repository.join("info")).unwrap();
    fs::write(repository.join("info/grafts"), format!("{second}\n")).unwrap();
    assert_eq!(signing.origins(&repo, &second).await, [second.as_str()]);
    let third = signing.commit("1", None);
    let repo = signing.mirrored(Keys::default()).await;
    fs::write(repository.join("info/grafts"), format!("{third} {first}\n")).unwrap();
    assert_eq!(signing.origins(&repo, &third).await, [third.as_str()]);
    assert!(repo.origins(&second, "actions/b\n.toml").await.unwrap().is_empty());
    fs::write(repository.join("shallow"), format!("{second}\n")).unwrap();
    assert!(repo.origins(&second, FILE).await.unwrap().is_empty());
}
