use proptest::prelude::*;

use super::*;
use crate::diagnostic::summary;

fn problem(rest: &str) -> String {
    let text = format!("description = \"d\"\n{rest}");
    match read("formulas/f.toml", text.as_bytes()) {
        Ok(_) => String::new(),
        Err(problems) => summary("f.toml", &text, &problems),
    }
}

const STEP: &str = "[[steps]]\nname = \"a\"\nrun = \"true\"\n";

#[test]
fn a_formula_of_steps_is_read() {
    let text = br#"
description = "Checks a model"
job = "training"
secrets = ["KEY"]
mounts = ["data"]
timeout = "90m"
resources = { memory = "8GiB", gpus = 1 }
artifacts = ["out/**"]

[args]
model = { required = true, pattern = "[a-z]+", help = "its name" }

[[steps]]
name = "fetch it"
run = "echo 1"
timeout = "5m"
retries = 2

[[steps]]
name = "check"
run = "echo 2"
continue_on_error = true
"#;
    let formula = read("formulas/check.toml", text).expect("a formula");
    assert_eq!(formula.name.as_str(), "check");
    assert_eq!(formula.resources.and_then(|resources| resources.memory), Some(8 << 30));
    assert_eq!(formula.args["model"].pattern.as_deref(), Some("[a-z]+"));
    let Body::Steps(steps) = formula.body else { panic!("steps") };
    assert_eq!((steps[0].retries, steps[0].continue_on_error), (2, false));
    assert_eq!((steps[1].retries, steps[1].continue_on_error), (0, true));
}

#[test]
fn a_program_is_kept_byte_for_byte() {
    let text = "#!/bin/sh\n# Says hello\n# to all.\n\n# not this\necho ä\n";
    let formula = read("formulas/hello.sh", text.as_bytes()).expect("a formula");
    assert_eq!(formula.description, "Says hello to all.");
    assert_eq!(formula.body, Body::Program(text.to_owned()));
}

#[test]
fn bad_programs_are_told() {
    let message = |path: &str, content: &[u8]| {
        read(path, content).err().map(|problems| problems[0].message.clone()).unwrap_or_default()
    };
    assert!(message("a.sh", b"a\0").contains("NUL"));
    assert!(message("a.sh", b"\xff").contains("UTF-8"));
    assert!(message("a.sh", b" \n").contains("empty"));
    assert!(message("a.sh", b"#!/bin/sh\r\ntrue").contains("carriage return"));
    assert!(message("a.sh", &vec![b'a'; 16_385]).contains("16385 bytes"));
    assert!(message("a.sh", &vec![b'a'; 16_384]).is_empty());
    assert!(message("-a.sh", b"true").contains("formula name"));
    assert!(message("a.py", b"true").contains("`.sh` or `.toml`"));
}

#[test]
fn bad_formulas_are_told() {
    let long = format!("[[steps]]\nname = \"a\"\nrun = \"{}\"\n", "a".repeat(16_385));
    for (rest, expected) in [
        ("", "f.toml:1:1: `steps` is missing: a formula needs it (add a line such as: [[steps]])"),
        ("steps = []\n", "f.toml:2:9: `steps` has 0 elements"),
        ("[[steps]]\nrun = \"true\"\n", "f.toml:2:1: `name` is missing: element 1 of `steps` needs it"),
        ("[[steps]]\nname = \"a\"\n", "`run` is missing"),
        ("[[steps]]\nname = \"a\"\nrun = \"\"\n", "f.toml:4:7: `run` is empty"),
        (&format!("{STEP}{STEP}"), "f.toml:6:8: `name` repeats \"a\" (give each step a name of its own)"),
        (&format!("{STEP}retries = 11"), "f.toml:5:11: `retries` is out of range: 11"),
        (&format!("{STEP}retries = -1"), "out of range: -1"),
        (&format!("{STEP}contineu_on_error = true"), "did you mean `continue_on_error`?"),
        (&format!("{STEP}timeout = \"0s\""), "out of range"),
        ("[[steps]]\nname = \"../a\"\nrun = \"true\"\n", "is not the name of a step"),
        (&long, "brings the scripts to 16385 bytes"),
        (
            &format!("args = {{ a = {{ pattern = \"[\" }} }}\n{STEP}"),
            "is not a regular expression: unclosed character class",
        ),
        (
            &format!("args = {{ a = {{ pattern = \"x\", default = \"y\" }} }}\n{STEP}"),
            "`default` does not match `pattern`",
        ),
        (
            &format!("args = {{ a = {{ required = true, default = \"y\" }} }}\n{STEP}"),
            "stands beside `required = true`",
        ),
        (&format!("args = {{ \"a b\" = {{}} }}\n{STEP}"), "\"a b\" is not a legal name of an argument"),
        (&format!("args = {{ a-b = {{}}, a_b = {{}} }}\n{STEP}"), "both become ARG_A_B"),
        (&format!("args = {{ a = \"x\" }}\n{STEP}"), "`a` must be a table, not a text"),
        (&format!("secrets = [\"key\"]\n{STEP}"), "did you mean `KEY`?"),
        (&format!("artifacts = [\"../x\"]\n{STEP}"), "is not a glob below the working directory"),
        (&format!("step = 1\n{STEP}"), "a formula has no key \"step\" (did you mean `steps`?)"),
    ] {
        let found = problem(rest);
        assert!(found.contains(expected), "{rest}\n{found}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(content in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = read("formulas/f.toml", &content).is_ok();
        let _ = read("formulas/f.sh", &content).is_ok();
    }

    #[test]
    fn arbitrary_lines_never_panic(
        lines in prop::collection::vec(r#"(\[\[?)?(args|steps|name|run|a\.b|timeout|"é")?(\]\]?)? ?=? ?([\[{"'0-9a-zé,. =}\]\\]{0,12}|""")"#, 0..12)
    ) {
        let text = lines.join("\n");
        if let Err(problems) = read("formulas/f.toml", text.as_bytes()) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                let _ = problem.render("f.toml", &text, false).len();
            }
        }
    }
}
