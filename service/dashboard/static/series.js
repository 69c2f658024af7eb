/* Entries as what can be drawn. No page in here. */

import { figure, moment } from "./format.js";

const LINES = 6;
/** Which fields of a type are drawn at first; of a type of one's own, all that are numbers. */
const FIELDS = {
  spatial: ["x", "y", "z", "spd"],
  event: ["sev", "cnt"],
  vitals: ["hr", "bp_s", "bp_d", "spo2", "temp"],
};
const NUMBERS = /-?\d+(?:\.\d+)?/g;
// The end of a line is enough, and lines may be long.
const LOOKED_AT = 200;
// Beyond it, sums of what is drawn are no numbers any more.
const LARGEST = 1e15;

/**
 * What a session's entries look like.
 *
 * @param {string} type of the session; `text` for raw text
 * @param {Array<{number: number, entry: *}>} entries oldest first
 * @returns {{kind: string, names: string[], labels: string[], columns: Array[], note: string}} `candles`: a name per
 *   symbol, and a list of candles each; `lines`: a name per line, and a value per label each, null where there is none
 */
export function drawing(type, entries) {
  if (type === "text") return ofText(entries);
  const objects = entries.filter(({ entry }) => typeof entry === "object");
  if (type === "ohlcv") return candles(objects);
  if (type === "iot") return sensors(objects);
  return fields(objects, FIELDS[type]);
}

/** A number that can be drawn, null for anything else. */
const drawable = (value) => (Number.isFinite(value) && Math.abs(value) <= LARGEST ? value : null);

/** When or which an entry is. */
export const label = ({ number, entry }) =>
  typeof entry === "object" && Number.isFinite(entry.timestamp) ? moment(entry.timestamp) : `#${number}`;

function candles(entries) {
  const symbols = new Map();
  for (const one of entries) {
    const name = one.entry.sym ?? "";
    if (!symbols.has(name)) symbols.set(name, []);
    const [o, h, l, c, v] = ["o", "h", "l", "c", "v"].map((field) => drawable(one.entry[field]));
    symbols.get(name).push({ o, h, l, c, v, sym: one.entry.sym, label: label(one) });
  }
  const names = [...symbols.keys()];
  return { kind: "candles", names, labels: [], columns: names.map((name) => symbols.get(name)), note: "" };
}

function sensors(entries) {
  const names = [...new Set(entries.map(({ entry }) => entry.sid))].slice(-LINES);
  const columns = names.map((name) => entries.map(({ entry }) => (entry.sid === name ? drawable(entry.val) : null)));
  return { kind: "lines", names, labels: entries.map(label), columns, note: "" };
}

function fields(entries, wanted) {
  const names = wanted ?? numeric(entries);
  const columns = names.map((name) => entries.map(({ entry }) => drawable(entry[name])));
  return { kind: "lines", names, labels: entries.map(label), columns, note: "" };
}

function numeric(entries) {
  const found = new Set();
  for (const { entry } of entries) {
    for (const [name, value] of Object.entries(entry)) {
      if (typeof value === "number" && name !== "timestamp") found.add(name);
    }
  }
  return [...found].slice(0, LINES);
}

function ofText(entries) {
  const values = entries.map(({ entry }) =>
    typeof entry === "string" ? drawable(Number(entry.slice(-LOOKED_AT).match(NUMBERS)?.at(-1))) : null,
  );
  const some = values.some((value) => value !== null);
  return {
    kind: "lines",
    names: some ? ["last number"] : [],
    labels: entries.map(label),
    columns: some ? [values] : [],
    note: some ? "Raw text: the last number in each line." : "Raw text without numbers: nothing to draw.",
  };
}

/** One place of a drawing in words; `chosen` is the symbol of candles. */
export function readout(model, chosen, place) {
  if (model.kind === "candles") {
    const candle = model.columns[chosen]?.[place];
    if (!candle) return "";
    const { o, h, l, c, v } = candle;
    const parts = [candle.label, candle.sym, `open ${figure(o)}`, `high ${figure(h)}`, `low ${figure(l)}`];
    return [...parts, `close ${figure(c)}`, `volume ${figure(v)}`].filter(Boolean).join("  ");
  }
  const values = model.names.map((name, line) => {
    const value = model.columns[line][place];
    return typeof value === "number" && `${name} ${figure(value)}`;
  });
  return [model.labels[place], ...values].filter(Boolean).join("  ");
}
