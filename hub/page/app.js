/**
 * The page's composition root: makes the parts, joins them to the hub, and runs the frame loop.
 *
 * Owns: no rule of any part. Data comes in at its own rate and changes models only; everything is
 * drawn from one `requestAnimationFrame` loop at the rate the screen needs.
 */

import { Connection, Session } from "/client/v1/hub-client.js";
import { readAddress, writeAddress } from "./address.js";
import { fetchBuckets, fetchDevices, fetchMe, HttpError } from "./api.js";
import { Children } from "./children.js";
import { BASE_NS, fromEpoch, fromMs, HubClock, toEpoch, toMs } from "./clock.js";
import { Control } from "./control.js";
import { Delivery } from "./delivery.js";
import { byId } from "./dom.js";
import { exposeState } from "./expose.js";
import { Fleet } from "./fleet.js";
import { FleetView } from "./fleet-view.js";
import { bindKeys } from "./keys.js";
import { Log } from "./log.js";
import { onSystemTheme, readPalette, toggleTheme } from "./palette.js";
import { Rail } from "./rail.js";
import { SignIn } from "./sign-in.js";
import { SLOT, SPAN } from "./spark.js";
import { TopBar } from "./topbar.js";
import { RANGES } from "./viewport.js";
import { Watch } from "./watch.js";
import { Watchers } from "./watchers.js";

/** Presence changes are seen within this; live values come by themselves. */
const POLL_MS = 3000;
const POLL_LARGE_MS = 10000;
const LARGE_FLEET = 1000;
const FLEET_HZ = 2;
const TEXTS_EVERY_MS = 250;
/** Without a word for this long, and with no answer to a poll either, the link is dead. */
const SILENCE_MS = 20000;
/** Readings that devices had kept back arrive a little after them, and only the newest come by the live side. */
const FILL_AGAIN_MS = [12_000, 300_000];
/** Series asked for in one go when the sparklines are filled. */
const MOST_PATTERNS = 24;

class App {
  constructor() {
    this.clock = new HubClock();
    this.fleet = new Fleet();
    this.session = new Session({ client: "page/1", origin: BASE_NS, startsOver: true });
    this.connection = new Connection(this.session, { url: location.origin, share: true, changed: (state, why) => this._connectionChanged(state, why) });
    this.watch = new Watch(this.session, this.clock, () => this._remember(), (word) => this.rail.toggle(word));
    this.delivery = new Delivery(() => this.clock.now());
    this.control = new Control();
    this.fleetView = new FleetView((name) => this._control(name));
    this.rail = new Rail((name) => this.choose(name), () => this._remember());
    this.topBar = new TopBar({ toggleTheme: () => this._toggleTheme(), back: () => this.back() });
    this.signIn = new SignIn();
    this.log = new Log();
    this.children = new Children();
    this.watchers = new Watchers();
    this.palette = readPalette();
    this.wanted = readAddress(location.hash);
    this._isAllowed = false;
    this._fleetRevision = -1;
    this._textsAt = -Infinity;
    this._filledFor = "";
    this._filledAt = 0;
    this._fills = 0;
  }

  async start() {
    // An invitation is for somebody who has no session yet: nothing else is asked for before.
    if (this.signIn.openFromAddress() || !(await this._isKnown())) return;
    this._apply(this.wanted);
    this._subscribeFleet();
    this.connection.open();
    this._poll();
    window.addEventListener("popstate", () => this._apply(readAddress(location.hash)));
    onSystemTheme(() => this._repaint());
    bindKeys({
      search: () => this.rail.focusSearch(),
      pause: () => this.watch.togglePause(),
      move: (by) => this.rail.list.move(by),
      range: (index) => this.watch.setRange(Object.keys(RANGES)[index]),
      back: () => this.back(),
      help: () => this.topBar.openHelp(),
      theme: () => this._toggleTheme(),
      delivery: () => this.delivery.toggle(),
      control: () => this.control.toggle(),
    });
    const frame = () => {
      this._frame();
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  /** @returns {Promise<boolean>} false when somebody must sign in first */
  async _isKnown() {
    try {
      await this._learnRights();
    } catch (error) {
      if (!(error instanceof HttpError) || error.status !== 401) return true;
      this.signIn.open();
      return false;
    }
    return true;
  }

  /** Ask who this is, and offer what they may do. */
  async _learnRights() {
    const me = await fetchMe();
    this._isAllowed = true;
    this.signIn.show(me);
    this.control.allow(me);
    this.fleetView.allow(me);
    this.watchers.allow(me);
    byId("open-log").hidden = me.role !== "admin";
    if (me.role === "admin") this.children.begin();
  }

  /** Watch a device. @param {string} name */
  choose(name) {
    const isNew = document.body.dataset.view !== "device" && matchMedia("(max-width: 760px)").matches;
    document.body.dataset.view = "device";
    this._show(name);
    this._remember(isNew);
  }

  /** Watch a device, with its commands and state open. @param {string} name */
  _control(name) {
    this.choose(name);
    this.control.open();
  }

  /** On a phone: from the device back to the list. */
  back() {
    if (document.body.dataset.view !== "device") return;
    document.body.dataset.view = "list";
    this._remember();
    byId("devices").focus({ preventScroll: true });
  }

  /** @param {string} name */
  _show(name) {
    this.wanted.device = name;
    this.rail.list.select(name);
    this.watch.show(this.fleet.devices.get(name) ?? null);
    this.delivery.show(this.watch.device?.name ?? "");
    this.control.show(this.watch.device?.name ?? "");
  }

  /** @param {import("./address.js").Place} place */
  _apply(place) {
    this.wanted = place;
    document.body.dataset.view = place.device ? "device" : "list";
    this.rail.setFilter(place.filter);
    const { viewport } = this.watch;
    viewport.thaw();
    if (place.range in RANGES) viewport.setRange(place.range);
    if (place.to > place.from) this.watch.zoom(fromMs(place.from), fromMs(place.to));
    if (place.device) this._show(place.device);
  }

  /** @param {boolean} [isStep] whether the browser's back button shall undo it */
  _remember(isStep = false) {
    const { frozen, range } = this.watch.viewport;
    const [from, to] = frozen ? frozen.map(toMs) : [NaN, NaN];
    const isList = document.body.dataset.view === "list" && matchMedia("(max-width: 760px)").matches;
    const address = writeAddress({ device: isList ? "" : this.wanted.device, range, filter: this.rail.filterText, from, to });
    if (address === location.hash) return;
    if (isStep) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  }

  _subscribeFleet() {
    let isLive = false;
    this.session.subscribe(
      { match: ["**"], mode: "latest", since: "last", max_hz: FLEET_HZ },
      {
        series: (id, info) => this.fleet.series(id, info),
        reading: (id, time, value) => this.fleet.reading(id, time, value, isLive ? this.clock.running() : NaN),
        live: () => (isLive = true),
        // Whatever comes after the newest values is live, also where the hub does not say so.
        frame: () => (isLive = true),
        reset: () => (isLive = false),
      },
    );
  }

  async _poll() {
    const sent = performance.now();
    try {
      const answer = await fetchDevices();
      const now = fromEpoch(answer.time_ns);
      this.clock.sync(now, sent, performance.now());
      this.fleet.load(answer, now);
      this._loaded();
      // A hub that could not say it when the page began, as one that starts.
      if (!this._isAllowed) await this._learnRights();
    } catch (error) {
      this._pollFailed(error);
    }
    const wait = this.fleet.ordered.length > LARGE_FLEET ? POLL_LARGE_MS : POLL_MS;
    window.setTimeout(() => this._poll(), document.hidden ? wait * 4 : wait);
  }

  /** @param {unknown} error */
  _pollFailed(error) {
    if (error instanceof HttpError && (error.status === 401 || error.status === 403)) {
      this.connection.refuse(error.message);
      if (error.status === 401) this.signIn.open();
      else this.topBar.showRefusal(error.message);
    } else if (performance.now() - this.connection.heardMs > SILENCE_MS) this.connection.drop("the hub is silent");
  }

  _loaded() {
    const { fleet } = this;
    // The next frame shows the list: arrow keys and the wanted row need the whole fleet in it.
    this._textsAt = -Infinity;
    if (!this.wanted.device && fleet.ordered.length && !matchMedia("(max-width: 760px)").matches) {
      const first = fleet.ordered.find((device) => device.presence === "online") ?? fleet.ordered[0];
      document.body.dataset.view = "device";
      this._show(first.name);
    } else if (this.wanted.device && !this.watch.device) {
      this._show(this.wanted.device);
      this.rail.list.select(this.wanted.device, true);
    }
    document.body.dataset.fleet = fleet.ordered.length ? "some" : "none";
    this._fillSparks();
  }

  /** Fill the sparklines from the store when the set of leading channels changed, and now and then. */
  async _fillSparks() {
    const leads = [...new Set(this.fleet.ordered.map((device) => device.lead?.channel).filter(Boolean))].slice(0, MOST_PATTERNS);
    const key = `${leads.join(" ")} ${this.fleet.ordered.length} ${this.fleet.scales}`;
    const wait = FILL_AGAIN_MS[Math.min(this._fills, FILL_AGAIN_MS.length) - 1] ?? 0;
    if (!leads.length || (key === this._filledFor && performance.now() - this._filledAt < wait)) return;
    [this._filledFor, this._filledAt] = [key, performance.now()];
    this._fills++;
    const from = toEpoch(this.clock.running() - SPAN);
    try {
      const answer = await fetchBuckets(leads.map((channel) => `*/${channel}`), { from, stepMs: SLOT / 1e6, functions: "avg" });
      for (const [time, index, value] of answer.rows) {
        const { device, channel } = answer.series[index];
        const found = this.fleet.devices.get(device);
        if (found?.lead?.channel === channel && typeof value === "number") found.spark.put(fromEpoch(String(time)), value);
      }
      this.rail.list.areSparksKnown = true;
    } catch {
      this._filledFor = "";
    }
  }

  /** @param {import("./client/hub-client.d.ts").State} state @param {string} why */
  _connectionChanged(state, why) {
    document.body.dataset.connection = state;
    if (state === "live") {
      this.clock.thaw();
      [this._filledFor, this._fills] = ["", 0];
    } else {
      this.clock.freeze();
      this.watch.feed?.forgetLatency();
    }
    this.watch.redraw();
    if (state === "refused") this.topBar.showRefusal(why);
    this._textsAt = -Infinity;
  }

  _toggleTheme() {
    toggleTheme();
    this._repaint();
  }

  _repaint() {
    this.palette = readPalette();
    this.watch.repaint();
  }

  _frame() {
    const now = this.clock.now();
    const isLive = this.connection.state === "live";
    if (performance.now() - this._textsAt >= TEXTS_EVERY_MS) {
      this._textsAt = performance.now();
      // What is shown "as of" a moment stays as it was then; before anything was live there is no such moment.
      if (!this.clock.isFrozen) this.fleet.refresh(now);
      const isChanged = this.fleet.revision !== this._fleetRevision;
      this._fleetRevision = this.fleet.revision;
      this.rail.render(this.fleet, now, isLive);
      this.topBar.render({ connection: this.connection.state, rate: this.fleet.rate, latencyMs: this.watch.feed?.latencyMs ?? NaN, now });
      this.rail.list.render(now, this.palette, isChanged || isLive);
    } else this.rail.list.render(now, this.palette, false);
    this.watch.render(now, this.palette, isLive);
  }
}

const app = new App();
exposeState(app);
app.start();
