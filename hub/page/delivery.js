/**
 * The delivery panel: both ledgers of the device being watched, as the hub's audit tells them.
 *
 * Owns: when the audit is asked for (when the panel opens, then about each 10 s while it is open) and how it is said.
 * Decides nothing: what balances, what is missing and why are the hub's words.
 */

import { fetchAudit } from "./api.js";
import { fromEpoch } from "./clock.js";
import { byId, element, setAttribute, setText } from "./dom.js";
import { clockText, windowText } from "./format.js";

const REFETCH_MS = 10_000;
/** An audit counts rows; one that takes long is asked for less often, so that it never costs more than a tenth. */
const PAUSE_PER_COST = 10;
/** Losses and refusals shown; the rest is counted, and `hub audit` has them all. */
const MOST_ENTRIES = 6;
const MOST_STREAMS = 4;

/** @typedef {import("./api.js").AuditAnswer} AuditAnswer */

export class Delivery {
  /** @param {() => number} now the hub's time, relative ns */
  constructor(now) {
    this._now = now;
    this._panel = byId("delivery");
    this._button = byId("open-delivery");
    this._device = "";
    this._timer = 0;
    /** @type {AbortController | null} */
    this._asking = null;
    this._button.addEventListener("click", () => this.toggle());
  }

  get isOpen() {
    return !this._panel.hidden;
  }

  /** @param {string} device "" for none */
  show(device) {
    if (device === this._device) return;
    this._device = device;
    this._clear();
    if (this.isOpen) this._ask();
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

  _clear() {
    this._stop();
    setAttribute(this._panel, "data-verdict", null);
    setText(byId("delivery-verdict"), "");
    setText(byId("delivery-as-of"), "");
    byId("delivery-body").replaceChildren();
  }

  async _ask() {
    this._stop();
    if (!this._device) return;
    const asking = (this._asking = new AbortController());
    const begun = performance.now();
    try {
      const answer = await fetchAudit(this._device, asking.signal);
      if (asking === this._asking) this._render(answer);
    } catch (error) {
      if (asking !== this._asking) return;
      // What is shown stays, with its time; a panel that never had an answer says why.
      if (!byId("delivery-as-of").textContent) setText(byId("delivery-verdict"), error instanceof Error ? error.message : "no answer");
    }
    if (asking !== this._asking) return;
    const wait = Math.max(REFETCH_MS, (performance.now() - begun) * PAUSE_PER_COST);
    this._timer = window.setTimeout(() => this._ask(), document.hidden ? wait * 4 : wait);
  }

  /** @param {AuditAnswer} answer */
  _render(answer) {
    const device = answer.devices.find((found) => found.device === this._device);
    const verdict = verdictOf(device, answer.behind);
    setAttribute(this._panel, "data-verdict", verdict.state);
    setText(byId("delivery-verdict"), verdict.text);
    setText(byId("delivery-as-of"), `as of ${clockText(this._now())}`);
    const groups = device ? [streamsOf(answer), lossesOf(answer), refusedOf(answer), storedOf(device, answer)] : [];
    byId("delivery-body").replaceChildren(...groups.filter((group) => group !== null));
  }
}

/**
 * @param {import("./api.js").DeviceAudit | undefined} device
 * @param {number} behind frames
 * @returns {{state: string, text: string}}
 */
function verdictOf(device, behind) {
  if (!device) return { state: "plain", text: "○ Nothing was received yet" };
  if (device.balanced === false) return { state: "wrong", text: `▲ Does not balance: ${device.findings.join("; ")}` };
  const missing = device.dropped + device.rejected;
  const late = behind ? ` · store ${behind.toLocaleString()} frames behind, safe in the journal` : "";
  if (missing) return { state: "missing", text: `◐ ${countText(missing, "reading")} missing, each accounted for${late}` };
  if (device.unknown_gaps) return { state: "missing", text: `◐ An unknown number of readings missing${late}` };
  return { state: "whole", text: `● All ${countText(device.accepted, "reading")} accounted for${late}` };
}

/** @param {AuditAnswer} answer */
function streamsOf({ streams }) {
  const newest = streams.slice(-MOST_STREAMS).reverse();
  const entries = newest.map((stream) => {
    const word = !stream.balanced ? "does not balance" : stream.complete ? "complete" : "with losses";
    const last = stream.last_ns === null ? "" : ` · last ${clockText(fromEpoch(stream.last_ns))}`;
    return entry(`1…${stream.stored.toLocaleString()} ${word}`, `${countText(stream.accepted, "reading")}${last}`, stream.stream.slice(0, 8));
  });
  return group(countText(streams.length, "stream"), entries, streams.length - newest.length);
}

/** @param {AuditAnswer} answer */
function lossesOf({ gaps }) {
  if (!gaps.length) return null;
  const newest = gaps.slice(-MOST_ENTRIES).reverse();
  const entries = newest.map((gap) => {
    const count = gap.count === null ? "Unknown number" : countText(gap.count, "reading");
    return entry(count, [gap.explanation, rangeText(gap), `told ${clockText(fromEpoch(gap.received_ns))}`].filter(Boolean).join(" · "), gap.reason);
  });
  return group("Lost before the hub", entries, gaps.length - newest.length);
}

/** @param {import("./api.js").GapAudit} gap @returns {string} channels and event times of what is lost, "" when not known */
function rangeText({ ranges }) {
  const names = Object.keys(ranges);
  if (!names.length) return "";
  const times = Object.values(ranges).map(([first, last]) => [fromEpoch(first), fromEpoch(last)]);
  const from = Math.min(...times.map(([first]) => first));
  return `${names.join(", ")} ${windowText(from, Math.max(...times.map(([, last]) => last)))}`;
}

/** @param {AuditAnswer} answer */
function refusedOf({ rejections }) {
  if (!rejections.length) return null;
  const newest = [...rejections].sort((a, b) => fromEpoch(b.last_ns) - fromEpoch(a.last_ns)).slice(0, MOST_ENTRIES);
  const entries = newest.map((refused) => {
    const last = `last ${clockText(fromEpoch(refused.last_ns))}`;
    return entry(countText(refused.count, "reading"), [refused.channel, refused.explanation, last].filter(Boolean).join(" · "), refused.reason);
  });
  return group("Rejected by the hub", entries, rejections.length - newest.length);
}

/** @param {import("./api.js").DeviceAudit} device @param {AuditAnswer} answer */
function storedOf(device, { series }) {
  const parts = [`${countText(device.accepted, "reading")} accepted`];
  if (device.superseded) parts.push(`${device.superseded.toLocaleString()} corrected`);
  if (device.erased) parts.push(`${device.erased.toLocaleString()} erased`);
  if (device.expired) parts.push(`${device.expired.toLocaleString()} expired, their sums kept`);
  if (device.refused) parts.push(`${device.refused.toLocaleString()} refused by the store's server`);
  if (device.in_flight) parts.push(`${device.in_flight.toLocaleString()} on their way`);
  if (device.late) parts.push(`${device.late.toLocaleString()} came late`);
  return group("In the store", [entry(countText(device.rows, "row"), parts.join(" · "), countText(series.length, "series", "series"))], 0);
}

/** @param {string} title @param {HTMLElement[]} entries @param {number} more entries left out */
function group(title, entries, more) {
  if (more > 0) entries.push(element("li", {}, element("span", { class: "why" }, `${more.toLocaleString()} more: hub audit`)));
  return element("section", {}, element("h3", {}, title), element("ul", {}, ...entries));
}

/** @param {string} what @param {string} why @param {string} code */
function entry(what, why, code) {
  return element("li", {}, element("b", { class: "num" }, what), element("code", {}, code), element("span", { class: "why" }, why));
}

/** @param {number} count @param {string} one @param {string} [many] @returns {string} "1 reading", "18,204 readings" */
function countText(count, one, many = `${one}s`) {
  return `${count.toLocaleString()} ${count === 1 ? one : many}`;
}
