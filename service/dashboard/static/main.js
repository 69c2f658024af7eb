/* The dashboard: what is looked at, and how often. */

import { answers } from "./answers.js";
import { ApiError, ask, sessionPath } from "./api.js";
import * as asking from "./ask.js";
import { data } from "./data.js";
import * as dialogs from "./dialogs.js";
import { at, say } from "./dom.js";
import { head, sessions, address } from "./sessions.js";
import { history } from "./history.js";
import { overview } from "./overview.js";
import { changed, show, state } from "./state.js";
import { refresh, watch } from "./watch.js";

const LOOK = 2000;
const NOTICE = 8000;
const FIGURES = 60;

let looking = null;

/** Look at the server and its sessions, now; a hidden page does not. */
async function look() {
  clearTimeout(looking);
  if (!document.hidden) {
    await Promise.all([lookAtServer(), state.locked ? null : lookAtSessions()]);
    if (!state.locked) refresh();
  }
  clearTimeout(looking);
  looking = setTimeout(look, LOOK);
}

async function lookAtServer() {
  try {
    const health = await ask("/health", { accept: 503 });
    const before = state.health;
    if (before && health.uptime_ms > before.uptime_ms) {
      const tokens = health.session_ingested_tokens - before.session_ingested_tokens;
      state.reading.push((1000 * tokens) / (health.uptime_ms - before.uptime_ms));
      state.reading.splice(0, state.reading.length - FIGURES);
    }
    state.health = health;
    if (health.engine === "ready" && !state.model && !state.locked) await lookAtModel();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 0) state.health = null;
  }
  changed();
}

async function lookAtModel() {
  state.model = (await ask("/v1/models")).data[0]?.id ?? "";
}

async function lookAtSessions() {
  try {
    const { data, sessions: old } = await ask("/v1/sessions");
    const first = state.sessions === null;
    state.sessions = data;
    state.old = new Set(old.map((session) => session.session_id));
    if (first && !named() && data.length) {
      location.replace(address(data.reduce((one, other) => (other.last_used > one.last_used ? other : one)).id));
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
  }
  changed();
}

/** The session that the address names. */
function named() {
  const [, id] = /^#\/([\w-]{1,128})$/.exec(location.hash) ?? [];
  return id ?? null;
}

function route() {
  const id = named();
  if (id !== (state.watched?.id ?? null)) watch(id, notice);
}

let fading = null;

/** Say something that passes. */
function notice(words) {
  say(at("notice"), words);
  clearTimeout(fading);
  fading = setTimeout(() => say(at("notice"), ""), NOTICE);
  if (state.watched?.link === "gone") {
    watch(null, notice);
    window.history.replaceState(null, "", location.pathname);
    look();
  }
}

function remove(query) {
  const { id } = state.watched;
  dialogs.confirmDeletion(`Delete the question “${query.query}” and its answers?`, async () => {
    await ask(sessionPath(id, `/flash/${query.id}`), { method: "DELETE" });
    refresh();
  });
}

dialogs.ready(look);
asking.ready();
show(overview, sessions, head, answers(remove), data(), history, asking.forms);
addEventListener("hashchange", route);
document.addEventListener("visibilitychange", look);
// Ages grow by themselves.
setInterval(changed, 1000);
route();
look();
