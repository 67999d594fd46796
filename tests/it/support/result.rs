//! What tests say of a result file.

use serde_json::{Value, json};

/// It ended so.
pub(crate) fn ends(result: &Value, outcome: &str, cause: &str) {
    assert_eq!((&result["outcome"], &result["cause"]), (&json!(outcome), &json!(cause)), "{result}");
}

/// It ended so, with this exit code.
pub(crate) fn ends_with_code(result: &Value, outcome: &str, cause: &str, exit_code: i64) {
    ends(result, outcome, cause);
    assert_eq!(result["exit_code"], json!(exit_code), "{result}");
}

/// It ended so, and its message has all these words.
pub(crate) fn ends_saying(result: &Value, outcome: &str, cause: &str, words: &[&str]) {
    ends(result, outcome, cause);
    let message = result["message"].as_str().unwrap();
    assert!(words.iter().all(|word| message.contains(word)), "{words:?}: {message}");
}
