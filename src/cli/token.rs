//! `consign token`.

use std::{process::ExitCode, time::Duration};

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret as _;

use super::{
    Failure, Outcome, Surroundings, output,
    table::{Cell, RED, Table},
};
use crate::{
    duration::Span,
    tokens::{HolderName, Scope, Token, TokensFile},
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a token; it is printed once, alone on the last line.
    Create {
        /// Who holds it: a person or a program.
        name: HolderName,
        /// What it may do; admin may everything.
        #[arg(long, value_delimiter = ',', required = true)]
        scope: Vec<Scope>,
        /// How long it is good for, such as 90d or 12h; without it for ever.
        #[arg(long, value_name = "TIME", value_parser = lifetime)]
        expires: Option<Duration>,
    },
    /// List the tokens on record.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take a token from the record; it is refused from then on.
    Revoke {
        /// Who holds it.
        name: HolderName,
    },
}

pub(super) fn run(command: Command, surroundings: &Surroundings) -> Outcome {
    let path = surroundings.config()?.tokens_file();
    let file = TokensFile::new(path.clone());
    let now = Timestamp::now();
    match command {
        Command::Create { name, scope, expires } => {
            let expires_at = expires.map(|expires| end(now, expires)).transpose()?;
            let token = file.create(name.clone(), &scope, now, expires_at)?;
            output::remark(&format!(
                "{name}'s token is on record in {}; it is shown here alone:",
                path.display()
            ));
            output::line(token.expose_secret());
        }
        Command::Revoke { name } => {
            file.revoke(&name)?;
            output::line(&format!("{name}'s token is refused from now on"));
        }
        Command::List { json } => list(&file.tokens()?, now, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(tokens: &[Token], now: Timestamp, json: bool) -> Result<(), Failure> {
    if json {
        let rows: Vec<_> = tokens
            .iter()
            .map(|token| {
                serde_json::json!({
                    "name": token.name,
                    "scopes": token.scopes,
                    "created_at": token.created_at,
                    "expires_at": token.expires_at,
                    "expired": token.is_expired(now),
                })
            })
            .collect();
        output::line(&serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    if tokens.is_empty() {
        output::remark("no tokens: make one with `consign token create NAME --scope read`");
        return Ok(());
    }
    let mut table = Table::new(&["name", "scopes", "created", "expires"]);
    for token in tokens {
        let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
        let expires = match token.expires_at {
            None => Cell::new("never"),
            Some(at) if token.is_expired(now) => {
                Cell::coloured(format!("{} (expired)", output::time(at)), Some(RED))
            }
            Some(at) => Cell::new(output::time(at)),
        };
        let created = Cell::new(output::time(token.created_at));
        table.row(vec![Cell::new(token.name.as_str()), Cell::new(scopes.join(",")), created, expires]);
    }
    output::text(&table.render(output::colour()));
    Ok(())
}

fn end(now: Timestamp, lifetime: Duration) -> Result<Timestamp, Failure> {
    let lifetime = SignedDuration::try_from(lifetime);
    let end = lifetime.ok().and_then(|lifetime| now.checked_add(lifetime).ok());
    end.ok_or_else(|| Failure("--expires is further away than time is counted".to_owned()))
}

/// A time in days, of 24 hours each, or as everywhere else.
fn lifetime(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let given = match days {
        Some(days) => Ok(Duration::from_hours(u64::from(days) * 24)),
        None => text.parse::<Span>().map(|span| span.0).map_err(|error| format!("{error}, or \"90d\"")),
    };
    given.and_then(
        |given| if given.is_zero() { Err("it would be over at once".to_owned()) } else { Ok(given) },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_given_in_days_too() {
        assert_eq!(lifetime("90d"), Ok(Duration::from_hours(90 * 24)));
        assert_eq!(lifetime("1h30m"), Ok(Duration::from_mins(90)));
        for wrong in ["", "d", "-1d", "0d", "0s", "soon", "99999999999d"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
        assert!(end(Timestamp::now(), Duration::from_secs(u64::MAX)).is_err());
    }
}
