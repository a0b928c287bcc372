/**
 * The fleet dialog: one command to many devices with a result for each, and which devices are not as desired.
 *
 * Owns: the dialog and when the hub is asked while it is open. Lists hold a bounded number of rows whatever the fleet;
 * what is left out is counted, and a press on a count shows only those.
 */

import { cancelCommand, fetchCommand, fetchKinds, fetchStates } from "./api.js";
import { CommandForm } from "./command-form.js";
import { CountedList } from "./counted-list.js";
import { DRIFTS } from "./device-state.js";
import { byId, setText } from "./dom.js";
import { argsText, detailOf, giveOnce, isOpen, outcomeOf } from "./orders.js";

/** A word is looked up when the person has stopped typing. */
const TYPED_MS = 300;
/** Answers come within a second; after that they are looked for less and less often. */
const FIRST_MS = 300;
const LONGEST_MS = 5000;
const STATES_EVERY_MS = 5000;
/** Thousands of results take the hub some 10 ms: never more than a twentieth of its time. */
const PAUSE_PER_COST = 20;

export class FleetView {
  /** @param {(device: string) => void} choose watches a device */
  constructor(choose) {
    this._dialog = /** @type {HTMLDialogElement} */ (byId("fleet"));
    this._selector = /** @type {HTMLInputElement} */ (byId("fleet-selector"));
    this._cancel = byId("fleet-cancel");
    this._mayCommand = false;
    this._timers = { typed: 0, order: 0, states: 0 };
    /** Raised when what is on its way is no longer wanted. */
    this._lookUp = 0;
    this._opened = 0;
    this._id = "";
    this._form = new CommandForm((filled) => this._give(filled));
    byId("fleet-form").append(this._form.root);
    const go = (/** @type {string} */ device) => {
      this._dialog.close();
      choose(device);
    };
    this._results = new CountedList(byId("fleet-results"), outcomeOf, go, (id) => `hub commands show ${id}`);
    this._drifts = new CountedList(byId("fleet-drifts"), (state) => DRIFTS[/** @type {import("./api.js").Drift} */ (state)], go, () => "hub state drift", "in_sync");
    byId("open-fleet").addEventListener("click", () => this.open());
    byId("close-fleet").addEventListener("click", () => this._dialog.close());
    this._cancel.addEventListener("click", () => this._end());
    this._selector.addEventListener("input", () => this._typed());
    this._dialog.addEventListener("close", () => this._closed());
  }

  /** @param {import("./sign-in.js").Me} me */
  allow({ scopes }) {
    this._mayCommand = Boolean(scopes.command?.length);
    byId("fleet-commands").hidden = !this._mayCommand;
    byId("open-fleet").hidden = !scopes.read?.length;
  }

  open() {
    if (this._dialog.open) return;
    this._opened++;
    this._dialog.showModal();
    this._askStates();
    if (this._mayCommand) this._typed();
    if (this._id) this._follow(this._id);
  }

  _closed() {
    this._opened++;
    for (const timer of Object.values(this._timers)) window.clearTimeout(timer);
  }

  _typed() {
    window.clearTimeout(this._timers.typed);
    const lookUp = ++this._lookUp;
    const selector = this._selector.value.trim();
    this._form.root.hidden = true;
    if (!selector) return setText(byId("fleet-fit"), "Names with *, site:NAME, tag:NAME; * alone is all that you may command.");
    this._timers.typed = window.setTimeout(() => this._kinds(selector, lookUp), TYPED_MS);
  }

  /** @param {string} selector @param {number} lookUp */
  async _kinds(selector, lookUp) {
    try {
      const { devices, kinds, more } = await fetchKinds(selector, AbortSignal.timeout(LONGEST_MS * 2));
      if (lookUp !== this._lookUp) return;
      this._chosen = selector;
      this._form.offer(kinds, true);
      this._form.root.hidden = kinds.length === 0;
      setText(this._form.button, `Send to ${countText(devices)}`);
      setText(byId("fleet-fit"), fitText(devices, kinds.length, more));
    } catch (error) {
      if (lookUp === this._lookUp) setText(byId("fleet-fit"), wordsOf(error));
    }
  }

  /** @param {import("./command-form.js").Filled} filled */
  async _give(filled) {
    const match = this._chosen ?? "";
    this._leave();
    this._say(`Sending ${filled.name} to ${match}…`);
    try {
      const answer = await giveOnce({ match, ...filled });
      this._id = answer.id;
      this._show(answer);
      if (this._dialog.open) this._follow(answer.id);
    } catch (error) {
      this._say(wordsOf(error));
    }
  }

  /** From here on nothing is said of the command before, nor can it be cancelled in place of the next. */
  _leave() {
    window.clearTimeout(this._timers.order);
    this._id = "";
    this._cancel.hidden = true;
    this._results.show("", []);
  }

  /** @param {string} id */
  async _follow(id, wait = FIRST_MS) {
    window.clearTimeout(this._timers.order);
    const opened = this._opened;
    const begun = performance.now();
    try {
      const answer = await fetchCommand(id, AbortSignal.timeout(LONGEST_MS * 2));
      if (opened !== this._opened || id !== this._id) return;
      this._show(answer);
      if (!Object.keys(answer.states).some(isOpen)) return;
    } catch {
      // What is shown stays; the next look says more.
    }
    if (opened !== this._opened || id !== this._id) return;
    const pause = Math.max(wait, (performance.now() - begun) * PAUSE_PER_COST);
    this._timers.order = window.setTimeout(() => this._follow(id, Math.min(wait * 1.5, LONGEST_MS)), pause);
  }

  /** @param {import("./api.js").CommandAnswer} answer */
  _show({ id, name, args, states, results }) {
    const open = Object.keys(states).filter(isOpen).reduce((sum, state) => sum + states[state], 0);
    const title = [name, argsText(args)].filter(Boolean).join(" ");
    this._say(`${title}: ${open ? `${countText(open)} of ${results.length.toLocaleString()} have not answered` : `ended at ${countText(results.length)}`}`);
    this._cancel.hidden = open === 0;
    this._results.show(id, results.map((result) => ({ device: result.device, state: result.state, text: () => detailOf(result) })));
  }

  async _end() {
    this._cancel.hidden = true;
    try {
      const answer = await cancelCommand(this._id);
      if (answer.id === this._id) this._show(answer);
    } catch (error) {
      this._say(`Not cancelled: ${wordsOf(error)}`);
    }
  }

  async _askStates() {
    const opened = this._opened;
    const begun = performance.now();
    try {
      const { devices } = await fetchStates(AbortSignal.timeout(LONGEST_MS * 2));
      if (opened !== this._opened) return;
      this._drifts.show("states", devices.map((row) => ({ device: row.device, state: row.drift, text: () => row.differing.join(", ") })));
      setText(byId("fleet-drift-note"), driftText(devices));
    } catch (error) {
      if (opened === this._opened) setText(byId("fleet-drift-note"), wordsOf(error));
    }
    if (opened !== this._opened) return;
    const pause = Math.max(document.hidden ? STATES_EVERY_MS * 4 : STATES_EVERY_MS, (performance.now() - begun) * PAUSE_PER_COST);
    this._timers.states = window.setTimeout(() => this._askStates(), pause);
  }

  /** @param {string} text */
  _say(text) {
    setText(byId("fleet-said"), text);
  }
}

/** @param {import("./api.js").StateRow[]} devices */
function driftText(devices) {
  if (!devices.length) return "No devices yet.";
  return devices.some(({ drift }) => drift !== "in_sync") ? "Listed are those that are not; the keys that differ are named." : "All devices are as desired.";
}

/** @param {number} devices @param {number} kinds @param {number} more */
function fitText(devices, kinds, more) {
  if (!devices) return "No device that you may command fits this.";
  if (!kinds) return `${countText(devices)} fit; none of them has declared a command.`;
  return `${countText(devices)} fit${more ? `; ${more} further commands are not offered: choose fewer devices` : ""}. One that lacks the command refuses it.`;
}

/** @param {number} count */
function countText(count) {
  return `${count.toLocaleString()} ${count === 1 ? "device" : "devices"}`;
}

/** @param {unknown} error */
function wordsOf(error) {
  return error instanceof Error && error.name !== "TimeoutError" && error.name !== "TypeError" ? error.message : "the hub does not answer; try again";
}
