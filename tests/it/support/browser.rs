//! A real browser: Chromium without a window, driven over `WebDriver` (the W3C's protocol) by Debian's chromium-driver.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{LIMIT, wait_for};

/// The key that `WebDriver` has an element's id under.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// How often the driver is started until it has a port.
const STARTS: u32 = 5;

/// A browser with cookies and settings of its own; it ends with the value.
#[derive(Debug)]
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    http: reqwest::Client,
    _profile: TempDir,
}

impl Browser {
    /// Starts one. `chromium` and `chromedriver` have to be on the `PATH`: `scripts/test` installs them on Debian.
    pub(crate) async fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("consign-browser-").tempdir().unwrap();
        // It takes a port that is free with IPv6, and ends where another program has the same one with IPv4.
        let (driver, port) =
            (0..STARTS).find_map(|_| start_driver(profile.path())).expect("chromedriver has a port");
        let folder = format!("--user-data-dir={}", profile.path().display());
        // Chromium's own sandbox does not start for root; what it shows here is the agent's page alone.
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server", &folder];
        let options = json!({ "args": arguments });
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(Vec::new())
            .timeout(Duration::from_mins(1))
            .build()
            .unwrap();
        let mut browser = Self { driver, port, session: String::new(), http, _profile: profile };
        let made = browser
            .request(Method::POST, "/session", json!({ "capabilities": { "alwaysMatch": capabilities } }))
            .await;
        browser.session = format!("/session/{}", made["sessionId"].as_str().unwrap());
        browser
    }

    async fn request(&self, method: Method, path: &str, body: Value) -> Value {
        self.answer(method, path, body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// What the driver answers, or its error.
    async fn answer(&self, method: Method, path: &str, body: Value) -> Result<Value, Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let request = self.http.request(method.clone(), url);
        let request = if method == Method::POST { request.json(&body) } else { request };
        let mut answer: Value = request.send().await.unwrap().json().await.unwrap();
        let value = answer["value"].take();
        if value["error"].is_null() { Ok(value) } else { Err(value) }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.request(Method::POST, &format!("{}{path}", self.session), body).await
    }

    /// Goes to an address, and waits until it is loaded.
    pub(crate) async fn open(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// The address that is shown.
    pub(crate) async fn address(&self) -> String {
        let url = self.request(Method::GET, &format!("{}/url", self.session), Value::Null).await;
        url.as_str().unwrap().to_owned()
    }

    /// Evaluates a script in the page, where its content security policy does not hold; gives what it returns.
    pub(crate) async fn script(&self, text: &str) -> Value {
        self.post("/execute/sync", json!({ "script": text, "args": [] })).await
    }

    /// The text that a person sees, of the first element that a CSS selector finds.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let selector = Value::from(selector);
        let text = self.script(&format!("return document.querySelector({selector})?.innerText ?? ''")).await;
        text.as_str().unwrap().to_owned()
    }

    /// Does something with the element that a CSS selector finds, once it is there. Finding and doing are two
    /// requests, and the page may load, or put another element in its place, before either.
    async fn on(&self, selector: &str, asked: impl Fn(&Value) -> (String, Value)) {
        let query = json!({ "using": "css selector", "value": selector });
        wait_for(selector, LIMIT, async || {
            let done = async {
                let path = format!("{}/element", self.session);
                let element = self.answer(Method::POST, &path, query.clone()).await?;
                let (path, body) = asked(&element);
                self.answer(Method::POST, &format!("{}{path}", self.session), body).await
            };
            let Err(error) = done.await else { return Ok(()) };
            let gone = ["no such element", "stale element reference"].iter().any(|it| error["error"] == **it);
            assert!(gone, "{selector}: {error}");
            Err(error.to_string())
        })
        .await;
    }

    /// Clicks as a person does: what is hidden or covered cannot be clicked.
    pub(crate) async fn click(&self, selector: &str) {
        self.on(selector, |element| (format!("/element/{}/click", id(element)), json!({}))).await;
    }

    /// Types into a field.
    pub(crate) async fn enter(&self, selector: &str, text: &str) {
        self.on(selector, |element| (format!("/element/{}/value", id(element)), json!({ "text": text })))
            .await;
    }

    /// Presses the mouse's button over something, and holds it until [`Self::release`].
    pub(crate) async fn press(&self, selector: &str) {
        self.on(selector, |element| {
            let over = json!({ "type": "pointerMove", "duration": 0, "origin": element, "x": 0, "y": 0 });
            ("/actions".to_owned(), mouse(&[over, json!({ "type": "pointerDown", "button": 0 })]))
        })
        .await;
    }

    /// Lets the mouse's button go.
    pub(crate) async fn release(&self) {
        self.post("/actions", mouse(&[json!({ "type": "pointerUp", "button": 0 })])).await;
    }

    /// Asks the `DevTools` of Chromium.
    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    /// Turns the page's scripts on or off, from the next page on.
    pub(crate) async fn scripts(&self, on: bool) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": !on })).await;
    }

    /// Shows pages on a screen of this many CSS pixels.
    pub(crate) async fn screen(&self, width: u32, height: u32) {
        let screen =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", screen).await;
    }

    /// Prefers `light` or `dark`, as the system's settings do.
    pub(crate) async fn scheme(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": [feature] })).await;
    }

    /// The cookies, also those that scripts do not see.
    pub(crate) async fn cookies(&self) -> Vec<Value> {
        let cookies = self.request(Method::GET, &format!("{}/cookie", self.session), Value::Null).await;
        cookies.as_array().unwrap().clone()
    }

    /// What the console has had since it was last asked: errors of scripts, and what was not allowed to load.
    pub(crate) async fn console(&self) -> Vec<Value> {
        let lines = self.post("/se/log", json!({ "type": "browser" })).await;
        lines.as_array().unwrap().clone()
    }

    /// A picture of the whole page, PNG.
    pub(crate) async fn picture(&self) -> Vec<u8> {
        let picture = self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true })).await;
        BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }
}

/// The id of an element.
fn id(element: &Value) -> &str {
    element[ELEMENT].as_str().unwrap()
}

/// What the mouse does, as `WebDriver` takes it.
fn mouse(actions: &[Value]) -> Value {
    json!({ "actions": [{ "type": "pointer", "id": "mouse", "actions": actions }] })
}

/// Starts the driver, and gives the port that it says; none where it ends without.
fn start_driver(folder: &Path) -> Option<(Child, u16)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .env("TMPDIR", folder)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromedriver starts: `scripts/test` installs it on Debian");
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
    let port = lines.find_map(|line| {
        let (_, port) = line.split_once("started successfully on port ")?;
        port.trim_end_matches('.').parse().ok()
    });
    if port.is_none() {
        driver.wait().unwrap();
    }
    Some((driver, port?))
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser and answers then. Whatever goes wrong, their process group is killed.
        if let Ok(mut driver) = TcpStream::connect(("127.0.0.1", self.port)) {
            let end = format!("DELETE {} HTTP/1.0\r\nHost: localhost\r\n\r\n", self.session);
            drop(driver.set_read_timeout(Some(Duration::from_secs(10))));
            drop(driver.write_all(end.as_bytes()));
            drop(driver.read(&mut [0; 64]));
        }
        if let Some(group) = i32::try_from(self.driver.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(group, Signal::KILL).unwrap_or_default();
        }
        drop(self.driver.wait());
    }
}
