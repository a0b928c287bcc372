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
 *   erased: number, late: number, rows: number}} DeviceAudit
 * @typedef {{stream: string, stored: number, accepted: number, complete: boolean, balanced: boolean,
 *   last_ns: string | null}} StreamAudit
 * @typedef {{count: number | null, reason: string, explanation: string, received_ns: string,
 *   ranges: Record<string, [string, string]>}} GapAudit
 * @typedef {{channel: string, reason: string, explanation: string, count: number, last_ns: string}} RejectionAudit
 * @typedef {{balanced: boolean | null, behind: number, devices: DeviceAudit[], streams: StreamAudit[],
 *   gaps: GapAudit[], rejections: RejectionAudit[], series: {channel: string}[]}} AuditAnswer
 * @typedef {{id: number, time_ns: string, who: string, role: string, credential: string, peer: string, what: string,
 *   target: string, outcome: string, count: number}} LogEntry
 * @typedef {{entries: LogEntry[], next: number | null, cut: {count: number, until_ns: string} | null}} LogAnswer
 */

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
 */
export async function post(path, body) {
  const headers = { accept: "application/json", ...(body && { "content-type": "application/json" }) };
  const response = await fetch(path, { method: "POST", headers, body: body && JSON.stringify(body), cache: "no-store" });
  if (response.ok) return;
  const answer = await response.json().catch(() => null);
  throw new HttpError(response.status, answer?.error?.message ?? `the hub answered ${response.status}`);
}

/** @returns {Promise<import("./sign-in.js").Me>} */
export function fetchMe() {
  return ask("/v1/me");
}

/** @param {number} before id of an entry, 0 for the newest @returns {Promise<LogAnswer>} */
export function fetchLog(before) {
  return ask("/v1/log", [["before", String(before)]]);
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
