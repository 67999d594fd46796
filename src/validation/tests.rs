use super::{disk, tree::validate_tree, *};

const ACTION: &str = "formula = \"hello\"\ncontext = \"c\"\nsecrets = []\n";

fn reports(files: &[(&str, &str)]) -> Vec<(String, Vec<String>)> {
    let files: Vec<(String, Vec<u8>)> =
        files.iter().map(|(path, content)| ((*path).to_owned(), content.as_bytes().to_vec())).collect();
    validate_tree(&files, "actions", "formulas")
        .into_iter()
        .map(|report| {
            let problems = report
                .problems
                .iter()
                .map(|problem| {
                    let help = problem.help.clone().unwrap_or_default();
                    format!("{}:{} {} [{help}]", problem.line, problem.column, problem.message)
                })
                .collect();
            (report.path, problems)
        })
        .collect()
}

fn problems_of<'a>(reports: &'a [(String, Vec<String>)], path: &str) -> &'a [String] {
    reports.iter().find(|(of, _)| of == path).map(|(_, problems)| problems.as_slice()).expect("a report")
}

#[test]
fn a_tree_is_checked_as_the_agent_would() {
    let good = format!("id = \"a\"\n{ACTION}");
    let upper = format!("id = \"A\"\n{ACTION}");
    let unknown = format!("id = \"b\"\n{}", ACTION.replace("hello", "helo"));
    let twice = format!("id = \"c\"\n{}", ACTION.replace("hello", "twice"));
    let broken = format!("id = \"d\"\n{}", ACTION.replace("hello", "broken"));
    let found = reports(&[
        ("actions/x/a.toml", &good),
        ("actions/y/A.toml", &upper),
        ("actions/b.toml", &unknown),
        ("actions/c.toml", &twice),
        ("actions/d.toml", &broken),
        ("actions/a.result.json", "{}"),
        ("README.md", "not read"),
        ("formulas/README.md", "not read"),
        ("formulas/deep/x.sh", "not read"),
        ("formulas/hello.sh", "echo\n"),
        ("formulas/twice.sh", "echo\n"),
        ("formulas/twice.toml", "description = \"d\"\n[[steps]]\nname = \"a\"\nrun = \"true\"\n"),
        ("formulas/broken.toml", "description = 1\n"),
    ]);
    assert_eq!(found.len(), 9);
    assert!(problems_of(&found, "actions/x/a.toml").is_empty());
    assert!(problems_of(&found, "formulas/hello.sh").is_empty());
    let of = |path| problems_of(&found, path)[0].as_str();
    assert!(of("actions/y/A.toml").starts_with("1:6 the id is taken by actions/x/a.toml"));
    assert_eq!(of("actions/b.toml"), "2:11 there is no formula `helo` [did you mean `hello`?]");
    assert!(of("actions/c.toml").contains("two files, formulas/twice.sh and formulas/twice.toml"));
    assert!(of("actions/d.toml").contains("not valid: formulas/broken.toml:1:1: `steps` is missing"));
    assert!(of("formulas/twice.sh").contains("two files"));
    assert!(of("formulas/broken.toml").contains("`steps` is missing"));
}

struct NoFormulas;

impl Formulas for NoFormulas {
    fn files(&self, _: &FormulaName) -> Vec<SourceFile> {
        Vec::new()
    }
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn an_invalid_action_says_why_and_whose_result_it_is() {
    let content = format!("id = \"a\"\n{ACTION}");
    let Checked::Invalid(invalid) = check("actions/a.toml", content.as_bytes(), &NoFormulas) else {
        panic!("no such formula")
    };
    assert_eq!(invalid.cause, Cause::UnknownFormula);
    assert_eq!(invalid.action_id.as_ref().map(ActionId::as_str), Some("a"));
    assert!(
        invalid.message.starts_with("actions/a.toml:2:11: there is no formula `hello`"),
        "{}",
        invalid.message
    );
    let Checked::Invalid(invalid) = check("actions/-a.toml", b"", &NoFormulas) else { panic!("no action") };
    assert_eq!((invalid.cause, invalid.action_id), (Cause::Invalid, None));
}

#[test]
fn a_work_tree_is_read_without_following_links() {
    let root = tempfile::tempdir().expect("a folder");
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    };
    write("actions/2026/11/a.toml", &format!("id = \"a\"\n{ACTION}"));
    write("formulas/hello.sh", "echo hello\n");
    write("secret.toml", "never read");
    std::os::unix::fs::symlink(root.path().join("secret.toml"), root.path().join("actions/link.toml"))
        .expect("a link");
    let tree = disk::read_tree(root.path(), "actions", "formulas").expect("a tree");
    std::fs::create_dir(root.path().join("other")).expect("a folder");
    std::os::unix::fs::symlink(root.path().join("actions"), root.path().join("other/actions"))
        .expect("a link");
    let linked = disk::read_tree(&root.path().join("other"), "actions", "formulas").expect("a tree");
    assert!(linked.files.is_empty());
    let paths: Vec<&str> = tree.files.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["actions/2026/11/a.toml", "formulas/hello.sh"]);

    let single = root.path().join("actions/2026/11/a.toml");
    let found = disk::validate_paths(&[single], "actions", "formulas").expect("a report");
    assert!(found[0].is_valid(), "{}", found[0].render(false));
    let lone = root.path().join("secret.toml");
    let found = disk::validate_paths(&[lone], "actions", "formulas").expect("a report");
    assert!(!found[0].is_valid());
    assert!(disk::validate_paths(&[root.path().join("absent.toml")], "actions", "formulas").is_err());
}

struct OneFormula;

impl Formulas for OneFormula {
    fn files(&self, _: &FormulaName) -> Vec<SourceFile> {
        let text = "description = \"d\"\nargs = { a = { default = \"1\" } }\n[[steps]]\nname = \"s\"\nrun = \"true\"\n";
        vec![SourceFile { path: "formulas/hello.toml".to_owned(), content: text.as_bytes().to_vec() }]
    }
    fn names(&self) -> Vec<String> {
        vec!["hello".to_owned()]
    }
}

#[test]
fn a_valid_action_comes_with_its_formula_and_arguments() {
    let content = format!("id = \"a\"\n{ACTION}");
    let Checked::Valid(valid) = check("actions/a.toml", content.as_bytes(), &OneFormula) else {
        panic!("valid")
    };
    assert_eq!(valid.formula_path, "formulas/hello.toml");
    assert_eq!(valid.args.get("a").map(String::as_str), Some("1"));
    let content = format!("{content}args = {{ b = \"x\" }}\n");
    let Checked::Invalid(invalid) = check("actions/a.toml", content.as_bytes(), &OneFormula) else {
        panic!("no such argument")
    };
    assert_eq!(invalid.cause, Cause::Invalid);
    assert_eq!(invalid.message, "actions/a.toml:2:11: formula `hello` has no argument `b`; it takes `a`");
}
