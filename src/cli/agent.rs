//! `consign agent`.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, Outcome, Surroundings, output};
use crate::{agent, dev};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Everything on one machine: real Nomad and Vault in development mode, and a sample ops repo.
    #[arg(long)]
    pub(super) dev: bool,
    /// End when every sample action has a result.
    #[arg(long, requires = "dev")]
    once: bool,
    /// Claim an ops repo that another store has claimed, and recover what that one had launched.
    #[arg(long, conflicts_with = "dev")]
    take_over: bool,
}

pub(super) async fn run(arguments: Arguments, surroundings: &Surroundings) -> Outcome {
    let ending = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let work = async {
        if arguments.dev {
            dev::run(arguments.once, ending.clone(), output::line).await.map_err(Failure::from)
        } else {
            let options = agent::Options {
                config: surroundings.config()?,
                nomad_token: surroundings.token("NOMAD_TOKEN"),
                vault_token: surroundings.token("VAULT_TOKEN"),
                take_over: arguments.take_over,
                listener: None,
                progress: None,
            };
            agent::run(options, ending.clone()).await.map_err(Failure::from)
        }
    };
    let mut work = std::pin::pin!(work);
    let mut told = false;
    loop {
        tokio::select! {
            ended = &mut work => return ended.map(|()| ExitCode::SUCCESS),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if told {
            output::remark(
                "told to end twice: ending at once; what was under way is taken up again at the next start",
            );
            return Ok(ExitCode::FAILURE);
        }
        told = true;
        ending.cancel();
    }
}
