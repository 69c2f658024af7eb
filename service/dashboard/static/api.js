/* The server's API. The key is in this module's memory and nowhere else: a page that is loaded again asks again. */

let key = "";
let ahead = 0;
let refused = () => {};
let unlock = null;
let unlocked = null;

/** What the server refused, in its own words. Status 0: it could not be reached. */
export class ApiError extends Error {
  constructor(status, message, code = "", retryAfter = 0) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** Use a key from now on, an empty one for none. Throws where it cannot be one. */
export function useKey(text) {
  if (!/^[\x21-\x7e]*$/.test(text)) {
    throw new ApiError(0, "A key has no spaces and only ASCII characters; copy it again.");
  }
  key = text;
  unlock?.();
  unlock = unlocked = null;
}

/** Resolves when another key is used. */
export function anotherKey() {
  unlocked ??= new Promise((resolve) => {
    unlock = resolve;
  });
  return unlocked;
}

/** Have `listener` told when the server asks for a key, or for another, in its words. */
export function onRefused(listener) {
  refused = listener;
}

/** The server's time, in Unix seconds. */
export const now = () => (Date.now() + ahead) / 1000;

function setClock(response) {
  const told = Date.parse(response.headers.get("date") ?? "");
  // The header is of whole seconds: smaller differences say nothing.
  if (!Number.isNaN(told) && Math.abs(told - Date.now() - ahead) > 2000) ahead = told - Date.now();
}

/**
 * A response that is no refusal; 304 is none, nor is what `accept` names.
 *
 * @param {string} path on this server
 * @param {{method?: string, body?: *, headers?: Object, signal?: AbortSignal, accept?: number}} options
 * @throws {ApiError} the server refuses, or cannot be reached
 */
export async function send(path, { method = "GET", body, headers = {}, signal, accept } = {}) {
  const sent = { ...headers };
  if (key) sent.authorization = `Bearer ${key}`;
  if (body !== undefined) sent["content-type"] = "application/json";
  const used = key;
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached; it may be restarting.");
  }
  setClock(response);
  if (response.ok || response.status === 304 || response.status === accept) return response;
  const said = (await response.json().catch(() => null))?.error ?? {};
  const error = new ApiError(
    response.status,
    said.message ?? `The server answered ${response.status}.`,
    said.code,
    Number(response.headers.get("retry-after")) || 0,
  );
  // An answer to an older key says nothing of the present one.
  if (error.status === 401 && used === key) refused(error);
  throw error;
}

/** The decoded answer to a request; see `send`. */
export async function ask(path, options) {
  return (await send(path, options)).json();
}

/** The path of a session, or of something of it. */
export const sessionPath = (id, rest = "") => `/v1/sessions/${encodeURIComponent(id)}${rest}`;
