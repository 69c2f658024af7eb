/* Dialogs: the key, a new session, a new query, and whether something is really to be deleted. */

import { ask, onRefused, sessionPath, useKey } from "./api.js";
import { at, reveal, say } from "./dom.js";
import { address } from "./sessions.js";
import { changed, state } from "./state.js";
import { refresh } from "./watch.js";

/**
 * A dialog whose form does something: it stays open and says why where that fails.
 *
 * @param {string} name of the dialog; its form, `NAME-form`, has an `output` for what goes wrong
 * @param {function(FormData): Promise<void>} act
 */
function asks(name, act) {
  const dialog = at(name);
  const form = at(`${name}-form`);
  const wrong = form.querySelector("output");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("[type=submit]");
    button.disabled = true;
    say(wrong, "");
    try {
      await act(new FormData(form));
      dialog.close();
    } catch (error) {
      say(wrong, error.message);
    } finally {
      button.disabled = false;
    }
  });
  form.querySelector(".cancel").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    form.reset();
    say(wrong, "");
  });
}

const open = (name) => {
  if (!at(name).open) at(name).showModal();
};

/** A form's value, trimmed; undefined for nothing. */
const text = (form, name) => form.get(name).trim() || undefined;
const number = (form, name) => (text(form, name) === undefined ? undefined : Number(text(form, name)));

function choices(form) {
  const found = (text(form, "choices") ?? "").split(",").map((choice) => choice.trim()).filter(Boolean);
  return found.length ? found : undefined;
}

let deletion = async () => {};

/** Ask whether something is to be deleted, and have `act` do so. */
export function confirmDeletion(words, act) {
  deletion = act;
  say(at("confirm-words"), words);
  open("confirm");
}

/** Have the dialogs do what they say. `looked` is called when there may be something new to see. */
export function ready(looked) {
  at("key-button").addEventListener("click", () => open("key"));
  at("unlock").addEventListener("click", () => open("key"));
  at("create-button").addEventListener("click", () => open("create"));
  at("query-button").addEventListener("click", () => {
    // The old generation knows questions only.
    reveal(at("query-options"), !state.old.has(state.watched.id));
    open("query");
  });
  at("delete-button").addEventListener("click", () => {
    const { id } = state.watched;
    confirmDeletion(`Delete session ${id}, its data and its answers?`, async () => {
      await ask(sessionPath(id), { method: "DELETE" });
      looked();
    });
  });
  onRefused((error) => {
    state.locked = true;
    changed();
    open("key");
    say(at("key-form").querySelector("output"), error.message);
  });
  asks("key", async (form) => {
    useKey(form.get("key").trim());
    await ask("/v1/sessions").catch((error) => {
      // A server that is busy or still loading has taken the key.
      if (error.status === 401) throw error;
    });
    state.locked = false;
    looked();
  });
  asks("create", async (form) => {
    const question = text(form, "query");
    const type = text(form, "type");
    const made = await ask("/v1/sessions", {
      method: "POST",
      body: {
        id: text(form, "id"),
        type: type === "text" ? undefined : type,
        system: text(form, "system"),
        window: number(form, "window"),
        flash: question && [{ query: question, choices: choices(form) }],
      },
    });
    looked();
    location.hash = address(made.id);
  });
  asks("query", async (form) => {
    await ask(sessionPath(state.watched.id, "/flash"), {
      method: "POST",
      body: {
        query: text(form, "query"),
        choices: choices(form),
        max_tokens: number(form, "max_tokens"),
        when: text(form, "when"),
      },
    });
    refresh();
  });
  asks("confirm", () => deletion());
}
