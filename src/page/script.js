// Keeps the page up to date. Without it everything is there as of when the page was loaded.
"use strict";

const EVERY = 2000; // milliseconds between looks
const PATIENCE = 10000; // milliseconds that an answer may take
const KEPT = 1 << 20; // characters of a followed log that stay

const region = document.getElementById("live");
const news = document.getElementById("news");
const log = document.getElementById("log");
let following = null; // what ends the request for the log
let complete = false; // whether the log that is shown came to its end

/**
 * Whether somebody is choosing, selecting or pressing something in the part that is replaced. A click on what was
 * replaced while the button was down would be lost.
 */
function inUse() {
  if (region.matches(":active")) return true;
  const selection = document.getSelection();
  const selects = !selection.isCollapsed && region.contains(selection.anchorNode);
  return selects || (region.contains(document.activeElement) && document.activeElement.matches("select, input"));
}

/** Puts what came in the place of what is shown; focus, what is open and what was entered stay. */
function replace(came) {
  const open = [...region.querySelectorAll("details[open]")].map((details) => details.id);
  const focused = region.contains(document.activeElement) ? document.activeElement.id : "";
  const entered = [...region.querySelectorAll("input:not([type=hidden]), select")].map((field) => [field.id, field.value]);
  region.replaceChildren(...came.getElementById("live").childNodes);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  for (const [id, value] of entered) {
    const field = document.getElementById(id);
    if (field) field.value = value;
  }
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

async function look() {
  const answer = await fetch(document.body.dataset.live, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (answer.status === 401) location.reload(); // the session has ended
  if (!answer.ok) throw new Error(answer.statusText);
  const came = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!inUse()) replace(came);
  if (document.title !== came.title) news.textContent = document.title = came.title;
  if (log && !following) read(came.getElementById("log"));
}

/** Shows the log that came, or follows it where it grows. */
function read(came) {
  if (came.dataset.follow) {
    follow(came.dataset.follow);
  } else if (!complete) {
    log.replaceChildren(...came.childNodes);
  }
}

/** Shows the log as it comes, from its beginning. */
async function follow(address) {
  following = new AbortController();
  complete = false;
  try {
    const answer = await fetch(address, { cache: "no-store", signal: following.signal });
    if (!answer.ok) return;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let length = 0;
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      if (length === 0) log.replaceChildren();
      log.append(piece.value);
      length += piece.value.length;
      while (length > KEPT && log.childNodes.length > 1) {
        length -= log.firstChild.length;
        log.firstChild.remove();
      }
      if (atEnd) log.scrollTop = log.scrollHeight;
    }
    complete = true;
  } catch {
    // The connection broke; the next look begins anew.
  } finally {
    following = null;
  }
}

async function keepLooking() {
  if (document.visibilityState === "visible") {
    try {
      await look();
      document.body.classList.remove("stale");
    } catch {
      document.body.classList.add("stale");
      news.textContent = "The agent does not answer; this is from before.";
    }
  }
  setTimeout(keepLooking, EVERY);
}

// A browser has few connections to one host: a page that nobody sees keeps none.
document.addEventListener("visibilitychange", () => document.hidden && following?.abort());
if (log) log.scrollTop = log.scrollHeight;
if (log?.dataset.follow) follow(log.dataset.follow);
setTimeout(keepLooking, EVERY);
