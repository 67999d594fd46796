//! How a command finds the running agent, and the token that it shows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use secrecy::SecretString;

use super::{Failure, Surroundings};
use crate::{client::Client, config, dev::Whereabouts};

#[derive(Debug, Default, clap::Args)]
pub(super) struct Arguments {
    /// The agent's address; without it `CONSIGN_ADDR`, then the configured [server] listen.
    #[arg(long, value_name = "ADDRESS")]
    addr: Option<String>,
}

/// A client of the agent that the arguments, the environment or the configuration name.
pub(super) fn client(arguments: &Arguments, surroundings: &Surroundings) -> Result<Client, Failure> {
    let config = surroundings.config()?;
    let named = arguments.addr.clone().or_else(|| surroundings.given("CONSIGN_ADDR"));
    let configured = config::find(surroundings.config_path.as_deref()).is_some();
    let (address, token) = choose(
        named,
        surroundings.token("CONSIGN_TOKEN"),
        configured,
        config.server.listen,
        Whereabouts::find(),
    );
    Ok(Client::new(&address, token)?)
}

/// The address and the token. What is named comes first, then a configuration, then the development mode's
/// agent, whose token is for nobody else.
fn choose(
    named: Option<String>,
    token: Option<SecretString>,
    configured: bool,
    listen: SocketAddr,
    dev: Option<Whereabouts>,
) -> (String, Option<SecretString>) {
    let unnamed = match &dev {
        Some(dev) if !configured => dev.address.clone(),
        _ => format!("http://{}", reachable(listen)),
    };
    let address = named.unwrap_or(unnamed);
    let dev_token = dev.filter(|dev| dev.address == address).map(|dev| dev.token);
    (address, token.or(dev_token))
}

/// Where something is reached that listens on `address`: one that stands for all stands for this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    const LISTEN: &str = "0.0.0.0:1";

    fn chosen(
        named: Option<&str>,
        token: Option<&str>,
        configured: bool,
        dev: bool,
    ) -> (String, Option<String>) {
        let whereabouts = Whereabouts { address: "http://dev:2".to_owned(), token: "dev".into() };
        let (address, token) = choose(
            named.map(ToOwned::to_owned),
            token.map(SecretString::from),
            configured,
            LISTEN.parse().unwrap(),
            dev.then_some(whereabouts),
        );
        (address, token.map(|token| token.expose_secret().to_owned()))
    }

    #[test]
    fn what_is_named_comes_first_and_the_development_mode_last() {
        for (named, token, configured, dev, address, shown) in [
            (None, None, false, false, "http://127.0.0.1:1", None),
            (None, Some("own"), false, false, "http://127.0.0.1:1", Some("own")),
            (None, None, false, true, "http://dev:2", Some("dev")),
            (None, Some("own"), false, true, "http://dev:2", Some("own")),
            (None, None, true, true, "http://127.0.0.1:1", None),
            (Some("http://other:3"), None, false, true, "http://other:3", None),
            (Some("http://dev:2"), None, true, true, "http://dev:2", Some("dev")),
        ] {
            let expected = (address.to_owned(), shown.map(ToOwned::to_owned));
            assert_eq!(chosen(named, token, configured, dev), expected);
        }
    }
}
