/* Which colour an answer has: the same one wherever it is seen. */

const TONES = 8;

/** A query's answer as the number of a tone: by place among its choices, by its text otherwise. */
export function toneOf(query, value) {
  const place = query.choices?.indexOf(value) ?? -1;
  if (place >= 0) return place % TONES;
  let hash = 0;
  for (const letter of value) hash = (31 * hash + letter.codePointAt(0)) >>> 0;
  return hash % TONES;
}
