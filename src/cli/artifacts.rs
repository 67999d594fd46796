//! `consign artifacts`: what was kept of a job's files.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal as _, Write as _, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use bytesize::ByteSize;

use super::{
    Failure, Outcome, Surroundings, output, remote,
    table::{Cell, Table},
};
use crate::{artifact::Described, client::Client, ids::JobId};

/// The largest file that is printed on a terminal, in bytes.
const TERMINAL_LIMIT: u64 = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Artifacts {
    /// A job id, or an action id.
    id: String,
    /// The file whose content is printed; without it all are listed.
    name: Option<String>,
    /// Write the content to this file.
    #[arg(short, long, value_name = "FILE", requires = "name")]
    output: Option<PathBuf>,
    /// Print the list as JSON.
    #[arg(long, conflicts_with = "name")]
    json: bool,
    #[command(flatten)]
    agent: remote::Arguments,
}

pub(super) async fn run(arguments: &Artifacts, surroundings: &Surroundings) -> Outcome {
    let Artifacts { id, name, output: file, json, agent } = arguments;
    let client = remote::client(agent, surroundings)?;
    let artifacts = client.artifacts(id).await?;
    let Some(name) = name else {
        if *json {
            output::line(&serde_json::to_string_pretty(&artifacts)?);
        } else if artifacts.is_empty() {
            output::remark("no artifacts");
        } else {
            output::text(&table(&artifacts).render(output::colour()));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let artifact = artifacts.iter().find(|artifact| artifact.name == *name).ok_or_else(|| {
        Failure(format!("{id} has no artifact {name:?}: `consign artifacts {id}` lists those that it has"))
    })?;
    match file {
        Some(file) => save(&client, id, artifact, file).await?,
        None if stdout().is_terminal() => show(&client, id, artifact).await?,
        None => client.fetch(id, artifact, output::bytes).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn table(artifacts: &[Described]) -> Table {
    let mut table = Table::new(&["name", "size", "type", "sha256"]);
    for artifact in artifacts {
        table.row(vec![
            Cell::new(artifact.name.as_str()),
            Cell::new(ByteSize(artifact.size).display().iec().to_string()),
            Cell::new(artifact.content_type.as_str()),
            Cell::new(artifact.sha256.as_str()),
        ]);
    }
    table
}

/// Prints it on a terminal, if it is a text that a terminal does not obey.
async fn show(client: &Client, id: &str, artifact: &Described) -> Result<(), Failure> {
    let elsewhere = |what: &str| {
        let name = &artifact.name;
        Failure(format!("{name:?} is {what}, and not for a terminal: write it to a file with -o"))
    };
    if artifact.size > TERMINAL_LIMIT {
        return Err(elsewhere("large"));
    }
    let mut content = Vec::new();
    let take = |piece: &[u8]| {
        content.extend_from_slice(piece);
        Ok(())
    };
    client.fetch(id, artifact, take).await?;
    if !is_plain(&content) {
        return Err(elsewhere("no plain text"));
    }
    Ok(output::bytes(&content)?)
}

fn is_plain(content: &[u8]) -> bool {
    let text = std::str::from_utf8(content);
    text.is_ok_and(|text| !text.chars().any(|letter| letter.is_control() && !"\n\r\t".contains(letter)))
}

/// Writes it to a file, which is there with the whole content that was kept, or as it was before.
async fn save(client: &Client, id: &str, artifact: &Described, file: &Path) -> Result<(), Failure> {
    let failed = |error: &io::Error| Failure(format!("cannot write {}: {error}", file.display()));
    let mut name = file.file_name().ok_or_else(|| failed(&io::ErrorKind::IsADirectory.into()))?.to_owned();
    name.push(format!(".{}", JobId::new()));
    let partial = file.with_file_name(name);
    let mut to =
        OpenOptions::new().write(true).create_new(true).open(&partial).map_err(|error| failed(&error))?;
    let fetched = client.fetch(id, artifact, |piece| to.write_all(piece)).await;
    let placed = match fetched {
        Ok(()) => std::fs::rename(&partial, file).map_err(|error| failed(&error)),
        Err(error) => Err(error.into()),
    };
    placed.inspect_err(|_| {
        // Nobody needs half of it, and it may be gone.
        drop(std::fs::remove_file(&partial));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_terminal_does_not_obey_is_plain() {
        for (content, plain) in [
            (&b"two\n\tlines\r\n"[..], true),
            ("\u{e4}".as_bytes(), true),
            (b"", true),
            (b"\xff", false),
            (b"a\0b", false),
            (b"\x1b[2J", false),
            ("\u{9b}2J".as_bytes(), false),
        ] {
            assert_eq!(is_plain(content), plain, "{content:?}");
        }
    }
}
