//! The page of the triggers, in a real browser.

use std::fs;

use serde_json::json;

use super::{can_be_read, log_in, shows, token};
use crate::{
    support::Browser,
    triggers::{Stage, TOKEN, trigger, webhook},
};

#[tokio::test]
async fn a_person_sees_what_became_of_each_event_and_fires_a_trigger() {
    let triggers = [
        webhook("train", "cooldown = \"6h\"\nallow_force = true"),
        trigger("weekly", "schedule", "cron = \"0 3 * * SUN\""),
    ];
    let stage = Stage::new("fires", &triggers.concat()).await;
    let agent = stage.agent.as_ref().unwrap();
    let reader = token(&stage.world, "reader", "read");
    let operator = token(&stage.world, "operator", "read,submit");
    let browser = Browser::start().await;

    log_in(&browser, agent, "/", &reader).await;
    browser.click("header a[href='/ui/triggers']").await;
    for words in ["train", "webhook", "ready", "weekly", "The next time comes in"] {
        shows(&browser, "main", words).await;
    }
    can_be_read(&browser, "triggers").await;
    let hold = stage.world.path("hold");
    fs::write(&hold, "").unwrap();
    let (_, first) = stage.post("/triggers/train", TOKEN, "{\"commit\": \"abc\"}").await;
    let job_id = first["job_id"].as_str().unwrap();
    assert_eq!(stage.post("/triggers/train", TOKEN, "").await.1["status"], "skipped");
    browser.open(&format!("{}/ui/triggers/train", agent.address)).await;
    shows(&browser, "h1", "running").await;
    for words in ["already_running", job_id, "127.0.0.1"] {
        shows(&browser, "[aria-labelledby=ledger]", words).await;
    }
    browser.click("summary").await;
    shows(&browser, "details", "{\"commit\":\"abc\"}").await;
    assert_eq!(browser.script("return document.querySelectorAll('main form').length").await, 0);
    let fire = "return fetch(location.pathname + '/fire', { method: 'POST', body: new URLSearchParams() }).then(it => it.status)";
    assert_eq!(browser.script(fire).await, 403);
    fs::remove_file(hold).unwrap();
    // The page looks again by itself.
    shows(&browser, "h1", "cooldown").await;
    shows(&browser, ".lead", "The cooldown is over in 5 h 59 min").await;
    browser.click("header button").await;
    shows(&browser, "h1", "Log in").await;

    browser.scripts(false).await;
    log_in(&browser, agent, "/ui/triggers/train", &operator).await;
    browser.click("#fire").await;
    shows(&browser, "[aria-labelledby=ledger] tbody tr:nth-child(1)", "cooldown_active").await;
    browser.click("#force").await;
    shows(&browser, "[aria-labelledby=ledger] tbody tr:nth-child(1)", "operator from 127.0.0.1, forced")
        .await;
    can_be_read(&browser, "trigger").await;
    browser.click("[aria-labelledby=ledger] tbody tr:nth-child(1) a").await;
    shows(&browser, "dl", "operator").await;
    let fates: Vec<_> = stage.ledger("train").await.iter().map(|event| event["fate"].clone()).collect();
    assert_eq!(fates, [json!("ran"), json!("suppressed"), json!("suppressed"), json!("ran")]);
}
