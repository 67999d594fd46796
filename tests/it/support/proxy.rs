//! A proxy that stands between consign and a server, and misbehaves as it is told.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What becomes of connections.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// They go through.
    None,
    /// They are closed at once.
    Refused,
    /// The server's answers come so much later.
    Late(Duration),
    /// They are closed after so many bytes from the server: after none, what was asked may have been done.
    Cut(u64),
    /// The server is not asked, and answers this.
    Says(&'static str),
}

/// A running proxy; it ends with the value.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    fault: watch::Sender<Fault>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Stands before the server at `server`, which may be an http URL without a path.
    pub(crate) async fn before(server: &str) -> Self {
        let server: SocketAddr = server.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault = watch::Sender::new(Fault::None);
        let faults = fault.clone();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, faults.subscribe()));
            }
        });
        Self { address, fault, serving }
    }

    /// Ends the connections that there are, and does so to the next ones.
    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn carry(client: TcpStream, server: SocketAddr, mut fault: watch::Receiver<Fault>) {
    let present = *fault.borrow_and_update();
    // Whatever ends the connection is what the other side is tested with.
    tokio::select! {
        _ = fault.changed() => {}
        _ = pass(client, server, present) => {}
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr, fault: Fault) -> io::Result<()> {
    let (late, most) = match fault {
        Fault::None => (Duration::ZERO, u64::MAX),
        Fault::Late(late) => (late, u64::MAX),
        Fault::Cut(most) => (Duration::ZERO, most),
        Fault::Refused => return Ok(()),
        Fault::Says(answer) => {
            let mut request = [0; 4096];
            let read = client.read(&mut request).await?;
            if read == 0 {
                return Ok(());
            }
            return client.write_all(answer.as_bytes()).await;
        }
    };
    let server = TcpStream::connect(server).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let answers = async move {
        let mut answers = from_server.take(most);
        let mut first = [0; 1];
        if most == 0 {
            // The answer is there, and its first byte goes nowhere.
            answers.into_inner().read_exact(&mut first).await?;
            return Ok(0);
        }
        answers.read_exact(&mut first).await?;
        tokio::time::sleep(late).await;
        to_client.write_all(&first).await?;
        io::copy(&mut answers, &mut to_client).await
    };
    tokio::select! {
        ended = io::copy(&mut from_client, &mut to_server) => ended.map(drop),
        ended = answers => ended.map(drop),
    }
}
