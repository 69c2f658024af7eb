/* Everything about the session that is looked at: its events, and what has to be asked for beside them. */

import { ApiError, ask, send, sessionPath } from "./api.js";
import { follow } from "./sse.js";
import { blank, changed, state } from "./state.js";

const ENTRIES = 400;
const ANSWERS = 300;
// However fast data comes, it is looked at this often.
const LOOK = 400;

let ended = new AbortController();

/**
 * Watch a session instead of the one before.
 *
 * @param {string|null} id null for none
 * @param {function(string): void} gone told, in words, when there is nothing to watch any more
 */
export function watch(id, gone) {
  ended.abort();
  ended = new AbortController();
  state.watched = id === null ? null : blank(id);
  changed();
  if (id !== null) new Watch(state.watched, ended.signal, gone).run();
}

/** Look at the watched session's queries again: somebody may have changed them. */
export const refresh = () => current?.queries.soon();

let current = null;

/** Calls a function, at most every so often, and once more when it was wanted meanwhile. */
class Calm {
  constructor(call, signal) {
    this.call = call;
    this.signal = signal;
    this.running = false;
    this.wanted = false;
  }

  async soon() {
    this.wanted = true;
    if (this.running) return;
    this.running = true;
    try {
      while (this.wanted && !this.signal.aborted) {
        this.wanted = false;
        await this.call();
        await new Promise((resolve) => setTimeout(resolve, LOOK));
      }
    } catch (error) {
      // What cannot be had now is asked for again with the next event, or when the connection is back.
      if (!(error instanceof ApiError) && error.name !== "AbortError") throw error;
    } finally {
      this.running = false;
    }
  }
}

class Watch {
  constructor(session, signal, gone) {
    this.session = session;
    this.signal = signal;
    this.gone = gone;
    this.tag = null;
    // Whether entries and histories have to be had whole, and not only what is new.
    this.anew = { entries: true, histories: true };
    this.data = new Calm(() => this.readData(), signal);
    this.queries = new Calm(() => this.readQueries(), signal);
  }

  async run() {
    current = this;
    const path = `/v1/events?session=${encodeURIComponent(this.session.id)}`;
    const refused = await follow(path, this.signal, {
      event: (kind, data) => this.heard(kind, data),
      link: (link) => this.connected(link),
    });
    if (refused && !this.signal.aborted) this.leave(refused.message);
  }

  leave(words) {
    this.session.link = "gone";
    changed();
    this.gone(words);
  }

  connected(link) {
    this.session.link = link;
    changed();
  }

  heard(kind, data) {
    if (this.signal.aborted) return;
    const { session } = this;
    if (kind === "connected") {
      session.version = data.data_version;
      if ("resumed" in data) {
        session.returns += 1;
        session.resumed = data.resumed;
      }
      // What happened meanwhile follows, unless it could not be resumed: then there may be a gap.
      if (!data.resumed) {
        this.anew = { entries: true, histories: true };
        this.tag = null;
      }
      this.data.soon();
      this.queries.soon();
    } else if (kind === "data_updated") {
      // What was missed is told after what things are like now.
      session.version = Math.max(session.version, data.data_version);
      this.data.soon();
    } else if (kind === "flash_ready") {
      this.answered(data);
    } else if (kind === "deleted") {
      this.leave(`Session ${session.id} was deleted.`);
    }
    changed();
  }

  answered(data) {
    const query = this.session.queries?.find((one) => one.id === data.id);
    if (!query) {
      this.queries.soon();
      return;
    }
    if (data.data_version >= (query.data_version ?? 0)) Object.assign(query, answerIn(data));
    remember(query.history, data);
  }

  async readData() {
    const { session, signal } = this;
    const before = this.anew.entries ? [] : session.entries;
    const since = before.at(-1)?.number ?? 0;
    const [read, stats] = await Promise.all([
      ask(sessionPath(session.id, `/entries?limit=${ENTRIES}&since=${since}`), { signal }),
      ask(sessionPath(session.id, "/stats"), { signal }),
    ]);
    session.entries = [...before, ...read.data].slice(-ENTRIES);
    this.anew.entries = false;
    session.stats = stats;
    changed();
  }

  async readQueries() {
    const { session, signal } = this;
    const headers = this.tag ? { "if-none-match": this.tag } : {};
    const response = await send(sessionPath(session.id, "/flash"), { headers, signal });
    if (response.status === 304) return;
    const found = await response.json();
    const before = this.anew.histories ? [] : session.queries;
    const known = new Map(before.map((query) => [query.id, query.history]));
    const listed = (found.data ?? found.flash_queries).map(unified);
    await Promise.all(
      listed.map(async (query) => {
        query.history = known.get(query.id) ?? (await this.readHistory(query));
        if (query.value !== undefined) remember(query.history, query);
      }),
    );
    // An event may have told of a later answer while this was on its way.
    for (const query of listed) Object.assign(query, newest(query));
    session.queries = listed;
    this.anew.histories = false;
    this.tag = response.headers.get("etag");
    changed();
  }

  async readHistory(query) {
    const since = Math.max(0, (query.data_version ?? 0) - ANSWERS);
    const path = sessionPath(this.session.id, `/flash/${query.id}/history?limit=${ANSWERS}&since=${since}`);
    return (await ask(path, { signal: this.signal })).data;
  }
}

/** A query as the present generation lists it, whichever listed it. */
function unified(query) {
  if (query.has_answer !== false) return query;
  const { value, data_version, confidence, evaluated_at, ...rest } = query;
  return rest;
}

const newest = (query) => {
  const last = query.history.at(-1);
  return last && last.data_version > (query.data_version ?? -1) ? { ...last, id: query.id } : {};
};

/** Put an answer into a history, one per version, the last. It may have been missed, and newer ones be there. */
function remember(history, told) {
  const place = history.findLastIndex((answer) => answer.data_version <= told.data_version);
  const again = history[place]?.data_version === told.data_version;
  history.splice(again ? place : place + 1, again ? 1 : 0, answerIn(told));
  if (history.length > ANSWERS) history.shift();
}

const answerIn = ({ value, data_version, confidence, evaluated_at, probabilities, mass }) => ({
  value,
  data_version,
  confidence,
  evaluated_at,
  probabilities,
  mass,
});
