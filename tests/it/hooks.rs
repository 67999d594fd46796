//! The forge's push webhook makes the agent look at once.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::support::{Agent, LIMIT, World, action};

const BODY: &str = "{\"ref\": \"refs/heads/main\"}";

/// A world whose agent looks by itself at its start alone, and has done so.
async fn unasked(name: &str, ops: &str) -> (World, Agent) {
    let world = World::new(name).await;
    let config = world.config_toml().replace("poll = \"1s\"", &format!("poll = \"10m\"\n{ops}"));
    world.bootstrap_with(&config);
    let text = action("early", "hello", "");
    world.ops.commit(
        "before the agent",
        &[("formulas/hello.sh", Some("echo hello\n")), ("actions/early.toml", Some(&text))],
    );
    let agent = world.agent().await;
    assert_eq!(world.result("early", LIMIT).await["outcome"], "succeeded");
    (world, agent)
}

async fn push(agent: &Agent, signature: Option<(&'static str, String)>) -> u16 {
    let mut request = crate::support::http().post(format!("{}/hooks/git", agent.address)).body(BODY);
    if let Some((name, value)) = signature {
        request = request.header(name, value);
    }
    request.send().await.unwrap().status().as_u16()
}

fn signature(secret: &str) -> String {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    hmac.update(BODY.as_bytes());
    let bytes = hmac.finalize().into_bytes();
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[tokio::test]
async fn a_push_from_this_machine_is_looked_at_at_once() {
    let (world, agent) = unasked("hook", "").await;
    for id in ["first", "second"] {
        world.commit_action(id, "hello", "");
        assert_eq!(push(&agent, None).await, 202);
        assert_eq!(world.result(id, LIMIT).await["outcome"], "succeeded");
    }
}

#[tokio::test]
async fn with_a_secret_a_signed_push_alone_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hook-secret");
    std::fs::write(&file, "not guessable\n").unwrap();
    let (world, agent) = unasked("signed", &format!("hook_secret_file = \"{}\"", file.display())).await;
    world.commit_action("late", "hello", "");
    for refused in [
        None,
        Some(("x-hub-signature-256", format!("sha256={}", signature("guessed")))),
        Some(("x-hub-signature-256", "sha256=".to_owned())),
        Some(("x-gitea-signature", signature("guessed"))),
    ] {
        assert_eq!(push(&agent, refused).await, 401);
    }
    assert_eq!(world.children().await.len(), 1, "a refused push wakes nobody");
    let good = format!("sha256={}", signature("not guessable"));
    assert_eq!(push(&agent, Some(("x-hub-signature-256", good))).await, 202);
    assert_eq!(world.result("late", LIMIT).await["outcome"], "succeeded");
    world.commit_action("later", "hello", "");
    assert_eq!(push(&agent, Some(("x-gitea-signature", signature("not guessable")))).await, 202);
    assert_eq!(world.result("later", LIMIT).await["outcome"], "succeeded");
}
