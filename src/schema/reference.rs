//! The reference of actions, formulas and results, made from the schemas.

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::Value;

use super::{Kind, schema};
use crate::outcome::Cause;

const INTRODUCTION: &str = "\
# Actions, formulas and results

An ops repo holds three kinds of files. You write the first two; consign writes the third.

| file | what it is |
|---|---|
| `actions/**/<id>.toml` | an action: what should run, and why |
| `formulas/<name>.sh` or `formulas/<name>.toml` | a formula: how it runs |
| `actions/**/<id>.result.json` | a result: what became of an action, written beside it |

Check them before you push with `consign validate`. It tells every problem of a file with its line and
column, by the same code that the agent uses. `consign schema action`, `formula` and `result` print the
JSON Schemas that this page is made from, for an editor that completes and checks as you type.
";

const ACTION: &str = "\
## An action

Four keys are required. Any other key than those below is an error, so that a slip of the pen never
passes for a default. A file may have 64 KiB.

```toml
id = \"train-42\"                # the file is called train-42.toml
formula = \"train\"
context = \"Retrain on the November data\"
secrets = [\"DATA_TOKEN\"]       # [] for none
blast_radius = \"medium\"
timeout = \"6h\"

[args]
model = \"tiny\"                 # ARG_MODEL in the task

[resources]
memory = \"16GiB\"
gpus = 1
```

An id runs once. Until the action is launched you may change its file, and it is checked and approved
anew; afterwards a change has no effect. Deleting the file in a later commit cancels the action. Put the
files into dated folders, such as `actions/2026/11/`: git grows slow on a folder with very many files.
";

const PROGRAM: &str = "\
## A formula that is a program

A file `formulas/<name>.sh` is run as the program it is: by the interpreter that its first line names
(`#!/usr/bin/env python3` is fine), or else by `sh`. It may have 16 KiB. It declares no arguments and
takes any.

Every formula finds in its environment its secrets under their names, its arguments as `ARG_<NAME>`, and
`CONSIGN_ACTION_ID`, `CONSIGN_DISPATCH_ID`, `CONSIGN_ATTEMPT`, `CONSIGN_FORMULA`, `CONSIGN_CONTEXT` and
`CONSIGN_REVISION`. It starts in `$NOMAD_ALLOC_DIR/data`.
";

const STEPS: &str = "\
## A formula of steps

A file `formulas/<name>.toml` says what it needs, and runs its steps in order. A name that has both a
`.sh` and a `.toml` is an error.

```toml
description = \"Trains a model and keeps its report\"
secrets = [\"DATA_TOKEN\"]
artifacts = [\"report/**\"]

[args.model]
required = true
pattern = \"[a-z0-9-]+\"
help = \"the model to train\"

[[steps]]
name = \"fetch\"
run = \"./fetch \\\"$ARG_MODEL\\\"\"
retries = 2

[[steps]]
name = \"train\"
run = \"./train\"
timeout = \"5h\"
```
";

const BASE_JOBS: &str = "\
## The base job

`job` names the Nomad job that the formula runs under, in the action or else in the formula; without it that
is `runner`. A base job may declare meta of its own: an argument of the same name then travels as that meta
as well, where `nomad job status` shows it. Nomad interpolates `${…}` in meta, so the text as it was written
is in `ARG_<NAME>` alone.

`sidecar` is for helper agents. It runs the formulas `reproduce`, `triage` and `verify`, ends any other one
with exit code 123, and declares the meta `issue_number`, `project_toml` and `bot`:

```toml
id = \"triage-42\"
formula = \"triage\"
context = \"A new issue came in\"
secrets = []
job = \"sidecar\"
blast_radius = \"low\"

[args]
issue_number = \"42\"            # ARG_ISSUE_NUMBER
project_toml = 'name = \"web\"'  # ARG_PROJECT_TOML
bot = \"night-shift\"            # without it the bot is called as the formula is; \"\" for none
```

The run is a bot: the task finds `BOT_NAME`, and in `BOT_TOKEN` the token that an operator put for it. A bot's
token is a secret: the action counts as medium at least, and approval rules and results know it as
`bot-<name>`. The helpers' folders are at `/srv/project-repos`, `/srv/agent-data` and, read-only,
`/srv/ops-repo`. A formula of steps has to declare these arguments like any other.
";

const ARTIFACTS: &str = "\
## Artifacts

When the task has ended, however it ended, the files in its working directory `$NOMAD_ALLOC_DIR/data` that a
glob of the formula or the action matches are copied to the agent and listed in the result. No artifact
decides about the outcome: a glob that matched nothing, and every file that was refused, is said in the
result's `message`.

| glob | matches |
|---|---|
| `*`, `?` | any characters, or one, but no `/`; a leading dot is a character like any other |
| `**` | any number of folders: `report/**` everything in `report`, `**/*.txt` every such file |
| `[ab]`, `[!ab]`, `{a,b}` | one of these characters, none of them, either text |

A glob names files, not folders. One that is absolute, or has `..`, `.`, an empty part, a `\\` or a control
character in it, is an error in the file. Only regular files are kept: never a symbolic link, wherever it leads,
a pipe, a device or a socket, nor a file whose name has more than 512 bytes, is not UTF-8 or holds control
characters. The agent's configuration limits the size of one file and the size and number of all; what
is over is refused by name, in the order of the names. Folders are searched 32 deep, and 20,000 entries in all.
";

const RESULT: &str = "\
## A result

The file is JSON. It appears once, when the action has ended or was refused; of an action that was
refused it is replaced when the action's content changes. A field that has no value is `null`.
";

const CAUSES: &str = "\
## Outcomes and causes

`cause` is a stable code that belongs to one outcome; `message` tells the same in a sentence with the
evidence. `exit_code` is the task's own wherever it gave one, and otherwise the one in this table. The
wrapper around the formula has four of its own: 121 the task was started before, 122 the formula could not
be started, 123 the base job does not take it, 124 it took too long.
";

const WEBHOOK: &str = "\
## A webhook

Each URL of `notify` gets one POST for each change of phase, in order, with this JSON as its body;
[operating](operate.md#webhooks) tells how it is signed and sent.
";

/// The text of `docs/action-reference.md`.
#[must_use]
pub fn reference() -> String {
    let action = schema(Kind::Action);
    let formula = schema(Kind::Formula);
    let result = schema(Kind::Result);
    let webhook = schema(Kind::Webhook);
    let mut text = format!("{INTRODUCTION}\n{ACTION}\n");
    keys(&mut text, &action);
    for (heading, key) in
        [("`resources`", "resources"), ("`retry`", "retry"), ("`concurrency`", "concurrency")]
    {
        section(&mut text, heading, &action["properties"][key]);
    }
    section(&mut text, "`[[constraints]]`", &action["properties"]["constraints"]["items"]);
    let _ = write!(text, "\n{PROGRAM}\n{STEPS}\n");
    keys(&mut text, &formula);
    section(&mut text, "`[args.<name>]`", &formula["properties"]["args"]["additionalProperties"]);
    section(&mut text, "`[[steps]]`", &formula["properties"]["steps"]["items"]);
    text.push_str("\n`[resources]` has the keys that it has in an action.\n");
    let _ = write!(text, "\n{BASE_JOBS}\n{ARTIFACTS}\n{RESULT}\n");
    fields(&mut text, &result);
    for (heading, key) in [("`attempts`", "attempts"), ("`steps`", "steps"), ("`artifacts`", "artifacts")] {
        let _ = write!(text, "\n### Each of {heading}\n\n");
        fields(&mut text, &result["properties"][key]["items"]);
    }
    text.push_str("\n### `usage`\n\n");
    fields(&mut text, &result["properties"]["usage"]);
    let _ = write!(text, "\n{WEBHOOK}\n");
    fields(&mut text, &webhook);
    text.push_str("\n### Each of a webhook's `artifacts`\n\n");
    fields(&mut text, &webhook["properties"]["artifacts"]["items"]);
    let _ = write!(text, "\n{CAUSES}\n| outcome | cause | exit code | meaning |\n|---|---|---|---|\n");
    for cause in Cause::ALL {
        let exit_code = match cause {
            Cause::ExitCode => "the task's".to_owned(),
            cause => cause.exit_code().to_string(),
        };
        let row = (cause.outcome(), cause, exit_code, meaning(cause));
        let _ = writeln!(text, "| {} | `{}` | {} | {} |", row.0, row.1, row.2, row.3);
    }
    text
}

fn section(text: &mut String, heading: &str, schema: &Value) {
    let _ = write!(text, "\n### {heading}\n\n");
    keys(text, schema);
}

/// A table of a TOML table's keys: the required ones first, each group in alphabetical order.
fn keys(text: &mut String, schema: &Value) {
    text.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    let required = required(schema);
    let mut rows: Vec<(&String, &Value)> = schema["properties"].as_object().into_iter().flatten().collect();
    rows.sort_by_key(|(name, _)| (!required.contains(name.as_str()), name.as_str()));
    for (name, property) in rows {
        let default = match &property["default"] {
            _ if required.contains(name.as_str()) => "required".to_owned(),
            Value::Null => String::new(),
            value => format!("`{value}`"),
        };
        let _ =
            writeln!(text, "| `{name}` | {} | {default} | {} |", type_of(property), description(property));
    }
}

/// A table of a JSON object's fields.
fn fields(text: &mut String, schema: &Value) {
    text.push_str("| field | type | meaning |\n|---|---|---|\n");
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "| `{name}` | {} | {} |", type_of(property), description(property));
    }
}

fn required(schema: &Value) -> BTreeSet<&str> {
    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn description(property: &Value) -> String {
    property["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

/// The type in the words of people who write the file.
fn type_of(property: &Value) -> String {
    let words = words_of(property);
    if words.len() == Cause::ALL.len() {
        return "a cause (see below)".to_owned();
    }
    if !words.is_empty() {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    let range = match (&property["minimum"], &property["maximum"]) {
        (Value::Number(least), Value::Number(most)) => format!(", {least} to {most}"),
        _ => String::new(),
    };
    let names: Vec<&str> = match &property["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => vec!["object"],
    };
    let optional = if names.contains(&"null") { " or null" } else { "" };
    let name = match names.first().copied().unwrap_or_default() {
        "string" => "text".to_owned(),
        "integer" => format!("whole number{range}"),
        "number" => "number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "array" if property["items"]["type"] == "object" => "list of tables".to_owned(),
        "array" => "list of texts".to_owned(),
        "object" if property["additionalProperties"]["type"] == "string" => "table of texts".to_owned(),
        "object" if property["additionalProperties"]["type"] == "object" => "table of tables".to_owned(),
        _ => "table".to_owned(),
    };
    format!("{name}{optional}")
}

/// The words of an enumeration, as schemars writes one: plain values, or a choice of documented constants.
fn words_of(property: &Value) -> Vec<&str> {
    let plain = property["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let documented = property["oneOf"].as_array().into_iter().flatten();
    let documented = documented.flat_map(|choice| {
        let constant = choice["const"].as_str();
        constant.into_iter().chain(choice["enum"].as_array().into_iter().flatten().filter_map(Value::as_str))
    });
    // Of a value that may be missing.
    let choices = property["anyOf"].as_array().into_iter().flatten().flat_map(words_of);
    plain.chain(documented).chain(choices).collect()
}

/// What a cause means, for people who meet it in a result.
const fn meaning(cause: Cause) -> &'static str {
    match cause {
        Cause::Success => "The task ran and ended with exit code 0.",
        Cause::ExitCode => "The task ran and ended with the exit code given.",
        Cause::StepTimeout => "A step ran longer than its own timeout.",
        Cause::Oom => "The task used more memory than it may and was killed.",
        Cause::Driver => "Nomad's driver could not start the task, such as for an image that does not exist.",
        Cause::Artifact => "Nomad could not fetch what the base job downloads before the task.",
        Cause::MissingMount => {
            "A mount is not configured, or no node offers its host volume, or the driver has none."
        }
        Cause::NoCapacity => "No node had room, or none met the constraints, within the time for placement.",
        Cause::SecretDenied => "Vault refused a secret that was granted, or it was removed in between.",
        Cause::DispatchFailed => "Nomad refused the job, or its attempts ended at the launch gate.",
        Cause::DependencyFailed => "An action named in `after` did not succeed.",
        Cause::Restarted => "The task was restarted by hand; a formula does not run twice in one attempt.",
        Cause::Timeout => "The task ran longer than the timeout and was ended.",
        Cause::Cancelled => "Somebody cancelled it, or deleted its file before it ended.",
        Cause::Superseded => "A newer action of its group took its place (`cancel_older`).",
        Cause::Skipped => "Its group was full (`skip`).",
        Cause::Lost => "The node was lost; whether the task ended there is not known.",
        Cause::Vanished => "Nomad no longer knows the job, and its end was not seen.",
        Cause::Preempted => "Nomad stopped it in favour of work with a higher priority.",
        Cause::Invalid => "The action, or the formula that it uses, is not valid; the message tells where.",
        Cause::UnknownFormula => "There is no such formula at the action's revision.",
        Cause::UnknownSecret => "A secret or bot of that name is not set up in Vault.",
        Cause::NotApproved => "Its approval was refused.",
        Cause::ApprovalExpired => "Its approval did not come in time.",
        Cause::NotAdopted => {
            "A job dispatched by hand asked for more than `[adopt]` allows, or had no script."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_reference_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/action-reference.md");
        if std::env::var_os("CONSIGN_REGENERATE").is_some() {
            std::fs::write(path, reference()).expect("the reference is written");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == reference(), "run the tests once with CONSIGN_REGENERATE=1 to write {path}");
    }

    #[test]
    fn the_examples_are_valid() {
        let examples: Vec<String> = reference()
            .split("```toml\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next().map(ToOwned::to_owned))
            .collect();
        let [action, formula, helper] = examples.as_slice() else { panic!("three examples") };
        let action = crate::action::file::read("train-42.toml", action.as_bytes()).expect("an action");
        let formula = crate::formula::file::read("train.toml", formula.as_bytes()).expect("a formula");
        assert_eq!(crate::formula::bind::bind(&action, &formula).map(|args| args.len()), Ok(1));
        let helper = crate::action::file::read("triage-42.toml", helper.as_bytes()).expect("an action");
        assert_eq!(helper.args.len(), 3);
    }
}
