//! Asks the resolver what hosts are, and checks it: when work is taken in, and for each connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::{Instant, timeout_at};

use super::{
    Policy, Refused,
    policy::{address_in, host},
};

/// How long names are looked up for when work is taken in, all together.
const LIMIT: Duration = Duration::from_secs(3);
/// How many names are looked up at a time.
const AT_ONCE: usize = 16;

/// Looks at URLs before work is taken in, and gives those that are refused.
///
/// A name that does not resolve now passes: each connection looks again, and decides.
pub async fn refused(policy: Policy, urls: &BTreeSet<&str>) -> BTreeMap<String, Refused> {
    let mut found = BTreeMap::new();
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for url in urls {
        match (policy.check(url), host(url)) {
            (Err(refused), _) => drop(found.insert((*url).to_owned(), refused)),
            (Ok(()), Some(host)) if address_in(&host).is_none() => {
                names.entry(host).or_default().push((*url).to_owned());
            }
            (Ok(()), _) => {}
        }
    }
    let deadline = Instant::now() + LIMIT;
    let mut answers = stream::iter(names)
        .map(|(host, urls)| async move {
            let addresses = timeout_at(deadline, addresses(&host)).await.ok().and_then(Result::ok);
            (policy.check_addresses(&host, &addresses.unwrap_or_default()), urls)
        })
        .buffer_unordered(AT_ONCE);
    while let Some((answer, urls)) = answers.next().await {
        if let Err(refused) = answer {
            found.extend(urls.into_iter().map(|url| (url, refused.clone())));
        }
    }
    found
}

async fn addresses(host: &str) -> std::io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
}

/// The resolver of webhooks' connections: what it gives is what is connected to, and it was checked, so a name
/// that changes its address meanwhile gains nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checked(pub(super) Policy);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0;
        Box::pin(async move {
            let addresses = addresses(name.as_str()).await?;
            policy.check_addresses(name.as_str(), &addresses)?;
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_and_addresses_are_checked_and_unknown_names_pass() {
        let urls = BTreeSet::from([
            "http://localhost:1/",
            "http://10.0.0.1/",
            "https://8.8.8.8/",
            "https://nobody.invalid/",
            "ftp://8.8.8.8/",
        ]);
        let strict = refused(Policy::default(), &urls).await;
        let names: Vec<&str> = strict.keys().map(String::as_str).collect();
        assert_eq!(names, ["ftp://8.8.8.8/", "http://10.0.0.1/", "http://localhost:1/"]);
        let near = refused(Policy::default().for_submitter(true), &urls).await;
        assert!(!near.contains_key("http://localhost:1/"), "{near:?}");
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_not_connected_to() {
        let name = || "localhost".parse::<Name>().unwrap();
        let error = Checked(Policy::default()).resolve(name()).await.err().unwrap();
        assert!(error.to_string().contains("loopback"), "{error}");
        let near = Policy { allow_loopback: true, ..Policy::default() };
        assert!(Checked(near).resolve(name()).await.unwrap().count() > 0);
    }
}
