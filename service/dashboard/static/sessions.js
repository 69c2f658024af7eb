/* The list of sessions, and what is known of the one that is watched. */

import { at, list, make, mark, reveal, say } from "./dom.js";
import { figure, plural } from "./format.js";
import { listed } from "./state.js";

/** What the address says after its # for a session. */
export const address = (id) => `#/${encodeURIComponent(id)}`;

export function sessions({ sessions, watched }) {
  reveal(at("no-sessions"), sessions !== null && sessions.length === 0);
  list(at("sessions"), sessions ?? [], (session) => session.id, row, (element, session) => {
    const link = element.firstElementChild;
    mark(link, "aria-current", session.id === watched?.id ? "true" : null);
    const [name, state, figures] = link.children;
    say(name, session.id);
    mark(state, "data-residency", session.residency);
    say(state, session.busy ? "busy" : session.residency);
    say(figures, `${session.type ?? "text"} · v${session.data_version} · ${plural(session.tokens, "token")}`);
  });
}

const row = (session) =>
  make(
    "li",
    {},
    make(
      "a",
      { href: address(session.id) },
      make("span", { class: "name" }),
      make("span", { class: "residency" }),
      make("span", { class: "soft" }),
    ),
  );

/** The fields of the session object that say how it is, and how they are called. */
const FACTS = [
  ["type", "Type", (session) => session.type ?? "text"],
  ["residency", "Residency", (session) => session.residency],
  ["version", "Version", (session, version) => figure(version)],
  ["tokens", "Tokens", (session) => figure(session.tokens)],
  ["kv", "In KV cache", (session) => figure(session.kv_tokens)],
  ["pending", "Waiting", (session) => plural(session.pending, "entry", "entries")],
  ["window", "Window", windowed],
  ["turns", "Turns", (session) => figure(session.turns)],
];

function windowed({ window, window_seconds: seconds, evicted }) {
  const limits = [window && `${figure(window)} tokens`, seconds && `${figure(seconds)} s`].filter(Boolean);
  return limits.length ? `${limits.join(", ")}; ${figure(evicted)} left` : "none";
}

export function head({ watched, locked }) {
  // All at once: nothing is to jump when the rest comes.
  const shown = Boolean(watched?.queries && watched.stats);
  reveal(at("session"), shown);
  reveal(at("none"), !shown && !locked);
  say(at("none"), watched ? "Loading…" : "Choose a session, or create one.");
  if (!shown) return;
  say(at("session-id"), watched.id);
  const session = listed();
  list(at("facts"), FACTS, ([name]) => name, fact, (element, [, , told]) => {
    say(element.lastElementChild, session ? told(session, Math.max(session.data_version, watched.version)) : "–");
  });
}

const fact = ([name, words]) => make("div", {}, make("dt", {}, words), make("dd", { "data-fact": name }));
