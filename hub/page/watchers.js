/**
 * Who watches, for operators: each connection with its lag, rate and what is unsent, the worst first.
 *
 * Owns: the dialog and when the hub is asked while it is open. Decides nothing: the order is the hub's.
 */

import { fetchWatchers } from "./api.js";
import { byId, element, setAttribute, setText } from "./dom.js";
import { durationText, numberText, valueText } from "./format.js";

const EVERY_MS = 2000;
/** Ten thousand watchers take the hub some 100 ms: never more than a twentieth of its time. */
const PAUSE_PER_COST = 20;
/** What was not answered by then is not going to be: the line is dead. */
const ANSWER_MS = 15_000;
/** Rows in the document, of however many watchers; those that are not shown keep up better. */
const MOST_ROWS = 100;
/** @type {Record<string, string>} */
const TRANSPORTS = { websocket: "WebSocket", sse: "event stream", poll: "long poll", "socket.io": "Socket.IO" };

/** @typedef {import("./api.js").WatcherAnswer} WatcherAnswer */

export class Watchers {
  constructor() {
    this._dialog = /** @type {HTMLDialogElement} */ (byId("watchers"));
    this._timer = 0;
    this._opened = 0;
    byId("open-watchers").addEventListener("click", () => this.open());
    byId("close-watchers").addEventListener("click", () => this._dialog.close());
    this._dialog.addEventListener("close", () => {
      this._opened++;
      window.clearTimeout(this._timer);
    });
  }

  /** Offer it to whoever the hub answers: an operator of everything. @param {import("./sign-in.js").Me} me */
  allow({ scopes }) {
    byId("open-watchers").hidden = !scopes.command?.some((pattern) => /^\*+(\/\*+)?$/.test(pattern));
  }

  open() {
    if (this._dialog.open) return;
    this._opened++;
    this._dialog.showModal();
    this._ask();
  }

  async _ask() {
    const [opened, begun] = [this._opened, performance.now()];
    try {
      const answer = await fetchWatchers(MOST_ROWS, AbortSignal.timeout(ANSWER_MS));
      if (opened === this._opened) this._show(answer);
    } catch (error) {
      if (opened === this._opened) setText(byId("watchers-note"), wordsOf(error));
    }
    if (opened !== this._opened) return;
    const pause = Math.max(document.hidden ? EVERY_MS * 4 : EVERY_MS, (performance.now() - begun) * PAUSE_PER_COST);
    this._timer = window.setTimeout(() => this._ask(), pause);
  }

  /** @param {import("./api.js").WatchersAnswer} answer */
  _show({ count, behind, unsent_bytes, watchers }) {
    const rows = byId("watchers-rows");
    while (rows.childElementCount > watchers.length) rows.lastElementChild?.remove();
    watchers.forEach((watcher, at) => {
      const row = rows.children[at] ?? rows.appendChild(element("tr", {}, ...cellsOf(watcher).map(() => element("td"))));
      cellsOf(watcher).forEach((text, place) => setText(row.children[place], text));
      setAttribute(row, "data-tone", lagOf(watcher).frames ? "warn" : "ok");
    });
    const left = count - watchers.length;
    const words = [`${count.toLocaleString()} watching`, `${behind.toLocaleString()} behind`, `${bytesText(unsent_bytes)} unsent`];
    if (left > 0) words.push(`${left.toLocaleString()} more that keep up better, or: hub watchers --limit ${count}`);
    setText(byId("watchers-note"), words.join(" · "));
  }
}

/** @param {WatcherAnswer} watcher @returns {string[]} who, transport, from, lag, rate, conflated, unsent */
function cellsOf(watcher) {
  const { frames, seconds } = lagOf(watcher);
  const rate = watcher.subscriptions.reduce((sum, one) => sum + one.messages_per_s, 0);
  const replaced = watcher.subscriptions.map((one) => one.conflated).filter((one) => one !== null);
  return [
    `${watcher.identity} · ${watcher.name}`,
    TRANSPORTS[watcher.transport] ?? watcher.transport,
    watcher.peer,
    frames ? `◐ ${frames.toLocaleString()} frames · ${durationText(seconds)}` : "● live",
    `${numberText(rate, rate < 10 ? 1 : 0)} /s`,
    replaced.length ? replaced.reduce((sum, one) => sum + one, 0).toLocaleString() : "–",
    bytesText(watcher.unsent_bytes),
  ];
}

/** The worst of its subscriptions. @param {WatcherAnswer} watcher */
function lagOf({ subscriptions }) {
  return {
    frames: Math.max(0, ...subscriptions.map((one) => one.behind)),
    seconds: Math.max(0, ...subscriptions.map((one) => one.behind_s)),
  };
}

/** @param {number} bytes */
function bytesText(bytes) {
  const { text, unit } = valueText(bytes, { unit: "By", unit_shown: "B", type: "int" }, 1);
  return `${text} ${unit}`;
}

/** @param {unknown} error */
function wordsOf(error) {
  return error instanceof Error && error.name !== "TimeoutError" && error.name !== "TypeError" ? error.message : "The hub does not answer; it is asked again.";
}
