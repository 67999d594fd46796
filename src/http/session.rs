//! Who a browser is: a login with a token, the cookie that stands for it afterwards, and which requests count as
//! the page's own.
//!
//! The cookie opens the page alone. The API takes bearer tokens only, so no other site can have a browser use it.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension, Form,
    extract::{ConnectInfo, Request, State, rejection::FormRejection},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse as _, Redirect, Response},
    routing::MethodRouter,
};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;

use super::{
    App, Rooms,
    access::{self, Holder},
    page::Fault,
    problem::Problem,
};
use crate::{
    page::{self, Viewer},
    tokens::{Scope, verify},
};

/// The cookie's name.
const COOKIE: &str = "consign_session";

/// The viewer, for handlers behind [`guarded`].
pub(super) type By = Extension<Viewer>;

/// A handler of the page's, behind a login with this scope.
pub(super) fn guarded(handler: MethodRouter<App>, scope: Scope, rooms: &Arc<Rooms>) -> MethodRouter<App> {
    handler.route_layer(from_fn_with_state((Arc::clone(rooms), scope), authorize))
}

async fn authorize(
    State((app, scope)): State<(App, Scope)>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Result<Response, Fault> {
    own(request.method(), request.headers())?;
    let Some(tokens) = access::tokens(&app)? else {
        let holder = access::authorized(&app, scope, request.headers())?;
        app.limits.holder(&holder)?;
        request.extensions_mut().insert(Holder(holder));
        request.extensions_mut().insert(Viewer { name: None, may_submit: true, may_approve: false });
        return Ok(next.run(request).await);
    };
    let token = session(request.headers())
        .and_then(|session| app.sessions.verify(&tokens, session, Timestamp::now()));
    let Some(token) = token else {
        app.limits.address(peer.ip())?;
        // What was posted is not done later: who logs in decides anew.
        let to = if request.method() == Method::GET { request.uri().path() } else { "/" };
        return Ok(login_needed(to, None));
    };
    app.limits.holder(&token.name)?;
    if !token.may(scope) {
        let detail = format!("this needs a token with scope {scope}, which {}'s has not", token.name);
        return Err(Problem::new(StatusCode::FORBIDDEN, detail).into());
    }
    let viewer = Viewer {
        name: Some(token.name.to_string()),
        may_submit: token.may(Scope::Submit),
        may_approve: token.may(Scope::Approve),
    };
    request.extensions_mut().insert(Holder(token.name.clone()));
    request.extensions_mut().insert(viewer);
    Ok(next.run(request).await)
}

/// What a login says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    token: SecretString,
    /// Where to go afterwards.
    to: String,
}

pub(super) async fn form() -> Html<String> {
    Html(page::login("/", None))
}

pub(super) async fn login(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    form: Result<Form<Login>, FormRejection>,
) -> Result<Response, Fault> {
    own(&Method::POST, &headers)?;
    app.limits.address(peer.ip())?;
    let Form(Login { token, to }) = form.map_err(Problem::from)?;
    let to = if is_own_path(&to) { to.as_str() } else { "/" };
    let now = Timestamp::now();
    let Some(tokens) = access::tokens(&app)? else { return Ok(Redirect::to(to).into_response()) };
    let token = match verify(&tokens, &token, now) {
        Ok(token) => token,
        Err(refused) => return Ok(login_needed(to, Some(&refused.to_string()))),
    };
    tracing::info!(by = token.name.as_str(), "logged in to the page");
    let (session, end) = app.sessions.open(token, now);
    let seconds = end.as_second().saturating_sub(now.as_second());
    Ok((cookie(&headers, &session, seconds), Redirect::to(to)).into_response())
}

pub(super) async fn logout(headers: HeaderMap) -> Result<Response, Fault> {
    own(&Method::POST, &headers)?;
    Ok((cookie(&headers, "", 0), Redirect::to("/ui/login")).into_response())
}

fn login_needed(to: &str, wrong: Option<&str>) -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"consign\"")];
    (StatusCode::UNAUTHORIZED, challenge, Html(page::login(to, wrong))).into_response()
}

/// Refuses what another site has a browser send. Looking is free: it changes nothing, and no other site can read
/// the answer.
fn own(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // A browser sends the first where the page came over TLS or from this machine, and the second always.
    let own = match text("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => host(text("origin")).is_some_and(|host| Some(host) == text("host")),
    };
    if own || method.is_safe() {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "this came from another site: do it from consign's own page"))
}

/// The host and port of an origin.
pub(super) fn host(origin: Option<&str>) -> Option<&str> {
    origin?.split_once("://").map(|(_, host)| host)
}

/// Whether a path leads to the page, and nowhere else.
fn is_own_path(path: &str) -> bool {
    path == "/" || path.starts_with("/ui/") && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The session that a request carries.
fn session(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, session)| session)
}

/// The header that keeps a session in the browser: out of reach of scripts and of other sites, and of plain HTTP
/// where the page came over TLS.
fn cookie(headers: &HeaderMap, session: &str, seconds: i64) -> [(header::HeaderName, String); 1] {
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    let secure = if origin.is_some_and(|origin| origin.starts_with("https://")) { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={session}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    [(header::SET_COOKIE, cookie)]
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn only_the_page_itself_may_post() {
        let host = ("host", "ops.example:8480");
        for (given, is_own) in [
            (vec![host], false),
            (vec![host, ("origin", "null")], false),
            (vec![host, ("origin", "http://ops.example:8480")], true),
            (vec![host, ("origin", "https://ops.example:8480")], true),
            (vec![host, ("origin", "http://ops.example")], false),
            (vec![host, ("origin", "http://evil.example")], false),
            (vec![host, ("sec-fetch-site", "same-origin")], true),
            (vec![host, ("sec-fetch-site", "same-site"), ("origin", "http://ops.example:8480")], false),
            (vec![host, ("sec-fetch-site", "cross-site")], false),
            (vec![host, ("sec-fetch-site", "none")], false),
            (vec![("origin", "http://ops.example")], false),
        ] {
            let given = headers(&given);
            assert_eq!(own(&Method::POST, &given).is_ok(), is_own, "{given:?}");
            assert!(own(&Method::GET, &given).is_ok());
        }
    }

    #[test]
    fn a_login_leads_to_the_page_alone() {
        for (path, is_own) in [
            ("/", true),
            ("/ui/jobs/a-1", true),
            ("//evil.example", false),
            ("/\\evil.example", false),
            ("https://evil.example/ui/", false),
            ("/ui/\r\nset-cookie: a=b", false),
            ("", false),
        ] {
            assert_eq!(is_own_path(path), is_own, "{path:?}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others_and_is_secure_over_tls() {
        let given =
            headers(&[("cookie", "a=b; consign_session=1.ann.x=y; c"), ("origin", "https://ops.example")]);
        assert_eq!(session(&given), Some("1.ann.x=y"));
        assert_eq!(session(&headers(&[("cookie", "xconsign_session=1")])), None);
        let [(_, secure)] = cookie(&given, "s", 9);
        assert_eq!(secure, "consign_session=s; Path=/; Max-Age=9; HttpOnly; SameSite=Lax; Secure");
        let [(_, plain)] = cookie(&HeaderMap::new(), "s", 9);
        assert_eq!(format!("{plain}; Secure"), secure);
    }
}
