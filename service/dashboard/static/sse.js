/* Server-sent events over fetch, since an EventSource cannot send a key. */

import { anotherKey, ApiError, send } from "./api.js";

const FIRST_WAIT = 500;
const LONGEST_WAIT = 15_000;
// The server fills silence every 15 s; nothing for much longer means that the connection is dead.
const SILENCE = 45_000;
const LONGEST_FRAME = 4 * 2 ** 20;

function parse(text) {
  const frame = { event: "message", data: "", id: null };
  const data = [];
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon === 0) continue;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") data.push(value);
    else if (name === "event") frame.event = value;
    else if (name === "id") frame.id = value;
  }
  frame.data = data.join("\n");
  return frame;
}

/**
 * The frames of a body, as they come; of a comment, one without data.
 *
 * @param {ReadableStream} body of a response
 * @param {function(): void} heard called whenever something arrives
 */
export async function* frames(body, heard = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      text += value;
      let end;
      while ((end = text.indexOf("\n\n")) >= 0) {
        yield parse(text.slice(0, end));
        text = text.slice(end + 2);
      }
      if (text.length > LONGEST_FRAME) throw new ApiError(0, "The server sends an event that has no end.");
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    addEventListener("online", end);
    signal.addEventListener("abort", end);
  });
}

/** One connection, until it ends. Aborted when `signal` is, or when nothing comes for too long. */
async function connection(path, last, signal, opened, told) {
  const own = new AbortController();
  const abort = () => own.abort();
  let timer = setTimeout(abort, SILENCE);
  signal.addEventListener("abort", abort);
  try {
    const response = await send(path, { headers: last ? { "last-event-id": last } : {}, signal: own.signal });
    opened();
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(abort, SILENCE);
    };
    for await (const frame of frames(response.body, heard)) {
      if (frame.data) told(frame);
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
}

/**
 * Follow an event stream: whenever it ends, come back and go on after the last event.
 *
 * @param {string} path of the stream
 * @param {AbortSignal} signal ends it
 * @param {{event: function(string, Object): void, link: function(string): void}} listener told of every event by kind
 *   and data, and of the connection: `connecting`, `live`, `waiting`, `locked` while a key is missing
 * @returns {Promise<ApiError|null>} why it cannot be followed any further; null where `signal` ended it
 */
export async function follow(path, signal, listener) {
  let last = null;
  let wait = FIRST_WAIT;
  while (!signal.aborted) {
    let atLeast = 0;
    listener.link("connecting");
    try {
      await connection(path, last, signal, () => listener.link("live"), (frame) => {
        last = frame.id ?? last;
        wait = FIRST_WAIT;
        listener.event(frame.event, JSON.parse(frame.data));
      });
    } catch (error) {
      if (signal.aborted) break;
      if (error instanceof ApiError) {
        if (error.status === 401) {
          listener.link("locked");
          await anotherKey();
          continue;
        }
        if (error.status === 403 || error.status === 404) return error;
        if (error.status === 400) last = null;
        atLeast = 1000 * error.retryAfter;
      }
    }
    if (signal.aborted) break;
    listener.link("waiting");
    // Not all pages at once, when a server has come back.
    await pause(Math.max(atLeast, wait * (0.5 + Math.random() / 2)), signal);
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }
  return null;
}
