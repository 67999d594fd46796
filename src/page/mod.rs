//! What a browser shows at `/`: pure functions from what the API says to HTML.
//!
//! Everything is in the HTML as it comes. The script only fetches it anew and follows a log; it, the style and
//! the icon are files of this folder, and nothing is loaded from elsewhere. [`maud`] escapes every text; what a task
//! printed goes through [`Printable`] first.

mod approval;
mod home;
mod job;
mod layout;
mod login;
mod printable;
#[cfg(test)]
mod tests;
mod triggers;
mod words;

pub use self::{
    home::{Home, Section, home},
    job::{Offer, job},
    layout::Viewer,
    login::{fault, login},
    printable::Printable,
    triggers::{trigger, trigger_place, triggers},
    words::place,
};

/// The one style sheet.
pub const STYLE: &str = include_str!("style.css");
/// The one script.
pub const SCRIPT: &str = include_str!("script.js");
/// The icon of the browser's tab.
pub const ICON: &str = include_str!("icon.svg");
