//! A git server over HTTP: git's own `http-backend`, behind a name and a password.

use std::{env, net::SocketAddr, path::PathBuf, process::Stdio, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use consign::program;
use tokio::{io::AsyncWriteExt as _, net::TcpListener, process::Command, task::JoinHandle};

/// A server for the repositories of one folder; it ends with the value.
#[derive(Debug)]
pub(crate) struct GitHttp {
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Served {
    folder: PathBuf,
    authorization: String,
}

impl GitHttp {
    /// Serves every repository in `folder` to whoever gives this name and password.
    pub(crate) async fn serve(folder: PathBuf, user: &str, password: &str) -> Self {
        let credential = BASE64_STANDARD.encode(format!("{user}:{password}"));
        let served = Arc::new(Served { folder, authorization: format!("Basic {credential}") });
        let routes = Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(served);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, serving }
    }
}

impl Drop for GitHttp {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(
    State(served): State<Arc<Served>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if text(header::AUTHORIZATION) != served.authorization {
        let mut refused = Response::new(Body::from("who are you?\n"));
        *refused.status_mut() = StatusCode::UNAUTHORIZED;
        refused
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"git\""));
        return refused;
    }
    let mut child = Command::new(program::find("git").expect("git is on PATH"))
        .arg("http-backend")
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("HOME", &served.folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_PROJECT_ROOT", &served.folder)
        .env("GIT_PROTOCOL", text(HeaderName::from_static("git-protocol")))
        .env("REMOTE_USER", "tester")
        .env("REQUEST_METHOD", method.as_str())
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", text(header::CONTENT_TYPE))
        .env("HTTP_CONTENT_ENCODING", text(header::CONTENT_ENCODING))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let fed = tokio::spawn(async move {
        // A request that it refuses is not read to its end.
        drop(input.write_all(&body).await);
    });
    let output = child.wait_with_output().await.unwrap().stdout;
    fed.await.unwrap();
    response(&output)
}

/// What a CGI program printed, as a response.
fn response(output: &[u8]) -> Response<Body> {
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let mut response = Response::new(Body::from(output[end + 4..].to_vec()));
    for line in std::str::from_utf8(&output[..end]).unwrap().split("\r\n") {
        let (name, value) = line.split_once(": ").unwrap();
        if name == "Status" {
            *response.status_mut() = StatusCode::from_bytes(&value.as_bytes()[..3]).unwrap();
        } else {
            response.headers_mut().insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
    }
    response
}
