//! The sample ops repo that `consign init` writes and `consign agent --dev` runs.

/// Path in the ops repo and content of every sample action and formula. What the base job `sidecar` runs no action
/// uses: it needs volumes that the development mode has not.
pub const FILES: [(&str, &str); 15] = [
    ("actions/samples/fails.toml", include_str!("../actions/fails.toml")),
    ("actions/samples/greet.toml", include_str!("../actions/greet.toml")),
    ("actions/samples/hello.toml", include_str!("../actions/hello.toml")),
    ("actions/samples/secret.toml", include_str!("../actions/secret.toml")),
    ("actions/samples/steps.toml", include_str!("../actions/steps.toml")),
    ("actions/samples/train.toml", include_str!("../actions/train.toml")),
    ("formulas/checkup.toml", include_str!("../actions/formulas/checkup.toml")),
    ("formulas/fail.sh", include_str!("../actions/formulas/fail.sh")),
    ("formulas/fingerprint.sh", include_str!("../actions/formulas/fingerprint.sh")),
    ("formulas/greet.sh", include_str!("../actions/formulas/greet.sh")),
    ("formulas/hello.sh", include_str!("../actions/formulas/hello.sh")),
    ("formulas/reproduce.sh", include_str!("../actions/formulas/reproduce.sh")),
    ("formulas/triage.sh", include_str!("../actions/formulas/triage.sh")),
    ("formulas/verify.sh", include_str!("../actions/formulas/verify.sh")),
    ("formulas/train.toml", include_str!("../actions/formulas/train.toml")),
];

/// The secrets that the sample actions name.
pub const SECRETS: [&str; 1] = ["DEMO_TOKEN"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{action, validation::tree::validate_tree};

    #[test]
    fn every_sample_is_valid() {
        let files: Vec<(String, Vec<u8>)> =
            FILES.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
        let reports = validate_tree(&files, "actions", "formulas");
        assert_eq!(reports.len(), FILES.len());
        for report in reports {
            assert!(report.is_valid(), "{}", report.render(false));
        }
    }

    #[test]
    fn every_action_names_its_blast_radius_and_known_secrets() {
        let mut secrets = BTreeSet::new();
        for (path, text) in FILES.iter().filter(|(path, _)| path.starts_with("actions/")) {
            let action = action::file::read(path, text.as_bytes()).expect("a valid action");
            assert!(action.blast_radius.is_some(), "{path}");
            secrets.extend(action.secrets.iter().map(ToString::to_string));
        }
        assert_eq!(secrets, SECRETS.map(ToOwned::to_owned).into());
    }
}
