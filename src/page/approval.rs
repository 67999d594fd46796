//! Whether a job may run: what shows that it may, and the forms of whoever has a say in it.

use jiff::Timestamp;
use maud::{Markup, html};

use super::words::ago;
use crate::{http::view::REASON_LIMIT, outcome::result_file::Evidence};

/// The forms that approve and reject what waits; an approval is for `digest`, which the page shows, alone.
pub(super) fn forms(here: &str, digest: &str) -> Markup {
    html! {
        form method="post" action={ (here) "/approve" } {
            input type="hidden" name="digest" value=(digest);
            button #approve.main { "Approve" }
        }
        form method="post" action={ (here) "/reject" } {
            button #reject.danger { "Reject" }
            label for="reason" { "because" }
            input #reason name="reason" required maxlength=(REASON_LIMIT) autocomplete="off";
        }
    }
}

/// What shows that the approval rule was kept.
pub(super) fn evidence(evidence: &[Evidence], now: Timestamp) -> Markup {
    html! {
        ul {
            @for piece in evidence {
                li {
                    @match piece {
                        Evidence::Merged { revision } => { "on the branch at " code { (revision) } }
                        Evidence::Person { name, at } => { (name) " said so " (ago(*at, now)) }
                        Evidence::Signature { path, commit, signer, key } => {
                            code { (path) } ": " code { (commit) } " is signed by " (signer) ", key " code { (key) }
                        }
                        Evidence::Review { url, head, by } => {
                            (link(url)) " was approved by " (by.join(", ")) " at " code { (head) }
                        }
                    }
                }
            }
        }
    }
}

/// An address of a forge as a link, unless it is something that a browser would run.
fn link(url: &str) -> Markup {
    let is_page = ["https://", "http://"].iter().any(|scheme| url.starts_with(scheme));
    html! { @if is_page { a href=(url) { (url) } } @else { (url) } }
}
