//! The findings as a table for people.

use super::{Finding, Level};

/// A line for each finding, its remedy indented below it, and a summary at the end.
#[must_use]
pub fn render(findings: &[Finding], colour: bool) -> String {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or_default();
    let indent = " ".repeat("warning".len() + width + 4);
    let mut lines = Vec::new();
    for finding in findings {
        let message = finding.message.trim().replace('\n', &format!("\n{indent}"));
        lines.push(format!("{}  {:width$}  {message}", mark(finding.level, colour), finding.subject));
        if let Some(remedy) = &finding.remedy {
            lines.push(format!("{indent}-> {}", remedy.trim().replace('\n', &format!("\n{indent}   "))));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (failures, warnings) =
        (counted(count(Level::Failure), "failure"), counted(count(Level::Warning), "warning"));
    lines.push(format!("{} checked: {failures}, {warnings}\n", findings.len()));
    lines.join("\n")
}

fn counted(count: usize, word: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {word}{ending}")
}

fn mark(level: Level, colour: bool) -> String {
    let (word, code) = match level {
        Level::Ok => ("ok", 32),
        Level::Warning => ("warning", 33),
        Level::Failure => ("failure", 31),
    };
    if colour { format!("\u{1b}[{code}m{word:7}\u{1b}[0m") } else { format!("{word:7}") }
}

#[cfg(test)]
mod tests {
    use super::super::worst;
    use super::*;

    #[test]
    fn findings_stand_in_a_table_with_their_remedies() {
        let findings = [
            Finding::ok("store", "12 GiB are free"),
            Finding::warning("vault", "the token is root's", "Run `consign bootstrap`."),
            Finding::failure("nomad", "no reply\nat all", "Set [nomad] addr."),
        ];
        let text = render(&findings, false);
        assert_eq!(
            text,
            "ok       store  12 GiB are free\n\
             warning  vault  the token is root's\n                -> Run `consign bootstrap`.\n\
             failure  nomad  no reply\n                at all\n                -> Set [nomad] addr.\n\
             3 checked: 1 failure, 1 warning\n"
        );
        assert!(render(&findings, true).starts_with("\u{1b}[32mok     \u{1b}[0m  store"));
        assert_eq!(worst(&findings), Level::Failure);
        assert_eq!(worst(&findings[..2]), Level::Warning);
        assert_eq!(worst(&[]), Level::Ok);
    }
}
