/**
 * Commands as people read them, and giving one exactly once.
 *
 * Owns: the id of a command, made before it is first sent, so that sending it again is still the same command; the words
 * for what became of it. Decides nothing: who may, and what a device takes, is the hub's answer.
 */

import { giveCommand, HttpError } from "./api.js";

/** A hub that restarts is back within this; after it a person should look before trying again. */
const GIVE_FOR_MS = 30_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 5000;
/** Characters of a value or a reason in a list; `hub commands show` has all of it. */
const MOST_CHARS = 300;

/**
 * @typedef {{match: string, name: string, args: Record<string, unknown>, timeout?: string, queue?: boolean, expires?: string}} Order
 */

/** @type {Record<string, {glyph: string, word: string, more: string, tone: string}>} */
const OUTCOMES = {
  queued: { glyph: "◌", word: "waiting", more: "sent when the device connects", tone: "open" },
  sent: { glyph: "◌", word: "sent", more: "no answer yet", tone: "open" },
  done: { glyph: "●", word: "done", more: "", tone: "ok" },
  failed: { glyph: "▲", word: "failed", more: "", tone: "crit" },
  timed_out: { glyph: "◐", word: "timed out", more: "it may or may not have taken effect; look at the device", tone: "warn" },
  expired: { glyph: "○", word: "expired", more: "it did not take effect, and will not", tone: "off" },
  refused: { glyph: "▲", word: "refused", more: "", tone: "crit" },
  cancelled: { glyph: "○", word: "cancelled", more: "one that was sent before may still take effect", tone: "off" },
};

/** @param {string} state @returns {{glyph: string, word: string, more: string, tone: string}} */
export function outcomeOf(state) {
  return OUTCOMES[state] ?? { glyph: "○", word: state, more: "", tone: "off" };
}

/** @param {string} state @returns {boolean} whether a device may still answer */
export function isOpen(state) {
  return state === "queued" || state === "sent";
}

/** @param {import("./api.js").DeviceResult} result @returns {string} its value or its reason, with what that means */
export function detailOf({ state, value, error }) {
  if (error) return shortText(error);
  return value === null || value === undefined ? outcomeOf(state).more : `→ ${jsonText(value)}`;
}

/** @param {unknown} value @returns {string} */
export function jsonText(value) {
  return shortText(typeof value === "string" ? value : JSON.stringify(value));
}

/** @param {Record<string, unknown>} args @returns {string} "speed=3 mode=full" */
export function argsText(args) {
  return shortText(Object.entries(args).map(([name, value]) => `${name}=${jsonText(value)}`).join(" "));
}

/** @param {string} text */
function shortText(text) {
  return text.length > MOST_CHARS ? `${text.slice(0, MOST_CHARS)}…` : text;
}

/**
 * Give a command; while the hub does not answer it is sent again, as the same command.
 *
 * @param {Order} order
 * @returns {Promise<import("./api.js").CommandAnswer>}
 * @throws {Error} in words for the person: it was not given and why, or nobody knows whether it was
 */
export async function giveOnce(order) {
  const body = { ...order, id: newId() };
  const end = performance.now() + GIVE_FOR_MS;
  let isKnown = true;
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    try {
      return await giveCommand(body);
    } catch (error) {
      const why = error instanceof HttpError ? error.message : "the hub did not answer";
      const isRefused = error instanceof HttpError && error.status < 500;
      if (isRefused && isKnown) throw new Error(`${order.name} was not given: ${why}`);
      // What is refused now may have been taken before, when its answer was lost.
      isKnown = false;
      if (isRefused || performance.now() + pause > end) {
        throw new Error(`It is not known whether the hub has ${order.name}: ${why}. Look at the last commands (hub commands ls) before you send it again`);
      }
    }
    await new Promise((done) => window.setTimeout(done, pause));
  }
}

/** `crypto.randomUUID` is not there over plain HTTP. */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
