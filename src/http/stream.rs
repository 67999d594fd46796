//! Bodies that come in pieces, as somebody else makes them.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::sync::mpsc;

/// A body of the pieces that are sent; it ends when their sender is gone.
pub(super) fn body(pieces: mpsc::Receiver<Bytes>) -> Body {
    Body::from_stream(stream::unfold(pieces, async |mut pieces| {
        pieces.recv().await.map(|piece| (Ok::<Bytes, Infallible>(piece), pieces))
    }))
}
