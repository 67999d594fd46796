//! What a node can answer and no real one does when it is wanted: a server that says so.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde_json::json;

use super::*;

const LIMITS: Limits = Limits { size: 1000, total: 2000, count: 10 };

/// Whether the allocation is gone, once a file named `gone` was asked for.
type Gone = Arc<AtomicBool>;

async fn list(State(gone): State<Gone>) -> Response {
    if gone.load(Ordering::Acquire) {
        return (StatusCode::NOT_FOUND, "Unknown allocation").into_response();
    }
    let entry = |name: &str, size: u64| json!({"Name": name, "Size": size, "FileMode": "-rw-r--r--"});
    let entries = json!([
        entry("a-fine", 4),
        entry("b-denied", 40),
        entry("c-endless", 4),
        entry("d-grown", 4),
        entry("e-cut", 9),
        entry("f-gone", 4),
        entry("g-after", 4),
    ]);
    Json(entries).into_response()
}

async fn read_at(State(gone): State<Gone>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let (_, name) = query.split_once("path=alloc%2Fdata%2F").unwrap();
    match name.split('&').next().unwrap() {
        "a-fine" => "fine".into_response(),
        "b-denied" => "Permission denied".into_response(),
        "c-endless" => {
            let endless = futures_util::stream::repeat_with(|| Ok::<_, Infallible>(vec![0_u8; 1024]));
            Body::from_stream(endless).into_response()
        }
        "d-grown" => "grown".into_response(),
        "e-cut" => {
            let pieces = [Ok(b"half".to_vec()), Err(std::io::Error::other("cut"))];
            Body::from_stream(futures_util::stream::iter(pieces)).into_response()
        }
        _ => {
            gone.store(true, Ordering::Release);
            "state for allocation x not found on client".into_response()
        }
    }
}

async fn serve() -> SocketAddr {
    let router = Router::new()
        .route("/v1/client/fs/ls/{allocation}", get(list))
        .route("/v1/client/fs/readat/{allocation}", get(read_at))
        .with_state(Gone::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn collector(address: SocketAddr, folder: &Path, reserve: u64) -> Collector {
    let settings = nomad::Settings {
        addr: format!("http://{address}"),
        token: crate::credential::Credential::default(),
        namespace: "default".to_owned(),
        region: None,
        ca_cert: None,
    };
    let nomad = Arc::new(Client::new(settings).unwrap());
    Collector::new(nomad, Archive::open(folder).unwrap(), LIMITS, reserve)
}

#[tokio::test]
async fn only_a_file_that_comes_whole_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(serve().await, folder.path(), 0);
    let job_id = JobId::new();
    let taken = collector.take(job_id, "x", &["*".to_owned()]).await.unwrap();
    let names: Vec<&str> = taken.artifacts.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["a-fine"]);
    let said = taken.remark.clone().unwrap();
    for words in [
        "lost: \"f-gone\", \"g-after\"",
        "changed while they were read: \"d-grown\"",
        "\"b-denied\" (Nomad did not give its 40 bytes)",
        "\"c-endless\" (Nomad did not give its 4 bytes)",
        "\"e-cut\" (no usable reply",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let place = folder.path().join(job_id.to_string());
    assert_eq!(std::fs::read_dir(place.join("files")).unwrap().count(), 1);

    let again = collector.take(job_id, "x", &["*".to_owned()]).await.unwrap();
    assert_eq!(again, taken, "once in place they are not taken again");
}

#[tokio::test]
async fn the_disks_reserve_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(serve().await, folder.path(), u64::MAX);
    let job_id = JobId::new();
    let taken = collector.take(job_id, "x", &["a*".to_owned()]).await.unwrap();
    assert_eq!(taken.artifacts, []);
    assert!(taken.remark.unwrap().contains("too little room on the agent's disk: \"a-fine\""));
    assert!(!folder.path().join(job_id.to_string()).exists());
}

#[tokio::test]
async fn nomad_out_of_reach_is_no_loss() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let collector = collector(address, folder.path(), 0);
    let error = collector.take(JobId::new(), "x", &["*".to_owned()]).await.unwrap_err();
    assert!(error.is_out_of_reach(), "{error}");
    assert_eq!(collector.take(JobId::new(), "x", &[]).await.unwrap(), Taken::default());
}
