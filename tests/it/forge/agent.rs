//! The whole way: from a pull request on the forge to a run under Nomad, or to a reason why not.

use serde_json::Value;

use crate::support::{
    Agent, Gitea, LIMIT, World, action,
    gitea::{AGENT, REPOSITORY, SCOPES},
    wait_for,
};

/// The rules of these tests: what is high needs one of the team, but for one formula.
const RULES: &str = "[[approval.rule]]\nteam = \"ops\"\n\
                     [[approval.rule]]\nformula = \"urgent\"\ndirect = true\n\
                     [[approval.rule]]\nformula = \"override\"\nadmin_merge = true\n";

/// A world whose ops repo is on a forge.
pub(super) struct Reviewed {
    pub(super) world: World,
    pub(super) gitea: Gitea,
    config: String,
}

impl Reviewed {
    pub(super) async fn new(name: &str, further: &str) -> Self {
        let gitea = Gitea::start().await;
        let mut world = World::new(name).await;
        let local = Value::from(world.ops.bare.to_str().unwrap()).to_string();
        let token = world.path("forge.token");
        std::fs::write(&token, gitea.token(AGENT, &SCOPES).await).unwrap();
        let config = world
            .config_toml()
            .replace(&local, &format!("{:?}", gitea.remote()))
            .replace("high = \"merged\"", "high = \"review\"");
        // Results are read where the forge keeps the repository.
        world.ops.bare = gitea.bare();
        let config = format!(
            "{config}\n{RULES}\n[forge.main]\nkind = \"gitea\"\nurl = \"{}\"\nrepository = \"{REPOSITORY}\"\n\
             token_file = \"{}\"\n{further}\n",
            gitea.address,
            token.display()
        );
        world.bootstrap_with(&config);
        let hello = "echo hello\n";
        let formulas =
            ["formulas/hello.sh", "formulas/urgent.sh", "formulas/override.sh"].map(|path| (path, hello));
        gitea.commit("ann", "main", &formulas).await;
        Self { world, gitea, config }
    }

    /// An action of a high blast radius, on a branch of its own with a pull request by Ann.
    async fn propose(&self, id: &str, formula: &str, further: &str) -> u64 {
        let (path, text) = (format!("actions/{id}.toml"), high(id, formula, further));
        self.gitea.propose("ann", id, &[(&path, &text)]).await
    }

    /// Waits until the job of an action waits with `reason`.
    async fn waits(&self, agent: &Agent, id: &str, reason: &str) {
        wait_for(&format!("{id} to wait for {reason:?}"), LIMIT, async || {
            let job = self.job(agent, id).await?;
            let said = job["waits_for"].as_str().unwrap_or_default();
            if job["state"] == "waiting" && said.contains(reason) { Ok(()) } else { Err(job.to_string()) }
        })
        .await;
    }

    async fn job(&self, agent: &Agent, id: &str) -> Result<Value, String> {
        let token = self.world.path("read.token");
        if !token.exists() {
            let made = self.world.operate(&["token", "create", "reader", "--scope", "read"], b"");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let text = String::from_utf8(made.stdout).unwrap();
            std::fs::write(&token, text.lines().last().unwrap()).unwrap();
        }
        let answer = crate::support::http()
            .get(format!("{}/jobs/{id}", agent.address))
            .bearer_auth(std::fs::read_to_string(&token).unwrap())
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let text = answer.text().await.map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    pub(super) async fn hook(&self, agent: &Agent) {
        let answer =
            crate::support::http().post(format!("{}/hooks/git", agent.address)).send().await.unwrap();
        assert_eq!(answer.status(), 202);
    }
}

/// An action's text, of a high blast radius.
pub(super) fn high(id: &str, formula: &str, further: &str) -> String {
    action(id, formula, further).replace("blast_radius = \"low\"", "blast_radius = \"high\"")
}

#[tokio::test]
async fn what_is_approved_runs_and_nothing_else_does() {
    let reviewed = Reviewed::new("reviews", "").await;
    let Reviewed { world, gitea, .. } = &reviewed;
    let agent = world.agent().await;
    let mut expected = Vec::new();
    for (name, reason) in [
        ("unapproved", "has 0 of 1 approval of the team ops"),
        ("pushed-to", "bob approved it at"),
        ("dismissed", "the review of bob was dismissed"),
        ("outsider", "eve is not of the team ops"),
        ("own-commit", "bob is one of its authors"),
        ("admin-merged", "has 0 of 1 approval of the team ops"),
    ] {
        let number = reviewed.propose(name, "hello", "").await;
        let path = format!("actions/{name}.toml");
        match name {
            "outsider" => drop(gitea.review("eve", number, "APPROVED").await),
            "own-commit" => {
                gitea.commit("bob", name, &[(&path, &high(name, "hello", "env = { A = \"1\" }"))]).await;
                gitea.review("bob", number, "APPROVED").await;
            }
            "pushed-to" | "dismissed" => {
                let review = gitea.review("bob", number, "APPROVED").await;
                if name == "dismissed" {
                    gitea.dismiss(number, review).await;
                } else {
                    gitea.commit("ann", name, &[(&path, &high(name, "hello", "env = { A = \"1\" }"))]).await;
                }
            }
            _ => {}
        }
        let by = if name == "admin-merged" { crate::support::gitea::ROOT } else { "ann" };
        gitea.merge(by, number, "merge").await;
        expected.push((name, reason));
    }
    let text = high("pushed", "hello", "");
    gitea.commit("ann", "main", &[("actions/pushed.toml", &text)]).await;
    expected.push(("pushed", "no pull request"));
    let text = high("claims", "hello", "dispatch_mode = \"direct\"");
    gitea.commit("ann", "main", &[("actions/claims.toml", &text)]).await;
    expected.push(("claims", "which no rule allows here"));
    for (name, reason) in expected {
        reviewed.waits(&agent, name, reason).await;
    }
    assert_eq!(world.children().await, Vec::<String>::new(), "nothing was dispatched");

    let number = reviewed.propose("approved", "hello", "").await;
    gitea.review("bob", number, "APPROVED").await;
    gitea.merge("ann", number, "squash").await;
    let result = world.result("approved", LIMIT).await;
    assert_eq!(result["outcome"], "succeeded", "{result}");
    assert_eq!(result["approval"]["by"], serde_json::json!(["bob"]));
    let evidence = &result["approval"]["evidence"][0];
    assert_eq!(evidence["kind"], "review");
    assert!(evidence["url"].as_str().unwrap().ends_with(&format!("/pulls/{number}")), "{evidence}");

    // Where a rule allows it, an action need not come by a pull request, or an admin's merge is an approval.
    let text = high("urgent-one", "urgent", "dispatch_mode = \"direct\"");
    gitea.commit("ann", "main", &[("actions/urgent-one.toml", &text)]).await;
    assert_eq!(world.result("urgent-one", LIMIT).await["outcome"], "succeeded");
    let number = reviewed.propose("overridden", "override", "").await;
    gitea.merge(crate::support::gitea::ROOT, number, "merge").await;
    assert_eq!(world.result("overridden", LIMIT).await["approval"]["by"], serde_json::json!(["root1"]));
}

#[tokio::test]
async fn a_forge_that_is_down_approves_nothing_and_a_changed_rule_counts() {
    let mut reviewed = Reviewed::new("forge-down", "").await;
    let token = reviewed.world.path("forge.token");
    let good = std::fs::read_to_string(&token).unwrap();
    let poor = reviewed.gitea.token(AGENT, &["write:repository"]).await;
    std::fs::write(&token, poor).unwrap();
    // Git answers, and the API does not.
    let path = reviewed.world.path("consign.toml");
    let there = format!("url = \"{}\"", reviewed.gitea.address);
    std::fs::write(&path, reviewed.config.replace(&there, "url = \"http://127.0.0.1:9\"")).unwrap();
    let agent = reviewed.world.agent().await;
    for (id, further) in [("first", ""), ("second", "after = [\"gate\"]")] {
        let number = reviewed.propose(id, "hello", further).await;
        reviewed.gitea.review("bob", number, "APPROVED").await;
        reviewed.gitea.merge("ann", number, "merge").await;
    }
    reviewed.waits(&agent, "first", "the forge cannot be reached").await;
    agent.degraded("forge").await;
    agent.terminate().await;
    std::fs::write(&path, &reviewed.config).unwrap();
    let agent = reviewed.world.agent().await;
    reviewed.waits(&agent, "first", "give the token the scope read:issue").await;
    reviewed.gitea.halt();
    reviewed.hook(&agent).await;
    reviewed.waits(&agent, "first", "nothing is known for now").await;
    agent.degraded("approvals").await;
    std::fs::write(&token, good).unwrap();
    reviewed.gitea.resume().await;
    assert_eq!(reviewed.world.result("first", LIMIT).await["outcome"], "succeeded");
    reviewed.waits(&agent, "second", "gate to succeed").await;
    agent.recovered().await;

    // Approved by one of the team, and then two are needed.
    agent.terminate().await;
    let stricter = reviewed.config.replace("team = \"ops\"", "team = \"ops\"\napprovals = 2");
    std::fs::write(&path, stricter).unwrap();
    let agent = reviewed.world.agent().await;
    reviewed.gitea.commit("ann", "main", &[("actions/gate.toml", &action("gate", "hello", ""))]).await;
    assert_eq!(reviewed.world.result("gate", LIMIT).await["outcome"], "succeeded");
    reviewed.waits(&agent, "second", "has 1 of 2 approvals of the team ops").await;
    assert_eq!(reviewed.world.children().await.len(), 2, "the second was not dispatched");
}

#[tokio::test]
async fn a_replayed_webhook_is_one_more_look_and_nothing_else() {
    let reviewed = Reviewed::new("replayed", "").await;
    let Reviewed { world, gitea, .. } = &reviewed;
    let agent = world.agent().await;
    let number = reviewed.propose("open", "hello", "").await;
    gitea.review("bob", number, "APPROVED").await;
    for _ in 0..20 {
        reviewed.hook(&agent).await;
    }
    gitea.merge("ann", number, "merge").await;
    reviewed.hook(&agent).await;
    assert_eq!(world.result("open", LIMIT).await["outcome"], "succeeded");
    for _ in 0..20 {
        reviewed.hook(&agent).await;
    }
    let text = action("after", "hello", "");
    gitea.commit("ann", "main", &[("actions/after.toml", &text)]).await;
    assert_eq!(world.result("after", LIMIT).await["outcome"], "succeeded");
    assert_eq!(world.children().await.len(), 2, "each ran once");
}

#[tokio::test]
async fn the_forges_own_webhook_of_a_merge_is_taken() {
    let reviewed = Reviewed::new("merge-hook", "").await;
    let Reviewed { world, gitea, config } = &reviewed;
    let secret = world.path("hook-secret");
    std::fs::write(&secret, "not guessable\n").unwrap();
    let seldom = format!("poll = \"10m\"\nhook_secret_file = \"{}\"", secret.display());
    let config = config.replace("poll = \"1s\"", &seldom);
    std::fs::write(world.path("consign.toml"), config).unwrap();
    gitea.commit("ann", "main", &[("actions/early.toml", &action("early", "hello", ""))]).await;
    let agent = world.agent().await;
    assert_eq!(world.result("early", LIMIT).await["outcome"], "succeeded");
    gitea.tell(&format!("{}/hooks/git", agent.address), "not guessable", &["pull_request"]).await;
    let number = reviewed.propose("merged", "hello", "").await;
    gitea.review("bob", number, "APPROVED").await;
    gitea.merge("ann", number, "merge").await;
    assert_eq!(world.result("merged", LIMIT).await["outcome"], "succeeded");
}

#[tokio::test]
async fn doctor_tells_what_the_forges_token_lacks() {
    let mut reviewed = Reviewed::new("forge-doctor", "statuses = true").await;
    let found = |reviewed: &Reviewed| {
        let output = reviewed.world.operate(&["doctor"], b"");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = found(&reviewed);
    assert!(said.contains("main: acme/actions has branch main at"), "{said}");
    assert!(said.contains("main: the team ops has 3"), "{said}");
    assert!(!said.contains("failure  forge"), "{said}");
    let token = reviewed.world.path("forge.token");
    for (person, scopes, lacks) in [
        (AGENT, &["read:organization"][..], "read:repository"),
        (AGENT, &["read:repository", "read:organization"], "read:issue"),
        (AGENT, &["read:repository", "read:issue"], "read:organization"),
        ("eve", &SCOPES[..], "member of the team"),
    ] {
        std::fs::write(&token, reviewed.gitea.token(person, scopes).await).unwrap();
        let said = found(&reviewed);
        assert!(said.contains("no right to") && said.contains(lacks), "{scopes:?}: {said}");
    }
    reviewed.gitea.halt();
    let said = found(&reviewed);
    assert!(said.contains("the forge cannot be reached"), "{said}");
}
