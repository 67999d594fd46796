//! A server that asks for no tokens: what this machine itself may do, and that nobody else is let in.

use super::*;
use crate::client::Client;

async fn open() -> Server {
    Server::start_for(Auth::None, Audience::default(), 0).await
}

#[tokio::test]
async fn every_route_is_open_to_this_machine_but_approvals() {
    let mut server = open().await;
    // Nobody answers orders.
    server.orders.close();
    let wrong = SecretString::from("consign_");
    for route in routes::table() {
        let path =
            route.path.replace("{id}", "nothing").replace("{*name}", "a/b").replace("{trigger}", "nothing");
        let closed = route.access == Access::Scope(Scope::Approve);
        for token in [None, Some(&wrong)] {
            let answer = server.ask(route.method.clone(), &path, token, "").await;
            let status = answer.status().as_u16();
            assert!(status != 401 && (status == 403) == closed, "{} {path}: {status}", route.method);
            if closed {
                assert!(problem(answer).await.2.contains("without tokens"), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn no_route_is_open_to_another_site_or_by_another_name() {
    let server = open().await;
    let (host, port) =
        (server.address.strip_prefix("http://").unwrap(), server.address.rsplit(':').next().unwrap());
    let other_port = format!("http://{}", host.replace(port, "1"));
    let rebound = format!("evil.example:{port}");
    let pages = [(Method::GET, "/"), (Method::GET, "/ui/jobs/a"), (Method::POST, "/ui/jobs/a/cancel")];
    let own = [(Method::GET, "/nothing"), (Method::POST, "/triggers/own/path"), (Method::DELETE, "/jobs")];
    let paths = routes::table().into_iter().map(|route| (route.method, route.path));
    for (method, path) in paths.chain(pages).chain(own) {
        let path = path.replace(['{', '}', '*'], "");
        for (name, value) in [
            ("host", rebound.as_str()),
            ("origin", "http://evil.example"),
            ("origin", &other_port),
            ("sec-fetch-site", "cross-site"),
            ("x-forwarded-for", "192.0.2.1"),
        ] {
            let request = server.http.request(method.clone(), format!("{}{path}", server.address));
            let answer = request.header(name, value).send().await.unwrap();
            let (status, _, detail) = problem(answer).await;
            assert!(
                status == 403 && detail.contains("this machine alone"),
                "{method} {path} {name}: {detail}"
            );
        }
    }
    let same = server.http.get(format!("{}/jobs", server.address)).header("origin", &server.address);
    let same = same.header("sec-fetch-site", "same-origin").send().await.unwrap();
    assert_eq!(same.status().as_u16(), 200);
    let local =
        server.http.get(format!("{}/jobs", server.address)).header("host", format!("localhost:{port}"));
    assert_eq!(local.send().await.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn with_tokens_other_names_and_sites_are_no_matter() {
    let server = Server::start().await;
    let token = server.token("ann", &[Scope::Read], None);
    let request = server.http.get(format!("{}/jobs", server.address)).bearer_auth(token.expose_secret());
    let request = request.header("host", "ops.example").header("origin", "https://elsewhere.example");
    assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn the_page_needs_no_login_and_still_takes_its_own_forms_alone() {
    let mut server = open().await;
    server.orders.close();
    let origin = Origin::Hand { child: "c".to_owned(), note: None };
    let job = Job::new(origin, Work::default(), Timestamp::now());
    server.store.save(&job, "seen", Timestamp::now()).await.unwrap();
    let home = server.ask(Method::GET, "/", None, "").await;
    assert_eq!(home.status().as_u16(), 200);
    let home = home.text().await.unwrap();
    assert!(home.contains(&job.job_id.to_string()) && !home.contains("Log out"), "{home}");
    let place = format!("/ui/jobs/{}", job.job_id);
    let shown = server.ask(Method::GET, &place, None, "").await.text().await.unwrap();
    assert!(shown.contains(&format!("{place}/cancel")), "{shown}");

    let cancel = server.http.post(format!("{}{place}/cancel", server.address));
    let own = cancel.try_clone().unwrap().header("origin", &server.address).send().await.unwrap();
    assert_eq!(own.status().as_u16(), 503, "it is let through to where nobody answers");
    assert_eq!(cancel.send().await.unwrap().status().as_u16(), 403, "nothing says that it is the page's own");
    let login = server.http.post(format!("{}/ui/login", server.address)).header("origin", &server.address);
    let login = login.header("content-type", "application/x-www-form-urlencoded").body("token=a&to=/");
    assert_eq!(login.send().await.unwrap().headers()["location"], "/");
}

#[tokio::test]
async fn the_client_needs_no_token_and_hears_that_nobody_can_approve() {
    let server = open().await;
    let client = Client::new(&server.address, None).unwrap();
    assert!(client.jobs(None, 1).await.unwrap().is_empty());
    let refused = client.approve("nothing", None).await.unwrap_err().to_string();
    assert!(refused.contains("auth = \"none\""), "{refused}");
}
