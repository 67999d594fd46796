//! The page at `/`, in a real browser.

mod triggers;

use serde_json::{Value, json};

use crate::{
    submit::{self, Caller},
    support::{Agent, Browser, LIMIT, World, action, ends, wait_for},
};

/// What no browser may obey.
const HOSTILE: &str = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>";

/// A token that an operator makes.
fn token(world: &World, name: &str, scopes: &str) -> String {
    let output = world.operate(&["token", "create", name, "--scope", scopes], b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned()
}

/// Opens a page of the agent's and logs in there.
async fn log_in(browser: &Browser, agent: &Agent, path: &str, token: &str) {
    browser.open(&format!("{}{path}", agent.address)).await;
    browser.enter("#token", token).await;
    browser.click("main button").await;
}

/// Waits until the part of the page that a CSS selector finds says `words`.
async fn shows(browser: &Browser, selector: &str, words: &str) {
    wait_for(&format!("{selector} to say {words:?}"), LIMIT, async || {
        let text = browser.text(selector).await;
        if text.contains(words) { Ok(()) } else { Err(text) }
    })
    .await;
}

/// A formula that prints a line, and ends once the file `go` is there.
fn held(world: &World, further: &str) -> String {
    format!("echo begun\nwhile [ ! -e {} ]; do sleep 0.1; done\n{further}", world.path("go").display())
}

#[tokio::test]
async fn a_person_sees_why_the_third_job_waits_and_does_what_their_token_allows() {
    let world = World::new("page").await;
    world.bootstrap("");
    let agent = world.agent().await;
    let gpu = "concurrency = { group = \"gpu\", limit = 2 }\n";
    let formula = format!(
        "description = \"trains\"\n[[steps]]\nname = \"hold\"\nrun = \"\"\"\necho $CONSIGN_ACTION_ID >> {}\n{}\"\"\"\n",
        world.ledger().display(),
        held(&world, "")
    );
    world.ops.commit("a formula", &[("formulas/train.toml", Some(&formula))]);
    for (before, id) in ["gpu-1", "gpu-2", "gpu-3"].into_iter().enumerate() {
        // Of those that are seen at once, any may come first.
        wait_for("those before to work", LIMIT, async || {
            let lines = world.ledger_lines();
            if lines.len() == before { Ok(()) } else { Err(format!("{lines:?}")) }
        })
        .await;
        world.commit_action(id, "train", gpu);
    }
    let (reader, operator) = (token(&world, "reader", "read"), token(&world, "operator", "read,submit"));
    let browser = Browser::start().await;

    log_in(&browser, &agent, "/", "consign_wrong").await;
    shows(&browser, "[role=alert]", "the token is not known").await;
    can_be_read(&browser, "login").await;
    log_in(&browser, &agent, "/", &reader).await;
    shows(&browser, "header", "reader (read-only)").await;
    let why = "1 of 1 in the queue: 2 may run at a time of the concurrency group gpu, held by gpu-1, gpu-2";
    shows(&browser, "[aria-labelledby=waiting]", why).await;
    for words in ["gpu-1", "gpu-2", "hold"] {
        shows(&browser, "[aria-labelledby=working]", words).await;
    }
    can_be_read(&browser, "queue").await;

    let cookie = &browser.cookies().await[0];
    assert_eq!((&cookie["httpOnly"], &cookie["sameSite"]), (&json!(true), &json!("Lax")), "{cookie}");
    assert!(!cookie["value"].to_string().contains(&reader), "the token itself stays nowhere");
    assert_eq!(browser.script("return document.cookie").await, "");
    // The API takes no cookie, so no form of another site can use it.
    let status = async |path: &str, method: &str| {
        let fetch = format!("return fetch('{path}', {{ method: '{method}' }}).then(answer => answer.status)");
        browser.script(&fetch).await
    };
    assert_eq!(status("/jobs", "GET").await, 401);
    browser.open(&format!("{}/ui/jobs/gpu-3", agent.address)).await;
    shows(&browser, "h1", "queued").await;
    shows(&browser, ".lead", why).await;
    assert_eq!(browser.script("return document.querySelectorAll('main form').length").await, 0);
    assert_eq!(status("/ui/jobs/gpu-3/cancel", "POST").await, 403);
    let cross_site = crate::support::http()
        .post(format!("{}/ui/jobs/gpu-3/cancel", agent.address))
        .header("cookie", format!("consign_session={}", cookie["value"].as_str().unwrap()))
        .header("origin", "http://evil.example");
    assert_eq!(cross_site.send().await.unwrap().status(), 403);

    browser.click("header button").await;
    shows(&browser, "h1", "Log in").await;
    log_in(&browser, &agent, "/ui/jobs/gpu-3", &operator).await;
    // The login has the same address.
    shows(&browser, "h1", "gpu-3").await;
    assert!(browser.address().await.ends_with("/ui/jobs/gpu-3"), "the login leads back");
    browser.click("#cancel").await;
    shows(&browser, "h1", "failed").await;
    shows(&browser, ".lead", "was cancelled by operator").await;
    ends(&world.result("gpu-3", LIMIT).await, "cancelled", "cancelled");
    assert!(world.operate(&["token", "revoke", "operator"], b"").status.success());
    // The page looks again by itself.
    shows(&browser, "h1", "Log in").await;
    assert!(!agent.log().contains(&operator));
}

/// Waits until the page has looked for news twice from now: what the first look brought is shown then.
async fn looks_again(browser: &Browser) {
    let looks =
        "return performance.getEntriesByType('resource').filter(it => it.name.endsWith('live=true')).length";
    let before = browser.script(looks).await.as_u64().unwrap();
    wait_for("two looks", LIMIT, async || {
        let looks = browser.script(looks).await.as_u64().unwrap();
        if looks >= before + 2 { Ok(()) } else { Err(looks.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn what_waits_is_approved_or_rejected_by_somebody_else() {
    let world = World::new("buttons").await;
    world.bootstrap_with(&world.config_toml().replace("[approval]", "[approval]\napi = \"review\""));
    let agent = submit::agent(&world).await;
    let ann = Caller::new(&world, "ann", "read,submit,approve");
    let ben = Caller::new(&world, "ben", "read,approve");
    let greet = |who| json!({ "formula": "greet", "args": { "who": who }, "blast_radius": "low" });
    let (wanted, other) = (ann.taken(&greet("dan"), None).await, ann.taken(&greet("eve"), None).await);
    let digest = ann.until(&wanted, "waiting").await["digest"].as_str().unwrap().to_owned();
    ann.until(&other, "waiting").await;
    let browser = Browser::start().await;
    let page = format!("/ui/jobs/{wanted}");

    log_in(&browser, &agent, &page, &ann.token).await;
    shows(&browser, "h1", "waiting").await;
    let offered = "return [...document.querySelectorAll('main button')].map(it => it.innerText)";
    assert_eq!(browser.script(offered).await, json!(["Cancel"]), "it is her own");
    let own = "return fetch(location.pathname + '/approve', { method: 'POST', body: new URLSearchParams() }).then(it => it.status)";
    assert_eq!(browser.script(own).await, 403);
    browser.click("header button").await;
    shows(&browser, "h1", "Log in").await;

    log_in(&browser, &agent, &page, &ben.token).await;
    shows(&browser, "h1", "waiting").await;
    shows(&browser, "dl", &digest).await;
    assert_eq!(browser.script(offered).await, json!(["Approve", "Reject"]));
    can_be_read(&browser, "approval").await;
    // A click takes as long as it takes, whatever comes meanwhile.
    browser.press("#approve").await;
    looks_again(&browser).await;
    browser.release().await;
    shows(&browser, "h1", "done").await;
    for words in ["ben: somebody other than ann", "ben said so", &digest] {
        shows(&browser, "dl", words).await;
    }
    let approval = &ben.until(&wanted, "done").await["approval"];
    assert_eq!((&approval["by"], &approval["digest"]), (&json!(["ben"]), &json!(digest)));

    browser.open(&format!("{}/ui/jobs/{other}", agent.address)).await;
    browser.enter("#reason", "not on a Friday").await;
    browser.script("document.activeElement.blur()").await;
    looks_again(&browser).await;
    browser.click("#reject").await;
    shows(&browser, "h1", "failed").await;
    shows(&browser, ".lead", "rejected by ben: not on a Friday").await;
    assert_eq!(world.ledger_lines(), ["dan"]);
}

/// Whether everything can be read and used, on the page that is shown: what a person without a mouse, with a
/// telephone or with weak eyes needs. Gives what is wrong.
const FAULTS: &str = r#"
const faults = [];
const root = document.documentElement;
if (root.scrollWidth > window.innerWidth) faults.push(`${root.scrollWidth} px wide`);
if (!root.lang || !document.title) faults.push("no language or title");
if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
for (const field of document.querySelectorAll("input:not([type=hidden]), select"))
  if (!field.labels.length) faults.push(`${field.name} has no label`);
for (const head of document.querySelectorAll("th"))
  if (!head.scope) faults.push(`the heading ${head.innerText} has no scope`);
for (const it of document.querySelectorAll("button, a:not(.skip)")) {
  if (!it.innerText.trim()) faults.push("a button without words");
  if (it.getBoundingClientRect().height < (it.matches("button") ? 24 : 18)) faults.push(`${it.innerText} is small`);
}
const ids = [...document.querySelectorAll("[id]")].map(it => it.id);
if (new Set(ids).size !== ids.length) faults.push("an id twice");
const channel = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = colour => {
  const [red, green, blue] = colour.match(/[\d.]+/g).map(Number);
  return 0.2126 * channel(red) + 0.7152 * channel(green) + 0.0722 * channel(blue);
};
const clear = colour => colour === "rgba(0, 0, 0, 0)";
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
while (texts.nextNode()) {
  const it = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !it.checkVisibility() || it.matches("noscript")) continue;
  seen += 1;
  let behind = it;
  while (behind && clear(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
  const pair = [getComputedStyle(it).color, getComputedStyle(behind ?? root).backgroundColor].map(light);
  const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  if (contrast < 4.5) faults.push(`"${texts.currentNode.data.trim()}" has a contrast of ${contrast.toFixed(1)}`);
}
if (seen < 5) faults.push("there is hardly anything to read");
return faults;
"#;

/// Looks at the page on a telephone and a desk, in light and in dark.
async fn can_be_read(browser: &Browser, name: &str) {
    for (width, height) in [(360, 800), (1280, 900)] {
        for scheme in ["light", "dark"] {
            browser.screen(width, height).await;
            browser.scheme(scheme).await;
            if let Some(folder) = std::env::var_os("PAGE_PICTURES") {
                let file = std::path::Path::new(&folder).join(format!("{name}-{width}-{scheme}.png"));
                std::fs::write(file, browser.picture().await).unwrap();
            }
            assert_eq!(browser.script(FAULTS).await, json!([]), "{name} at {width} px, {scheme}");
        }
    }
}

#[tokio::test]
async fn a_log_grows_without_a_reload_and_nothing_in_it_is_obeyed() {
    let world = World::new("live").await;
    world.bootstrap("");
    let agent = world.agent().await;
    let long = "printf '%16384s\\n' | tr ' ' x";
    let formula = held(
        &world,
        &format!(
            "echo '{HOSTILE}'\nprintf '\\033[31mred\\033[0m \\377\\n'\n{long}\nmkdir out\necho 1 > 'out/{}'\necho over\nexit 3\n",
            HOSTILE.replace('/', "")
        ),
    );
    let text = action("live", "talk", "artifacts = [\"out/*\"]\n").replace("a test", HOSTILE);
    world.ops.commit("work", &[("formulas/talk.sh", Some(&formula)), ("actions/live.toml", Some(&text))]);
    let browser = Browser::start().await;
    log_in(&browser, &agent, "/ui/jobs/unknown", &token(&world, "operator", "read,submit")).await;
    shows(&browser, "main", "there is no job \"unknown\"").await;
    wait_for("the job to be known", LIMIT, async || {
        browser.open(&format!("{}/ui/jobs/live", agent.address)).await;
        let title = browser.text("h1").await;
        if title.starts_with("live") { Ok(()) } else { Err(title) }
    })
    .await;
    // What came before is the answer above, of which a browser says so.
    browser.console().await;
    browser.script("window.here = 1").await;
    shows(&browser, "#log", "begun").await;
    shows(&browser, "h1", "working").await;
    can_be_read(&browser, "working").await;
    std::fs::write(world.path("go"), "").unwrap();
    shows(&browser, "#log", "over").await;
    shows(&browser, "h1", "failed").await;
    shows(&browser, "#log", "red \u{fffd}\n").await;
    shows(&browser, "#log", HOSTILE).await;
    shows(&browser, "[aria-labelledby=artifacts]", "<img src=x").await;
    shows(&browser, "dl", HOSTILE).await;
    let artifact = "return fetch(document.querySelector('[aria-labelledby=artifacts] a').href).then(answer => \
                    [answer.status, ...['content-disposition', 'content-security-policy'].map(it => answer.headers.get(it))])";
    let artifact = browser.script(artifact).await;
    assert!(artifact[0] == 200 && artifact[1].as_str().unwrap().starts_with("attachment"), "{artifact}");
    assert!(artifact[2].as_str().unwrap().contains("sandbox"), "{artifact}");
    let state = browser.script("return [window.here, window.hacked ?? null]").await;
    assert_eq!(state, json!([1, null]), "not reloaded, and nothing ran");
    assert_eq!(
        browser.console().await,
        Vec::<Value>::new(),
        "no error, and nothing that was kept from loading"
    );
    can_be_read(&browser, "ended").await;

    browser.scripts(false).await;
    for (path, words) in [
        (
            "/ui/jobs/live",
            vec!["failed", "exit_code", "over", "<img src=x", "Attempts", "Reload it for news"],
        ),
        ("/", vec!["live", "failed", "exit code 3", "No job is waiting."]),
    ] {
        browser.open(&format!("{}{path}", agent.address)).await;
        let text = browser.text("body").await;
        for words in words {
            assert!(text.contains(words), "{path} without scripts says {words}: {text}");
        }
        can_be_read(&browser, if path == "/" { "home" } else { "still" }).await;
    }
    // Now it ends at once, perhaps between two looks of the script.
    browser.scripts(true).await;
    browser.click("tbody a").await;
    browser.click("#retry").await;
    shows(&browser, "[aria-labelledby=attempts] tbody", "2").await;
    shows(&browser, "h1", "failed").await;
    shows(&browser, "#log", "over").await;
    // Once it is loaded as a whole, the script that notices is there.
    browser.open(&format!("{}/ui/jobs/live", agent.address)).await;
    agent.kill();
    shows(&browser, "#news", "The agent does not answer").await;
    can_be_read(&browser, "stale").await;
}
