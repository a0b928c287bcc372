/** What the address bar keeps: `#device=…&range=…&filter=…&from=…&to=…` (epoch ms), so a reload or a link shows the same. */

/** @typedef {{device: string, range: string, filter: string, from: number, to: number}} Place from and to are NaN while live */

/** @param {string} hash @returns {Place} */
export function readAddress(hash) {
  const query = new URLSearchParams(hash.replace(/^#/, ""));
  const number = (/** @type {string} */ name) => (query.has(name) ? Number(query.get(name)) : NaN);
  return {
    device: query.get("device") ?? "",
    range: query.get("range") ?? "",
    filter: query.get("filter") ?? "",
    from: number("from"),
    to: number("to"),
  };
}

/** @param {Place} place @returns {string} */
export function writeAddress({ device, range, filter, from, to }) {
  const query = new URLSearchParams();
  if (device) query.set("device", device);
  if (range) query.set("range", range);
  if (filter) query.set("filter", filter);
  if (!Number.isNaN(from)) {
    query.set("from", String(Math.round(from)));
    query.set("to", String(Math.round(to)));
  }
  return `#${query}`;
}
