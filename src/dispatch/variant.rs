//! Variants: a base job with what a dispatch cannot vary, under an id that ends in the hash of both.
//!
//! Nomad takes mounts, resources, devices, constraints and the driver from the registered job alone, so
//! each combination is a job of its own. Its id is that of its content: it is never edited, only
//! registered or stopped.

use std::fmt::Write as _;

use hcl_edit::structure::{Block as EditBlock, Body as EditBody};
use sha2::{Digest as _, Sha256};

use super::{
    base_job::{self, BaseJob, Error, Rendered, Settings, append, note, runs_wrapper},
    needs::Needs,
    shape::{Mount, Shape},
};
use crate::{
    action::{Constraint, Resources},
    hexadecimal,
};

/// The job meta that names the base job of a variant.
pub const VARIANT_OF: &str = "consign_variant_of";
/// How many hexadecimal digits of its hash end a variant's id.
pub const DIGITS: usize = 12;
const MEBIBYTE: u64 = 1024 * 1024;

/// A job that attempts are dispatched from: a base job, or a variant of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its id in Nomad.
    pub id: String,
    /// The base job.
    pub base: String,
    /// What is registered.
    pub rendered: Rendered,
    /// What it needs of a node.
    pub needs: Needs,
}

impl Parent {
    /// Whether it is a variant, and not the base job itself.
    #[must_use]
    pub fn is_variant(&self) -> bool {
        self.id != self.base
    }
}

/// The base job as it is for a shape: itself for the plain one, else a variant.
pub fn compile(job: &BaseJob, settings: &Settings, shape: &Shape) -> Result<Parent, Error> {
    let settings = Settings { driver: shape.driver.unwrap_or(settings.driver), ..settings.clone() };
    let plain = job.render(&settings)?;
    if shape.is_plain() {
        let base = job.name().to_owned();
        return Ok(Parent { id: base.clone(), base, needs: Needs::read(&plain.hcl), rendered: plain });
    }
    let hash = Sha256::new()
        .chain_update(&plain.hcl)
        .chain_update([0])
        .chain_update(settings.driver.name())
        .chain_update([0])
        .chain_update(shape.canonical())
        .finalize();
    let marker = hexadecimal::encode(&hash);
    let id = format!("{}-{}", job.name(), marker.get(..DIGITS).unwrap_or_default());
    let hcl = shaped(job.name(), &id, &marker, &plain.hcl, shape)?;
    Ok(Parent {
        id,
        base: job.name().to_owned(),
        needs: Needs::read(&hcl),
        rendered: Rendered::new(hcl, marker),
    })
}

/// The base job that an id would be a variant of, by its form alone.
#[must_use]
pub fn base_of(id: &str) -> Option<&str> {
    let (base, hash) = id.rsplit_once('-')?;
    let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (hash.len() == DIGITS && hash.bytes().all(hexadecimal) && !base.is_empty()).then_some(base)
}

/// A job's text with the shape in its place.
fn shaped(name: &str, id: &str, marker: &str, hcl: &str, shape: &Shape) -> Result<String, Error> {
    let mut body: EditBody =
        hcl.parse().map_err(|source| Error::Read { name: name.to_owned(), source: Box::new(source) })?;
    let missing = || Error::NoJob { name: name.to_owned() };
    let job = body.get_blocks_mut("job").next().ok_or_else(missing)?;
    if let Some(label) = job.labels.first_mut() {
        *label = id.into();
    }
    // The label is the id; an attribute would win over it.
    for key in ["id", "name"] {
        job.body.remove_attribute(key);
    }
    note(job, base_job::MARKER, marker);
    note(job, VARIANT_OF, name);
    let task_missing = || Error::NoTask { name: name.to_owned() };
    let group = job
        .body
        .get_blocks_mut("group")
        .find(|group| group.body.get_blocks("task").any(runs_wrapper))
        .ok_or_else(task_missing)?;
    shape_group(name, group, shape)?;
    let task = group.body.get_blocks_mut("task").find(|task| runs_wrapper(task)).ok_or_else(task_missing)?;
    shape_resources(name, task, &shape.resources)?;
    for mount in &shape.mounts {
        append(&mut task.body, &volume_mount(mount));
    }
    Ok(body.to_string())
}

fn shape_group(name: &str, group: &mut EditBlock, shape: &Shape) -> Result<(), Error> {
    for mount in &shape.mounts {
        let twice = group.body.get_blocks("volume").any(|volume| volume.has_labels(&[mount.alias.as_str()]));
        if twice {
            return Err(Error::VolumeTwice { name: name.to_owned(), volume: mount.alias.clone() });
        }
    }
    let constraints = shape.constraints.iter().map(constraint);
    let volumes = shape.mounts.iter().map(volume);
    for text in constraints.chain(volumes) {
        append(&mut group.body, &text);
    }
    Ok(())
}

fn shape_resources(name: &str, task: &mut EditBlock, asked: &Resources) -> Result<(), Error> {
    if *asked == Resources::default() {
        return Ok(());
    }
    if !task.body.has_blocks("resources") {
        append(&mut task.body, "\n      resources {\n      }\n");
    }
    let Some(resources) = task.body.get_blocks_mut("resources").next() else { return Ok(()) };
    let body = &mut resources.body;
    if asked.cpu.is_some() || asked.cores.is_some() {
        // Nomad takes one of the two.
        for key in ["cpu", "cores"] {
            body.remove_attribute(key);
        }
    }
    if asked.memory.is_some() {
        body.remove_attribute("memory_max");
    } else if let (Some(most), Some(memory)) = (asked.memory_max, number(body, "memory"))
        && most.div_ceil(MEBIBYTE) < memory
    {
        return Err(Error::MemoryMax { name: name.to_owned(), memory });
    }
    let values = [
        ("cpu", asked.cpu),
        ("cores", asked.cores),
        ("memory", asked.memory.map(|bytes| bytes.div_ceil(MEBIBYTE))),
        ("memory_max", asked.memory_max.map(|bytes| bytes.div_ceil(MEBIBYTE))),
    ];
    for (key, value) in values {
        let Some(value) = value else { continue };
        body.remove_attribute(key);
        append(body, &format!("        {key} = {value}\n"));
    }
    if asked.gpus.is_some() {
        body.remove_blocks("device");
    }
    if let (Some(count @ 1..), Some(device)) = (asked.gpus, &asked.device) {
        append(
            body,
            &format!("\n        device {} {{\n          count = {count}\n        }}\n", quoted(device)),
        );
    }
    Ok(())
}

fn number(body: &EditBody, key: &str) -> Option<u64> {
    body.get_attribute(key)?.value.as_number()?.as_u64()
}

fn constraint(constraint: &Constraint) -> String {
    let Constraint { attribute, operator, value } = constraint;
    format!(
        "\n    constraint {{\n      attribute = {}\n      operator  = {}\n      value     = {}\n    }}\n",
        quoted(attribute),
        quoted(operator),
        quoted(value)
    )
}

fn volume(mount: &Mount) -> String {
    format!(
        "\n    volume {} {{\n      type      = \"host\"\n      source    = {}\n      read_only = {}\n    }}\n",
        quoted(&mount.alias),
        quoted(&mount.volume),
        mount.read_only
    )
}

fn volume_mount(mount: &Mount) -> String {
    format!(
        "\n      volume_mount {{\n        volume      = {}\n        destination = {}\n        read_only   = {}\n      }}\n",
        quoted(&mount.alias),
        quoted(&mount.destination),
        mount.read_only
    )
}

/// A text as HCL writes it, so that it stays a text whatever it holds.
///
/// What comes out of Nomad's parser is the text itself: an attribute of a node such as
/// `${attr.kernel.name}` is looked up when Nomad places the job, not by its parser.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '$' | '%' if characters.peek() == Some(&'{') => {
                quoted.push(character);
                quoted.push(character);
            }
            control if control.is_control() => {
                // Writing to a string does not fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(control));
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
