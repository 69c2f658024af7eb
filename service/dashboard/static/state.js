/* What the page knows, and who draws it. Whoever changes it says so; views are drawn together, a few times a second. */

const FRAME = 80;

export const state = {
  /** `/health`; null while the server cannot be reached, undefined until it was tried. */
  health: undefined,
  /** Tokens read per second, one figure per look at `/health`, oldest first. */
  reading: [],
  model: "",
  /** Sessions as `/v1/sessions` lists them; null until it has. */
  sessions: null,
  /** Ids of those among them that speak the old generation's shapes. */
  old: new Set(),
  /** Whether a key is missing. */
  locked: false,
  /** The session that is watched, as `blank` makes it; null for none. */
  watched: null,
};

/** What is known of a session before anything is. */
export const blank = (id) => ({
  id,
  /** Of its event stream: `connecting`, `live`, `waiting`, `locked`, `gone`. */
  link: "connecting",
  /** Times that it came back, and whether it went on after the last event then. */
  returns: 0,
  resumed: null,
  version: 0,
  /** As the server lists them, each with `history`: its answers, oldest first. */
  queries: null,
  /** The newest entries, oldest first. */
  entries: [],
  stats: null,
});

const views = [];
let due = false;

/** Have a function draw what it shows, now and whenever something has changed. */
export function show(...drawn) {
  views.push(...drawn);
  changed();
}

/** Something has changed. */
export function changed() {
  if (due) return;
  due = true;
  setTimeout(() => requestAnimationFrame(draw), FRAME);
}

function draw() {
  due = false;
  for (const view of views) view(state);
}

/** The watched session as the server lists it; null if it does not. */
export const listed = () => state.sessions?.find((session) => session.id === state.watched?.id) ?? null;
