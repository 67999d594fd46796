//! The environment variables of a task: what they are called, and which names are taken.

/// The longest name of an argument or a variable, in bytes.
const NAME_LIMIT: usize = 128;

/// What consign, Nomad, Vault and the dynamic linker set or obey themselves.
const RESERVED_PREFIXES: [&str; 5] = ["NOMAD_", "VAULT_", "CONSIGN_", "ARG_", "LD_"];

/// The variable that carries an argument: `model-name` becomes `ARG_MODEL_NAME`.
#[must_use]
pub fn variable(argument: &str) -> String {
    format!("ARG_{}", argument.to_ascii_uppercase().replace('-', "_"))
}

/// Whether an argument may be called so: a letter or `_`, then letters, digits, `_` or `-`.
#[must_use]
pub fn is_argument_name(name: &str) -> bool {
    name.len() <= NAME_LIMIT
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|character| character.is_ascii_alphanumeric() || "_-".contains(character))
}

/// Whether a variable may be called so: a letter or `_`, then letters, digits or `_`.
#[must_use]
pub fn is_variable_name(name: &str) -> bool {
    is_argument_name(name) && !name.contains('-')
}

/// Whether an action must leave the variable alone.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name == "PATH" || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_variables() {
        assert_eq!(variable("model-name"), "ARG_MODEL_NAME");
        assert!(is_argument_name("model-name"));
        assert!(!is_argument_name("2nd"));
        assert!(!is_variable_name("model-name"));
        assert!(is_reserved("LD_PRELOAD") && is_reserved("PATH") && !is_reserved("PATHS"));
    }
}
