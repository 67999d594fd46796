//! Stands before Nomad and holds every dispatch up.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

/// A running proxy; it ends with the test's runtime.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) address: String,
    refused: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Behind {
    nomad: String,
    http: reqwest::Client,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(super) async fn start(nomad: &str) -> Self {
        let refused = Arc::<Mutex<Vec<String>>>::default();
        let http = crate::support::http();
        let behind = Behind { nomad: nomad.to_owned(), http, refused: Arc::clone(&refused) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(forward).with_state(behind);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, refused }
    }

    /// The paths of the dispatches that were held up.
    pub(super) fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap().clone()
    }
}

async fn forward(State(behind): State<Behind>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if path.ends_with("/dispatch") {
        behind.refused.lock().unwrap().push(path);
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let url = format!("{}{}", behind.nomad, request.uri().path_and_query().unwrap());
    let method = request.method().clone();
    let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
    match behind.http.request(method, url).body(body).send().await {
        Ok(answer) => {
            let mut response = Response::builder().status(answer.status());
            for (name, value) in
                answer.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-nomad"))
            {
                response = response.header(name, value);
            }
            response.body(Body::from_stream(answer.bytes_stream())).unwrap()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
