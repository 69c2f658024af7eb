/* The server: is it ready, how full is it, how much does it read. */

import { at, mark, reveal, say } from "./dom.js";
import { count, duration, figure, percent, plural } from "./format.js";

const STATES = { ready: "good", loading: "fair", restarting: "fair", failed: "bad" };
const LINKS = {
  connecting: ["Connecting", "fair"],
  live: ["Live", "good"],
  waiting: ["Reconnecting", "bad"],
  locked: ["Key needed", "bad"],
  gone: ["Session ended", "fair"],
};

export function overview({ health, reading, model, watched, locked }) {
  say(at("model"), model);
  linked(watched, health, locked);
  if (health === undefined) return;
  mark(at("server"), "data-away", health ? null : "");
  if (!health) {
    say(at("engine"), "not reachable");
    mark(at("engine"), "data-tone", "bad");
    return;
  }
  say(at("engine"), health.engine);
  mark(at("engine"), "data-tone", STATES[health.engine] ?? "fair");
  say(at("store"), health.store === "ok" ? `up ${duration(health.uptime_ms / 1000)}` : "store does not answer");
  const used = health.kv_pages_total ? 1 - health.kv_pages_free / health.kv_pages_total : 0;
  say(at("kv"), percent(used));
  at("kv-bar").value = used;
  say(at("kv-tokens"), `${count(health.session_kv_tokens)} tokens held`);
  say(at("queue"), `${figure(health.running)} / ${figure(health.queued)}`);
  say(at("total-sessions"), figure(health.sessions));
  say(
    at("residency"),
    `${health.sessions_resident} resident, ${health.sessions_warm} warm, ${health.sessions_cold} cold`,
  );
  say(at("reading"), count(reading.at(-1) ?? 0));
  say(at("read-total"), `${count(health.session_ingested_tokens)} read in all`);
  say(at("hits"), count(health.session_flash_hits));
  say(at("asked"), `of ${plural(health.session_flash_hits + health.requests_started, "question")}`);
}

function linked(watched, health, locked) {
  let [words, tone] = LINKS[watched?.link ?? "live"];
  if (locked) [words, tone] = LINKS.locked;
  else if (health === undefined) [words, tone] = LINKS.connecting;
  else if (health === null) [words, tone] = LINKS.waiting;
  else if (!watched) [words, tone] = ["No session", "fair"];
  const pill = at("link");
  say(pill, words);
  mark(pill, "data-tone", tone);
  mark(pill, "data-returns", watched ? watched.returns : null);
  mark(pill, "data-resumed", watched?.resumed ?? null);
  reveal(at("locked"), locked);
}
