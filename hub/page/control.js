/**
 * The control panel of the device being watched: its commands, and its desired and reported state.
 *
 * Owns: when the hub is asked (when the panel opens, then about each 3 s while it is open, more often only while an answer
 * is awaited), and who sees what. Who may command is the hub's answer.
 */

import { HttpError } from "./api.js";
import { byId, setAttribute } from "./dom.js";
import { DeviceCommands } from "./device-commands.js";
import { DeviceState } from "./device-state.js";

const REFETCH_MS = 3000;
const EAGER_MS = 400;
/** What was not answered by then is not going to be: the line is dead. */
const ANSWER_MS = 15_000;
/** What takes long is asked for less often, so that it never costs more than a tenth. */
const PAUSE_PER_COST = 10;

export class Control {
  constructor() {
    this._panel = byId("control");
    this._button = byId("open-control");
    this._device = "";
    this._timer = 0;
    this._mayCommand = false;
    /** @type {AbortController | null} */
    this._asking = null;
    this._commands = new DeviceCommands(() => this._askIfOpen());
    this._state = new DeviceState(() => this._askIfOpen());
    this._button.addEventListener("click", () => this.toggle());
  }

  get isOpen() {
    return !this._panel.hidden;
  }

  /** @param {import("./sign-in.js").Me} me */
  allow({ scopes }) {
    this._mayCommand = Boolean(scopes.command?.length);
  }

  /** @param {string} device "" for none */
  show(device) {
    if (device === this._device) return;
    this._device = device;
    this._commands.clear(device);
    this._state.clear(device);
    this._askIfOpen();
  }

  open() {
    if (!this.isOpen) this.toggle();
  }

  toggle() {
    this._panel.hidden = this.isOpen;
    setAttribute(this._button, "aria-expanded", String(this.isOpen));
    if (this.isOpen) this._ask();
    else this._stop();
  }

  _stop() {
    window.clearTimeout(this._timer);
    this._asking?.abort();
    this._asking = null;
  }

  _askIfOpen() {
    this._stop();
    if (this.isOpen) this._ask();
  }

  async _ask() {
    this._stop();
    const device = this._device;
    if (!device) return;
    const asking = (this._asking = new AbortController());
    const begun = performance.now();
    const limit = window.setTimeout(() => asking.abort(), ANSWER_MS);
    const [mayChange, told] = await Promise.allSettled([
      this._mayCommand ? this._commands.ask(device, asking.signal) : Promise.resolve(false),
      this._state.ask(device, asking.signal),
    ]);
    window.clearTimeout(limit);
    if (asking !== this._asking) return;
    // What is shown stays while the hub is away.
    if (mayChange.status === "fulfilled") this._state.allow(mayChange.value);
    const isAnswered = told.status === "fulfilled";
    if (!isAnswered) this._state.fail(told.reason instanceof HttpError ? told.reason.message : "The hub does not answer; the page asks again.");
    const pause = this._commands.isEager && isAnswered ? EAGER_MS : document.hidden ? REFETCH_MS * 4 : REFETCH_MS;
    // Where no answer came, the time says nothing of what it costs the hub.
    const cost = isAnswered ? performance.now() - begun : 0;
    this._timer = window.setTimeout(() => this._ask(), Math.max(pause, cost * PAUSE_PER_COST));
  }
}
