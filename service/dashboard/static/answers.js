/* Standing questions and their answers: value, how sure, how old, how fresh. */

import { now } from "./api.js";
import { at, list, make, mark, reveal, say } from "./dom.js";
import { decimals, duration, figure, percent, short } from "./format.js";
import { toneOf } from "./tones.js";

// A gap of this many nats fills the bar: e to that power to one.
const SURE = 8;

/**
 * Draws the cards.
 *
 * @param {function(Object): void} remove called with the query that is to be deleted
 */
export function answers(remove) {
  return ({ watched }) => {
    const queries = watched?.queries ?? null;
    reveal(at("no-queries"), queries !== null && queries.length === 0);
    const keyOf = (query) => `${watched.id} ${query.id} ${query.query}`;
    list(at("queries"), queries ?? [], keyOf, (query) => card(query, remove), (element, query) =>
      update(element, query, watched.version),
    );
  };
}

function card(query, remove) {
  const title = `query-${query.id}`;
  return make(
    "article",
    { class: "card query", "aria-labelledby": title },
    make(
      "header",
      {},
      make("h3", { id: title }, query.query),
      make(
        "button",
        { class: "quiet", type: "button", click: () => remove(query), "aria-label": `Delete ${query.query}` },
        "×",
      ),
    ),
    make("p", { class: "value" }),
    make("ul", { class: "choices", "aria-label": "Likelihood among the choices" }),
    make("p", { class: "mass soft" }),
    make(
      "dl",
      { class: "figures" },
      make("div", {}, make("dt", {}, "Confidence"), make("dd", { class: "confidence" })),
      make("div", {}, make("dt", {}, "Version"), make("dd", { class: "version" })),
      make("div", {}, make("dt", {}, "Age"), make("dd", { class: "age" })),
      make("div", {}, make("dt", {}, "State"), make("dd", { class: "freshness" })),
    ),
    make("progress", { max: SURE, value: 0, "aria-label": "Confidence, in nats" }),
  );
}

function update(element, query, version) {
  const part = (name) => element.querySelector(name);
  const answered = query.value !== undefined;
  say(part(".value"), answered ? short(query.value) || "(empty)" : "no answer yet");
  mark(part(".value"), "data-tone", answered ? toneOf(query, query.value) : null);
  say(part(".confidence"), answered ? `${decimals(query.confidence)} nats` : "–");
  say(part(".version"), answered ? query.data_version : "–");
  say(part(".age"), answered ? duration(now() - query.evaluated_at) : "–");
  const [words, tone] = freshness(query, version);
  say(part(".freshness"), words);
  mark(part(".freshness"), "data-tone", tone);
  part("progress").value = answered ? Math.min(SURE, query.confidence) : 0;
  const likely = query.probabilities ?? {};
  const total = Object.values(likely).reduce((sum, one) => sum + one, 0);
  const choices = (query.choices ?? Object.keys(likely)).map((choice) => [choice, total && likely[choice] / total]);
  reveal(part(".mass"), choices.length > 0);
  say(part(".mass"), query.mass === undefined ? "" : `together ${percent(query.mass)} of the model's belief`);
  reveal(part(".choices"), choices.length > 0);
  list(part(".choices"), choices, ([choice]) => choice, choiceRow, (row, [choice, share]) => {
    say(row.children[0], choice);
    say(row.children[1], percent(share));
    row.children[2].value = share;
    mark(row, "data-chosen", choice === query.value ? "" : null);
  });
}

const choiceRow = ([choice]) =>
  make(
    "li",
    {},
    make("span", { title: choice }),
    make("span", { class: "number" }),
    make("progress", { max: 1, value: 0, "aria-label": choice }),
  );

function freshness(query, version) {
  if (query.data_version === undefined) return [version ? "not yet" : "no data", "fair"];
  const behind = version - query.data_version;
  return behind > 0 ? [`${figure(behind)} behind`, "fair"] : ["fresh", "good"];
}
