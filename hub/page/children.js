/**
 * Devices that wait behind a gateway, for admins: accept or ignore, with a button each.
 *
 * Owns: the button that says how many wait, and the dialog. Decides nothing: what the hub refuses is said in its words.
 */

import { fetchWaiting, HttpError, post } from "./api.js";
import { byId, element, setText } from "./dom.js";

// A device that waits asks again each 5 s; nobody looks so often, and the answer is short.
const EVERY_MS = 5000;
/** What was not answered by then is not going to be: the line is dead. */
const ANSWER_MS = 15_000;
/** A hundred wait behind each gateway at most; of hundreds of gateways a person decides over these first. */
const MOST_ROWS = 100;

/** @typedef {import("./api.js").ChildAnswer} ChildAnswer */

export class Children {
  constructor() {
    this._dialog = /** @type {HTMLDialogElement} */ (byId("children"));
    this._button = byId("open-children");
    /** @type {ChildAnswer[]} */
    this._waiting = [];
    /** Rows by gateway and device. @type {Map<string, HTMLElement>} */
    this._rows = new Map();
    this._looks = 0;
    this._button.addEventListener("click", () => this._open());
    byId("close-children").addEventListener("click", () => this._dialog.close());
    this._dialog.addEventListener("close", () => this._look());
  }

  /** Look from now on; for whoever may decide. */
  async begin() {
    if (!document.hidden) await this._look();
    window.setTimeout(() => this.begin(), EVERY_MS);
  }

  _open() {
    if (this._dialog.open) return;
    setText(byId("children-note"), "");
    // Begun anew, the newest first.
    this._rows.clear();
    byId("children-rows").replaceChildren();
    this._dialog.showModal();
    this._render();
  }

  async _look() {
    const look = ++this._looks;
    const limit = new AbortController();
    const timer = window.setTimeout(() => limit.abort(), ANSWER_MS);
    const answer = await fetchWaiting(limit.signal).catch(() => null);
    window.clearTimeout(timer);
    // One that was asked later knows more.
    if (!answer || look !== this._looks) return;
    this._waiting = answer.children;
    setText(this._button, `${this._waiting.length.toLocaleString()} waiting`);
    this._button.hidden = this._waiting.length === 0;
    if (this._dialog.open) this._render();
  }

  /** Rows stay where they are and new ones come below: a button must not move, or vanish, under the finger. */
  _render() {
    const waiting = new Map(this._waiting.map((child) => [JSON.stringify([child.gateway, child.device]), child]));
    for (const [key, row] of this._rows) {
      if (waiting.has(key)) continue;
      // Not to the next button: a key that is held down would decide over the next device.
      if (row.contains(document.activeElement)) byId("children-table").focus();
      row.remove();
      this._rows.delete(key);
    }
    for (const [key, child] of waiting) {
      if (this._rows.size >= MOST_ROWS) break;
      if (this._rows.has(key)) continue;
      const row = this._rowOf(child);
      this._rows.set(key, row);
      byId("children-rows").append(row);
    }
    const left = waiting.size - this._rows.size;
    byId("children-more").hidden = left === 0;
    setText(byId("children-more"), `${left.toLocaleString()} more; decide over these first, or: hub children list --state pending`);
    if (!waiting.size && !byId("children-note").textContent) setText(byId("children-note"), "No device waits");
  }

  /** @param {ChildAnswer} child */
  _rowOf(child) {
    const time = new Date(Number(BigInt(child.first_ns) / 1_000_000n));
    const acts = element("td", {}, this._act(child, "Accept", "accepted"), " ", this._act(child, "Ignore", "ignored"));
    const cells = [child.device, child.gateway, time.toLocaleString()].map((text) => element("td", {}, text));
    return element("tr", {}, ...cells, acts);
  }

  /** @param {ChildAnswer} child @param {string} word @param {string} state */
  _act(child, word, state) {
    const button = element("button", { type: "button", "aria-label": `${word} ${child.device}` }, word);
    const path = `/v1/gateways/${encodeURIComponent(child.gateway)}/children/${encodeURIComponent(child.device)}`;
    let isBusy = false;
    button.addEventListener("click", async () => {
      if (isBusy) return;
      // Not `disabled`: that would take the focus away from who presses it by keyboard.
      isBusy = true;
      try {
        await post(path, { state });
        setText(byId("children-note"), `${child.device} is ${state}`);
      } catch (error) {
        setText(byId("children-note"), error instanceof HttpError ? error.message : "The hub does not answer; try again.");
      }
      isBusy = false;
      await this._look();
    });
    return button;
  }
}
