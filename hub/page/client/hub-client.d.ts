/** Live readings of a telemetry hub, gapless over lost connections and restarts. No other module is needed. */

export const VERSION: string;

export type State = "connecting" | "live" | "reconnecting" | "refused" | "closed";
export type Transport = "ws" | "sse" | "poll";
export type Value = number | bigint | string | boolean;

/** What the hub says of a series. Values come as they are shown: `scale` and `offset` are applied. */
export interface Series {
  device: string;
  channel: string;
  unit: string | null;
  type: "float" | "int" | "bool" | "str" | null;
  label: string | null;
  /** The unit as people write it, where that differs. */
  unit_shown?: string;
  decimals?: number;
  kind?: string;
  scale?: number;
  offset?: number;
}

export interface Reading {
  device: string;
  channel: string;
  /** Whole numbers beyond 2**53 are bigint. */
  value: Value;
  unit: string | null;
  /** UTC epoch nanoseconds, exact. */
  time: bigint;
  /** UTC epoch milliseconds, for `new Date(timeMs)`. */
  timeMs: number;
  /** Older than what the hub had of its series when it came, e.g. of a device that was offline. */
  late: boolean;
  series: Series;
}

export interface WatchOptions {
  /** Patterns over `device/channel`; `P` alone means `P/**`. Default: all that the credential may see. */
  match?: string | string[];
  /** Patterns that take series out again. */
  not?: string | string[];
  /** Where to begin: a cursor, RFC 3339, `-15m`, `last`. Default: from now on; in `latest`: `last`. */
  since?: string;
  /**
   * `lossless` (default): each reading once; while history is sent (until `onLive`), one that is stored meanwhile may come
   * twice: put them by series and time, as a chart does. `latest`: the newest of each series, at most `maxHz` times a
   * second.
   */
  mode?: "lossless" | "latest";
  maxHz?: number;
  /** Ends the watch. */
  signal?: AbortSignal;
  /** Called for each reading; without it iterate. */
  onReading?(reading: Reading): void;
  /** History ended: from now on readings come as they are stored. */
  onLive?(): void;
  /** So many frames are still owed to this watcher. */
  onLag?(behind: number): void;
  /**
   * The hub was restored (`run`) or no longer holds what was missed (`expired`): it goes on from now.
   * Without it the watch ends with a `WatchError` of reason `reset`.
   */
  onReset?(why: string): void;
  /** The watch has ended for what went wrong; a loop over it throws the same. */
  onError?(error: unknown): void;
}

export interface ConnectOptions {
  /**
   * Of a watcher. A function is asked before each attempt, so it may give a fresh one, and on a WebSocket before the token
   * ends: the connection goes on with the new one.
   */
  token?: string | (() => string | Promise<string>);
  /**
   * Whether tabs of one browser share one WebSocket (default: true). They do when it is certain that they are the same user:
   * the same token, or none and the same session. Where `token` is a function only the page knows; it says so with a text
   * that is the user's: tabs that say the same share. `false`: a connection for this alone.
   */
  share?: boolean | string;
  /** In the order they are tried. */
  transports?: Transport[];
  onState?(state: State, why: string): void;
}

/** One subscription. Loop over it with `for await`, or give `onReading`. */
export interface Watch extends AsyncIterable<Reading> {
  /**
   * Names what was given completely: as `since` it goes on there, also after a reload. A loop that was left in the middle
   * of a message gets that message again.
   */
  readonly cursor: string | null;
  readonly isLive: boolean;
  readonly isClosed: boolean;
  close(): void;
}

/** One connection for several subscriptions. */
export interface Hub {
  readonly state: State;
  readonly transport: Transport | "";
  watch(options?: WatchOptions): Watch;
  close(): void;
}

/** What went wrong for good; `reason` is the hub's word, `code` its close code (0: none). */
export class WatchError extends Error {
  constructor(reason: string, message: string, code?: number);
  readonly reason: string;
  readonly code: number;
}

/** @param url of the hub; default: the one this module came from. */
export function connect(url?: string | URL, options?: ConnectOptions): Hub;

/** One subscription on a connection of its own. @param url of the hub; default: the one this module came from. */
export function watch(url?: string | URL, options?: WatchOptions & ConnectOptions): Watch;

/** Whether a close code says not to come back. */
export function isFinal(code: number): boolean;
