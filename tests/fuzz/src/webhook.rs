//! Webhook URLs: none reaches an address that is not everybody's, however it is written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use consign::webhook::{Kind, Policy, origin, sign, verify};

const PUBLIC: Policy = Policy { allow_private: false, allow_loopback: false };
const PRIVATE: Policy = Policy { allow_private: true, allow_loopback: true };

/// The standard library's view of an address, independent of the policy's own table.
fn is_special(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_special_v4(address),
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || embedded(address).is_some_and(is_special_v4)
        }
    }
}

fn is_special_v4(address: Ipv4Addr) -> bool {
    address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_unspecified()
        || address.is_multicast()
        || address == Ipv4Addr::new(168, 63, 129, 16)
}

/// The IPv4 address that NAT64 (RFC 6052) and 6to4 (RFC 3056) carry in an IPv6 one.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.octets() {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] | [0x20, 0x02, a, b, c, d, ..] => {
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

fn address(address: IpAddr) {
    let allowed = PUBLIC.allows(address);
    assert_eq!(allowed, Kind::of(address) == Kind::Public);
    assert!(!(allowed && is_special(address)), "{address} is not everybody's");
    assert!(!allowed || PRIVATE.allows(address), "a wider policy takes less");
    let host = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    assert_eq!(PUBLIC.check(&format!("https://{host}/hook")).is_ok(), allowed);
}

pub(crate) fn check(input: &[u8]) {
    if let Some(bytes) = input.first_chunk::<4>() {
        address(IpAddr::from(*bytes));
        let number = u32::from_be_bytes(*bytes);
        let plain = PUBLIC.allows(IpAddr::from(*bytes));
        for host in [
            number.to_string(),
            format!("0x{number:x}"),
            format!("0{number:o}"),
            format!("{}.{}.{}", bytes[0], bytes[1], u16::from_be_bytes([bytes[2], bytes[3]])),
        ] {
            assert_eq!(PUBLIC.check(&format!("https://{host}/")).is_ok(), plain, "{host}");
        }
    }
    if let Some(bytes) = input.first_chunk::<16>() {
        address(IpAddr::from(*bytes));
    }
    let Ok(url) = std::str::from_utf8(input) else { return };
    for policy in [PUBLIC, PRIVATE] {
        for url in [url.to_owned(), format!("https://{url}/"), format!("http://user@{url}:8080/x")] {
            let taken = policy.check(&url).is_ok();
            let parsed = reqwest::Url::parse(&url).ok();
            let Some(parsed) = parsed else {
                assert!(!taken, "{url:?} is no URL");
                continue;
            };
            assert!(!taken || matches!(parsed.scheme(), "http" | "https"), "{url:?}");
            let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']).trim_end_matches('.');
            if let Ok(address) = host.parse::<IpAddr>() {
                assert!(!taken || policy.allows(address), "{url:?}");
            }
            assert!(!(taken && policy == PUBLIC && host.eq_ignore_ascii_case("localhost")), "{url:?}");
            assert!(!origin(&url).contains('@'), "{url:?}");
        }
    }
    let signature = sign(b"key", input);
    assert!(verify(b"key", input, &signature) && !verify(b"yek", input, &signature));
    assert!(!verify(b"key", b"another body", url));
}
