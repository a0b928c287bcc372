/** Questions to the hub's REST interface, and the shapes of its answers. */

/**
 * @typedef {{channel: string, label: string | null, unit: string | null, unit_shown?: string | null, type: string | null,
 *   every_s: number | null, range: [number | null, number | null] | null, decimals?: number | null, scale?: number | null,
 *   offset?: number | null, latest: {time_ns: string, value: unknown} | null}} ChannelAnswer
 * @typedef {{device: string, label: string | null, site: string | null, tags: string[],
 *   state: "online" | "stale" | "offline", connected: boolean, alert: boolean,
 *   last_ns: string | null, rate_hz: number, late: number, skew_s: number | null, skewed: boolean,
 *   channels: ChannelAnswer[]}} DeviceAnswer
 * @typedef {{devices: DeviceAnswer[], head: string, time_ns: string}} DevicesAnswer
 * @typedef {{series: {device: string, channel: string, unit: string | null}[], columns: string[],
 *   rows: any[][], next: string | null}} ReadingsAnswer
 * @typedef {{device: string, balanced: boolean | null, summary: string, findings: string[], accepted: number,
 *   rejected: number, dropped: number, unknown_gaps: number, in_flight: number | null, superseded: number,
 *   erased: number, expired: number, refused: number, late: number, rows: number}} DeviceAudit
 * @typedef {{stream: string, stored: number, accepted: number, complete: boolean, balanced: boolean,
 *   last_ns: string | null}} StreamAudit
 * @typedef {{count: number | null, reason: string, explanation: string, received_ns: string,
 *   ranges: Record<string, [string, string]>}} GapAudit
 * @typedef {{channel: string, reason: string, explanation: string, count: number, last_ns: string}} RejectionAudit
 * @typedef {{balanced: boolean | null, behind: number, devices: DeviceAudit[], streams: StreamAudit[],
 *   gaps: GapAudit[], rejections: RejectionAudit[], series: {channel: string}[]}} AuditAnswer
 * @typedef {{id: number, time_ns: string, who: string, role: string, credential: string, peer: string, what: string,
 *   target: string, outcome: string, count: number}} LogEntry
 * @typedef {{type: string, required?: boolean, nullable?: boolean, default?: unknown, choices?: (string | number | boolean)[]}} ArgumentSpec
 * @typedef {{name: string, doc: string, args: Record<string, ArgumentSpec>, devices: number}} CommandKind
 * @typedef {{devices: number, kinds: CommandKind[], more: number}} CommandKinds
 * @typedef {{device: string, state: string, value: unknown, error: string, sent_ns: string | null, ended_ns: string | null}} DeviceResult
 * @typedef {DeviceResult & {id: string, name: string, args: Record<string, unknown>, who: string, made_ns: string, expires_ns: string}} DeviceCommand
 * @typedef {{id: string, name: string, args: Record<string, unknown>, states: Record<string, number>, results: DeviceResult[]}} CommandAnswer
 * @typedef {"in_sync" | "pending" | "drifted" | "offline"} Drift
 * @typedef {{device: string, drift: Drift, differing: string[],
 *   desired: {version: number, state: Record<string, unknown>, who: string | null, time_ns: string | null},
 *   reported: {version: number, state: Record<string, unknown>, time_ns: string | null}}} StateAnswer
 * @typedef {{device: string, drift: Drift, differing: string[], desired_version: number, reported_version: number}} StateRow
 * @typedef {{gateway: string, device: string, state: string, first_ns: string, last_ns: string}} ChildAnswer
 * @typedef {{name: string, match: string[], max_hz: number | null, phase: string, behind: number, behind_s: number,
 *   messages_per_s: number, conflated: number | null}} SubscriptionAnswer
 * @typedef {{name: string, identity: string, role: string, transport: string, peer: string, unsent_bytes: number,
 *   subscriptions: SubscriptionAnswer[]}} WatcherAnswer
 * @typedef {{count: number, behind: number, unsent_bytes: number, watchers: WatcherAnswer[]}} WatchersAnswer
 * @typedef {{entries: LogEntry[], next: number | null, cut: {count: number, until_ns: string} | null}} LogAnswer
 */

/** A change that has not been answered by then is not going to be: the line is dead. */
const ANSWER_MS = 15_000;

/** The hub answered, but not with what was asked for. */
export class HttpError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * @param {string} path
 * @param {[string, string][]} [query]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
async function ask(path, query = [], signal) {
  const search = query.length ? `?${new URLSearchParams(query)}` : "";
  const response = await fetch(path + search, { signal, headers: { accept: "application/json" }, cache: "no-store" });
  if (response.ok) return response.json();
  const body = await response.json().catch(() => null);
  throw new HttpError(response.status, body?.error?.message ?? `the hub answered ${response.status}`);
}

/**
 * @param {string} path
 * @param {object | null} body
 * @param {"POST" | "PATCH"} [method]
 * @returns {Promise<any>} null when the hub has nothing to say
 */
export async function post(path, body, method = "POST") {
  const headers = { accept: "application/json", ...(body && { "content-type": "application/json" }) };
  const signal = AbortSignal.timeout(ANSWER_MS);
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store", signal });
  if (response.ok) return response.status === 204 ? null : response.json();
  const answer = await response.json().catch(() => null);
  throw new HttpError(response.status, answer?.error?.message ?? `the hub answered ${response.status}`);
}

/** @param {string} match selector @param {AbortSignal} [signal] @returns {Promise<CommandKinds>} what the devices can be told to do */
export function fetchKinds(match, signal) {
  return ask("/v1/declared", [["match", match]], signal);
}

/** @param {string} device @param {AbortSignal} [signal] @returns {Promise<{commands: DeviceCommand[]}>} newest first */
export function fetchDeviceCommands(device, signal) {
  return ask(`/v1/devices/${encodeURIComponent(device)}/commands`, [["limit", "6"]], signal);
}

/** @param {object} order @returns {Promise<CommandAnswer>} */
export function giveCommand(order) {
  return post("/v1/commands", order);
}

/** @param {string} id @param {AbortSignal} [signal] @returns {Promise<CommandAnswer>} */
export function fetchCommand(id, signal) {
  return ask(`/v1/commands/${encodeURIComponent(id)}`, [], signal);
}

/** @param {string} id @returns {Promise<CommandAnswer>} */
export function cancelCommand(id) {
  return post(`/v1/commands/${encodeURIComponent(id)}/cancel`, null);
}

/** @param {string} device @param {AbortSignal} [signal] @returns {Promise<StateAnswer>} */
export function fetchState(device, signal) {
  return ask(`/v1/devices/${encodeURIComponent(device)}/state`, [], signal);
}

/**
 * Change the desired state of a device that still has the version that was looked at.
 *
 * @param {string} device
 * @param {object} patch
 * @param {number} version
 */
export function patchDesired(device, patch, version) {
  return post(`/v1/devices/${encodeURIComponent(device)}/desired`, { patch, expected_version: version }, "PATCH");
}

/** @param {AbortSignal} [signal] @returns {Promise<{devices: StateRow[]}>} */
export function fetchStates(signal) {
  return ask("/v1/states", [], signal);
}

/** @returns {Promise<import("./sign-in.js").Me>} */
export function fetchMe() {
  return ask("/v1/me");
}

/** @param {number} before id of an entry, 0 for the newest @returns {Promise<LogAnswer>} */
export function fetchLog(before) {
  return ask("/v1/log", [["before", String(before)]]);
}

/** @param {AbortSignal} [signal] @returns {Promise<{children: ChildAnswer[]}>} devices that wait behind gateways */
export function fetchWaiting(signal) {
  return ask("/v1/children", [["state", "pending"]], signal);
}

/** @param {number} limit @param {AbortSignal} [signal] @returns {Promise<WatchersAnswer>} the furthest behind first */
export function fetchWatchers(limit, signal) {
  return ask("/v1/watchers", [["limit", String(limit)]], signal);
}

/** @param {AbortSignal} [signal] @returns {Promise<DevicesAnswer>} */
export function fetchDevices(signal) {
  return ask("/v1/devices", [], signal);
}

/** @param {string} device @param {AbortSignal} [signal] @returns {Promise<AuditAnswer>} */
export function fetchAudit(device, signal) {
  return ask("/v1/audit", [["device", device]], signal);
}

/**
 * Buckets of every matching series; pages are joined.
 *
 * @param {string[]} match
 * @param {{from: string, to?: string, stepMs: number, functions: string}} range epoch ns; agg functions
 * @param {AbortSignal} [signal]
 * @returns {Promise<ReadingsAnswer>}
 */
export async function fetchBuckets(match, { from, to, stepMs, functions }, signal) {
  /** @type {[string, string][]} */
  const query = match.map((pattern) => ["match", pattern]);
  query.push(["from", from], ["bucket", `${stepMs}ms`], ["agg", functions], ["limit", "100000"]);
  if (to) query.push(["to", to]);
  /** @type {ReadingsAnswer} */
  const answer = await ask("/v1/readings", query, signal);
  for (let { next } = answer; next; ) {
    const page = await ask("/v1/readings", [...query, ["page", next]], signal);
    answer.rows.push(...page.rows);
    next = page.next;
  }
  return answer;
}

/**
 * @param {string} device
 * @param {string} from epoch ns
 * @param {string} to epoch ns
 * @returns {string} address of a CSV file with every reading of the window
 */
export function exportAddress(device, from, to) {
  return `/v1/export?${new URLSearchParams({ match: `${device}/**`, from, to, format: "csv" })}`;
}
