//! The login, and what is shown where something is not as it was meant.

use maud::html;

use super::layout::document;

/// The form that takes a token; `to` is where it leads, `wrong` why the last one was refused.
#[must_use]
pub fn login(to: &str, wrong: Option<&str>) -> String {
    let main = html! {
        section.narrow {
            h1 { "Log in" }
            form method="post" action="/ui/login" {
                input type="hidden" name="to" value=(to);
                label for="token" { "Token" }
                input #token name="token" type="password" required autofocus autocomplete="current-password"
                    spellcheck="false" aria-invalid=[wrong.map(|_| "true")] aria-describedby="wrong help";
                @if let Some(wrong) = wrong { p #wrong.wrong role="alert" { (wrong) } }
                button.main { "Log in" }
            }
            p #help.remark {
                "With scope read it shows; with submit it also cancels, retries and fires triggers; with approve it also approves and "
                "rejects what others submitted. Whoever runs the agent makes one:"
            }
            pre { code { "consign token create NAME --scope read,submit" } }
        }
    };
    document("Log in", None, None, &main)
}

/// What went wrong, and the way back.
#[must_use]
pub fn fault(title: &str, detail: &str) -> String {
    let main = html! {
        section.narrow {
            h1 { (title) }
            p { (detail) }
            p { a href="/" { "All jobs" } }
        }
    };
    document(title, None, None, &main)
}
