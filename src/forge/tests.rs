//! GitHub's API by scripted answers, in the shapes that its documentation (version 2022-11-28) shows; of Gitea what
//! a real one does not easily show.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Request, State as AxumState},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::*;
use crate::{approval::review::Verdict, ids::Revision};

type Answers = HashMap<&'static str, (u16, Value)>;

/// A forge that knows these answers, by method, path and query.
struct Scripted {
    address: String,
    heard: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Script {
    answers: Arc<Answers>,
    headers: HeaderMap,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn new(answers: Answers, headers: HeaderMap) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let script = Script { answers: Arc::new(answers), headers, heard: Arc::clone(&heard) };
        let routes = Router::new().fallback(answer).with_state(script);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        // It ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, heard }
    }

    fn client(&self, kind: Kind) -> Client {
        let settings = Settings {
            kind,
            url: self.address.clone(),
            repository: "acme/actions".to_owned(),
            token: SecretString::from("the-token").into(),
            ca_cert: None,
        };
        Client::new(&settings).unwrap()
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

async fn answer(AxumState(script): AxumState<Script>, request: Request) -> Response {
    let authorized = request.headers().get("authorization").is_some_and(|value| value == "token the-token");
    let asked = format!("{} {}", request.method(), request.uri());
    let body = axum::body::to_bytes(request.into_body(), 10_000).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    script.heard.lock().unwrap().push(format!("{asked} {body}").trim().to_owned());
    if !authorized {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "message": "Bad credentials" }))).into_response();
    }
    match script.answers.get(asked.as_str()) {
        Some((status, body)) => {
            (StatusCode::from_u16(*status).unwrap(), script.headers, Json(body.clone())).into_response()
        }
        None => (StatusCode::NOT_FOUND, Json(json!({ "message": "Not Found" }))).into_response(),
    }
}

const COMMIT: &str = "e5bd3914e2e596debea16f433f57875b5b90bcd6";

fn account(id: i64, login: &str) -> Value {
    json!({ "id": id, "login": login, "type": "User", "site_admin": false })
}

fn pull(number: u64, merged: bool) -> Value {
    json!({
        "number": number, "html_url": format!("https://github.com/acme/actions/pull/{number}"), "state": "closed",
        "user": account(1, "octocat"), "merged_at": merged.then_some("2011-01-26T19:01:12Z"),
        // It is given for what is not merged as well.
        "merge_commit_sha": COMMIT,
        "base": { "label": "acme:main", "ref": "main", "sha": COMMIT },
        "head": { "label": "octocat:topic", "ref": "topic", "sha": COMMIT },
        "merged_by": account(9, "hubot"),
    })
}

fn answers(pairs: &[(&'static str, Value)]) -> Answers {
    pairs.iter().map(|(asked, body)| (*asked, (200, body.clone()))).collect()
}

#[tokio::test]
async fn githubs_pull_requests_are_found_by_the_commit_that_the_branch_got() {
    let forge = Scripted::new(
        answers(&[
            (
                "GET /api/v3/repos/acme/actions/commits/e5bd3914e2e596debea16f433f57875b5b90bcd6/pulls?page=1&per_page=50&limit=50",
                json!([pull(6, false), pull(7, true)]),
            ),
            ("GET /api/v3/repos/acme/actions/pulls/7", pull(7, true)),
            ("GET /api/v3/repos/acme/actions", json!({ "full_name": "acme/actions", "permissions": { "push": true } })),
        ]),
        HeaderMap::new(),
    )
    .await;
    let client = forge.client(Kind::GitHub);
    let commit = Revision::parse(COMMIT).unwrap();
    let found = client.merged_as(&commit, "main").await.unwrap().unwrap();
    assert_eq!((found.number, found.author.unwrap().login.as_str()), (7, "octocat"));
    assert_eq!(found.merged.unwrap().by.unwrap().id, 9);
    assert_eq!(client.merged_as(&commit, "release").await.unwrap(), None, "it is for another branch");
    assert!(client.access().await.unwrap().may_push);
}

#[tokio::test]
async fn githubs_reviews_authors_members_and_permissions_are_read() {
    let review = |id: i64, user: Value, state: &str| {
        json!({
            "id": id, "user": user, "state": state, "body": "", "commit_id": COMMIT,
            "submitted_at": "2019-11-17T17:43:43Z", "author_association": "MEMBER",
        })
    };
    // A review of somebody whose account is gone has no user.
    let reviews = json!([
        review(80, account(2, "reviewer"), "APPROVED"),
        review(81, account(3, "critic"), "CHANGES_REQUESTED"),
        review(82, account(4, "former"), "DISMISSED"),
        review(83, account(5, "talker"), "COMMENTED"),
        review(84, Value::Null, "APPROVED"),
    ]);
    let forge = Scripted::new(
        answers(&[
            ("GET /api/v3/repos/acme/actions/pulls/7/reviews?page=1&per_page=50&limit=50", reviews),
            (
                "GET /api/v3/repos/acme/actions/pulls/7/commits?page=1&per_page=50&limit=50",
                json!([
                    { "sha": COMMIT, "author": account(6, "writer"), "committer": account(7, "web-flow") },
                    // Nobody's address, and what GitHub gives for an invalid one.
                    { "sha": COMMIT, "author": null, "committer": {} },
                ]),
            ),
            (
                "GET /api/v3/orgs/acme/teams/ops/members?page=1&per_page=50&limit=50",
                json!([account(2, "reviewer")]),
            ),
            (
                "GET /api/v3/repos/acme/actions/collaborators/reviewer/permission",
                json!({ "permission": "write", "role_name": "maintain", "user": account(2, "reviewer") }),
            ),
        ]),
        HeaderMap::new(),
    )
    .await;
    let client = forge.client(Kind::GitHub);
    let reviews = client.reviews(7).await.unwrap();
    let told: Vec<_> =
        reviews.iter().map(|review| (review.by.login.as_str(), review.verdict, review.dismissed)).collect();
    assert_eq!(
        told,
        [
            ("reviewer", Verdict::Approved, false),
            ("critic", Verdict::ChangesRequested, false),
            ("former", Verdict::Approved, true),
            ("talker", Verdict::Open, false),
        ]
    );
    let pull: crate::approval::review::PullRequest =
        serde_json::from_value::<wire::Pull>(pull(7, true)).unwrap().pull_request();
    let (authors, commits) = client.authors(&pull).await.unwrap();
    let authors: Vec<&str> = authors.iter().map(|person| person.login.as_str()).collect();
    assert_eq!((authors.as_slice(), commits), (&["octocat", "writer", "web-flow"][..], 2));
    let members = client.members("ops").await.unwrap();
    let reviewer = members.first().unwrap();
    assert_eq!(client.permission(reviewer).await.unwrap(), Permission::Write);
    let said = client.members("other/ops").await.unwrap_err().to_string();
    assert!(said.contains("other has no team ops"), "{said}");
}

#[tokio::test]
async fn a_status_is_written_only_where_it_is_another_one() {
    let known = json!([
        { "context": "consign/a", "state": "success", "description": "valid" },
        // An older one.
        { "context": "consign/a", "state": "failure", "description": "invalid" },
    ]);
    let path = format!(
        "GET /api/v3/repos/acme/actions/commits/{COMMIT}/statuses?per_page=50&limit=50&sort=recentupdate"
    );
    let mut answers = answers(&[(path.leak(), known)]);
    answers.insert(
        "POST /api/v3/repos/acme/actions/statuses/e5bd3914e2e596debea16f433f57875b5b90bcd6",
        (201, json!({ "id": 1 })),
    );
    let forge = Scripted::new(answers, HeaderMap::new()).await;
    let client = forge.client(Kind::GitHub);
    let status = |description: &str| Status {
        context: "consign/a".to_owned(),
        state: State::Success,
        description: description.to_owned(),
    };
    client.set_status(COMMIT, &status("valid")).await.unwrap();
    assert_eq!(forge.heard().len(), 1, "it was only asked");
    client.set_status(COMMIT, &status(&"x".repeat(500))).await.unwrap();
    let posted = forge.heard().pop().unwrap();
    assert!(posted.contains(&"x".repeat(DESCRIPTION_LIMIT)), "{posted}");
    assert!(!posted.contains(&"x".repeat(DESCRIPTION_LIMIT + 1)), "{posted}");
}

#[tokio::test]
async fn a_refusal_names_the_right_and_a_limit_is_kept_to() {
    let mut headers = HeaderMap::new();
    headers.insert("x-accepted-github-permissions", "pull_requests=read".parse().unwrap());
    let path = "GET /api/v3/repos/acme/actions/pulls/7/reviews?page=1&per_page=50&limit=50";
    let refusal = json!({ "message": "Resource not accessible by personal access token" });
    let forge = Scripted::new(HashMap::from([(path, (403, refusal))]), headers.clone()).await;
    let said = forge.client(Kind::GitHub).reviews(7).await.unwrap_err();
    assert!(!said.is_temporary());
    let said = said.to_string();
    assert!(said.contains("pull_requests=read") && said.contains("pull requests"), "{said}");

    headers.insert("x-ratelimit-remaining", "0".parse().unwrap());
    let limited = json!({ "message": "API rate limit exceeded" });
    let forge = Scripted::new(HashMap::from([(path, (403, limited))]), headers).await;
    let client = forge.client(Kind::GitHub);
    for _ in 0..3 {
        let error = client.reviews(7).await.unwrap_err();
        assert!(matches!(error, Error::Limited { .. }) && error.is_temporary(), "{error}");
    }
    assert_eq!(forge.heard().len(), 1, "it is not asked again before its time");
}

#[tokio::test]
async fn what_is_not_understood_or_too_long_is_an_error() {
    let path = "GET /api/v1/repos/acme/actions/pulls/7/reviews?page=1&per_page=50&limit=50";
    for (status, body) in [
        (200, json!({ "message": "not a list" })),
        (200, json!([{ "id": "seven" }])),
        (200, json!("x".repeat(9 * 1024 * 1024))),
        (301, json!({})),
        (502, json!({})),
        (404, json!({})),
    ] {
        let forge = Scripted::new(HashMap::from([(path, (status, body))]), HeaderMap::new()).await;
        assert!(forge.client(Kind::Gitea).reviews(7).await.is_err(), "{status}");
    }
    for repository in ["acme", "acme/actions/x", "acme/..", "../actions", "acme/act ions", "/"] {
        let settings = Settings {
            kind: Kind::GitHub,
            url: String::new(),
            repository: repository.to_owned(),
            token: crate::credential::Credential::default(),
            ca_cert: None,
        };
        assert!(Client::new(&settings).is_err(), "{repository}");
    }
}

#[tokio::test]
async fn githubs_issues_are_found_labelled_and_commented_on() {
    let issue = |number: u32, labels: &[&str]| {
        let label =
            |name: &&str| json!({ "id": 208_045_946, "name": name, "color": "f29513", "default": false });
        let labels: Vec<Value> = labels.iter().map(label).collect();
        json!({ "id": 1, "number": number, "state": "open", "title": "Found a bug", "user": account(1, "octocat"),
                "labels": labels, "body": "I'm having a problem with this." })
    };
    let mut pull = issue(8, &["to do"]);
    pull["pull_request"] = json!({ "url": "https://api.github.com/repos/acme/actions/pulls/8" });
    let comments = json!([{ "id": 1, "body": "Me too", "user": account(1, "octocat") }, { "body": "ran <!-- consign A -->" }]);
    let forge = Scripted::new(
        answers(&[
            (
                "GET /api/v3/repos/acme/actions/issues?state=open&type=issues&labels=to+do&page=1&per_page=50&limit=50",
                json!([issue(7, &["bug", "To Do"]), pull, issue(9, &[])]),
            ),
            ("GET /api/v3/repos/acme/actions/issues/7", issue(7, &["bug", "To Do"])),
            ("POST /api/v3/repos/acme/actions/issues/7/labels", json!([{ "id": 2, "name": "doing" }])),
            ("DELETE /api/v3/repos/acme/actions/issues/7/labels/To%20Do", json!([])),
            (
                "GET /api/v3/repos/acme/actions/issues/7/comments?since=2026-11-21T12%3A00%3A00Z&page=1&per_page=50&limit=50",
                comments,
            ),
            ("POST /api/v3/repos/acme/actions/issues/7/comments", json!({ "id": 2, "body": "" })),
            ("GET /api/v3/repos/acme/actions", json!({ "full_name": "acme/actions" })),
        ]),
        HeaderMap::new(),
    )
    .await;
    let client = forge.client(Kind::GitHub);
    assert_eq!(client.labelled("to do").await.unwrap(), [7], "pull requests are none");
    assert!(client.relabel(7, "doing", &["to do", "done"]).await.unwrap());
    assert!(!client.relabel(6, "doing", &["to do"]).await.unwrap(), "it is gone");
    let since = "2026-11-21T12:00:00.9Z".parse().unwrap();
    client.comment_once(7, since, "<!-- consign A -->", "again").await.unwrap();
    client.comment_once(7, since, "<!-- consign B -->", "It ran.").await.unwrap();
    let said: Vec<String> = forge.heard().into_iter().filter(|asked| !asked.starts_with("GET")).collect();
    assert_eq!(
        said,
        [
            "POST /api/v3/repos/acme/actions/issues/7/labels {\"labels\":[\"doing\"]}",
            "DELETE /api/v3/repos/acme/actions/issues/7/labels/To%20Do",
            "POST /api/v3/repos/acme/actions/issues/7/comments {\"body\":\"It ran.\\n\\n<!-- consign B -->\"}",
        ]
    );
}

#[tokio::test]
async fn an_issue_in_a_repository_that_is_hidden_is_not_taken_for_gone() {
    for kind in [Kind::Gitea, Kind::GitHub] {
        let forge = Scripted::new(Answers::new(), HeaderMap::new()).await;
        let error = forge.client(kind).relabel(7, "a", &["b"]).await.unwrap_err();
        assert!(matches!(error, Error::Rights { right: Right::Repository, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_token_without_the_right_to_issues_is_told_so() {
    let path = "GET /api/v3/repos/acme/actions/issues/7";
    let refused = (403, json!({ "message": "Resource not accessible by personal access token" }));
    let headers = [("x-accepted-github-permissions", "issues=write")];
    let headers =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let forge = Scripted::new(HashMap::from([(path, refused)]), headers).await;
    let error = forge.client(Kind::GitHub).relabel(7, "a", &["b"]).await.unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("issues=write") && said.contains("write access to the repository's issues"),
        "{said}"
    );
}
