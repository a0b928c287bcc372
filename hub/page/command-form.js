/**
 * A form for one command, made from what devices declared: a field for each argument, and one button.
 *
 * Owns: which field a type gets, and that one press sends one command. What a device takes is decided by the hub.
 * An optional field left empty is left out, so that the device's own default holds.
 */

import { element, setText } from "./dom.js";
import { exactJson, exactNumber, InexactError } from "./exact.js";
import { jsonText } from "./orders.js";

/** The second click of a double click, and a finger that shakes, come within this. */
const REST_MS = 600;
/** How long a command may take; the longer ones only for devices that are waited for. */
const TIMES = [["10s", "10 s"], ["1m", "1 min"], ["10m", "10 min"], ["1h", "1 h"], ["1d", "1 day"], ["7d", "7 days"]];
const QUEUED_ONLY = 4;

/** @typedef {import("./api.js").CommandKind} CommandKind */
/** @typedef {import("./api.js").ArgumentSpec} ArgumentSpec */
/** @typedef {{name: string, args: Record<string, unknown>, timeout?: string, queue?: boolean, expires?: string}} Filled */
/** @typedef {{root: HTMLElement, input: HTMLInputElement | HTMLSelectElement, read: () => unknown}} Field */

export class CommandForm {
  /** @param {(filled: Filled) => Promise<void>} send called once for each press; resolves when the hub has answered */
  constructor(send) {
    this._send = send;
    this._offered = "";
    /** @type {CommandKind[]} */
    this._kinds = [];
    /** @type {Map<string, Field>} */
    this._fields = new Map();
    this._isBusy = false;
    this._turn = 0;
    this._choice = element("select");
    this._doc = element("p", { class: "why" });
    this._body = element("div", { class: "fields" });
    this._queue = element("input", { type: "checkbox" });
    this._time = element("select", {}, ...TIMES.map(([value, text]) => element("option", { value }, text)));
    this.button = element("button", { type: "submit" }, "Send");
    const last = element("div", { class: "fields" },
      element("label", {}, "Give up after", this._time),
      element("label", { class: "tick" }, this._queue, "Wait while offline"), this.button);
    this.root = element("form", { class: "command" }, element("label", {}, "Command", this._choice), this._doc, this._body, last);
    this._choice.addEventListener("change", () => this._build());
    this._queue.addEventListener("change", () => this._setTimes());
    this.root.addEventListener("submit", (event) => {
      event.preventDefault();
      this._submit();
    });
    // A key that is held down is one press.
    this.root.addEventListener("keydown", (event) => event.key === "Enter" && event.repeat && event.preventDefault());
    this._setTimes();
  }

  /** Offer commands; what is being filled in stays when they are the same. @param {CommandKind[]} kinds @param {boolean} [isMany] */
  offer(kinds, isMany = false) {
    const offered = JSON.stringify(kinds);
    if (offered === this._offered) return;
    const chosen = this._kinds[this._choice.selectedIndex];
    this._offered = offered;
    this._kinds = kinds;
    const options = kinds.map(({ name, devices }) => element("option", {}, isMany ? `${name} (${devices.toLocaleString()})` : name));
    this._choice.replaceChildren(...options);
    const same = kinds.findIndex(({ name, args }) => name === chosen?.name && JSON.stringify(args) === JSON.stringify(chosen.args));
    this._choice.selectedIndex = Math.max(0, same);
    if (same < 0) this._build();
  }

  /** Be another device's form: what was sent for the one before goes its way, and keeps nobody waiting. */
  reset() {
    this._turn++;
    this._setBusy(false);
    this.offer([]);
  }

  _setTimes() {
    const isQueued = this._queue.checked;
    for (const [at, option] of [...this._time.options].entries()) option.disabled = at >= QUEUED_ONLY && !isQueued;
    this._time.value = isQueued ? "1d" : "10s";
  }

  _build() {
    const kind = this._kinds[this._choice.selectedIndex];
    setText(this._doc, kind?.doc ?? "");
    this._fields = new Map(Object.entries(kind?.args ?? {}).map(([name, spec]) => [name, fieldOf(name, spec)]));
    this._body.replaceChildren(...[...this._fields.values()].map((field) => field.root));
  }

  async _submit() {
    const kind = this._kinds[this._choice.selectedIndex];
    if (this._isBusy || !kind) return;
    const args = this._read();
    if (!args) return;
    const turn = ++this._turn;
    this._setBusy(true);
    const time = this._time.value;
    const when = this._queue.checked ? { queue: true, expires: time } : { timeout: time };
    try {
      await Promise.all([this._send({ name: kind.name, args, ...when }), new Promise((done) => window.setTimeout(done, REST_MS))]);
    } finally {
      if (turn === this._turn) this._setBusy(false);
    }
  }

  /** Not `disabled`: that would take the focus away from who presses it by keyboard. @param {boolean} isBusy */
  _setBusy(isBusy) {
    this._isBusy = isBusy;
    this.button.setAttribute("aria-disabled", String(isBusy));
  }

  /** @returns {Record<string, unknown> | null} the arguments; null: a field says what is wrong with it */
  _read() {
    /** @type {Record<string, unknown>} */
    const args = {};
    for (const [name, { input, read }] of this._fields) {
      input.setCustomValidity("");
      try {
        const value = read();
        if (value !== undefined) args[name] = value;
      } catch (error) {
        input.setCustomValidity(error instanceof Error ? error.message : "wrong");
        input.reportValidity();
        return null;
      }
    }
    return args;
  }
}

/** @param {string} name @param {ArgumentSpec} spec @returns {Field} */
function fieldOf(name, spec) {
  const field = spec.choices || spec.type === "bool" ? choiceOf(spec) : inputOf(spec);
  field.input.addEventListener("input", () => field.input.setCustomValidity(""));
  const note = spec.required ? spec.type : `${spec.type}, optional`;
  return { ...field, root: element("label", {}, element("span", {}, name, " ", element("small", {}, note)), field.input) };
}

/** @param {ArgumentSpec} spec */
function choiceOf(spec) {
  const values = [...(spec.choices ?? [true, false]), ...(spec.nullable ? [null] : [])];
  const text = (/** @type {unknown} */ value) => (value === null ? "none" : typeof value === "boolean" ? (value ? "yes" : "no") : String(value));
  const first = spec.required ? "choose…" : `default: ${text(spec.default ?? null)}`;
  const input = element("select", {}, element("option", { value: "" }, first), ...values.map((value, at) => element("option", { value: String(at) }, text(value))));
  input.required = spec.required ?? false;
  return { input, read: () => (input.value === "" ? undefined : values[Number(input.value)]) };
}

/** @param {ArgumentSpec} spec */
function inputOf({ type, required = false, nullable = false, default: standard }) {
  const isNumber = type === "int" || type === "float";
  const input = element("input", { type: isNumber ? "number" : "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
  if (isNumber) input.step = type === "int" ? "1" : "any";
  if (!required) input.placeholder = standard === undefined || standard === null ? "left out" : `default: ${jsonText(standard) || "empty"}`;
  else if (nullable) input.placeholder = "none";
  // A required word may be empty; a number or a structure may not.
  input.required = required && !nullable && type !== "str";
  const read = () => {
    if (input.value === "") return required ? (nullable ? null : "") : undefined;
    return isNumber ? exactNumber(input.value) : type === "str" ? input.value : structureOf(input.value, type);
  };
  return { input, read };
}

/** @param {string} text @param {string} type */
function structureOf(text, type) {
  const example = type === "list" ? '[1, "two"]' : '{"speed": 3}';
  let value;
  try {
    value = exactJson(text);
  } catch (error) {
    throw error instanceof InexactError ? error : new Error(`Write JSON, such as ${example}`);
  }
  if (value === null || typeof value !== "object" || Array.isArray(value) !== (type === "list")) throw new Error(`Write a ${type}, such as ${example}`);
  return value;
}
