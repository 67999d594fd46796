//! Nomad's event stream: however it is cut into chunks, the events are the same.

use consign::nomad::{Event, EventStream};
use futures_util::stream;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

fn events(chunks: Vec<Vec<u8>>) -> Vec<Event> {
    let mut events = EventStream::over(stream::iter(chunks.into_iter().map(Ok)));
    let mut found = Vec::new();
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            while let Ok(Some(more)) = events.next().await {
                found.extend(more);
            }
        });
    });
    found
}

/// The first byte says how long the chunks are.
pub(crate) fn check(input: &[u8]) {
    let Some((length, bytes)) = input.split_first() else { return };
    let cut = bytes.chunks(usize::from(*length).max(1)).map(<[u8]>::to_vec).collect();
    assert_eq!(events(cut), events(vec![bytes.to_vec()]));
}
