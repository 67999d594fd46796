//! Base jobs: read, checked for what an attempt relies on, and rendered with the configuration.

mod task_config;

use hcl::{Block, Body, Expression};
use hcl_edit::{
    Decorate as _, Span as _,
    structure::{Block as EditBlock, Body as EditBody},
};
use sha2::{Digest as _, Sha256};

pub use crate::action::Driver;
use crate::{diagnostic::Diagnostic, duration::Span, hexadecimal};

pub use self::declared::{BOT_KEY, Declared};

/// The launch gate's entry, below the KV mount.
pub const GATE_ENTRY: &str = "consign/go";
/// The job meta by which consign knows what it registered, and whether it has changed.
pub const MARKER: &str = "consign_base";
/// The dispatch meta that every base job takes.
pub const META_KEYS: [&str; 6] = ["secrets", "args", "consign", "formula", "context", "action_id"];

/// What the wrapper's command contains, by which its task is known.
const WRAPPER: &str = "consign/wrapper";
/// What a template's data may name, as `file("jobs/wrapper.sh")`, and the text that shall stand there; it works
/// with Nomad's own command line as well, which looks from the folder that it is started in.
const FILES: [(&str, &str); 3] = [
    ("jobs/wrapper.sh", WRAPPER_TEXT),
    ("jobs/environment.tpl", include_str!("../../jobs/environment.tpl")),
    ("jobs/plan.tpl", include_str!("../../jobs/plan.tpl")),
];
const WRAPPER_TEXT: &str = include_str!("../../jobs/wrapper.sh");
/// The base jobs that are part of consign: name and text.
const SHIPPED: [(&str, &str); 3] = [
    ("runner", include_str!("../../jobs/runner.nomad.hcl")),
    ("sidecar", include_str!("../../jobs/sidecar.nomad.hcl")),
    ("training", include_str!("../../jobs/training.nomad.hcl")),
];

/// A base job that has everything an attempt relies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseJob {
    name: String,
    text: String,
    declared: Declared,
}

/// What the configuration says about base jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The driver.
    pub driver: Driver,
    /// The image, for docker alone; `None` keeps the base job's.
    pub image: Option<String>,
    /// The Vault role that allocations log in with.
    pub role: String,
    /// The audience of the workload identity.
    pub audience: String,
    /// The mount of the KV engine.
    pub kv: String,
    /// The folder of the secrets in it.
    pub prefix: String,
    /// The folder of the bots' tokens in it.
    pub bots: String,
    /// How long a node may be out of reach.
    pub lost_after: Span,
}

/// A base job as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The whole jobspec; it needs no variables.
    pub hcl: String,
    /// The value of [`MARKER`]: SHA-256 of the rest, in hexadecimal.
    pub marker: String,
    /// The SHA-256 of all of it, in hexadecimal: what approvals are bound to.
    pub sha256: String,
}

impl Rendered {
    pub(super) fn new(hcl: String, marker: String) -> Self {
        Self { sha256: hexadecimal::encode(&Sha256::digest(&hcl)), hcl, marker }
    }
}

/// Why a base job, or a variant of it, could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No task of it runs the wrapper, so that there is nothing to shape.
    #[error(
        "base job {name} has no task that runs the wrapper: its resources, mounts and constraints cannot be varied"
    )]
    NoTask {
        /// The base job.
        name: String,
    },
    /// It has a volume of that name already.
    #[error("base job {name} has a volume {volume} of its own: call the mount something else")]
    VolumeTwice {
        /// The base job.
        name: String,
        /// The volume's name in the group.
        volume: String,
    },
    /// A limit of memory below the memory of the base job.
    #[error(
        "memory_max is less than the {memory} MiB of memory that base job {name} has: give memory as well"
    )]
    MemoryMax {
        /// The base job.
        name: String,
        /// Its memory in MiB.
        memory: u64,
    },
    /// The text is no HCL.
    #[error("cannot read base job {name}")]
    Read {
        /// The base job.
        name: String,
        /// What the reader says.
        #[source]
        source: Box<hcl_edit::parser::Error>,
    },
    /// The text has no job block.
    #[error("base job {name} has no job block")]
    NoJob {
        /// The base job.
        name: String,
    },
    /// It is to run under docker, and nothing names an image.
    #[error(
        "base job {name} has no image to run in under docker: set [nomad] image, or `image` in its config"
    )]
    NoImage {
        /// The base job.
        name: String,
    },
}

impl BaseJob {
    /// Reads a base job's text, or says everything that it lacks.
    pub fn read(name: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let edit: EditBody = text.parse().map_err(|error: hcl_edit::parser::Error| {
            let at = error.location().offset().min(text.len());
            vec![Diagnostic::new(format!("this is no HCL: {}", error.message()), at..at)]
        })?;
        let spanned = hcl_edit::parser::parse_body(text).unwrap_or_default();
        let mut check = Check { spanned, variables: Vec::new(), found: Vec::new() };
        let body = Body::from(edit);
        check.file(name, &body);
        if check.found.is_empty() {
            Ok(Self { name: name.to_owned(), text: text.to_owned(), declared: Declared::read(&body) })
        } else {
            Err(check.found)
        }
    }

    /// The base jobs that are part of consign.
    #[must_use]
    pub fn shipped() -> Vec<Self> {
        let read = |(name, text): (&str, &str)| {
            let declared = text.parse().map(|body: EditBody| Declared::read(&Body::from(body)));
            Self { name: name.to_owned(), text: text.to_owned(), declared: declared.unwrap_or_default() }
        };
        SHIPPED.map(read).into()
    }

    /// Its name, which is Nomad's job id.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it declares beyond what every base job has.
    #[must_use]
    pub const fn declared(&self) -> &Declared {
        &self.declared
    }

    /// Its text with the configuration's values and driver. Everything else stays as written.
    pub fn render(&self, settings: &Settings) -> Result<Rendered, Error> {
        let mut body: EditBody = self
            .text
            .parse()
            .map_err(|source| Error::Read { name: self.name.clone(), source: Box::new(source) })?;
        let lost_after = settings.lost_after.to_string();
        for block in body.get_blocks_mut("variable") {
            let value = match block.labels.first().map(hcl_edit::structure::BlockLabel::as_str) {
                Some("role") => &settings.role,
                Some("audience") => &settings.audience,
                Some("kv") => &settings.kv,
                Some("prefix") => &settings.prefix,
                Some("bots") => &settings.bots,
                Some("lost_after") => &lost_after,
                _ => continue,
            };
            set(&mut block.body, "default", value);
        }
        let missing = || Error::NoJob { name: self.name.clone() };
        let job = body.get_blocks_mut("job").next().ok_or_else(missing)?;
        for group in job.body.get_blocks_mut("group") {
            for task in group.body.get_blocks_mut("task") {
                if !set_driver(task, settings) {
                    return Err(Error::NoImage { name: self.name.clone() });
                }
                for template in task.body.get_blocks_mut("template") {
                    include_file(&mut template.body);
                }
            }
        }
        let marker = hexadecimal::encode(&Sha256::digest(body.to_string()));
        let job = body.get_blocks_mut("job").next().ok_or_else(missing)?;
        mark(job, &marker);
        Ok(Rendered::new(body.to_string(), marker))
    }
}

/// Gives an attribute another value and keeps the blanks around it.
fn set(body: &mut EditBody, key: &str, value: &str) {
    if let Some(mut attribute) = body.get_attribute_mut(key) {
        let decor = std::mem::take(attribute.value_mut().decor_mut());
        *attribute.value_mut() = hcl_edit::expr::Expression::from(value).decorated(decor);
    }
}

/// Puts a file's text where a template asks for it: Nomad's API reads no files.
fn include_file(template: &mut EditBody) {
    let text = template.get_attribute("data").and_then(|data| file_text(&data.value.clone().into()));
    if let Some(text) = text {
        set(template, "data", text);
    }
}

/// The text of one of [`FILES`], where an expression names it.
fn file_text(expression: &Expression) -> Option<&'static str> {
    let Expression::FuncCall(call) = expression else { return None };
    let [Expression::String(path)] = call.args.as_slice() else { return None };
    let named = FILES.iter().find(|(name, _)| call.name.name.as_str() == "file" && name == path);
    named.map(|(_, text)| *text)
}

/// Whether a task runs the wrapper, and with it the formula.
pub(super) fn runs_wrapper(task: &EditBlock) -> bool {
    task.body.get_blocks("config").any(|config| config.body.to_string().contains(WRAPPER))
}

/// Gives the wrapper's task the driver; false where docker has no image to run it in.
fn set_driver(task: &mut EditBlock, settings: &Settings) -> bool {
    if !runs_wrapper(task) {
        return true;
    }
    let Some(config) = task.body.get_blocks_mut("config").next() else { return true };
    let complete = match settings.driver {
        Driver::Docker => task_config::docker(&mut config.body, settings.image.as_deref()),
        Driver::Exec => {
            task_config::exec(&mut config.body);
            true
        }
        Driver::RawExec => {
            task_config::raw_exec(&mut config.body);
            true
        }
    };
    set(&mut task.body, "driver", settings.driver.name());
    complete
}

fn mark(job: &mut EditBlock, marker: &str) {
    note(job, MARKER, marker);
}

/// Puts a value into the job's meta. Key and value are of consign's own making.
pub(super) fn note(job: &mut EditBlock, key: &str, value: &str) {
    if let Some(meta) = job.body.get_blocks_mut("meta").next() {
        meta.body.remove_attribute(key);
        append(&mut meta.body, &format!("    {key} = \"{value}\"\n"));
    } else {
        append(&mut job.body, &format!("\n  meta {{\n    {key} = \"{value}\"\n  }}\n"));
    }
}

/// Appends HCL of consign's own making, in which every foreign text is quoted.
pub(super) fn append(body: &mut EditBody, text: &str) {
    if let Ok(further) = text.parse::<EditBody>() {
        for structure in further {
            body.push(structure);
        }
    }
}

/// The state of one check: the text with its places, and what was found.
struct Check {
    spanned: EditBody,
    variables: Vec<(String, String)>,
    found: Vec<Diagnostic>,
}

impl Check {
    fn file(&mut self, name: &str, body: &Body) {
        self.variables = variables(body);
        let Some(job) = blocks(body, "job").next() else {
            self.found.push(Diagnostic::new("there is no job block", 0..0));
            return;
        };
        if job.labels().first().map(hcl::BlockLabel::as_str) != Some(name) {
            self.lacks(
                &["job"],
                &format!("the job must be called {name:?}, as its file is"),
                "rename one of the two",
            );
        }
        if self.text(job.body(), "type").as_deref() != Some("batch") {
            self.lacks(&["job"], "a base job is a batch job", "add `type = \"batch\"`");
        }
        self.parameterized(job.body());
        let groups: Vec<&Block> = blocks(job.body(), "group").collect();
        if groups.is_empty() {
            self.lacks(&["job"], "there is no group", "add one group with one task");
        }
        for group in groups {
            self.group(group.body());
        }
    }

    fn parameterized(&mut self, job: &Body) {
        let Some(block) = blocks(job, "parameterized").next() else {
            self.lacks(&["job"], "a base job is parameterized", "add a `parameterized` block");
            return;
        };
        let place = ["job", "parameterized"];
        if self.text(block.body(), "payload").as_deref() == Some("forbidden") {
            self.lacks(&place, "the formula travels as payload", "set `payload = \"optional\"`");
        }
        let keys = match attribute(block.body(), "meta_optional") {
            Some(Expression::Array(keys)) => keys.clone(),
            _ => Vec::new(),
        };
        for key in META_KEYS {
            if !keys.contains(&Expression::String(key.to_owned())) {
                self.lacks(&place, &format!("meta_optional lacks {key:?}"), &format!("add {key:?} to it"));
            }
        }
    }

    fn group(&mut self, group: &Body) {
        let place = ["job", "group"];
        let attempts = blocks(group, "restart").next().and_then(|block| attribute(block.body(), "attempts"));
        if attempts.and_then(whole) != Some(0) {
            self.lacks(&place, "Nomad would run a failed task again", "add `restart { attempts = 0 }`");
        }
        let disconnect = blocks(group, "disconnect").next();
        let replace = disconnect.and_then(|block| attribute(block.body(), "replace"));
        if disconnect.is_none_or(|block| attribute(block.body(), "lost_after").is_none())
            || replace != Some(&Expression::Bool(false))
        {
            self.lacks(
                &place,
                "Nomad would replace a task whose node is out of reach",
                "add `disconnect` with `lost_after` and `replace = false`",
            );
        }
        let tasks: Vec<&Block> = blocks(group, "task").collect();
        if tasks.is_empty() {
            self.lacks(&place, "there is no task", "add one task");
        }
        for task in tasks {
            self.task(task.body());
        }
    }

    fn task(&mut self, task: &Body) {
        let place = ["job", "group", "task"];
        let vault = blocks(task, "vault").next();
        if vault.is_none_or(|block| attribute(block.body(), "role").is_none()) {
            self.lacks(&place, "the task cannot log in to Vault", "add `vault { role = … }`");
        }
        let templates: Vec<&Block> = blocks(task, "template").collect();
        if templates.iter().any(|block| attribute(block.body(), "once") != Some(&Expression::Bool(true))) {
            self.lacks(
                &place,
                "a template reads again after the task started",
                "set `once = true` on every template of the task",
            );
        }
        let data: Vec<String> =
            templates.iter().filter_map(|block| self.text(block.body(), "data")).collect();
        let gate = format!("/data/{GATE_ENTRY}");
        if !data.iter().any(|text| text.contains("secret") && text.contains(&gate)) {
            let help = format!("add a template that reads <kv>{gate}");
            self.lacks(&place, "no template waits at the launch gate", &help);
        }
        let marks = |line: &str| line.contains("mkdir") && line.contains("/started");
        if !data.iter().any(|text| text.lines().any(marks)) {
            self.lacks(
                &place,
                "the wrapper makes no started-marker",
                "let it `mkdir \"$NOMAD_ALLOC_DIR/consign/started\"` before the formula, and end with 121 where it is there",
            );
        }
    }

    /// Notes a lack at the deepest block of `path` that is there.
    fn lacks(&mut self, path: &[&str], message: &str, help: &str) {
        let mut span = 0..0;
        let mut body = &self.spanned;
        for ident in path {
            let Some(block) = body.get_blocks(ident).next() else { break };
            span = block.ident.span().unwrap_or(span);
            body = &block.body;
        }
        self.found.push(Diagnostic::new(message, span).with_help(help));
    }

    /// An attribute's text, the defaults of variables filled in.
    fn text(&self, body: &Body, key: &str) -> Option<String> {
        let expression = attribute(body, key)?;
        if let Some(text) = file_text(expression) {
            return Some(text.to_owned());
        }
        let mut text = match expression {
            Expression::String(text) => text.clone(),
            Expression::TemplateExpr(template) => template.to_string(),
            _ => return None,
        };
        for (name, value) in &self.variables {
            text = text.replace(&format!("${{var.{name}}}"), value);
        }
        Some(text)
    }
}

fn variables(body: &Body) -> Vec<(String, String)> {
    blocks(body, "variable")
        .filter_map(|block| match (block.labels().first(), attribute(block.body(), "default")) {
            (Some(name), Some(Expression::String(value))) => Some((name.as_str().to_owned(), value.clone())),
            _ => None,
        })
        .collect()
}

fn blocks<'a>(body: &'a Body, ident: &'a str) -> impl Iterator<Item = &'a Block> {
    body.blocks().filter(move |block| block.identifier() == ident)
}

fn attribute<'a>(body: &'a Body, key: &str) -> Option<&'a Expression> {
    body.attributes().find(|attribute| attribute.key() == key).map(hcl::Attribute::expr)
}

fn whole(expression: &Expression) -> Option<u64> {
    match expression {
        Expression::Number(number) => number.as_u64(),
        _ => None,
    }
}

mod declared;
#[cfg(test)]
mod mask_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod training_tests;
#[cfg(test)]
mod wrapper_tests;
