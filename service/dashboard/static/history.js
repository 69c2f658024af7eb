/* What every question was answered, version by version: a strip of runs of equal answers each, and the changes. */

import { at, list, make, mark, reveal, say } from "./dom.js";
import { clock, decimals, plural, short } from "./format.js";
import { toneOf } from "./tones.js";

const RUNS = 60;
const CHANGES = 40;

/** Runs of equal answers, oldest first: first and last answer, and how many there are. */
function runsOf(answers) {
  const runs = [];
  for (const answer of answers) {
    const last = runs.at(-1);
    if (last && last.value === answer.value) {
      last.last = answer;
      last.answers += 1;
    } else {
      runs.push({ value: answer.value, first: answer, last: answer, answers: 1 });
    }
  }
  return runs.slice(-RUNS);
}

export function history({ watched }) {
  const strips = (watched?.queries ?? []).map((query) => ({ query, runs: runsOf(query.history) }));
  const told = strips.filter(({ runs }) => runs.length > 0);
  reveal(at("no-history"), told.length === 0);
  const ends = told.flatMap(({ runs }) => [runs[0].first, runs.at(-1).last]);
  ends.sort((one, other) => one.data_version - other.data_version);
  say(at("history-from"), ends.length ? instant(ends[0]) : "");
  say(at("history-to"), ends.length ? instant(ends.at(-1)) : "");
  const first = ends[0]?.data_version;
  const span = ends.at(-1)?.data_version - first + 1;
  const keyOf = ({ query }) => `${watched.id} ${query.id} ${query.query}`;
  list(at("strips"), told, keyOf, strip, (element, one) => drawStrip(element, one, first, span));
  drawChanges(told, keyOf);
}

const instant = ({ data_version: version, evaluated_at: time }) => `version ${version}, ${clock(time)}`;

const strip = ({ query }) =>
  make(
    "li",
    {},
    make("span", { class: "question" }, query.query),
    make("div", { class: "strip", role: "img" }),
    svg("svg", { class: "gaps", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" }),
  );

function drawStrip(element, { query, runs }, first, span) {
  const [, bar, gaps] = element.children;
  mark(bar, "aria-label", `${query.query}: now ${short(runs.at(-1).value)}, ${plural(runs.length - 1, "change")}`);
  const pieces = [{ key: "before", versions: runs[0].first.data_version - first, run: null }];
  runs.forEach((run, index) => {
    const next = runs[index + 1]?.first.data_version ?? first + span;
    pieces.push({ key: run.first.data_version, versions: next - run.first.data_version, run });
  });
  list(bar, pieces, (piece) => piece.key, () => make("span"), (piece, { versions, run }) => {
    piece.style.flexGrow = versions;
    mark(piece, "data-tone", run ? toneOf(query, run.value) : null);
    say(piece, run ? short(run.value) : "");
    mark(piece, "title", run && `${short(run.value)}: ${plural(run.answers, "answer")} from ${instant(run.first)}`);
  });
  drawGaps(gaps, query.history, first, span);
}

const svg = (tag, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

/** How sure every answer was, as a line. */
function drawGaps(element, answers, first, span) {
  const most = Math.max(1, ...answers.map((answer) => answer.confidence));
  const points = answers.map(({ data_version: version, confidence }) => {
    const x = (100 * (version - first + 0.5)) / span;
    return `${x.toFixed(2)},${(19 - (18 * Math.max(0, confidence)) / most).toFixed(2)}`;
  });
  if (!element.firstChild) element.append(svg("polyline", { points: "" }));
  mark(element.firstChild, "points", points.join(" "));
}

function drawChanges(told, keyOf) {
  const changes = told.flatMap(({ query, runs }) =>
    runs.slice(1).map((run, index) => {
      const key = `${keyOf({ query })} ${run.first.data_version}`;
      return { key, query, before: runs[index].value, run };
    }),
  );
  changes.sort((one, other) => other.run.first.data_version - one.run.first.data_version);
  reveal(at("no-changes"), changes.length === 0);
  list(at("changes"), changes.slice(0, CHANGES), (change) => change.key, changeRow, () => {});
}

const changeRow = ({ query, before, run }) =>
  make(
    "tr",
    {},
    make("td", { class: "number" }, clock(run.first.evaluated_at)),
    make("td", { class: "number" }, String(run.first.data_version)),
    make("td", {}, query.query),
    make("td", {}, short(before)),
    make("td", {}, short(run.value)),
    make("td", { class: "number" }, decimals(run.first.confidence)),
  );
