/**
 * All that is known of the device being watched: raw readings of the last 15 minutes by one lossless
 * subscription, and envelopes for longer windows.
 *
 * Owns: the join. "-15m" is answered with history and then live on the same cursor, so there is no
 * seam; the buffers upsert by time, so nothing is doubled.
 */

import { SeriesBuffer } from "./buffer.js";
import { MINUTE, SECOND } from "./clock.js";
import { Envelope, bucketFor, REFRESH } from "./envelope.js";
import { plainValue } from "./fleet.js";
import { GAP_INTERVALS, rawView } from "./view.js";

export const RAW_SPAN = 15 * MINUTE;
/** A minute more than the longest raw range, so that its left edge never flickers. */
const KEPT = RAW_SPAN + MINUTE;
/** Readings kept in memory for one device, shared by its channels; twice 16 bytes each at worst. */
const MOST_READINGS = 600_000;
const MOST_PER_CHANNEL = 120_000;
const MOST_TEXTS = 200;
const LATENCIES = 20;

/** @typedef {{buffer: SeriesBuffer, texts: {time: number, text: string}[]}} Track */

export class Feed {
  /**
   * @param {import("./client/session.js").Session} session
   * @param {{name: string, channels: unknown[]}} device
   * @param {import("./clock.js").HubClock} clock
   */
  constructor(session, { name, channels }, clock) {
    this.device = name;
    this._limit = Math.min(MOST_PER_CHANNEL, Math.floor(MOST_READINGS / Math.max(4, channels.length)));
    this._session = session;
    this._clock = clock;
    /** @type {Map<string, Track>} */
    this.tracks = new Map();
    /** @type {Map<number, import("./client/hub-client.d.ts").Series>} */
    this._infos = new Map();
    /** @type {Map<string, Envelope>} */
    this._envelopes = new Map();
    this._abort = new AbortController();
    /** Readings received, for "68 new". */
    this.received = 0;
    this.isLive = false;
    /** Why the hub refused the subscription, "" when it did not. */
    this.refused = "";
    /** Grows when an envelope arrives. */
    this.revision = 0;
    /** @type {number[]} */
    this._latencies = [];
    /** Newest time of the frame being applied. */
    this._newest = -Infinity;
    this._subscription = session.subscribe({ match: [`${name}/**`], mode: "lossless", since: "-15m" }, this._sink());
  }

  close() {
    this._session.unsubscribe(this._subscription);
    this._abort.abort();
  }

  /** @returns {number} median of the newest data latencies in ms, NaN when unknown */
  get latencyMs() {
    const sorted = [...this._latencies].sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] / 1e6 : NaN;
  }

  forgetLatency() {
    this._latencies = [];
  }

  /** @param {string} channel @returns {Track} */
  track(channel) {
    let track = this.tracks.get(channel);
    if (!track) {
      track = { buffer: new SeriesBuffer(this._limit), texts: [] };
      this.tracks.set(channel, track);
    }
    return track;
  }

  /**
   * What to draw of a channel.
   *
   * @param {import("./fleet.js").Channel} channel
   * @param {number} from relative ns
   * @param {number} to relative ns
   * @param {boolean} isLive whether `to` follows the clock
   * @returns {import("./view.js").View | null} null while it is being fetched
   */
  view(channel, from, to, isLive) {
    const { buffer } = this.track(channel.channel);
    const interval = channel.every_s ? channel.every_s * SECOND : buffer.interval();
    const covered = from >= Math.max(this._clock.now() - KEPT, buffer.forgotten);
    if (to - from <= RAW_SPAN && covered) {
      return this.isLive || buffer.length ? rawView(buffer, from, to, interval * GAP_INTERVALS || Infinity) : null;
    }
    const envelope = isLive ? this.liveEnvelope(to - from) : this._windowEnvelope(from, to);
    return envelope?.view(channel.channel, buffer, interval) ?? null;
  }

  /**
   * The envelope of the last `span`, fetched on first use and again when it grows old.
   *
   * @param {number} span ns
   * @returns {Envelope | null} null until it is there
   */
  liveEnvelope(span) {
    const now = this._clock.now();
    const key = `live ${bucketFor(span)}`;
    const present = this._envelopes.get(key);
    const next = this._envelopes.get(`${key} next`);
    if (next?.isLoaded) {
      this._envelopes.set(key, next);
      this._envelopes.delete(`${key} next`);
      return next;
    }
    if (!present) this._fetch(key, new Envelope(this.device, now - span, null, bucketFor(span)));
    else if (!next && now - present.loadedAt > REFRESH) this._fetch(`${key} next`, new Envelope(this.device, now - span, null, bucketFor(span)));
    return present?.isLoaded ? present : null;
  }

  /** @param {number} from @param {number} to @returns {Envelope | null} */
  _windowEnvelope(from, to) {
    const present = this._envelopes.get("window");
    if (present?.from === from && present.to === to) return present.isLoaded ? present : null;
    this._fetch("window", new Envelope(this.device, from, to));
    return null;
  }

  /** @param {string} key @param {Envelope} envelope */
  _fetch(key, envelope) {
    this._envelopes.set(key, envelope);
    envelope
      .load(this._clock.now(), this._abort.signal)
      .then(() => this.revision++)
      .catch(() => {
        // The next draw after a while asks again; the connection pill tells that the hub is away.
        window.setTimeout(() => this._envelopes.get(key) === envelope && this._envelopes.delete(key), 2000);
      });
  }

  /** @returns {import("./client/session.js").Sink} */
  _sink() {
    return {
      series: (id, info) => {
        const before = this._infos.get(id);
        this._infos.set(id, info);
        this.track(info.channel);
        // What was received is in the old scale; the hub applies the new one to all of history.
        if (before && (before.scale !== info.scale || before.offset !== info.offset)) this._session.startOver(this._subscription, "scale");
      },
      reading: (id, time, value, isLate) => this._reading(id, time, value, isLate),
      frame: () => this._frame(),
      live: () => {
        this.isLive = true;
      },
      reset: () => this._forget(),
      refused: (why) => {
        this.refused = why;
      },
    };
  }

  /** @param {number} id @param {number} time @param {unknown} value @param {boolean} isLate */
  _reading(id, time, value, isLate) {
    const info = this._infos.get(id);
    if (!info) return;
    const { buffer, texts } = this.track(info.channel);
    const plain = plainValue(value, info.type);
    let isNew = true;
    if (typeof plain === "number") isNew = buffer.upsert(time, plain);
    else if (typeof plain === "boolean") isNew = buffer.upsert(time, plain ? 1 : 0);
    else {
      texts.push({ time, text: String(plain) });
      if (texts.length > MOST_TEXTS) texts.shift();
    }
    if (isNew) this.received++;
    // What a device kept back says nothing of how long a reading takes.
    if (!isLate && time > this._newest) this._newest = time;
  }

  _frame() {
    const now = this._clock.running();
    if (this.isLive && this._newest > now - 3600 * SECOND) {
      this._latencies.push(Math.max(0, now - this._newest));
      if (this._latencies.length > LATENCIES) this._latencies.shift();
    }
    this._newest = -Infinity;
    for (const { buffer } of this.tracks.values()) buffer.trim(now - KEPT);
  }

  _forget() {
    this.isLive = false;
    this._infos.clear();
    this._envelopes.clear();
    for (const track of this.tracks.values()) {
      track.buffer.clear();
      track.texts = [];
    }
  }
}
