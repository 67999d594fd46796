//! Ports that stay a server's own while it is down.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A free port of 127.0.0.1, for a server that is yet to start, or ends and starts again. While this is there, the
/// kernel gives the port to nobody who asks for just any, to listen or to connect.
///
/// The socket is bound with `SO_REUSEADDR` and never listens; Linux lets another that names the port and has the same
/// option (Go's and tokio's listeners do) listen beside it. See `SO_REUSEADDR` in socket(7).
#[derive(Debug)]
pub struct Port {
    number: u16,
    _socket: TcpSocket,
}

impl Port {
    /// Takes a port that nobody has.
    pub fn reserve() -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Self { number: socket.local_addr()?.port(), _socket: socket })
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_reserved_port_can_be_listened_on_again_and_again_and_no_other_gets_it() {
        let port = Port::reserve().unwrap();
        for _ in 0..2 {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).unwrap();
        }
        let others: Vec<Port> = (0..500).map(|_| Port::reserve().unwrap()).collect();
        assert!(others.iter().all(|other| other.number() != port.number()));
    }
}
