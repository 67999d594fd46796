//! Where webhooks may go: whoever writes an action chooses a URL, and the agent stands inside the network.
//!
//! Only addresses that the whole internet reaches are taken. The ranges are those of the IANA registries of
//! special-purpose addresses (RFC 6890) for IPv4 and IPv6; an IPv6 address that stands for an IPv4 one counts
//! as that one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

/// Which receivers are allowed besides public ones. The default is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// Private and loopback addresses, as `[webhooks] allow_private` says.
    pub allow_private: bool,
    /// Loopback addresses, for work that somebody on loopback submitted.
    pub allow_loopback: bool,
}

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One that the whole internet reaches.
    Public,
    /// This machine.
    Loopback,
    /// One of a private network, shared address space (RFC 6598) included.
    Private,
    /// A cloud's metadata service, which hands out credentials.
    Metadata,
    /// One of this link alone.
    LinkLocal,
    /// One of many receivers.
    Multicast,
    /// One that is reserved, unspecified, for documentation, or a way around: nobody's.
    Reserved,
}

/// Why a URL is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no URL that webhooks can go to.
    #[error("it is not an http or https URL")]
    NoUrl,
    /// Its host has an address that webhooks must not go to.
    #[error(
        "its host {host} is {address}, {}{}",
        .kind.words(),
        if matches!(.kind, Kind::Private | Kind::Loopback) { "; [webhooks] allow_private would allow it" } else { "" }
    )]
    Address {
        /// The host, as the URL names it.
        host: String,
        /// The address.
        address: IpAddr,
        /// What it is.
        kind: Kind,
    },
}

/// Addresses that clouds serve instance metadata or their agents' secrets at, outside of link-local ranges:
/// Alibaba Cloud, Azure (`WireServer`), Amazon over IPv6.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

impl Kind {
    /// What `address` is.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if METADATA.contains(&address.to_canonical()) {
            return Self::Metadata;
        }
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [169, 254, 169, 254] => Self::Metadata,
            [127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
            [224..=239, ..] => Self::Multicast,
            // This network, IETF protocols, documentation, 6to4 relays, benchmarks, the future, broadcast.
            [0 | 240..=255, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _] => Self::Reserved,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if address.is_loopback() {
            return Self::Loopback;
        }
        match address.segments() {
            // NAT64 (RFC 6052): the gateway connects to the IPv4 address at its end.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                Self::of(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
            }
            [0xfc00..=0xfdff, ..] => Self::Private,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xff00..=0xffff, ..] => Self::Multicast,
            // IETF protocols with Teredo, documentation, 6to4: none of them is a receiver's own address.
            [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => Self::Reserved,
            // RFC 4291: all global unicast addresses so far.
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Reserved,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Public => "a public address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::Metadata => "the address of a cloud's metadata service",
            Self::LinkLocal => "a link-local address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
        }
    }
}

impl Policy {
    /// The same for work whose submitter is on loopback, where `on_loopback` says so.
    #[must_use]
    pub const fn for_submitter(self, on_loopback: bool) -> Self {
        Self { allow_loopback: self.allow_loopback || on_loopback, ..self }
    }

    /// Whether webhooks may go to an address.
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        match Kind::of(address) {
            Kind::Public => true,
            Kind::Loopback => self.allow_private || self.allow_loopback,
            Kind::Private => self.allow_private,
            Kind::Metadata | Kind::LinkLocal | Kind::Multicast | Kind::Reserved => false,
        }
    }

    /// Checks the address that a URL gives itself. A host that is a name has to be resolved
    /// ([`Self::check_addresses`]), except `localhost`, which is this machine whatever a resolver says
    /// (RFC 6761).
    pub fn check(self, url: &str) -> Result<(), Refused> {
        let host = host(url).ok_or(Refused::NoUrl)?;
        match address_in(&host) {
            Some(address) => self.check_addresses(&host, &[address]),
            None => Ok(()),
        }
    }

    /// Checks the addresses that a host was resolved to: all of them must be allowed.
    pub fn check_addresses(self, host: &str, addresses: &[IpAddr]) -> Result<(), Refused> {
        match addresses.iter().find(|address| !self.allows(**address)) {
            Some(address) => {
                let address = *address;
                Err(Refused::Address { host: host.to_owned(), address, kind: Kind::of(address) })
            }
            None => Ok(()),
        }
    }
}

/// The host of an http or https URL, without the brackets around an IPv6 address.
pub(super) fn host(url: &str) -> Option<String> {
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let host = url.host_str()?;
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    Some(inner.unwrap_or(host).to_owned())
}

/// Who is behind a URL: scheme, host and port.
#[must_use]
pub fn origin(url: &str) -> String {
    Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

/// The address that a host is without asking anybody.
pub(super) fn address_in(host: &str) -> Option<IpAddr> {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let is_here = name == "localhost" || name.ends_with(".localhost");
    name.parse().ok().or_else(|| is_here.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)))
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
