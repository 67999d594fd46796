//! The room against real git repositories.

use std::{path::Path, process::Command, time::Instant};

use super::*;

pub(super) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        bench.git(&["init", "-q", "--bare", "-b", "main", "remote.git"]);
        bench.git(&["init", "-q", "-b", "main", "work"]);
        bench
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, &[])
    }

    /// The same with these environment variables.
    pub(super) fn git_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=u", "-c", "user.email=u@x", "-c", "safe.directory=*"])
            .args(arguments)
            .envs(environment.iter().copied())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .current_dir(self.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(super) fn commit(&self, files: &[(&str, &str)]) -> Revision {
        for (path, text) in files {
            let path = self.path().join("work").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        self.git(&["-C", "work", "add", "-A"]);
        self.git(&["-C", "work", "commit", "-q", "--allow-empty", "-m", "x"]);
        self.git(&["-C", "work", "push", "-q", "-f", "../remote.git", "main"]);
        Revision::parse(&self.git(&["-C", "work", "rev-parse", "HEAD"])).unwrap()
    }

    pub(super) fn settings(&self, mirror: &str) -> Settings {
        Settings::plain(self.path().join("remote.git").to_str().unwrap(), self.path().join(mirror))
    }

    async fn open(&self) -> OpsRepo {
        OpsRepo::open(self.settings("mirror")).await.unwrap()
    }
}

fn result(path: &str, text: &str) -> ResultEntry {
    ResultEntry { path: path.to_owned(), content: text.as_bytes().to_vec() }
}

pub(super) async fn update(repo: &OpsRepo) -> Tips {
    let tips = repo.tips().await.unwrap();
    repo.fetch(&tips).await.unwrap();
    tips
}

#[tokio::test]
async fn changes_odd_names_links_and_rewritten_history() {
    let bench = Bench::new();
    let odd = "actions/ä \"q\"\nx/a.toml";
    let first = bench.commit(&[("actions/a.toml", "1"), ("README", "r")]);
    let repo = bench.open().await;
    update(&repo).await;
    repo.pin(&first).await.unwrap();
    std::os::unix::fs::symlink("/etc/passwd", bench.path().join("work/actions/link.toml")).unwrap();
    let second = bench.commit(&[(odd, "22"), ("README", "s"), ("formulas/f.sh", "echo")]);
    assert_eq!(update(&repo).await.branch.as_ref(), Some(&second));
    let changes = repo.changes(&first, &second).await.unwrap();
    let kinds: Vec<_> = changes.iter().map(|c| (c.path.as_str(), c.after.as_ref().unwrap().kind)).collect();
    let expected = [
        ("actions/link.toml", EntryKind::Symlink),
        (odd, EntryKind::Regular),
        ("formulas/f.sh", EntryKind::Regular),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(repo.snapshot(&second).await.unwrap().len(), 4);
    let there = repo.files_at(&second, &[odd, "actions/absent.toml", "formulas/f.sh"]).await.unwrap();
    let paths: Vec<&str> = there.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, [odd, "formulas/f.sh"]);
    let content = there[0].content.clone();
    let absent = BlobId::parse(&"0".repeat(40)).unwrap();
    let blobs = [content.blob.clone(), absent, content.blob];
    assert_eq!(
        repo.read_blobs(&blobs, 2).await.unwrap(),
        [Blob::Bytes(b"22".to_vec()), Blob::Missing, Blob::Bytes(b"22".to_vec())]
    );
    assert_eq!(repo.read_blobs(&blobs[..1], 1).await.unwrap(), [Blob::TooLarge { size: 2 }]);
    assert!(repo.is_ancestor(&first, &second).await.unwrap());

    bench.git(&["-C", "work", "update-ref", "-d", "refs/heads/main"]);
    let third = bench.commit(&[("actions/b.toml", "3")]);
    update(&repo).await;
    assert!(!repo.is_ancestor(&first, &third).await.unwrap());
    assert!(!repo.changes(&first, &third).await.unwrap().is_empty(), "the pinned revision stays");
    let unknown = Revision::parse(&"1".repeat(40)).unwrap();
    assert!(matches!(repo.changes(&unknown, &third).await, Err(Error::UnknownRevision { .. })));
    assert!(!repo.is_ancestor(&unknown, &third).await.unwrap());
    repo.collect_garbage().await.unwrap();
}

#[tokio::test]
async fn one_of_two_stores_wins_the_claim() {
    let bench = Bench::new();
    bench.commit(&[]);
    let (one, two) = (bench.open().await, OpsRepo::open(bench.settings("second")).await.unwrap());
    let owner =
        |id: &str| Owner { store_id: id.to_owned(), host: "h".to_owned(), claimed_at: Timestamp::UNIX_EPOCH };
    let (a, b) = (owner("a"), owner("b"));
    let (left, right) = tokio::join!(one.claim_owner(&a, None), two.claim_owner(&b, None));
    assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");
    let (revision, holder) = one.owner().await.unwrap().unwrap();
    let loser = if holder == a { (&two, &b) } else { (&one, &a) };
    assert!(matches!(loser.0.claim_owner(loser.1, None).await, Err(ClaimError::Held { .. })));
    let winner = if holder == a { &one } else { &two };
    let files = [result("actions/a.result.json", "1")];
    assert!(winner.publish(&files, "results").await.unwrap().commit.is_some());
    loser.0.claim_owner(loser.1, Some(&revision)).await.unwrap();
    assert_eq!(one.owner().await.unwrap().unwrap().1, *loser.1);

    let late = [result("actions/a.result.json", "2")];
    assert!(matches!(winner.publish(&late, "results").await, Err(Error::Superseded)));
    assert_eq!(bench.git(&["-C", "remote.git", "show", "main:actions/a.result.json"]), "1");
    assert!(loser.0.publish(&late, "results").await.unwrap().commit.is_some());

    // An agent that started again works under the claim of before.
    let again = OpsRepo::open(bench.settings("third")).await.unwrap();
    again.hold(&revision);
    assert!(matches!(again.publish(&files, "results").await, Err(Error::Superseded)));
}

#[tokio::test]
async fn what_is_known_is_brought_up_to_date_without_a_question() {
    let bench = Bench::new();
    bench.commit(&[("a", "1")]);
    bench.git(&["-C", "remote.git", "update-ref", "refs/consign/owner", "main"]);
    let repo = bench.open().await;
    let known = repo.tips().await.unwrap();
    let second = bench.commit(&[("a", "2")]);
    let seen = repo.refresh(&known).await.unwrap();
    assert_eq!(seen, Tips { branch: Some(second.clone()), ..known.clone() });
    assert!(repo.has_commit(&second).await.unwrap());
    // A claim that is gone is not taken for one that stands.
    bench.git(&["-C", "remote.git", "update-ref", "-d", "refs/consign/owner"]);
    repo.refresh(&known).await.unwrap_err();
}

#[tokio::test]
async fn results_reach_a_branch_that_moves() {
    let bench = Bench::new();
    bench.commit(&[("actions/a.toml", "1"), ("actions/file", "keep")]);
    let repo = OpsRepo::open(bench.settings("mirror")).await.unwrap();
    let other = OpsRepo::open(bench.settings("second")).await.unwrap();
    update(&repo).await;
    for round in 0..4 {
        let text = round.to_string();
        let (mine, theirs) =
            ([result("actions/a \"b\".result.json", &text)], [result("actions/b.result.json", &text)]);
        let (left, right) = tokio::join!(repo.publish(&mine, "results"), other.publish(&theirs, "results"));
        assert!(left.unwrap().commit.is_some() && right.unwrap().commit.is_some());
    }
    update(&repo).await;
    let again = repo.publish(&[result("actions/a \"b\".result.json", "3")], "results").await.unwrap();
    assert_eq!(again, Published::default());
    let mixed =
        [result("actions/file/x.result.json", "3"), result("x", ""), result("actions/c.result.json", "4")];
    let published = repo.publish(&mixed, "results").await.unwrap();
    assert_eq!(published.refused.len(), 2);
    assert!(published.commit.is_some());
    assert_eq!(bench.git(&["-C", "remote.git", "show", "main:actions/file"]), "keep");
    assert!(bench.git(&["-C", "remote.git", "log", "-1", "--format=%B", "main"]).ends_with("[skip ci]"));
    // Rewritten history is not brought back by a push from a stale mirror.
    let tip = bench.commit(&[]);
    repo.publish(&[result("actions/d.result.json", "5")], "results").await.unwrap();
    assert_eq!(bench.git(&["-C", "remote.git", "rev-parse", "main^"]), tip.as_str());
}

#[tokio::test]
async fn results_branch_signature_and_remotes_that_do_not_work() {
    let bench = Bench::new();
    let empty = bench.open().await;
    assert!(matches!(
        empty.publish(&[result("actions/a.result.json", "1")], "s").await,
        Err(Error::EmptyRemote { .. })
    ));
    bench.commit(&[]);
    let key = bench.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    let signing_key = made.is_ok_and(|status| status.success()).then_some(key);
    let signed = signing_key.is_some();
    let settings =
        Settings { results_branch: Some("results".to_owned()), signing_key, ..bench.settings("mirror") };
    let repo = OpsRepo::open(settings).await.unwrap();
    repo.publish(&[result("actions/a.result.json", "1")], "s").await.unwrap();
    repo.publish(&[result("actions/b.result.json", "1")], "s").await.unwrap();
    let commit = bench.git(&["-C", "remote.git", "cat-file", "commit", "results"]);
    assert_eq!(commit.contains("BEGIN SSH SIGNATURE"), signed);

    let checked_out = Settings {
        remote: RemoteUrl::parse(bench.path().join("work").to_str().unwrap()).unwrap(),
        ..bench.settings("third")
    };
    let repo = OpsRepo::open(checked_out).await.unwrap();
    assert!(matches!(
        repo.publish(&[result("actions/a.result.json", "1")], "s").await,
        Err(Error::CheckedOut { .. })
    ));
    for (address, kind) in
        [("/nowhere", ErrorKind::Missing), ("http://u:p@127.0.0.1:1/x", ErrorKind::Unreachable)]
    {
        let settings = Settings { remote: RemoteUrl::parse(address).unwrap(), ..bench.settings("fourth") };
        let error = OpsRepo::open(settings).await.unwrap().tips().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    let settings = Settings { branch: "-x".to_owned(), ..bench.settings("fifth") };
    assert!(OpsRepo::open(settings).await.is_err());
}

#[tokio::test]
async fn a_damaged_or_hostile_mirror_is_mended() {
    let bench = Bench::new();
    let tip = bench.commit(&[("actions/a.toml", "1")]);
    let repo = bench.open().await;
    update(&repo).await;
    let repository = bench.path().join("mirror/repository.git");
    std::fs::write(repository.join("config"), "[core]\n\tbare = true\n\thooksPath = /tmp\n[nonsense")
        .unwrap();
    std::fs::write(repository.join("refs/mirror/branch.lock"), "").unwrap();
    std::fs::write(repository.join("refs/mirror/results"), "garbage").unwrap();
    let hook = "#!/bin/sh\ntouch \"$0.ran\"\nexit 1\n";
    for name in ["mirror/repository.git/hooks/pre-push", "mirror/repository.git/hooks/reference-transaction"]
    {
        let path = bench.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, hook).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    std::fs::write(bench.path().join("mirror/home/.gitconfig"), "[nonsense").unwrap();
    let repo = bench.open().await;
    let started = Instant::now();
    let tips = repo.tips().await.unwrap();
    let looked = started.elapsed();
    repo.fetch(&tips).await.unwrap();
    let started = Instant::now();
    repo.fetch(&tips).await.unwrap();
    report_idle(looked, started.elapsed());
    assert_eq!(repo.snapshot(&tip).await.unwrap().len(), 1);
    assert!(repo.publish(&[result("actions/a.result.json", "1")], "s").await.unwrap().commit.is_some());
    assert!(!repository.join("hooks/pre-push.ran").exists());
}

#[tokio::test]
async fn what_a_damaged_mirror_cannot_read_is_no_answer_and_mends() {
    let bench = Bench::new();
    let tip = bench.commit(&[("actions/a.toml", "a text that no other file has")]);
    let repo = bench.open().await;
    update(&repo).await;
    let blob = repo.snapshot(&tip).await.unwrap().remove(0).content.blob;
    for damage in [&[][..], &[0x40; 64]] {
        let repo = bench.open().await;
        assert_eq!(repo.read_blobs(std::slice::from_ref(&blob), 99).await.unwrap().len(), 1);
        overwrite(&bench.path().join("mirror/repository.git/objects"), damage);
        // One that has read it already knows it still.
        let repo = bench.open().await;
        let error = repo.read_blobs(std::slice::from_ref(&blob), 99).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(repo.is_damaged());
        update(&repo).await;
        assert!(!repo.is_damaged());
    }
    assert!(matches!(repo.read_blobs(&[blob], 99).await.unwrap()[..], [Blob::Bytes(_)]));
}

/// Gives every file in `folder` another content.
fn overwrite(folder: &std::path::Path, content: &[u8]) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            overwrite(&path, content);
        } else {
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, content).unwrap();
        }
    }
}

fn report_idle(look: std::time::Duration, fetch: std::time::Duration) {
    std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("idle tips {look:?}, fetch {fetch:?}\n").as_bytes(),
    )
    .unwrap();
}

#[tokio::test]
async fn the_mirror_takes_the_object_format_of_the_remote() {
    let bench = Bench::new();
    bench.git(&["init", "-q", "--bare", "--object-format=sha256", "-b", "main", "long.git"]);
    bench.git(&["init", "-q", "--object-format=sha256", "-b", "main", "long"]);
    bench.git(&["-C", "long", "commit", "-q", "--allow-empty", "-m", "x"]);
    bench.git(&["-C", "long", "push", "-q", "../long.git", "main"]);
    let remote = RemoteUrl::parse(bench.path().join("long.git").to_str().unwrap()).unwrap();
    let repo = OpsRepo::open(Settings { remote, ..bench.settings("mirror") }).await.unwrap();
    update(&repo).await;
    let published = repo.publish(&[result("actions/a.result.json", "1")], "s").await.unwrap();
    assert_eq!(published.commit.unwrap().as_str().len(), 64);
}
