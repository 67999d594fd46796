//! Work that runs only where the commits that wrote it are signed.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::support::{Agent, LIMIT, World, action, ends, wait_for, write_program};

/// A world whose work needs signatures, the keys, and a token to look with.
struct Signed {
    world: World,
    token: String,
}

impl Signed {
    /// Everything needs a signature: of ann, whose key is allowed; of old, whose key has expired; of lost, whose key
    /// was revoked. Nobody allows mallory's.
    async fn new(name: &str, further: &str) -> Self {
        let world = World::new(name).await;
        let keys = ["ann", "old", "lost", "mallory"].map(|name| key(&world, name));
        let [ann, old, lost, _] = &keys;
        let signers = format!("ann@x {ann}old@x valid-before=\"20200101\" {old}lost@x {lost}");
        fs::write(world.path("signers"), signers).unwrap();
        fs::write(world.path("revoked"), lost).unwrap();
        fs::write(world.path("openpgp"), openpgp_key(&world)).unwrap();
        let path = |name: &str| world.path(name).display().to_string();
        let approval = format!(
            "low = \"signed\"\nsigners = \"{}\"\nrevoked = \"{}\"\nopenpgp_keys = \"{}\"\n",
            path("signers"),
            path("revoked"),
            path("openpgp")
        );
        let config = world.config_toml().replace("low = \"merged\"\n", &approval);
        world.bootstrap_with(&format!("{config}{further}"));
        fs::create_dir(world.path("store")).unwrap();
        let token = world.operate(&["token", "create", "watcher", "--scope", "read"], b"");
        assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
        let token = String::from_utf8(token.stdout).unwrap().lines().last().unwrap().to_owned();
        Self { world, token }
    }

    /// Commits are signed by this key from now on; by none without a name.
    fn sign(&self, name: &str) {
        let key = self.world.path(name).display().to_string();
        match name {
            "" => self.world.ops.sign_with(&[]),
            "openpgp" => {
                let program = self.world.path("gpg").display().to_string();
                let settings =
                    [("gpg.format", "openpgp"), ("gpg.program", &program), ("user.signingkey", "pat@x")];
                self.world.ops.sign_with(&settings);
            }
            _ => self.world.ops.sign_with(&[("gpg.format", "ssh"), ("user.signingkey", &key)]),
        }
    }

    /// Commits a file, signed by this key.
    fn commit(&self, by: &str, path: &str, text: &str) -> String {
        self.sign(by);
        self.world.ops.commit(&format!("by {by}"), &[(path, Some(text))])
    }

    fn commit_action(&self, by: &str, id: &str, formula: &str) -> String {
        self.commit(by, &format!("actions/{id}.toml"), &action(id, formula, ""))
    }

    fn show(&self, id: &str) -> Value {
        let shown = self.world.consign(&["show", id, "--json"]).env("CONSIGN_TOKEN", &self.token).output();
        serde_json::from_slice(&shown.unwrap().stdout).unwrap_or_default()
    }

    /// Waits until a job is said to wait for something, in all these words.
    async fn waits(&self, id: &str, words: &[&str]) -> Value {
        wait_for(&format!("{id} to wait for {words:?}"), LIMIT, async || {
            let shown = self.show(id);
            let said = shown["waits_for"].as_str().unwrap_or_default();
            let all = shown["state"] == "waiting" && words.iter().all(|word| said.contains(word));
            if all { Ok(shown) } else { Err(shown.to_string()) }
        })
        .await
    }

    async fn agent(&self) -> Agent {
        self.world.agent().await
    }
}

/// Makes an ssh key; gives its public half.
fn key(world: &World, name: &str) -> String {
    let path = world.path(name);
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
    assert!(made.unwrap().success());
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

/// Makes the OpenPGP key of pat@x and the program `gpg` that has it; gives its public half.
fn openpgp_key(world: &World) -> Vec<u8> {
    use std::os::unix::fs::PermissionsExt as _;
    let home = world.path("gnupg");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let gpg = world.path("gpg");
    write_program(&gpg, &format!("#!/bin/sh\nexec gpg --homedir '{}' \"$@\"\n", home.display()));
    let run = |arguments: &[&str]| {
        let output = Command::new(&gpg).args(["--batch", "--quiet"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let unlocked = ["--pinentry-mode", "loopback", "--passphrase", ""];
    run(&[&unlocked[..], &["--quick-gen-key", "Pat <pat@x>", "ed25519", "sign", "never"]].concat());
    run(&["--export"])
}

impl Drop for Signed {
    fn drop(&mut self) {
        // Gpg leaves its agent running.
        drop(
            Command::new("gpgconf")
                .arg("--homedir")
                .arg(self.world.path("gnupg"))
                .args(["--kill", "all"])
                .status(),
        );
    }
}

fn note(world: &World) -> String {
    format!("echo $CONSIGN_ACTION_ID >> {}\n", world.ledger().display())
}

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[tokio::test]
async fn only_what_allowed_signers_wrote_runs() {
    let signed = Signed::new("signed", "").await;
    let world = &signed.world;
    let _agent = signed.agent().await;
    for name in ["note", "tampered"] {
        signed.commit("ann", &format!("formulas/{name}.sh"), &note(world));
    }
    let commit = signed.commit_action("ann", "by-ann", "note");
    let result = world.result("by-ann", LIMIT).await;
    ends(&result, "succeeded", "success");
    assert_eq!(result["approved_by"], "ann@x: signed (low blast radius)");
    let approval = &result["approval"];
    assert_eq!(approval["digest"].as_str().unwrap().len(), 64, "{approval}");
    assert_eq!(approval["by"], serde_json::json!(["ann@x"]));
    let evidence = approval["evidence"].as_array().unwrap();
    let paths: Vec<&str> = evidence.iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["actions/by-ann.toml", "formulas/note.sh"]);
    assert_eq!(evidence[0]["commit"], commit.as_str());
    signed.commit_action("openpgp", "by-pat", "note");
    let result = world.result("by-pat", LIMIT).await;
    assert_eq!(result["approval"]["by"], serde_json::json!(["Pat <pat@x>", "ann@x"]), "{result}");

    for (by, said) in [
        ("", "is not signed"),
        ("mallory", "which is not among the allowed signers"),
        ("old", "which is not within its time of validity"),
        ("lost", "was revoked"),
    ] {
        let id = format!("refused-{by}x");
        let commit = signed.commit_action(by, &id, "note");
        let shown = signed.waits(&id, &[&commit, said, "actions/", "with a signature"]).await;
        assert_eq!((&shown["approval"], shown["digest"].as_str().unwrap().len()), (&Value::Null, 64));
    }
    let tampered = signed.commit("", "formulas/tampered.sh", &format!("true\n{}", note(world)));
    signed.commit_action("ann", "tampered", "tampered");
    signed.waits("tampered", &[&tampered, "formulas/tampered.sh", "is not signed"]).await;

    // What is refused runs once an allowed signer writes it, or once its signer is allowed.
    signed.commit("ann", "actions/refused-x.toml", &action("refused-x", "note", "priority = 60"));
    ends(&world.result("refused-x", LIMIT).await, "succeeded", "success");
    let signers = fs::read_to_string(world.path("signers")).unwrap();
    let mallory = fs::read_to_string(world.path("mallory.pub")).unwrap();
    fs::write(world.path("signers"), format!("{signers}mallory@x {mallory}")).unwrap();
    let result = world.result("refused-malloryx", LIMIT).await;
    assert_eq!(result["approved_by"], "mallory@x, ann@x: signed (low blast radius)");
    let mut lines = world.ledger_lines();
    lines.sort();
    assert_eq!(lines, ["by-ann", "by-pat", "refused-malloryx", "refused-x"]);
}

#[tokio::test]
async fn a_merge_brings_signed_work_in_and_signs_nothing_itself() {
    let signed = Signed::new("merged", "").await;
    let world = &signed.world;
    let _agent = signed.agent().await;
    signed.commit("ann", "formulas/note.sh", &note(world));
    let merge = |by: &str, tip: &str, work: &dyn Fn(&Path)| {
        signed.sign(by);
        world.ops.commit_work("merge", |folder| {
            world.ops.clone(&["merge", "--quiet", "--no-ff", "--no-commit", tip]);
            work(folder);
        })
    };
    let aside = |by: &str, id: &str| {
        signed.sign(by);
        let text = action(id, "note", "");
        let tip =
            world.ops.commit_aside("aside", |folder| write(folder, &format!("actions/{id}.toml"), &text));
        signed.commit("", "elsewhere", id);
        tip
    };
    let tip = aside("ann", "brought-in");
    merge("", &tip, &|_| ());
    ends(&world.result("brought-in", LIMIT).await, "succeeded", "success");
    let tip = aside("ann", "changed");
    let text = action("changed", "note", "priority = 60");
    let evil = merge("", &tip, &|folder| write(folder, "actions/changed.toml", &text));
    signed.waits("changed", &[&evil, "is not signed"]).await;
    // Whoever presses the button vouches for the merge, not for what it brings in.
    let tip = aside("", "unsigned");
    merge("ann", &tip, &|_| ());
    signed.waits("unsigned", &[&tip, "is not signed"]).await;
    assert_eq!(world.ledger_lines(), ["brought-in"]);
}

#[tokio::test]
async fn what_changes_between_approval_and_launch_takes_the_approval_away() {
    let signed = Signed::new("between", "[limits]\nrunning = 1\n").await;
    let world = &signed.world;
    let agent = signed.agent().await;
    let held = format!("while [ ! -e {} ]; do sleep 0.1; done\n", world.path("go").display());
    signed.commit("ann", "formulas/held.sh", &held);
    signed.commit("ann", "formulas/note.sh", &note(world));
    let base = signed.commit_action("ann", "holder", "held");
    let queued = async |id: &str| {
        wait_for(&format!("{id} to be queued"), LIMIT, async || {
            let shown = signed.show(id);
            if shown["state"] == "queued" { Ok(shown) } else { Err(shown.to_string()) }
        })
        .await
    };
    wait_for("holder to work", LIMIT, async || {
        let shown = signed.show("holder");
        if shown["state"] == "working" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    let commit = signed.commit_action("ann", "rewritten", "note");
    assert_eq!(queued("rewritten").await["approval"]["by"], serde_json::json!(["ann@x"]));

    // History is rewritten by somebody who cannot sign: the content is the same.
    let tree = format!("{commit}^{{tree}}");
    signed.sign("");
    let forged = world.ops.clone(&["commit-tree", &tree, "-p", &base, "-m", "the same"]);
    let forged = forged.trim();
    world.ops.clone(&["push", "--quiet", "--force", "origin", &format!("{forged}:main")]);
    fs::write(world.path("go"), "").unwrap();
    ends(&world.result("holder", LIMIT).await, "succeeded", "success");
    signed.waits("rewritten", &[forged, "is not signed"]).await;
    world.ops.force(&base);
    signed.waits("rewritten", &["the branch no longer has actions/rewritten.toml"]).await;
    assert!(world.ledger_lines().is_empty());

    // The rules change while the agent is away; what is queued is decided by the new ones.
    fs::remove_file(world.path("go")).unwrap();
    signed.commit_action("ann", "holder-2", "held");
    signed.commit_action("ann", "stricter", "note");
    queued("stricter").await;
    agent.kill();
    let config = fs::read_to_string(world.path("consign.toml")).unwrap();
    let rule = "[[approval.rule]]\nformula = \"note\"\nrequire = \"signed\"\nsigners = [\"boss@*\"]\n";
    fs::write(world.path("consign.toml"), format!("{config}{rule}")).unwrap();
    let agent = signed.agent().await;
    let words = ["signed by boss@*", "by the rule for formula note", "ann@x, who is not among those"];
    signed.waits("stricter", &words).await;
    fs::write(world.path("go"), "").unwrap();
    ends(&world.result("holder-2", LIMIT).await, "succeeded", "success");
    assert!(world.ledger_lines().is_empty());
    agent.kill();
    fs::write(world.path("consign.toml"), config).unwrap();
    let _agent = signed.agent().await;
    ends(&world.result("stricter", LIMIT).await, "succeeded", "success");
    assert_eq!(world.ledger_lines(), ["stricter"]);
}
