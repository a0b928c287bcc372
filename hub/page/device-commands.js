/**
 * The commands of the device being watched: a form, what became of the one just sent, and the last few.
 *
 * Owns: that part of the panel. When something is asked for is `control.js`'s; what is said is the hub's.
 */

import { fetchCommand, fetchDeviceCommands, fetchKinds } from "./api.js";
import { fromEpoch } from "./clock.js";
import { CommandForm } from "./command-form.js";
import { byId, element, setText } from "./dom.js";
import { clockText, dayText } from "./format.js";
import { argsText, detailOf, giveOnce, isOpen, outcomeOf } from "./orders.js";

/** A device declares its commands when its program starts: seldom. */
const KINDS_EVERY_MS = 15_000;
/** An answer is looked for often until then, afterwards as often as everything else. */
const EAGER_MS = 20_000;

/** @typedef {import("./api.js").DeviceCommand} DeviceCommand */

export class DeviceCommands {
  /** @param {() => void} askSoon asks for the panel's contents at once */
  constructor(askSoon) {
    this._askSoon = askSoon;
    this._section = byId("control-commands");
    this._form = new CommandForm((filled) => this._give(filled));
    byId("control-form").append(this._form.root);
    this.clear("");
  }

  /** @param {string} device */
  clear(device) {
    this._device = device;
    this._kindsAt = -Infinity;
    this._sent = "";
    this._sentAt = -Infinity;
    this._told = "";
    this._section.hidden = true;
    this._say("", "");
    this._form.reset();
    byId("control-recent").replaceChildren();
  }

  /** Whether an answer is awaited by somebody who looks. */
  get isEager() {
    return this._sent !== "" && performance.now() - this._sentAt < EAGER_MS;
  }

  /** @param {string} device @param {AbortSignal} signal @returns {Promise<boolean>} whether the device may be commanded from here */
  async ask(device, signal) {
    if (performance.now() - this._kindsAt > KINDS_EVERY_MS) {
      const { devices, kinds } = await fetchKinds(device, signal);
      if (device !== this._device) return false;
      this._kindsAt = performance.now();
      // The hub counts devices that it knows and that this person may command.
      this._section.hidden = devices === 0;
      this._form.offer(kinds);
      this._form.root.hidden = kinds.length === 0;
      byId("control-none").hidden = kinds.length > 0;
    }
    if (this._section.hidden) return false;
    const { commands } = await fetchDeviceCommands(device, signal);
    if (device !== this._device) return false;
    this._render(commands);
    const sent = await this._findSent(commands, signal);
    if (sent && sent.id === this._sent) this._tell(sent.name, sent.result);
    return true;
  }

  /**
   * What became of the command that was given here; many others may have been given to the device since.
   *
   * @param {DeviceCommand[]} commands the last ones
   * @param {AbortSignal} signal
   * @returns {Promise<{id: string, name: string, result: import("./api.js").DeviceResult} | null>}
   */
  async _findSent(commands, signal) {
    const id = this._sent;
    if (!id) return null;
    const listed = commands.find((command) => command.id === id);
    if (listed) return { id, name: listed.name, result: listed };
    const { name, results } = await fetchCommand(id, signal);
    return { id, name, result: results[0] };
  }

  /** @param {import("./command-form.js").Filled} filled */
  async _give(filled) {
    const device = this._device;
    // From here on the words are about this one; one that still waits is among the last commands.
    this._sent = "";
    this._say(`Sending ${filled.name}…`, "open");
    try {
      const answer = await giveOnce({ match: device, ...filled });
      if (device !== this._device) return;
      [this._sent, this._sentAt] = [answer.id, performance.now()];
      this._tell(filled.name, answer.results[0]);
    } catch (error) {
      if (device === this._device) this._say(error instanceof Error ? error.message : "no answer", "crit");
    }
    if (device === this._device) this._askSoon();
  }

  /** @param {DeviceCommand[]} commands */
  _render(commands) {
    const told = JSON.stringify(commands);
    if (told === this._told) return;
    this._told = told;
    byId("control-recent").replaceChildren(...(commands.length ? commands.map(rowOf) : [element("li", { class: "why" }, "None in the last days")]));
  }

  /** @param {string} name @param {import("./api.js").DeviceResult} result */
  _tell(name, result) {
    const { glyph, word, tone } = outcomeOf(result.state);
    this._say(`${glyph} ${name} ${word}${detailOf(result) && ` · ${detailOf(result)}`}`, tone);
    if (!isOpen(result.state)) this._sent = "";
  }

  /** @param {string} text @param {string} tone */
  _say(text, tone) {
    setText(byId("control-said"), text);
    byId("control-said").dataset.tone = tone;
  }
}

/** @param {DeviceCommand} command */
function rowOf(command) {
  const { glyph, word, tone } = outcomeOf(command.state);
  const made = fromEpoch(command.made_ns);
  const args = argsText(command.args);
  return element(
    "li",
    { "data-tone": tone },
    element("b", {}, command.name, args && element("span", { class: "args" }, ` ${args}`)),
    element("span", { class: "outcome" }, `${glyph} ${word}`),
    element("span", { class: "why" }, [`${dayText(made)} ${clockText(made)}`, command.who, detailOf(command)].filter(Boolean).join(" · ")),
  );
}
