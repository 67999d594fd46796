//! What every view stands in.

use maud::{DOCTYPE, Markup, html};

/// Who looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The name of the token that they logged in with; `None` where nobody has to.
    pub name: Option<String>,
    /// Whether they may cancel, retry and fire triggers.
    pub may_submit: bool,
    /// Whether they may approve and reject what others submitted.
    pub may_approve: bool,
}

/// A whole document. Of `live`, where it is given, the script fetches the part with the id `live` anew.
pub(super) fn document(title: &str, viewer: Option<&Viewer>, live: Option<&str>, main: &Markup) -> String {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · consign" }
                link rel="icon" href="/ui/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/ui/style.css";
                @if live.is_some() { script src="/ui/script.js" defer {} }
            }
            body data-live=[live] {
                a.skip href="#main" { "To the content" }
                header {
                    a.brand href="/" { "consign" }
                    @if viewer.is_some() { a href="/ui/triggers" { "Triggers" } }
                    p #news role="status" {}
                    @if let Some((viewer, name)) = viewer.and_then(|viewer| Some((viewer, viewer.name.as_ref()?))) {
                        form method="post" action="/ui/logout" {
                            span { (name) @if !viewer.may_submit && !viewer.may_approve { " (read-only)" } }
                            button.quiet { "Log out" }
                        }
                    }
                }
                main #main { (main) }
                @if live.is_some() {
                    noscript { p.remark { "This is as of when the page was loaded. Reload it for news." } }
                }
            }
        }
    };
    document.into_string()
}
