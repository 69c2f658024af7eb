/* How figures read. */

const whole = new Intl.NumberFormat("en");
const plain = new Intl.NumberFormat("en", { maximumSignificantDigits: 7 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const two = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

const LONGEST = 400;

/** The beginning of a text. */
export const short = (text) => (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);

/** A number as it is; anything else as text. */
export function figure(value) {
  if (typeof value === "number") return (Number.isInteger(value) ? whole : plain).format(value);
  if (value === null || value === undefined) return "–";
  return short(typeof value === "object" ? JSON.stringify(value) : String(value));
}

/** A count, short: 1.2K. */
export const count = (value) => compact.format(value);

/** With two decimals. */
export const decimals = (value) => two.format(value);

/** A share of 1, in whole percents. */
export const percent = (share) => (share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`);

export const plural = (number, one, many = `${one}s`) => `${figure(number)} ${number === 1 ? one : many}`;

/** How long that is, in its largest unit. */
export function duration(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

const digits = (number) => String(number).padStart(2, "0");

/** The time of day of Unix seconds, here. */
export function clock(seconds) {
  const date = new Date(1000 * seconds);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map(digits).join(":");
}

/** Date and time of Unix seconds, here, as far as they say something. */
export function moment(seconds) {
  const date = new Date(1000 * seconds);
  if (Number.isNaN(date.getTime())) return String(seconds);
  const day = [date.getFullYear(), date.getMonth() + 1, date.getDate()].map(digits).join("-");
  return `${day} ${digits(date.getHours())}:${digits(date.getMinutes())}`;
}
