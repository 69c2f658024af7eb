/* Asking a question, and pushing an entry. */

import { ApiError, ask, send, sessionPath } from "./api.js";
import { at, mark, say } from "./dom.js";
import { figure } from "./format.js";
import { parsed, sample } from "./samples.js";
import { frames } from "./sse.js";
import { refresh } from "./watch.js";
import { state } from "./state.js";

const ANSWER_TOKENS = 256;

let asking = null;

/** Have the forms do what they say. */
export function ready() {
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (asking) asking.abort();
    else question(at("question").value.trim());
  });
  at("push").addEventListener("submit", (event) => {
    event.preventDefault();
    push(at("entry").value);
  });
  at("next-sample").addEventListener("click", fill);
  for (const name of ["question", "entry"]) {
    at(name).addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.target.form.requestSubmit();
    });
  }
}

let filled = "";

/** Draws what changes with the session: an example to push, and whose answer is shown. */
export function forms({ watched }) {
  const shown = watched?.stats ? `${watched.id} ${watched.stats.type}` : "";
  if (shown === filled) return;
  filled = shown;
  asking?.abort();
  for (const id of ["answer", "answered", "pushed"]) say(at(id), "");
  if (shown) fill();
}

function fill() {
  at("entry").value = sample(state.watched.stats.type, state.watched.entries);
}

async function question(prompt) {
  const { id } = state.watched;
  asking = new AbortController();
  const began = performance.now();
  const told = (words) => {
    if (state.watched?.id === id) say(at("answered"), words);
  };
  const took = () => `${figure(Math.round(performance.now() - began))} ms`;
  mark(at("ask"), "aria-busy", "true");
  say(at("ask-button"), "Stop");
  say(at("answer"), "");
  told("thinking…");
  try {
    const body = { prompt, stream: true, temperature: 0, max_tokens: ANSWER_TOKENS };
    const response = await send(sessionPath(id, "/generate"), { method: "POST", body, signal: asking.signal });
    for await (const frame of frames(response.body)) {
      if (!frame.data || frame.data === "[DONE]") continue;
      const piece = JSON.parse(frame.data);
      if (piece.error) throw new ApiError(0, piece.error.message);
      if (piece.done) told(ended(piece, took()));
      else at("answer").append(piece.text ?? piece.token);
    }
  } catch (error) {
    told(error.name === "AbortError" ? "stopped" : error.message);
  } finally {
    asking = null;
    mark(at("ask"), "aria-busy", null);
    say(at("ask-button"), "Ask");
  }
}

function ended({ flash, speculative, data_version: version, finish_reason: reason, usage }, took) {
  const source = flash ? "from a Flash Query's answer" : speculative ? "from the ready position" : "from the model";
  const tokens = usage?.completion_tokens ? `, ${figure(usage.completion_tokens)} tokens` : "";
  return `${source}, version ${version}${tokens}, ${took}${reason === "length" ? ", cut off" : ""}`;
}

async function push(text) {
  const { id, stats } = state.watched;
  const told = (words) => {
    if (state.watched?.id === id) say(at("pushed"), words);
  };
  try {
    const body = { data: parsed(stats.type, text) };
    const ack = await ask(sessionPath(id, "/push"), { method: "POST", body });
    const dropped = ack.dropped ? `, ${figure(ack.dropped)} older dropped` : "";
    told(`accepted as entry ${figure(ack.total_pushed)}, ${figure(ack.pending)} waiting${dropped}`);
    if (state.watched?.id === id) fillAfter(body.data);
    refresh();
  } catch (error) {
    told(error instanceof SyntaxError ? `This is not JSON: ${error.message}` : error.message);
  }
}

/** What comes after what was just pushed, which the model may have yet to read. */
function fillAfter(pushed) {
  const entry = [pushed].flat().at(-1);
  at("entry").value = sample(state.watched.stats.type, [{ entry }]);
}
