//! Who may use a route: bearer tokens (RFC 6750) and their scopes.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::MethodRouter,
};
use jiff::Timestamp;
use secrecy::SecretString;

use super::{App, Rooms, problem::Problem};
use crate::{
    telemetry::chain,
    tokens::{self, HolderName, Scope, Token, TokensFile, verify},
};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Whoever reaches it, as often as they like: what watches the agent must not be kept from it.
    Probe,
    /// Whoever reaches it.
    Open,
    /// Whoever has a token with this scope.
    Scope(Scope),
    /// Whoever the handler itself finds may: with a token of scope submit, or what a trigger alone takes.
    Trigger,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Holder(pub(super) HolderName);

/// The holder as a handler behind [`Access::Scope`] gets it.
pub(super) type By = Extension<Holder>;

/// A handler behind its guard.
pub(super) fn guarded(handler: MethodRouter<App>, access: Access, rooms: &Arc<Rooms>) -> MethodRouter<App> {
    match access {
        Access::Probe | Access::Trigger => handler,
        Access::Open => handler.route_layer(from_fn_with_state(Arc::clone(rooms), count)),
        Access::Scope(scope) => {
            handler.route_layer(from_fn_with_state((Arc::clone(rooms), scope), authorize))
        }
    }
}

/// Holds an address to the rate; the body has not been read yet.
async fn count(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    app.limits.address(peer.ip())?;
    Ok(next.run(request).await)
}

async fn authorize(
    State((app, scope)): State<(App, Scope)>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let holder = match authorized(&app, scope, request.headers()) {
        Ok(holder) => holder,
        Err(refused) => return Err(app.limits.address(peer.ip()).err().unwrap_or(refused)),
    };
    app.limits.holder(&holder)?;
    request.extensions_mut().insert(Holder(holder));
    Ok(next.run(request).await.into_response())
}

/// Who asks, where they may do what needs this scope: the holder of the token that a request carries, or anyone where
/// none is asked for.
pub(super) fn authorized(app: &Rooms, scope: Scope, headers: &HeaderMap) -> Result<HolderName, Problem> {
    let Some(tokens) = tokens(app)? else { return anyone(scope) };
    let bearer = bearer(headers)?;
    let token = verify(&tokens, &bearer, Timestamp::now()).map_err(|refused| {
        unauthorized(&refused.to_string(), "Bearer realm=\"consign\", error=\"invalid_token\"")
    })?;
    if token.may(scope) {
        return Ok(token.name.clone());
    }
    let detail = format!("this needs a token with scope {scope}, which {}'s has not", token.name);
    let challenge = format!("Bearer realm=\"consign\", error=\"insufficient_scope\", scope=\"{scope}\"");
    Err(Problem::new(StatusCode::FORBIDDEN, detail).with_header(header::WWW_AUTHENTICATE, &challenge))
}

/// Anyone may do everything but approve and reject: that is for somebody else than who submitted it, and nobody can
/// tell them apart.
fn anyone(scope: Scope) -> Result<HolderName, Problem> {
    if scope == Scope::Approve {
        let detail =
            "nobody can approve or reject without tokens: the agent runs with [server] auth = \"none\"";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    Ok(HolderName::anyone())
}

/// The tokens on record; `None` where none is asked for.
pub(super) fn tokens(app: &Rooms) -> Result<Option<Arc<[Token]>>, Problem> {
    app.tokens.as_ref().map(TokensFile::tokens).transpose().map_err(|error| {
        tracing::error!(error = chain(&error), "nobody can be authorized");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the agent cannot read its tokens; its log says more")
    })
}

/// The token that a request carries.
pub(super) fn bearer(headers: &HeaderMap) -> Result<SecretString, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let first = given.next();
    if given.next().is_some() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "there is more than one Authorization header"));
    }
    let token = first.and_then(|value| value.to_str().ok()).and_then(tokens::bearer);
    token.ok_or_else(|| {
        unauthorized("this needs a bearer token: `Authorization: Bearer TOKEN`", "Bearer realm=\"consign\"")
    })
}

fn unauthorized(detail: &str, challenge: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail).with_header(header::WWW_AUTHENTICATE, challenge)
}
