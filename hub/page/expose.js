/**
 * `window.__page`: what the page holds, as copies, for tests and for the curious. Read-only.
 */

import { toEpoch } from "./clock.js";

/** @param {any} app */
export function exposeState(app) {
  const read = {
    connection: () => app.connection.state,
    device: () => app.watch.device?.name ?? "",
    isLive: () => app.watch.feed?.isLive ?? false,
    isPaused: () => app.watch.viewport.isPaused,
    counts: () => ({ ...app.fleet.counts }),
    shown: () => app.rail.list.devices.map((/** @type {{name: string}} */ device) => device.name),
    window: () => app.watch.viewport.window(app.clock.now(), 1000).map(toEpoch),
    channels: () => [...(app.watch.feed?.tracks.keys() ?? [])],
    latencyMs: () => app.watch.feed?.latencyMs ?? NaN,
    now: () => toEpoch(app.clock.now()),
    /** @param {string} channel raw readings held: epoch ns as decimal text, and values */
    readings(channel) {
      const buffer = app.watch.feed?.tracks.get(channel)?.buffer;
      if (!buffer) return { times: [], values: [] };
      const { start, end } = buffer;
      return { times: Array.from(buffer.times.subarray(start, end), toEpoch), values: Array.from(buffer.values.subarray(start, end)) };
    },
    /** @param {number} index position of a chart @returns what is hatched in it */
    gaps(index) {
      const gaps = app.watch.cards[index]?._plot?._gaps ?? [];
      return gaps.map((/** @type {import("./view.js").Gap} */ { from, to, kind }) => ({ kind, seconds: (to - from) / 1e9 }));
    },
    /** @param {number} index position of a chart @returns what it was drawn from */
    drawn(index) {
      const view = app.watch.cards[index]?._view;
      if (!view) return null;
      const { kind, times, values, min, max, counts } = view;
      const copy = (/** @type {Float64Array | undefined} */ column) => column && Array.from(column);
      return { kind, times: Array.from(times, toEpoch), values: copy(values), min: copy(min), max: copy(max), counts: copy(counts) };
    },
  };
  Object.defineProperty(window, "__page", { value: Object.freeze(read), writable: false, configurable: false });
}
