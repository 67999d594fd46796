//! Triggers by the issues of a forge: from a label to a comment, on a real Gitea.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{
    Agent, Gitea, LIMIT, World,
    gitea::{AGENT, REPOSITORY},
    wait_for,
};

const SECRET: &str = "not guessable";
const SCOPES: [&str; 2] = ["read:repository", "write:issue"];

/// A world with a forge that has issues.
struct Stage {
    world: World,
    gitea: Gitea,
    /// Where the formulas look and write.
    folder: PathBuf,
}

/// What the formulas do: they say in `ran` that they begin and end, and wait between while `hold` is there.
fn formula(folder: &str) -> String {
    format!(
        "cd {folder}\necho \"$CONSIGN_FORMULA begins $ARG_ISSUE_NUMBER\" >>ran\n\
         while [ -e hold ]; do sleep 0.1; done\n\
         echo \"$CONSIGN_FORMULA ends $ARG_ISSUE_NUMBER\" >>ran\n[ ! -e fail ] || exit 3\n"
    )
}

/// A trigger by the label that is its name, which runs the formula of that name.
fn trigger(name: &str, keys: &str, action: &str) -> String {
    format!(
        "[[trigger]]\nname = \"{name}\"\nkind = \"forge\"\nforge = \"main\"\nrepo = \"{REPOSITORY}\"\n\
         label = \"{name}\"\n{keys}\n[trigger.action]\nformula = \"{name}\"\nblast_radius = \"low\"\n{action}\n"
    )
}

impl Stage {
    /// The forge has the triggers' labels; `folder` is where the tasks see `seen`.
    async fn new(
        world: World,
        scopes: &[&str],
        triggers: &str,
        seen: (PathBuf, &str),
        formulas: &[&str],
    ) -> Self {
        let (folder, path) = seen;
        let gitea = Gitea::start().await;
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(world.path("forge.token"), gitea.token(AGENT, scopes).await).unwrap();
        fs::write(world.path("hook-secret"), SECRET).unwrap();
        fs::set_permissions(world.path("hook-secret"), fs::Permissions::from_mode(0o600)).unwrap();
        let token = world.path("forge.token");
        let forge = format!(
            "[forge.main]\nkind = \"gitea\"\nurl = \"{}\"\nrepository = \"{REPOSITORY}\"\ntoken_file = \"{}\"\n",
            gitea.address,
            token.display()
        );
        let driver = if path.starts_with("/srv") { "exec" } else { "raw_exec" };
        let config = world.config_toml().replace("\"raw_exec\"", &format!("\"{driver}\""));
        world.bootstrap_with(&format!("{config}\n{forge}\n{triggers}"));
        for name in formulas {
            gitea.make_label(name).await;
            world.ops.commit(name, &[(&format!("formulas/{name}.sh"), Some(&formula(path)))]);
        }
        Self { world, gitea, folder }
    }

    fn ran(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("ran")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn until_ran(&self, lines: &[&str]) {
        wait_for(&format!("{lines:?}"), LIMIT, async || {
            let ran = self.ran();
            if ran == lines { Ok(()) } else { Err(format!("{ran:?}")) }
        })
        .await;
    }

    /// Waits until the trigger sees to no issue, and then for the labels of one.
    async fn until_labels(&self, trigger: &str, number: u64, labels: &[&str]) {
        wait_for(&format!("#{number} to have {labels:?}"), LIMIT, async || {
            let (present, shown) = (self.gitea.labels(number).await, self.show(trigger));
            let is_settled = shown["source"] == "followed";
            if is_settled && present == labels { Ok(()) } else { Err(format!("{present:?} {shown}")) }
        })
        .await;
    }

    async fn until_ended(&self, job_id: &str) {
        wait_for(&format!("{job_id} to end"), LIMIT, async || {
            let shown = self.command(&["show", job_id, "--json"]);
            let job: Value = serde_json::from_str(&shown).unwrap_or_default();
            if job["outcome"] == "succeeded" { Ok(()) } else { Err(shown) }
        })
        .await;
    }

    async fn until_source(&self, trigger: &str, words: &str) {
        wait_for(&format!("{trigger} to say {words:?}"), LIMIT, async || {
            let shown = self.show(trigger);
            let says = shown["source"].as_str().is_some_and(|source| source.contains(words));
            if says { Ok(()) } else { Err(shown.to_string()) }
        })
        .await;
    }

    /// What `consign trigger show` has of a trigger.
    fn show(&self, trigger: &str) -> Value {
        serde_json::from_str(&self.command(&["trigger", "show", trigger, "--json"])).unwrap_or_default()
    }

    fn command(&self, arguments: &[&str]) -> String {
        let path = self.world.path("ann.token");
        if !path.exists() {
            let made = self.world.operate(&["token", "create", "ann", "--scope", "admin"], b"");
            let text = String::from_utf8(made.stdout).unwrap();
            fs::write(&path, text.lines().last().unwrap()).unwrap();
        }
        let token = fs::read_to_string(&path).unwrap();
        let output = self.world.consign(arguments).env("CONSIGN_TOKEN", token).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What became of a trigger's events, the latest first.
    fn fates(&self, trigger: &str) -> Vec<String> {
        let shown = self.show(trigger);
        let events = shown["events"].as_array().unwrap();
        events
            .iter()
            .map(|event| format!("{} {}", event["content"].as_str().unwrap(), event["fate"]))
            .collect()
    }

    async fn children_of(&self, base_job: &str) -> usize {
        let jobs = self.world.nomad.get(&format!("/v1/jobs?prefix={base_job}/dispatch-")).await.unwrap();
        jobs.as_array().unwrap().len()
    }
}

async fn hook(agent: &Agent, secret: Option<&str>) -> u16 {
    let body = "{\"action\": \"label_updated\"}";
    let mut request = crate::support::http().post(format!("{}/hooks/forge", agent.address)).body(body);
    if let Some(secret) = secret {
        let mut hmac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        hmac.update(body.as_bytes());
        let bytes = hmac.finalize().into_bytes();
        let digits = bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        request = request.header("x-gitea-signature", digits);
    }
    request.send().await.unwrap().status().as_u16()
}

fn touch(folder: &Path, name: &str) {
    fs::write(folder.join(name), "").unwrap();
}

fn remove(folder: &Path, name: &str) {
    fs::remove_file(folder.join(name)).unwrap();
}

#[tokio::test]
async fn a_labelled_issue_runs_its_sidecar_once_and_is_told_how_that_ended() {
    let world = World::new("issues").await;
    let folder = world.servers.volume("agent-data").join(&world.name);
    let seen = format!("/srv/agent-data/{}", world.name);
    let bot = format!("issues-{}", world.name.rsplit('-').next().unwrap());
    let action = format!("job = \"sidecar\"\nargs = {{ bot = \"{bot}\" }}");
    let keys =
        |poll: &str| format!("poll = \"{poll}\"\nhmac_file = \"{}\"", world.path("hook-secret").display());
    // One looks by itself all the time, the other one only when the forge tells it to.
    let (polled, told) =
        (trigger("triage", &keys("200ms"), &action), trigger("verify", &keys("10m"), &action));
    let stage =
        Stage::new(world, &SCOPES, &format!("{polled}{told}"), (folder, &seen), &["triage", "verify"]).await;
    let Stage { world, gitea, folder } = &stage;
    let output = world.operate(&["secret", "put", "--bot", &bot], b"a token");
    assert!(output.status.success(), "{output:?}");
    let agent = world.agent().await;
    stage.until_source("verify", "followed").await;
    gitea.tell(&format!("{}/hooks/forge", agent.address), SECRET, &["issues", "issue_label"]).await;

    let first = gitea.open_issue("ann").await;
    gitea.label(first, "triage").await;
    stage.until_labels("triage", first, &["triage-done"]).await;
    assert_eq!(stage.ran(), ["triage begins 1", "triage ends 1"]);
    let comments = gitea.comments(first).await;
    assert!(
        comments.len() == 1 && comments[0].contains("`triage` succeeded (success, exit code 0)"),
        "{comments:?}"
    );
    for _ in 0..3 {
        assert_eq!(hook(&agent, Some(SECRET)).await, 202, "a webhook that comes again");
    }
    assert_eq!((hook(&agent, None).await, hook(&agent, Some("guessed")).await), (401, 401));

    // This one is heard of from the forge alone, and fails.
    touch(folder, "fail");
    let second = gitea.open_issue("ann").await;
    gitea.label(second, "verify").await;
    stage.until_labels("verify", second, &["verify-failed"]).await;
    assert!(gitea.comments(second).await[0].contains("`verify` failed (exit_code, exit code 3)"));
    remove(folder, "fail");
    gitea.label(second, "verify").await;
    stage.until_labels("verify", second, &["verify-done"]).await;
    assert_eq!(gitea.comments(second).await.len(), 2);

    // Whatever label comes while a run goes on waits for its end.
    touch(folder, "hold");
    fs::remove_file(folder.join("ran")).unwrap();
    gitea.label(first, "triage").await;
    stage.until_ran(&["triage begins 1"]).await;
    assert_eq!(gitea.labels(first).await, ["triage-running"]);
    stage.until_source("triage", "#1 runs").await;
    gitea.label(first, "verify").await;
    remove(folder, "hold");
    stage.until_labels("verify", first, &["triage-done", "verify-done"]).await;
    assert_eq!(stage.ran(), ["triage begins 1", "triage ends 1", "verify begins 1", "verify ends 1"]);
    assert_eq!(stage.fates("triage"), ["{\"issue\":1} \"ran\"", "{\"issue\":1} \"ran\""]);
    assert_eq!(stage.children_of("sidecar").await, 5);
}

#[tokio::test]
async fn neither_a_crash_nor_an_outage_of_the_forge_comments_twice() {
    let world = World::new("issue-crash").await;
    let folder = world.path("shared");
    let seen = folder.display().to_string();
    let triggers = trigger("look", "poll = \"200ms\"", "")
        + &trigger("broken", "poll = \"200ms\"", "").replace("formula = \"broken\"", "formula = \"nothing\"");
    let poor = ["read:repository", "read:issue"];
    let mut stage = Stage::new(world, &poor, &triggers, (folder, &seen), &["look", "broken"]).await;
    let agent = stage.world.agent().await;

    // What may not be labelled does not run.
    let (first, second) = (stage.gitea.open_issue("ann").await, stage.gitea.open_issue("ann").await);
    for issue in [first, second] {
        stage.gitea.label(issue, "look").await;
    }
    stage.until_source("look", "give the token the scopes read:repository and write:issue").await;
    assert_eq!(stage.world.children().await, Vec::<String>::new());
    touch(&stage.folder, "hold");
    fs::write(stage.world.path("forge.token"), stage.gitea.token(AGENT, &SCOPES).await).unwrap();
    let events = wait_for("both to run", LIMIT, async || {
        let (ran, shown) = (stage.ran(), stage.show("look"));
        let events = shown["events"].as_array().cloned().unwrap_or_default();
        let on_record = events.iter().filter(|event| event["job_id"].is_string()).count();
        if ran.len() == 2 && on_record == 2 { Ok(events) } else { Err(format!("{ran:?} {shown}")) }
    })
    .await;

    // They end while the forge is down, and the agent ends before it is back.
    stage.gitea.halt();
    remove(&stage.folder, "hold");
    for event in &events {
        stage.until_ended(event["job_id"].as_str().unwrap()).await;
    }
    stage.until_source("look", "the forge cannot be reached").await;
    agent.kill();
    stage.gitea.resume().await;
    // On the second the crash came after the comment.
    let event = events.iter().find(|event| event["content"] == "{\"issue\":2}").unwrap();
    let said = format!("It ran.\n\n<!-- consign {} -->", event["event_id"].as_str().unwrap());
    let path = format!("/repos/{REPOSITORY}/issues/{second}/comments");
    stage.gitea.post(AGENT, &path, json!({ "body": said })).await;
    let agent = stage.world.agent().await;
    for issue in [first, second] {
        stage.until_labels("look", issue, &["look-done"]).await;
        assert_eq!(stage.gitea.comments(issue).await.len(), 1);
    }
    assert_eq!(stage.gitea.comments(second).await, [said]);

    // Somebody may fire it for an issue as well; and what cannot be made is told like what failed.
    let fired = stage.command(&["trigger", "fire", "look", "--content", "{\"issue\": 1}", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&fired).unwrap()["reason"], "label");
    stage.gitea.label(second, "broken").await;
    stage.until_labels("broken", second, &["broken-failed", "look-done"]).await;
    assert!(stage.gitea.comments(second).await[1].contains("`broken` could not be started."));
    // The issue is told first.
    wait_for("the event to be done with", LIMIT, async || match stage.fates("broken").as_slice() {
        [fate] if fate == "{\"issue\":2} \"failed\"" => Ok(()),
        fates => Err(format!("{fates:?}")),
    })
    .await;
    wait_for("the fired one to end", LIMIT, async || {
        let comments = stage.gitea.comments(first).await;
        if comments.len() == 2 { Ok(()) } else { Err(format!("{comments:?}")) }
    })
    .await;
    assert_eq!(stage.world.children().await.len(), 3);
    drop(agent);
}
