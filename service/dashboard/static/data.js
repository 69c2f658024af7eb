/* What comes in: the chart, its legend, the statistics, and the newest entries as a table. */

import { Chart } from "./chart.js";
import { at, list, make, mark, reveal, say } from "./dom.js";
import { clock, figure, plural } from "./format.js";
import { drawing, label, readout } from "./series.js";

const ROWS = 30;

/** Keeps what the viewer has chosen: a symbol, hidden lines, the place pointed at. */
class Data {
  constructor() {
    this.chart = new Chart(at("chart"), (place) => {
      this.place = place;
      this.sayReadout();
    });
    this.place = null;
    this.symbol = null;
    this.hidden = new Set();
    this.drawn = null;
    this.id = null;
  }

  show = ({ watched }) => {
    if (!watched || watched.stats === null) return;
    if (watched.id !== this.id) {
      Object.assign(this, { id: watched.id, symbol: null, hidden: new Set() });
    }
    // Nothing else changes what is drawn, and ages do so every second.
    if (watched.entries === this.drawn) return;
    this.drawn = watched.entries;
    this.entries = watched.entries;
    this.type = watched.stats.type;
    this.draw();
    showStats(watched.stats);
    showRows(this.type, this.entries);
  };

  draw() {
    const model = (this.model = drawing(this.type, this.entries));
    this.chosen = Math.max(0, this.symbol === null ? model.names.length - 1 : model.names.indexOf(this.symbol));
    this.chart.draw(model, this.chosen, this.hidden);
    say(at("chart-note"), model.note);
    const newest = plural(this.entries.length, "entry", "entries");
    const kind = model.kind === "candles" ? "Candles" : "Lines";
    mark(at("chart"), "aria-label", `${kind} of the newest ${newest}. ${this.newest()}`);
    this.sayReadout();
    this.showLegend();
  }

  newest() {
    const length = this.model.kind === "candles" ? this.model.columns[this.chosen]?.length : this.model.labels.length;
    return length ? readout(this.model, this.chosen, length - 1) : "";
  }

  sayReadout() {
    if (!this.model) return;
    say(at("readout"), (this.place !== null && readout(this.model, this.chosen, this.place)) || this.newest());
  }

  showLegend() {
    const { kind, names } = this.model;
    const shown = names.length > 1 ? names : [];
    list(at("legend"), shown, (name) => `${kind} ${name}`, legendItem, (item, name) => {
      const button = item.firstElementChild;
      const pressed = kind === "candles" ? names[this.chosen] === name : !this.hidden.has(name);
      say(button, name || "no symbol");
      mark(button, "aria-pressed", String(pressed));
      mark(button, "data-line", kind === "candles" ? null : names.indexOf(name));
      button.onclick = () => this.pick(name);
    });
  }

  pick(name) {
    if (this.model.kind === "candles") this.symbol = name;
    else if (!this.hidden.delete(name)) this.hidden.add(name);
    this.draw();
  }
}

const legendItem = () => make("li", {}, make("button", { type: "button" }));

export const data = () => new Data().show;

/** Statistics are flat but for a level or two; the rest reads as JSON. */
function showStats({ type, fields, ...stats }) {
  const own = Object.entries(fields ?? {}).flatMap(([name, { last, avg }]) => [
    [`${name}, last`, last],
    [`${name}, average`, avg],
  ]);
  const flat = Object.entries(stats).flatMap(([name, value]) =>
    isObject(value) ? Object.entries(value) : [[name, value]],
  );
  list(at("stats"), [...flat, ...own], ([name]) => name, stat, (element, [, value]) => {
    say(element.lastElementChild, figure(value));
  });
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

const stat = ([name]) => make("div", {}, make("dt", {}, name.replaceAll("_", " ")), make("dd"));

function showRows(type, entries) {
  const newest = entries.slice(-ROWS).reverse();
  const names = type === "text" ? ["entry"] : columnsOf(newest);
  list(at("columns"), ["number", "accepted", ...names], (name) => name, column, () => {});
  list(at("entries"), newest, (one) => `${one.number} ${one.accepted_at} ${names}`, (one) => row(one, names), () => {});
  reveal(at("no-entries"), entries.length === 0);
}

const column = (name) => make("th", { scope: "col" }, name);

function columnsOf(entries) {
  const names = new Set();
  for (const { entry } of entries) {
    for (const name of typeof entry === "object" ? Object.keys(entry) : ["text"]) names.add(name);
  }
  return [...names].slice(0, 12);
}

function row(one, names) {
  const { number, accepted_at: accepted, entry } = one;
  const cells = names.map((name) => {
    const value = typeof entry === "object" ? entry[name] : name === "entry" || name === "text" ? entry : undefined;
    const text = name === "timestamp" ? label(one) : figure(value);
    return make("td", { class: typeof value === "number" ? "number" : null }, text);
  });
  const known = [String(number), clock(accepted)].map((text) => make("td", { class: "number" }, text));
  return make("tr", {}, ...known, ...cells);
}
