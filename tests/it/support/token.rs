//! Tokens of the API.

use super::World;

impl World {
    /// A token with these scopes, made as an operator makes it.
    pub(crate) fn token(&self, name: &str, scopes: &str) -> String {
        let output = self.operate(&["token", "create", name, "--scope", scopes], b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned()
    }
}
