//! Hears the webhooks of one job, on a free port of this machine.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::Notify,
    task::JoinHandle,
};

use crate::{
    ids::WebhookId,
    webhook::{HEADER, verify},
};

/// The largest body that is taken, in bytes: artifacts in base64, the log's tail, and room.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// A running receiver; dropped, it takes nothing more.
#[derive(Debug)]
pub(super) struct Receiver {
    url: String,
    ear: Arc<Ear>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Ear {
    secret: Option<SecretString>,
    heard: Notify,
    ever: AtomicBool,
}

impl Receiver {
    /// Listens at the address by which this machine reaches `agent`. With a secret it hears nothing that is not
    /// signed with it.
    pub(super) async fn start(agent: &Url, secret: Option<SecretString>) -> io::Result<Self> {
        let listener = TcpListener::bind((towards(agent).await?, 0)).await?;
        // Nobody guesses it, so nobody else wakes whoever waits.
        let path = format!("/{}", WebhookId::new());
        let url = format!("http://{}{path}", listener.local_addr()?);
        let ear = Arc::new(Ear { secret, heard: Notify::new(), ever: AtomicBool::new(false) });
        let router = Router::new()
            .route(&path, post(take))
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state(Arc::clone(&ear));
        let server = tokio::spawn(async move {
            // It ends with whoever waits.
            drop(axum::serve(listener, router).await);
        });
        Ok(Self { url, ear, server })
    }

    /// Where webhooks are to go.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Waits for the next webhook; one that has come since the last time counts.
    pub(super) async fn heard(&self) {
        self.ear.heard.notified().await;
    }

    /// Whether any webhook has come.
    pub(super) fn has_heard(&self) -> bool {
        self.ear.ever.load(Ordering::Relaxed)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(State(ear): State<Arc<Ear>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if let Some(secret) = &ear.secret {
        let signature = headers.get(HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !verify(secret.expose_secret().as_bytes(), &body, signature) {
            return StatusCode::UNAUTHORIZED;
        }
    }
    ear.ever.store(true, Ordering::Relaxed);
    ear.heard.notify_one();
    StatusCode::NO_CONTENT
}

/// This machine's own address on the way to the agent. Connecting a UDP socket sends nothing.
async fn towards(agent: &Url) -> io::Result<IpAddr> {
    let host = agent.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = agent.port_or_known_default().unwrap_or_default();
    let mut addresses = tokio::net::lookup_host((host, port)).await?;
    let address = addresses.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(address).await?;
    Ok(socket.local_addr()?.ip())
}
