/** Numbers that a browser cannot hold: said, instead of sent as another one. */

/** Thrown for a number that would become another one. */
export class InexactError extends Error {}

/** @param {string} text @returns {number} @throws {InexactError} */
export function exactNumber(text) {
  return checked(Number(text));
}

/** @param {string} text @returns {unknown} what JSON it is @throws {SyntaxError} none @throws {InexactError} */
export function exactJson(text) {
  return JSON.parse(text, (_, value) => (typeof value === "number" ? checked(value) : value));
}

/** @param {number} value */
function checked(value) {
  if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value))) {
    throw new InexactError("A browser cannot hold this number exactly; use the command line: hub command, hub state set");
  }
  return value;
}
