/* Entries to try a session with: each goes on from the one before. */

const round = (value, digits = 2) => Number(value.toFixed(digits));
const step = (size) => size * (Math.random() - 0.5);
const near = (value, size, digits) => round(value + step(size), digits);

const MAKERS = {
  ohlcv: ({ c = 100, sym = "ACME" }) => {
    // A hundredth of the price and five figures of it: prices are of any size.
    const size = Math.abs(c) / 100 || 1;
    const digits = Math.min(12, Math.max(0, 4 - Math.floor(Math.log10(Math.abs(c) || 1))));
    const close = near(c, size, digits);
    const high = round(Math.max(c, close) + size * Math.random(), digits);
    const low = round(Math.min(c, close) - size * Math.random(), digits);
    return { o: c, h: high, l: low, c: close, v: Math.round(500 + 1000 * Math.random()), sym };
  },
  iot: ({ sid = "temp-01", val = 72, lo = 60, hi = 85 }) => ({ sid, val: near(val, 4), lo, hi }),
  spatial: ({ x = 0, y = 0, z = 0, hdg = 90 }) => ({
    x: near(x + 2, 1),
    y: near(y, 1),
    z,
    spd: round(4 + Math.random()),
    hdg: Math.round(Math.abs(hdg + step(10))) % 360,
  }),
  event: () => ({ src: "fw-01", sev: 1 + Math.floor(5 * Math.random()), cat: "login_failed", cnt: 1 }),
  vitals: ({ hr = 72, temp = 36.8 }) => ({
    hr: Math.round(hr + step(6)),
    bp_s: Math.round(120 + step(10)),
    bp_d: Math.round(80 + step(8)),
    spo2: Math.round(97 + step(3)),
    temp: near(temp, 0.2, 1),
  }),
};

/**
 * What might be pushed next, as one types it.
 *
 * @param {string} type of the session
 * @param {Array<{entry: *}>} entries so far
 */
export function sample(type, entries) {
  const last = entries.at(-1)?.entry;
  const before = typeof last === "object" ? last : {};
  if (MAKERS[type]) return JSON.stringify(stamped(MAKERS[type](before), before));
  if (Object.keys(before).length) return JSON.stringify(before);
  return type === "text" ? `boiler ${round(70 + step(20), 1)}` : "{}";
}

/** With the next timestamp, where there are timestamps or nothing yet. */
function stamped(entry, { timestamp, ...rest }) {
  if (Number.isFinite(timestamp)) return { ...entry, timestamp: timestamp + 60 };
  return Object.keys(rest).length ? entry : { ...entry, timestamp: Math.floor(Date.now() / 1000) };
}

/**
 * What was typed, as `push` takes it. Throws a SyntaxError where it is no JSON and has to be.
 *
 * @param {string} type of the session
 * @param {string} text an object or a list of them; raw text is an entry per line
 */
export function parsed(type, text) {
  if (type !== "text") return JSON.parse(text);
  return text.split("\n").filter((line) => line.trim());
}
