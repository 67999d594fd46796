//! What `[[trigger]]` may say.

use super::*;

fn read(text: &str) -> Result<Trigger, String> {
    toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
}

/// A trigger with these further lines.
fn with(kind: &str, lines: &str) -> Result<Trigger, String> {
    read(&format!("name = \"t\"\nkind = \"{kind}\"\n{lines}\n[action]\nformula = \"train\"\n"))
}

const LABEL: &str = "forge = \"main\"\nrepo = \"acme/app\"\nlabel = \"triage\"";
const HOOK: &str = "token_file = \"/etc/consign/t\"";

#[test]
fn every_kind_has_its_keys_and_its_defaults() {
    let hook = with("webhook", &format!("{HOOK}\npath = \"/trigger-training\"\ncooldown = \"6h\"")).unwrap();
    assert_eq!((hook.rules.cooldown.as_secs(), hook.rules.debounce), (6 * 3600, Duration::ZERO));
    assert_eq!(hook.course(), "trigger/t");
    let watch = with("watch", "paths = [\"/srv/docs/**\"]\ncooldown_group = \"g\"").unwrap();
    assert_eq!((watch.rules.debounce.as_secs(), watch.rules.max_wait.as_secs()), (300, 1800));
    assert_eq!(watch.course(), "group/g");
    assert!(
        with("schedule", "cron = \"0 3 * * SUN\"\ntime_zone = \"Europe/Berlin\"\nmissed = \"skip\"").is_ok()
    );
    assert!(with("git", "repo = \"/srv/a.git\"\npaths = [\"docs/**\"]").is_ok());
    let forge = with("forge", &format!("{LABEL}\nlabel_failed = \"help wanted\"")).unwrap();
    assert_eq!(forge.body(Some("7"))["args"]["issue_number"], "7");
    let Source::Forge(issues) = forge.source else { panic!("{forge:?}") };
    assert_eq!((issues.running.as_str(), issues.done.as_str()), ("triage-running", "triage-done"));
    assert_eq!((issues.failed.as_str(), issues.poll.as_secs()), ("help wanted", 60));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_key() {
    let hook = |lines: &str| with("webhook", &format!("{HOOK}\n{lines}"));
    for (read, words) in [
        (with("webhook", ""), "`token_file`"),
        (hook("cron = \"@daily\""), "`cron`"),
        (hook("cooldwon = \"1h\""), "cooldwon"),
        (hook("cooldown = \"soon\""), "soon"),
        (hook("overlap = \"wait\""), "wait"),
        (hook("path = \"jobs\""), "`path`"),
        (hook("path = \"/jobs/x\""), "`path`"),
        (hook("path = \"/a b\""), "`path`"),
        (hook("path = \"/a/../b\""), "`path`"),
        (hook("debounce = \"5m\"\nmax_wait = \"1m\""), "`max_wait`"),
        (hook("cooldown_group = \"a/b\""), "a/b"),
        (with("watch", ""), "`paths`"),
        (with("watch", "paths = [\"docs/**\"]"), "absolute"),
        (with("watch", "paths = [\"/d/**\"]\ntoken_file = \"/x\""), "`token_file`"),
        (with("git", "paths = [\"docs/**\"]"), "`repo`"),
        (with("git", "repo = \"/a\"\npaths = [\"/docs\"]"), "relative"),
        (with("schedule", ""), "`cron`"),
        (with("schedule", "cron = \"0 3 * *\""), "`cron`"),
        (with("schedule", "cron = \"@daily\"\ndebounce = \"1m\""), "`debounce`"),
        (with("forge", ""), "`label`"),
        (with("forge", "label = \"triage\"\nrepo = \"acme/app\""), "`forge`"),
        (with("forge", &format!("{LABEL}\nlabel_done = \"Triage\"")), "the same"),
        (with("forge", &format!("{LABEL}\nlabel_failed = \"a,b\"")), "a,b"),
        (with("forge", &format!("{LABEL}\ncooldown = \"1h\"")), "`cooldown`"),
        (with("forge", &format!("{LABEL}\noverlap = \"queue\"")), "`overlap`"),
        (hook("label = \"triage\""), "`label`"),
        (with("mail", ""), "mail"),
        (
            read(
                "name = \"t.running\"\nkind = \"webhook\"\ntoken_file = \"/x\"\naction = { formula = \"a\" }\n",
            ),
            ".running",
        ),
        (
            read("name = \"../t\"\nkind = \"webhook\"\ntoken_file = \"/x\"\naction = { formula = \"a\" }\n"),
            "../t",
        ),
        (read("name = \"t\"\nkind = \"webhook\"\ntoken_file = \"/x\"\n"), "action"),
        (read("name = \"t\"\nkind = \"webhook\"\ntoken_file = \"/x\"\naction = {}\n"), "`formula`"),
    ] {
        let error = read.map(|trigger| trigger.name).unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn the_action_is_read_as_any_action_is() {
    for (keys, words) in [
        ("formula = \"a\"\nid = \"x\"", "`action.id`"),
        ("formula = \"a\"\npriority = 101", "`priority`"),
        ("formula = \"a\"\nsecrets = [\"lower\"]", "`secrets`"),
        ("formula = \"a\"\nformla = \"b\"", "`formula`"),
        ("formula = \"a\"\nargs = { x = 1 }", "`x`"),
    ] {
        let text = format!("name = \"t\"\nkind = \"webhook\"\ntoken_file = \"/x\"\n[action]\n{keys}\n");
        let error = read(&text).unwrap_err();
        assert!(error.contains(words), "{keys}: {error}");
    }
    let trigger = with("webhook", &format!("{HOOK}\nevent_argument = \"event\"")).unwrap();
    let body = trigger.body(Some("{\"a\":1}"));
    assert_eq!((body["context"].as_str(), body["args"]["event"].as_str()), (Some("t"), Some("{\"a\":1}")));
    assert_eq!(trigger.body(None).get("args"), None);
}

#[derive(Deserialize)]
struct File {
    trigger: Triggers,
}

#[test]
fn names_and_paths_are_not_shared() {
    let trigger = |name: &str, path: &str| {
        format!(
            "[[trigger]]\nname = \"{name}\"\nkind = \"webhook\"\n{HOOK}\npath = \"{path}\"\naction = {{ formula = \"a\" }}\n"
        )
    };
    let read = |texts: &[String]| toml::from_str::<File>(&texts.concat()).map(|file| file.trigger.0.len());
    assert_eq!(read(&[trigger("a", "/a"), trigger("b", "/b")]), Ok(2));
    assert!(read(&[trigger("a", "/a"), trigger("A", "/b")]).is_err());
    assert!(read(&[trigger("a", "/a"), trigger("b", "/a")]).is_err());
}
