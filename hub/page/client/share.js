/**
 * One connection for all tabs of a browser that watch the same hub with the same credential.
 *
 * Owns: which tab holds it (whoever has the Web Lock of the group), and the link of each tab to that one. A link is a way to
 * the hub as any other (transport.js): it opens, carries messages, ends; then the tab's `Connection` opens another, and its
 * `Session` goes on by its cursors. So a tab that holds the connection may end at any moment. Two at once would only cost a
 * second connection: a link belongs to the first that took it in, and hears no other; each says whom it means.
 *
 * Tabs talk by BroadcastChannel: `GROUP leader` to the one that holds it, `GROUP LINK` to one tab, `GROUP` to all. What goes
 * over a link is numbered both ways, for a browser may lose what comes for a tab that is stopped.
 */

import { Relay } from "./relay.js";
import { openSocket, openText } from "./transport.js";

/** A leader answers at once; one that does not is frozen, and another takes its place. */
const JOIN_MS = 2000;
const BEAT_MS = 2000;
/** Who has no answer by then goes alone; what is left of the time to open a connection must do for that. */
const WHO_MS = 5000;
/** Beats of this tab, so its own sleep does not count. */
const MOST_MISSED = 3;
/** Read by this much more, the leader is told. */
const READ_STEP = 256 * 1024;

/** @typedef {import("./relay.js").Said} Said @typedef {import("./relay.js").Told} Told @typedef {import("./transport.js").LinkEvents} LinkEvents */
/** @typedef {string | (() => string | Promise<string>)} Token */

/** @type {Map<string, Group>} of this tab */
const groups = new Map();

/**
 * The group of tabs that may share, or null: this browser cannot (no Web Locks: a page without https), or it is not known
 * that they are the same user.
 *
 * @param {URL} base @param {Token} token @param {boolean | string} share a text: tabs that say the same are the same user
 * @returns {Promise<Group | null>}
 */
export async function groupOf(base, token, share) {
  if (!share || !globalThis.navigator?.locks || !globalThis.BroadcastChannel || !globalThis.document) return null;
  if (globalThis.origin === "null") return null;
  // Functions give a token at a time: that two of them speak for the same user only the page can know.
  if (typeof token === "function" && typeof share !== "string") return null;
  let credential = null;
  let who = "asked";
  if (typeof token === "string") {
    if (!token) credential = await whoAmI(base);
    if (!token && credential === null) return null;
    who = token ? `token ${await digest(token)}` : `page ${credential}`;
  }
  // In quotes: `ann` and `ann leader` must not have a channel in common.
  const name = `hub-client 1 ${base.href} ${who} ${typeof share === "string" ? JSON.stringify(share) : ""}`;
  let group = groups.get(name);
  if (!group) groups.set(name, (group = new Group(name, base, token, credential)));
  return group.isBroken ? null : group;
}

/** What this tab has of a group. */
export class Group {
  /** @param {string} name @param {URL} base @param {Token} token @param {string | null} credential */
  constructor(name, base, token, credential) {
    this.name = name;
    this.id = newName();
    this.isBroken = false;
    /** Of the tab that holds the connection, when it is this one. @type {Relay | null} */
    this.relay = null;
    this._base = base;
    this._token = token;
    this._credential = credential;
    /** @type {Set<Link>} */
    this._links = new Set();
    /** @type {BroadcastChannel | null} */
    this._all = null;
    /** @type {BroadcastChannel | null} */
    this._leader = null;
    this._waits = new AbortController();
    this._isTaking = false;
    /** @type {() => void} gives the lock back */
    this._release = () => {};
    this._leaves = new AbortController();
  }

  /** @param {LinkEvents} on @returns {() => void} closes it */
  open(on) {
    if (!this._links.size && !this.relay) this._enter();
    const link = new Link(this, on);
    this._links.add(link);
    link.join();
    return () => link.close();
  }

  /** Say something to the tab that holds the connection. @param {Link} link @param {Said} said */
  say(link, said) {
    const number = link.said++;
    if (!this.relay) return this._leader?.postMessage({ link: link.name, leader: link.leader, number, said });
    let told = 0;
    this.relay.hear(link.name, number, said, () => ({ post: (what) => link.hear(this.id, told++, what), close() {}, isLocal: true }));
  }

  /** @param {Link} link */
  drop(link) {
    this._links.delete(link);
    if (!this._links.size && (this.relay?.isEmpty ?? true)) this._leave();
  }

  /** A link had no answer: whoever holds the connection is frozen. */
  takeOver() {
    // Twice, it would be taken from ourselves.
    if (this.relay || this._isTaking || this._leaves.signal.aborted) return;
    this._isTaking = true;
    this._waits.abort();
    this._request({ steal: true });
  }

  // --- who holds it ---

  _enter() {
    groups.set(this.name, this);
    this._leaves = new AbortController();
    this._all = new BroadcastChannel(this.name);
    this._all.onmessage = ({ data }) => this._announced(data);
    this._leader = new BroadcastChannel(`${this.name} leader`);
    // A page that is put aside or left lets others go on at once; when it is shown again, its links open anew.
    addEventListener("pagehide", () => this._part(), { signal: this._leaves.signal });
    this._wait();
  }

  _leave() {
    this._leaves.abort();
    this._waits.abort();
    this._resign("this tab has left");
    this._all?.close();
    this._leader?.close();
    if (groups.get(this.name) === this) groups.delete(this.name);
  }

  _part() {
    for (const link of [...this._links]) link.end(1006, "the page was left");
    this._leave();
  }

  /** Hold the connection as soon as no other tab does. */
  _wait() {
    this._waits = new AbortController();
    this._request({ signal: this._waits.signal });
  }

  /** @param {LockOptions} options */
  _request(options) {
    const held = { isOurs: false };
    navigator.locks
      .request(this.name, options, () => {
        held.isOurs = true;
        return this._lead();
      })
      .catch((error) => {
        if (error.name !== "AbortError") return this._break();
        // Aborted while it waited: by us. While it was held: another tab took it.
        if (!held.isOurs || this._leaves.signal.aborted) return;
        this._resign("another tab holds the connection now");
        if (!this._leaves.signal.aborted) this._wait();
      });
  }

  /** @returns {Promise<void> | undefined} until the lock is given back */
  _lead() {
    this._isTaking = false;
    if (this._leaves.signal.aborted || this.relay) return;
    const open = (/** @type {string} */ token, /** @type {import("./relay.js").SocketEvents} */ on) => openText(this._base, token, on);
    const emptied = () => this._links.size || this._leave();
    this.relay = new Relay({ open, token: this._token, credential: this._credential, emptied });
    /** @type {BroadcastChannel} */ (this._leader).onmessage = ({ data: { link, leader, number, said } }) => {
      // One that was frozen finds here what was meant for who took its place. Who was not taken in yet joins, or leaves again.
      if (leader === this.id || !leader) this.relay?.hear(link, number, said, () => new FarPort(`${this.name} ${link}`, this.id));
    };
    // First: links of this tab that had their answers from another end now, and with the last of them the group.
    /** @type {Promise<void>} */
    const isHeld = new Promise((resolve) => (this._release = resolve));
    this._all?.postMessage(this.id);
    this._announced(this.id);
    return isHeld;
  }

  /** @param {string} why */
  _resign(why) {
    const { relay } = this;
    this.relay = null;
    if (this._leader) this._leader.onmessage = null;
    relay?.close(why);
    this._release();
  }

  /** @param {string} leader who holds the connection from now on */
  _announced(leader) {
    for (const link of [...this._links]) link.meet(leader);
  }

  /** The browser gives no locks here: each link for itself. */
  _break() {
    this.isBroken = true;
    for (const link of [...this._links]) link.goAlone(this._base, this._token);
  }
}

/** One tab's way to the hub over the tab that holds the connection. */
class Link {
  /** @param {Group} group @param {LinkEvents} on */
  constructor(group, on) {
    this.name = newName();
    this._group = group;
    this._on = on;
    /** Who took it in. */
    this.leader = "";
    /** Messages so far. */
    this.said = 0;
    this._told = 0;
    this._isOpen = false;
    this._isOver = false;
    this._read = 0;
    this._missed = 0;
    /** @type {(() => void) | null} closes a socket of its own */
    this._alone = null;
    this._channel = new BroadcastChannel(`${group.name} ${this.name}`);
    this._channel.onmessage = ({ data: { leader, number, told } }) => this.hear(leader, number, told);
    this._beat = setInterval(() => this._check(), BEAT_MS);
    this._patience = setTimeout(() => group.takeOver(), JOIN_MS);
  }

  join() {
    this._group.say(this, { what: "join" });
  }

  /** A tab holds the connection from now on. @param {string} leader */
  meet(leader) {
    if (!this.leader) this.join();
    else if (this.leader !== leader) this.end(1006, "another tab holds the connection now");
  }

  /** @param {string} leader @param {number} number of what it says @param {Told} told */
  hear(leader, number, told) {
    if (this._isOver || this._alone) return;
    if (told.what === "joined" && !this.leader) {
      this.leader = leader;
      this._told = number;
      clearTimeout(this._patience);
    }
    if (leader !== this.leader) return;
    if (number !== this._told++) return this.end(1006, "a message between tabs was lost");
    this._missed = 0;
    if (told.what === "open" && !this._isOpen) {
      this._isOpen = true;
      this._on.open((message) => this._say(message));
    } else if (told.what === "text") this._text(told.text, told.sub);
    else if (told.what === "end") this.end(told.code, told.reason, told.then);
  }

  /** It has ended; who opened it is told. @param {number} code @param {string} reason @param {import("./transport.js").Then} then */
  end(code, reason, then = "again") {
    if (this._isOver) return;
    this.close();
    this._on.close(code, reason, then);
  }

  close() {
    if (this._isOver) return;
    this._isOver = true;
    clearInterval(this._beat);
    clearTimeout(this._patience);
    this._alone?.();
    this._group.say(this, { what: "leave" });
    this._channel.close();
    this._group.drop(this);
  }

  /** @param {URL} base @param {Token} token */
  async goAlone(base, token) {
    if (this._isOver || this.leader) return;
    clearInterval(this._beat);
    clearTimeout(this._patience);
    this._alone = () => {};
    try {
      const text = typeof token === "function" ? await token() : token;
      if (!this._isOver) this._alone = openSocket(base, text, this._on);
    } catch (error) {
      this.end(1006, String(error));
    }
  }

  /** @param {any} message of the session, whose names are its own */
  _say(message) {
    if (!this._isOver) this._group.say(this, { what: "say", message });
  }

  /** @param {string} text @param {string} [sub] the session's name for what it is about */
  _text(text, sub) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return this.end(1006, "a message broke on its way");
    }
    this._on.message({ ...message, sub });
    // Only now: what waits in this tab counts as not read.
    this._read += text.length;
    if (this._read < READ_STEP || this._isOver) return;
    this._group.say(this, { what: "read", size: this._read });
    this._read = 0;
  }

  _check() {
    if (!this.leader) return;
    if (this._missed++ >= MOST_MISSED) return this.end(1006, "the tab that holds the connection is silent");
    this._group.say(this, { what: "ping" });
  }
}

/** Of a member in another tab. */
class FarPort {
  /** @param {string} name of its channel @param {string} leader who speaks */
  constructor(name, leader) {
    this.isLocal = false;
    this._leader = leader;
    this._told = 0;
    this._channel = new BroadcastChannel(name);
  }

  /** @param {Told} told */
  post(told) {
    this._channel.postMessage({ leader: this._leader, number: this._told++, told });
  }

  close() {
    this._channel.close();
  }
}

/** @param {URL} base @returns {Promise<string | null>} the id of the credential that the browser has for the hub */
async function whoAmI(base) {
  try {
    const answer = await fetch(new URL("v1/me", base), { cache: "no-store", signal: AbortSignal.timeout(WHO_MS) });
    return answer.ok ? ((await answer.json()).id ?? null) : null;
  } catch {
    return null;
  }
}

/** @param {string} text @returns {Promise<string>} what it is known by, without being known */
async function digest(text) {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @returns {string} of a link or a leader */
function newName() {
  return [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
