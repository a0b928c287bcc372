/**
 * Devices that wait behind a gateway, for admins: accept or ignore, with a button each.
 *
 * Owns: the button that says how many wait, and the dialog. Decides nothing: what the hub refuses is said in its words.
 */

import { fetchWaiting, post } from "./api.js";
import { byId, element, setText } from "./dom.js";

// A device that waits asks again each 5 s; nobody looks so often, and the answer is short.
const EVERY_MS = 5000;

export class Children {
  constructor() {
    this._dialog = /** @type {HTMLDialogElement} */ (byId("children"));
    this._button = byId("open-children");
    this._shown = "";
    this._button.addEventListener("click", () => this._open());
    byId("close-children").addEventListener("click", () => this._dialog.close());
    this._dialog.addEventListener("close", () => this._look());
  }

  /** Look from now on; for whoever may decide. */
  begin() {
    this._look();
    setInterval(() => document.hidden || this._look(), EVERY_MS);
  }

  _open() {
    setText(byId("children-note"), "");
    if (!this._dialog.open) this._dialog.showModal();
  }

  async _look() {
    const answer = await fetchWaiting().catch(() => null);
    if (answer) this._show(answer.children);
  }

  /** @param {import("./api.js").ChildAnswer[]} children */
  _show(children) {
    setText(this._button, `${children.length} waiting`);
    this._button.hidden = children.length === 0;
    // Rows that are the same stay: a button must not vanish under the finger.
    const shown = JSON.stringify(children.map((child) => [child.gateway, child.device]));
    if (shown === this._shown) return;
    this._shown = shown;
    const rows = children.map((child) => this._rowOf(child));
    byId("children-rows").replaceChildren(...rows);
    if (!children.length) setText(byId("children-note"), "No device waits");
  }

  /** @param {import("./api.js").ChildAnswer} child */
  _rowOf(child) {
    const time = new Date(Number(BigInt(child.first_ns) / 1_000_000n));
    const acts = element("td", {}, this._act(child, "Accept", "accepted"), " ", this._act(child, "Ignore", "ignored"));
    const cells = [child.device, child.gateway, time.toLocaleString()].map((text) => element("td", {}, text));
    return element("tr", {}, ...cells, acts);
  }

  /** @param {import("./api.js").ChildAnswer} child @param {string} word @param {string} state */
  _act(child, word, state) {
    const button = element("button", { type: "button", "aria-label": `${word} ${child.device}` }, word);
    const path = `/v1/gateways/${encodeURIComponent(child.gateway)}/children/${encodeURIComponent(child.device)}`;
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await post(path, { state });
        setText(byId("children-note"), `${child.device} is ${state}`);
      } catch (error) {
        setText(byId("children-note"), error instanceof Error ? error.message : "no answer");
      }
      button.disabled = false;
      await this._look();
    });
    return button;
  }
}
