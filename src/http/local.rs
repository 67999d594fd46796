//! What is let in where no token is asked for: programs of this machine, and consign's own page.
//!
//! A browser of this machine reaches the agent too, on behalf of any site that it shows. It names the site, in `Origin`
//! or `Sec-Fetch-Site`; where the site's own name was made to lead here (DNS rebinding), that name is the `Host`.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header, uri::Authority},
    middleware::Next,
    response::Response,
};

use super::{problem::Problem, session::host, submit::is_forwarded};

/// Refuses what does not come from this machine itself.
pub(super) async fn guard(request: Request, next: Next) -> Result<Response, Problem> {
    check(request.headers())?;
    Ok(next.run(request).await)
}

fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |detail: &str| {
        let detail =
            format!("{detail}; without tokens ([server] auth = \"none\") this is for this machine alone");
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    };
    // What cannot be read as text is none of the values that are let in.
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    let here =
        text("host").filter(|host| is_loopback(host) && headers.get_all(header::HOST).iter().count() == 1);
    if here.is_none() {
        return refused("the Host is not a loopback address");
    }
    let site = text("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"));
    let origin = text("origin").is_none_or(|origin| host(Some(origin)) == here);
    if !site || !origin {
        return refused("another site asks");
    }
    if is_forwarded(headers) {
        return refused("a proxy forwards this");
    }
    Ok(())
}

/// Whether a host, with or without a port, is a name of this machine for itself.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let within = |brackets: &str| brackets.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || within(name).is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn only_this_machines_own_names_are_loopback() {
        for host in ["localhost", "LocalHost:8480", "127.0.0.1", "127.9.8.7:1", "[::1]", "[::1]:8480"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example:8480",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil-localhost",
            "128.0.0.1",
            "0.0.0.0:8480",
            "10.0.0.1",
            "127.1",
            "2130706433",
            "::1",
            "[::]",
            "[::2]:8480",
            "[::1",
            "localhost, evil.example",
            "localhost/evil",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn no_other_site_and_no_proxy_is_let_in() {
        let here = ("host", "localhost:8480");
        for (given, is_let_in) in [
            (vec![here], true),
            (vec![], false),
            (vec![here, here], false),
            (vec![("host", "evil.example:8480")], false),
            (vec![("host", "evil.example:8480"), ("sec-fetch-site", "same-origin")], false),
            (vec![("host", "evil.example:8480"), ("origin", "http://evil.example:8480")], false),
            (vec![here, ("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8480")], true),
            (vec![here, ("sec-fetch-site", "none")], true),
            (vec![here, ("sec-fetch-site", "same-site")], false),
            (vec![here, ("sec-fetch-site", "cross-site")], false),
            (vec![here, ("sec-fetch-site", "none"), ("origin", "http://evil.example")], false),
            (vec![here, ("origin", "http://localhost:8480")], true),
            (vec![here, ("origin", "http://localhost:3000")], false),
            (vec![here, ("origin", "http://127.0.0.1:8480")], false),
            (vec![here, ("origin", "null")], false),
            (vec![here, ("origin", "")], false),
            (vec![here, ("x-forwarded-for", "10.0.0.1")], false),
        ] {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            let mut headers = HeaderMap::new();
            for (name, value) in given.iter().map(pair) {
                headers.append(name, value);
            }
            assert_eq!(check(&headers).is_ok(), is_let_in, "{given:?}");
        }
    }
}
