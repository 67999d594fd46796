use proptest::prelude::*;

use super::*;
use crate::diagnostic::summary;

const HEAD: &str = "id = \"a\"\nformula = \"hello\"\ncontext = \"c\"\nsecrets = []\n";

fn problem(rest: &str) -> String {
    let text = format!("{HEAD}{rest}");
    match read("actions/a.toml", text.as_bytes()) {
        Ok(_) => String::new(),
        Err(problems) => summary("a.toml", &text, &problems),
    }
}

#[test]
fn the_four_required_keys_are_enough() {
    let action = read("actions/a.toml", HEAD.as_bytes()).expect("an action");
    assert_eq!((action.priority, action.mask, action.timeout), (DEFAULT_PRIORITY, true, None));
    assert!(action.blast_radius.is_none());
}

#[test]
fn every_key_is_read() {
    let text = r#"
id = "deploy-42"
formula = "deploy"
context = "Roll out 4.2"
secrets = ["DEPLOY_KEY", "CHAT_URL"]
args = { target-host = "web1", Flags = "" }
job = "runner"
mounts = ["ssh", "gpg"]
model = "org/tiny:8b"
tools = ["git", "forge-cli"]
timeout = "1h30m"
dispatch_mode = "pr"
blast_radius = "high"
priority = 0
after = ["build-42"]
not_before = 2027-01-31T22:00:00+01:00
env = { RUST_LOG = "${node.unique.id} {{ env }}" }
artifacts = ["out/**/*.txt"]
notify = ["https://chat.example/hook"]
mask = false
retry = { attempts = 3, on = ["lost", "no_capacity"] }
concurrency = { group = "deploy", limit = 2, when_full = "cancel_older" }

[resources]
cores = 0x4
memory = "512MiB"
memory_max = "1GiB"
gpus = 2

[[constraints]]
attribute = "${attr.kernel.name}"
value = "linux"

[[constraints]]
attribute = "${meta.rack}"
operator = "is_set"
"#;
    let action = read("vault/actions/deploy-42.toml", text.as_bytes()).expect("an action");
    assert_eq!(action.args["target-host"], "web1");
    assert_eq!(action.timeout, Some(Span::from_secs(5400)));
    assert_eq!(action.not_before.map(|time| time.to_string()).as_deref(), Some("2027-01-31T21:00:00Z"));
    assert_eq!(action.env["RUST_LOG"], "${node.unique.id} {{ env }}");
    assert_eq!(action.retry, Some(Retry { attempts: 3, on: vec![Cause::Lost, Cause::NoCapacity] }));
    assert_eq!(action.concurrency.map(|group| group.when_full), Some(WhenFull::CancelOlder));
    let resources = action.resources.expect("resources");
    assert_eq!((resources.cores, resources.memory, resources.gpus), (Some(4), Some(512 << 20), Some(2)));
    assert_eq!(action.constraints[0].operator, "=");
    assert_eq!(action.constraints[1].value, "");
    assert_eq!((action.mask, action.priority), (false, 0));
}

#[test]
fn a_timeout_in_minutes_is_a_timeout() {
    let text = format!("{HEAD}timeout_minutes = 45\n");
    let action = read("actions/a.toml", text.as_bytes()).expect("an action");
    assert_eq!(action.timeout, Some(Span::from_secs(45 * 60)));
}

#[test]
fn problems_have_their_place_and_a_remedy() {
    for (rest, expected) in [
        ("secrts = []", "a.toml:5:1: an action has no key \"secrts\" (did you mean `secrets`?)"),
        (
            "timeout = \"90\"",
            "a.toml:5:11: `timeout` is not a length of time: \"90\" (name the unit: \"90m\" or \"90s\")",
        ),
        (
            "timeout = 90",
            "a.toml:5:11: `timeout` must be a text with a unit, not a number (write \"90m\" or \"90s\")",
        ),
        ("args = { n = 3 }", "a.toml:5:14: `n` must be a text, not a number (write \"3\")"),
        ("blast_radius = \"hihg\"", "(did you mean `high`?)"),
        (
            "retry = { attempts = 2, on = [\"tiemout\"] }",
            "a.toml:5:31: element 1 of `on` is not a cause: \"tiemout\" (did you mean `timeout`?)",
        ),
        ("[resources]\ngpu = 1", "a.toml:6:1: `resources` has no key \"gpu\" (did you mean `gpus`?)"),
        ("job = runner", "a.toml:5:7: not valid TOML"),
        (
            "not_before = 2027-01-31T22:00:00",
            "(name the time and its offset from UTC, such as \"2027-01-31T22:00:00Z\")",
        ),
        ("not_before = \"tomorrow\"", "(write it as \"2027-01-31T22:00:00Z\" (RFC 3339))"),
    ] {
        let found = problem(rest);
        assert!(found.contains(expected), "{rest}\n{found}");
    }
}

#[test]
fn the_stem_decides_the_id() {
    let place = |path: &str| {
        read(path, HEAD.as_bytes()).err().map(|problems| summary("f", HEAD, &problems)).unwrap_or_default()
    };
    assert_eq!(
        place("actions/b.toml"),
        "f:1:6: `id` differs from the file's name (write id = \"b\", or rename the file to `a.toml`)"
    );
    assert!(place("actions/a.txt").contains("does not end in `.toml`"));
}

#[test]
fn all_problems_of_a_file_are_rendered() {
    let text = "id = \"a\"\nformula = \"hello.sh\"\nsecrts = [\"KEY\"]\ntimeout = 90\nmounts = [\"ssh\",, \"gpg\"]\n\n[resources]\nmemory = \"8 apples\"\n";
    let problems = read("actions/a.toml", text.as_bytes()).expect_err("problems");
    let rendered: Vec<String> =
        problems.iter().map(|problem| problem.render("actions/a.toml", text, false)).collect();
    insta::assert_snapshot!(rendered.join("\n\n"), @r#"
    error: `formula` names a file: "hello.sh"
     --> actions/a.toml:2:11
      |
    2 | formula = "hello.sh"
      |           ^^^^^^^^^^
      |
    help: leave the ending away: "hello"

    error: an action has no key "secrts"
     --> actions/a.toml:3:1
      |
    3 | secrts = ["KEY"]
      | ^^^^^^
      |
    help: did you mean `secrets`?

    error: `timeout` must be a text with a unit, not a number
     --> actions/a.toml:4:11
      |
    4 | timeout = 90
      |           ^^
      |
    help: write "90m" or "90s"

    error: not valid TOML: extra comma in array, expected value
     --> actions/a.toml:5:17
      |
    5 | mounts = ["ssh",, "gpg"]
      |                 ^

    error: `memory` is not an amount of memory: "8 apples"
     --> actions/a.toml:8:10
      |
    8 | memory = "8 apples"
      |          ^^^^^^^^^^
      |
    help: write a number with a unit, such as "512MiB" or "8GiB"
    "#);
}

#[test]
fn every_file_of_the_corpus_is_refused_for_its_reason() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/actions");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let content = std::fs::read(&path).expect("a file");
        let text = String::from_utf8_lossy(&content);
        let first = text.lines().next().unwrap_or_default();
        let expected =
            first.trim_start_matches('\u{feff}').strip_prefix("# expect: ").expect("what to expect");
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let problems = read(&format!("actions/{name}"), &content).expect_err(name);
        let found = problems.iter().find(|problem| problem.message.contains(expected));
        let Some(found) = found else { panic!("{name}: {}", summary(name, &text, &problems)) };
        assert!(found.locate(name, &text).line >= 1);
        assert!(found.help.is_some() || expected.contains("TOML"), "{name}: no remedy");
        count += 1;
    }
    assert!(count >= 100, "{count}");
}

#[test]
fn a_byte_order_mark_is_told() {
    let problems = read("actions/a.toml", format!("\u{feff}{HEAD}").as_bytes()).expect_err("a problem");
    assert_eq!(problems[0].message, "the file begins with a byte order mark");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(content in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = read("actions/a.toml", &content).is_ok();
    }

    #[test]
    fn arbitrary_lines_never_panic(
        lines in prop::collection::vec(
            r#"(\[\[?)?(id|args|secrets|timeout|resources|constraints|retry|env|not_before|a\.b|"é")?(\]\]?)? ?=? ?([\[{"'0-9a-zé,. =:TZ$}\]\\-]{0,12}|""")"#,
            0..12,
        )
    ) {
        let text = lines.join("\n");
        if let Err(problems) = read("actions/a.toml", text.as_bytes()) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                let _ = problem.render("a.toml", &text, false).len();
            }
        }
    }
}
