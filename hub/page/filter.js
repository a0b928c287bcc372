/**
 * The small filter language of the search field. Pure.
 *
 * Words are joined by "and": `green` or `green*-0?` (name), `state:stale,offline`, `channel:temp`
 * (has such a channel), `site:north` (there), `tag:old` (has that tag), `-word` (not). A name is the device's or its label.
 */

const KEYS = ["state", "channel", "site", "tag", "name"];
/** Keys whose words are whole ones, as the hub chooses by them. */
const EXACT = ["site", "tag"];
const STATES = ["online", "alert", "stale", "offline"];

/**
 * @typedef {{name: string, label: string, site: string, tags: string[], state: string, channels: {channel: string}[]}} Filterable
 * @typedef {{key: string, not: boolean, tests: ((text: string) => boolean)[], text: string}} Term
 * @typedef {{terms: Term[], problem: string | null}} Filter
 */

/**
 * @param {string} text
 * @returns {Filter} `problem` says in words what was not understood
 */
export function parseFilter(text) {
  /** @type {Term[]} */
  const terms = [];
  let problem = null;
  for (const word of text.trim().split(/\s+/)) {
    if (!word || word === "-") continue;
    const not = word.startsWith("-");
    const [key, value] = splitKey(not ? word.slice(1) : word);
    if (!KEYS.includes(key)) problem = `unknown filter ${key}:`;
    const values = value.split(",").filter(Boolean);
    if (key === "state") {
      const wrong = values.find((v) => !STATES.some((state) => state.startsWith(v)));
      if (wrong) problem = `unknown state ${wrong}`;
    }
    if (values.length) terms.push({ key, not, tests: values.map((v) => tester(v, key)), text: word });
  }
  return { terms, problem };
}

/**
 * @param {Filter} filter
 * @param {Filterable} device
 * @returns {boolean}
 */
export function matches(filter, device) {
  return filter.terms.every(({ key, not, tests }) => tests.some((test) => subjects(key, device).some(test)) !== not);
}

/**
 * Switch one word of a filter text on or off; others stay.
 *
 * @param {string} text
 * @param {string} word
 * @returns {string}
 */
export function toggleWord(text, word) {
  const words = text.trim().split(/\s+/).filter(Boolean);
  return (words.includes(word) ? words.filter((other) => other !== word) : [...words, word]).join(" ");
}

/**
 * Switch one `state:` word of a filter text on or off; other words stay.
 *
 * @param {string} text
 * @param {string} state
 * @returns {string}
 */
export function toggleState(text, state) {
  const words = text.trim().split(/\s+/).filter(Boolean);
  const kept = words.filter((word) => !word.startsWith("state:"));
  return words.includes(`state:${state}`) ? kept.join(" ") : [...kept, `state:${state}`].join(" ");
}

/** @param {string} word @returns {[string, string]} */
function splitKey(word) {
  const at = word.indexOf(":");
  return at < 0 ? ["name", word.toLowerCase()] : [word.slice(0, at).toLowerCase(), word.slice(at + 1).toLowerCase()];
}

/** @param {string} key @param {Filterable} device @returns {string[]} */
function subjects(key, device) {
  if (key === "name") return [device.name.toLowerCase(), device.label.toLowerCase()];
  if (key === "site") return [device.site.toLowerCase()];
  if (key === "tag") return device.tags.map((tag) => tag.toLowerCase());
  if (key === "state") return [device.state];
  return key === "channel" ? device.channels.map((channel) => channel.channel.toLowerCase()) : [];
}

/** @param {string} value @param {string} key @returns {(text: string) => boolean} */
function tester(value, key) {
  if (/[*?]/.test(value)) {
    const escaped = value.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
    const pattern = new RegExp(`^${escaped}$`);
    return (text) => pattern.test(text);
  }
  if (EXACT.includes(key)) return (text) => text === value;
  return key === "state" ? (text) => text.startsWith(value) : (text) => text.includes(value);
}
