//! How tests ask servers.

use reqwest::Client;

/// A client for servers on this machine. The system's certificates, which none of them has, take an unoptimized program
/// longer to read than most answers take.
pub(crate) fn http() -> Client {
    Client::builder().no_proxy().tls_certs_only(Vec::new()).read_timeout(super::LIMIT).build().unwrap()
}
