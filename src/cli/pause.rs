//! `consign pause` and `resume`.

use std::process::ExitCode;

use super::{Outcome, Surroundings, output, remote, table::plain};
use crate::http::view::PauseState;

#[derive(Debug, clap::Args)]
pub(super) struct Pause {
    /// Why, for whoever waits meanwhile.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    further: Resume,
}

#[derive(Debug, clap::Args)]
pub(super) struct Resume {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: remote::Arguments,
}

pub(super) async fn pause(arguments: &Pause, surroundings: &Surroundings) -> Outcome {
    let Pause { reason, further } = arguments;
    let state = remote::client(&further.agent, surroundings)?.pause(reason).await?;
    answer(further, &state)
}

pub(super) async fn resume(arguments: &Resume, surroundings: &Surroundings) -> Outcome {
    let state = remote::client(&arguments.agent, surroundings)?.resume().await?;
    answer(arguments, &state)
}

fn answer(arguments: &Resume, state: &PauseState) -> Outcome {
    if arguments.json {
        output::line(&serde_json::to_string_pretty(state)?);
    } else {
        output::line(&match &state.paused {
            Some(paused) => {
                plain(&format!("{paused}; what is launched goes on, `consign resume` launches the rest"))
            }
            None => "the queue goes on".to_owned(),
        });
    }
    Ok(ExitCode::SUCCESS)
}
