/**
 * What the page knows of all devices: presence, newest values, sparklines.
 *
 * Owns: the devices and their states. The hub decides presence and tells it with each answer;
 * between two answers a reading that arrives makes a device online and silence makes it stale.
 */

import { fromEpoch, SECOND } from "./clock.js";
import { channelLabel, limitText, naturalOrder } from "./format.js";
import { Spark } from "./spark.js";

/** As the hub: this many intervals late is stale, but never before MIN_STALE. */
const STALE_INTERVALS = 3;
const MIN_STALE = 5 * SECOND;

/**
 * @typedef {"online" | "alert" | "stale" | "offline"} State
 *
 * @typedef {object} Channel
 * @property {string} channel
 * @property {string} label
 * @property {string | null} unit code
 * @property {string | null} unit_shown as people write it
 * @property {number | null} decimals to show, null when nobody said
 * @property {number | null} scale
 * @property {number | null} offset
 * @property {string | null} type
 * @property {number | null} every_s
 * @property {[number, number] | null} range normal values, an open end is infinite; outside is an alert
 * @property {unknown} value newest, null before the first
 * @property {number} time of the newest, relative ns, NaN before the first
 *
 * @typedef {object} Device
 * @property {string} name
 * @property {string} label the name for people: `name` when nobody gave another
 * @property {string} site "" when it has none
 * @property {string[]} tags
 * @property {State} state what is shown
 * @property {"online" | "stale" | "offline"} presence
 * @property {number} heard time of the newest reading, relative ns, NaN when never
 * @property {number} arrived when it was last known to be alive (the hub said so, or a live reading came), relative ns
 * @property {number} rate readings per second
 * @property {Channel[]} channels
 * @property {Channel | null} lead the channel that stands for the device in the list
 * @property {number | null} skew seconds its clock is wrong by, null when it is not flagged
 * @property {string} alert why it is in alert, "" when it is not
 * @property {Spark} spark
 */

/** @type {Record<State, {glyph: string, word: string}>} */
export const STATES = {
  online: { glyph: "●", word: "Online" },
  alert: { glyph: "▲", word: "Alert" },
  stale: { glyph: "◐", word: "Stale" },
  offline: { glyph: "○", word: "Offline" },
};

/** @param {Channel} channel @returns {boolean} whether its values can be drawn as a line */
export function isNumeric(channel) {
  return channel.type === "float" || channel.type === "int" || (channel.type == null && typeof channel.value === "number");
}

/** What people look for first: temperature, humidity, other figures, then switches, then words. */
const FIRST_UNITS = ["Cel", "[degF]", "K", "%RH"];

/** @param {Channel} a @param {Channel} b @returns {number} */
function channelOrder(a, b) {
  const rank = (/** @type {Channel} */ channel) => {
    const at = FIRST_UNITS.indexOf(channel.unit ?? "");
    return at >= 0 ? at : isNumeric(channel) ? 10 : channel.type === "bool" ? 11 : 12;
  };
  return rank(a) - rank(b) || naturalOrder(a.channel, b.channel);
}

/** @param {unknown} value @param {string | null} type @returns {unknown} a number where it is one */
export function plainValue(value, type) {
  return type === "int" && typeof value === "string" ? Number(value) : value;
}

/** @param {Channel} channel @returns {string} why its newest value is out of range, "" when it is not */
export function alertText(channel) {
  const { range, value } = channel;
  if (!range || typeof value !== "number" || (value >= range[0] && value <= range[1])) return "";
  const [word, limit] = value > range[1] ? ["above", range[1]] : ["below", range[0]];
  return `${channel.label} ${word} ${limitText(limit, channel)}`;
}

export class Fleet {
  constructor() {
    /** @type {Map<string, Device>} */
    this.devices = new Map();
    /** @type {Device[]} in natural order of names */
    this.ordered = [];
    /** @type {Map<number, {device: Device, channel: Channel}>} */
    this._series = new Map();
    /** Grows when anything a list shows may have changed. */
    this.revision = 0;
    /** Grows when a channel's values got another scale: what was drawn of it must be asked for again. */
    this.scales = 0;
    /** @type {Record<State, number>} */
    this.counts = { online: 0, alert: 0, stale: 0, offline: 0 };
  }

  /** @returns {number} readings per second of the whole fleet */
  get rate() {
    let sum = 0;
    for (const device of this.ordered) if (device.presence === "online") sum += device.rate;
    return sum;
  }

  /**
   * Take the hub's answer; devices it does not name any more go.
   *
   * @param {import("./api.js").DevicesAnswer} answer
   * @param {number} now relative ns
   */
  load(answer, now) {
    const named = new Set(answer.devices.map(({ device }) => device));
    for (const name of this.devices.keys()) if (!named.has(name)) this.devices.delete(name);
    let isNews = false;
    for (const found of answer.devices) {
      isNews ||= !this.devices.has(found.device);
      const device = this._device(found.device);
      device.presence = found.state;
      device.label = found.label || found.device;
      device.site = found.site ?? "";
      device.tags = found.tags;
      const scaled = scaleOf(device.lead);
      if (found.state === "online") device.arrived = now;
      device.rate = found.rate_hz;
      device.skew = found.skewed ? found.skew_s : null;
      device.heard = found.last_ns === null ? NaN : Math.max(fromEpoch(found.last_ns), device.heard || -Infinity);
      device.channels = found.channels.map((channel) => update(device.channels.find((c) => c.channel === channel.channel), channel));
      device.channels.sort(channelOrder);
      this._choose(device);
      if (scaled && scaled !== scaleOf(device.lead)) {
        device.spark = new Spark();
        this.scales++;
      }
    }
    for (const [id, known] of this._series) {
      const device = this.devices.get(known.device.name);
      const channel = device?.channels.find((c) => c.channel === known.channel.channel);
      if (device && channel) this._series.set(id, { device, channel });
    }
    this._order();
    // What is shown for the first time is as the hub has just said, also before anything is live.
    if (isNews) this.refresh(now);
  }

  /**
   * A series became known on the live side; a device not seen before pops up.
   *
   * @param {number} id
   * @param {import("./client/hub-client.d.ts").Series} info
   */
  series(id, info) {
    const isNew = !this.devices.has(info.device);
    const device = this._device(info.device);
    let channel = device.channels.find((c) => c.channel === info.channel);
    if (!channel) {
      // What the hub says more (interval, range) comes with the next poll.
      channel = update(undefined, { ...info, every_s: null, range: null, latest: null });
      device.channels.push(channel);
      device.channels.sort(channelOrder);
      this._choose(device);
    }
    this._series.set(id, { device, channel });
    if (isNew) this._order();
  }

  /**
   * @param {number} id
   * @param {number} time relative ns
   * @param {unknown} value
   * @param {number} arrived when it came, relative ns; NaN for one from the past
   */
  reading(id, time, value, arrived) {
    const known = this._series.get(id);
    if (!known) return;
    const { device, channel } = known;
    const plain = plainValue(value, channel.type);
    if (!(time < channel.time)) {
      channel.time = time;
      channel.value = plain;
    }
    if (!(time < device.heard)) device.heard = time;
    if (arrived > device.arrived) device.arrived = arrived;
    if (!device.lead) this._choose(device);
    if (channel === device.lead && typeof plain === "number") device.spark.put(time, plain);
    this.revision++;
  }

  /**
   * Bring states and counts up to `now`.
   *
   * @param {number} now relative ns
   */
  refresh(now) {
    /** @type {Record<State, number>} */
    const counts = { online: 0, alert: 0, stale: 0, offline: 0 };
    for (const device of this.ordered) {
      const silent = now - device.arrived;
      if (silent <= MIN_STALE) device.presence = "online";
      else if (device.presence === "online" && silent > staleAfter(device)) device.presence = "stale";
      device.alert = device.presence === "online" ? device.channels.map(alertText).find(Boolean) ?? "" : "";
      const state = device.alert ? "alert" : device.presence;
      if (state !== device.state) this.revision++;
      device.state = state;
      counts[state]++;
    }
    this.counts = counts;
  }

  /** @param {string} name @returns {Device} */
  _device(name) {
    let device = this.devices.get(name);
    if (!device) {
      device = { name, label: name, site: "", tags: [], state: "offline", presence: "offline", heard: NaN, arrived: -Infinity, rate: 0, channels: [], lead: null, skew: null, alert: "", spark: new Spark() };
      this.devices.set(name, device);
    }
    return device;
  }

  /** @param {Device} device */
  _choose(device) {
    const lead = device.channels.find(isNumeric) ?? device.channels[0] ?? null;
    if (lead?.channel !== device.lead?.channel) device.spark = new Spark();
    device.lead = lead;
  }

  _order() {
    this.ordered = [...this.devices.values()].sort((a, b) => naturalOrder(a.name, b.name));
    this.revision++;
  }
}

/** @param {Channel | null} channel @returns {string} which scale its values are in */
function scaleOf(channel) {
  return channel ? `${channel.channel} ${channel.scale ?? 1} ${channel.offset ?? 0}` : "";
}

/** @param {Device} device @returns {number} ns of silence after which an online device is stale */
export function staleAfter(device) {
  const declared = device.channels.map((c) => c.every_s).filter((s) => s !== null);
  const interval = declared.length ? Math.min(.../** @type {number[]} */ (declared)) : 10;
  return Math.max(STALE_INTERVALS * interval * SECOND, MIN_STALE);
}

/** @param {Channel | undefined} known @param {import("./api.js").ChannelAnswer} found @returns {Channel} */
function update(known, found) {
  const { channel: name, unit, type, every_s } = found;
  /** @type {[number, number] | null} */
  const range = found.range && [found.range[0] ?? -Infinity, found.range[1] ?? Infinity];
  /** @type {Channel} */
  const channel = known ?? { channel: name, label: "", unit, unit_shown: null, decimals: null, scale: null, offset: null, type, every_s, range, value: null, time: NaN };
  const { decimals = null, scale = null, offset = null, unit_shown = null } = found;
  Object.assign(channel, { unit, unit_shown, decimals, scale, offset, type, every_s, range, label: channelLabel(found) });
  if (found.latest) {
    const time = fromEpoch(found.latest.time_ns);
    if (!(time < channel.time)) {
      channel.time = time;
      channel.value = plainValue(found.latest.value, type);
    }
  }
  return channel;
}
