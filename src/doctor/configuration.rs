//! The files that the configuration names.

use std::{fs::File, os::unix::fs::PermissionsExt as _, path::Path};

use super::{Finding, Tokens};
use crate::{
    agent,
    config::{Auth, Config, given},
    program,
    telemetry::chain,
    tokens::TokensFile,
};

const SUBJECT: &str = "configuration";

pub(super) fn examine(config: &Config, tokens: &Tokens) -> Vec<Finding> {
    let mut findings = Vec::new();
    let secrets = [
        ("[vault] token_file", &config.vault.token_file, tokens.vault.is_some()),
        ("[nomad] token_file", &config.nomad.token_file, tokens.nomad.is_some()),
        ("[ops] hook_secret_file", &config.ops.hook_secret_file, false),
        ("[webhooks] secret_file", &config.webhooks.secret_file, false),
        ("[results] signing_key", &config.results.signing_key, false),
    ];
    for (key, path, overridden) in secrets {
        if overridden {
            continue;
        }
        findings.extend(given(path).map(|path| secret_file(key, path)));
    }
    for (name, forge) in &config.forge {
        findings.push(secret_file(&format!("[forge.{name}] token_file"), &forge.token_file));
    }
    findings.push(match TokensFile::new(config.tokens_file()).tokens() {
        _ if config.server.auth == Auth::None => {
            let message = "[server] auth = \"none\": whoever is on this machine may have any formula run";
            Finding::warning(SUBJECT, message, "Where others have accounts here, set it to \"token\".")
        }
        Ok(tokens) => {
            let message = format!("[server] tokens_file: {} tokens for the API", tokens.len());
            Finding::ok(SUBJECT, message)
        }
        Err(error) => {
            let remedy = "Correct it, or remove it and make tokens with `consign token create`.";
            Finding::failure(SUBJECT, format!("[server] tokens_file: {}", chain(&error)), remedy)
        }
    });
    let public = [
        ("[vault] ca_cert", &config.vault.ca_cert),
        ("[nomad] ca_cert", &config.nomad.ca_cert),
        ("[approval] signers", &config.approval.signers),
        ("[approval] revoked", &config.approval.revoked),
        ("[approval] openpgp_keys", &config.approval.openpgp_keys),
    ];
    for (key, path) in public {
        let Some(path) = given(path) else { continue };
        findings.push(match File::open(path) {
            Ok(_) => Finding::ok(SUBJECT, format!("{key}: {} is readable", path.display())),
            Err(error) => unreadable(key, path, &error),
        });
    }
    for (key, path, program, package) in [
        ("[approval] signers", &config.approval.signers, "ssh-keygen", "openssh-client"),
        ("[approval] openpgp_keys", &config.approval.openpgp_keys, "gpg", "gnupg"),
    ] {
        if given(path).is_some() && program::find(program).is_none() {
            let message = format!("{key} needs {program}, which is not on PATH");
            let remedy = format!("Install it (Debian: {package}), and have it on the agent's PATH.");
            findings.push(Finding::failure(SUBJECT, message, remedy));
        }
    }
    findings.push(match agent::base_jobs(config) {
        Ok(jobs) => {
            Finding::ok(SUBJECT, format!("base jobs: {}", jobs.names().collect::<Vec<_>>().join(", ")))
        }
        Err(error) => Finding::failure(SUBJECT, error.to_string(), "Correct the file, or set [nomad] jobs."),
    });
    findings
}

/// A file that nobody else may read.
fn secret_file(key: &str, path: &Path) -> Finding {
    let metadata = File::open(path).and_then(|file| file.metadata());
    match metadata {
        Err(error) => unreadable(key, path, &error),
        Ok(metadata) if !metadata.is_file() => {
            let message = format!("{key}: {} is not a file", path.display());
            Finding::failure(SUBJECT, message, format!("Set {key} to a file."))
        }
        Ok(metadata) if is_open(metadata.permissions().mode()) => {
            let mode = metadata.permissions().mode() & 0o777;
            let message = format!("{key}: {} has mode {mode:04o}: others may read it", path.display());
            Finding::warning(SUBJECT, message, format!("chmod 600 {}", path.display()))
        }
        Ok(_) => Finding::ok(SUBJECT, format!("{key}: {} is readable by this user alone", path.display())),
    }
}

fn unreadable(key: &str, path: &Path, error: &std::io::Error) -> Finding {
    let remedy = if key == "[vault] token_file" {
        format!("consign bootstrap --token-out {}, or set {key}.", path.display())
    } else {
        format!("Make the file readable for this user, or set {key}.")
    };
    Finding::failure(SUBJECT, format!("{key}: cannot read {}: {error}", path.display()), remedy)
}

/// Whether a mode gives the group or others any right.
fn is_open(mode: u32) -> bool {
    mode & 0o077 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, doctor::Level};

    #[test]
    fn only_the_owner_may_have_rights() {
        for (mode, open) in [(0o100_600, false), (0o100_400, false), (0o100_640, true), (0o100_604, true)] {
            assert_eq!(is_open(mode), open, "{mode:o}");
        }
    }

    #[test]
    fn an_api_without_tokens_is_warned_of() {
        for (auth, warned) in [("none", true), ("token", false)] {
            let text = format!("[server]\nauth = \"{auth}\"\n");
            let config = config::read("consign.toml", &text, &config::Environment::new()).unwrap();
            let findings = examine(&config, &Tokens::default());
            let warns =
                |finding: &Finding| finding.level == Level::Warning && finding.message.contains("auth");
            assert_eq!(findings.iter().any(warns), warned, "{findings:?}");
        }
    }

    #[test]
    fn a_secret_file_is_missing_open_or_good() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let missing = secret_file("[vault] token_file", &path);
        assert_eq!(missing.level, Level::Failure);
        assert!(missing.remedy.unwrap().contains("consign bootstrap --token-out"));
        std::fs::write(&path, "hvs.x").unwrap();
        for (mode, level) in [(0o644, Level::Warning), (0o600, Level::Ok)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(secret_file("[vault] token_file", &path).level, level, "{mode:o}");
        }
        assert_eq!(secret_file("[vault] token_file", folder.path()).level, Level::Failure);
    }
}
