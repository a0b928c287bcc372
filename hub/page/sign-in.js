/**
 * Signing in and out: the form that stands where the charts would when the hub asks who this is.
 *
 * Owns: the form in its three uses (sign in, set the password of an invitation, make the first user), and who is signed
 * in. Decides nothing: what is wrong is said in the hub's words.
 */

import { HttpError, post } from "./api.js";
import { byId, closeDialogs, setText } from "./dom.js";

/** @typedef {{name: string, role: string, namespace: string, signed_in: boolean, scopes: Record<string, string[]>}} Me */
/** @typedef {"sign-in" | "invite" | "first-user"} Use */

const INVITE = "#invite=";
const FIRST_USER = "#first-user";
/** @type {Record<Use, [string, string, string]>} title, explanation, button */
const WORDS = {
  "sign-in": ["Sign in", "This hub shows its devices to people it knows.", "Sign in"],
  invite: ["Set your password", "At least ten characters; a few words make a good one.", "Set password and sign in"],
  "first-user": ["Make the first admin", "The link that brought you here is used up. With a name and a password you can sign in again.", "Make and sign in"],
};

export class SignIn {
  constructor() {
    this._form = /** @type {HTMLFormElement} */ (byId("sign-in-form"));
    this._name = /** @type {HTMLInputElement} */ (byId("sign-in-name"));
    this._password = /** @type {HTMLInputElement} */ (byId("sign-in-password"));
    this._button = /** @type {HTMLButtonElement} */ (byId("sign-in-button"));
    /** @type {Use} */
    this._use = "sign-in";
    this._code = "";
    this._form.addEventListener("submit", (event) => {
      event.preventDefault();
      this._submit();
    });
    byId("sign-in-later").addEventListener("click", () => leave());
    byId("sign-out").addEventListener("click", () => this._signOut());
  }

  /** Show what the address asks for: an invitation or the first user. @returns {boolean} whether it asks for something */
  openFromAddress() {
    const { hash } = location;
    if (!hash.startsWith(INVITE) && hash !== FIRST_USER) return false;
    this._code = hash.startsWith(INVITE) ? hash.slice(INVITE.length) : "";
    // The code must not stay in the address bar, nor in what is shared from it.
    history.replaceState(null, "", "/");
    this.open(this._code ? "invite" : "first-user");
    return true;
  }

  /** @param {Use} [use] */
  open(use = "sign-in") {
    if (!byId("sign-in").hidden) return;
    this._use = use;
    const [title, why, button] = WORDS[use];
    setText(byId("sign-in-title"), title);
    setText(byId("sign-in-why"), why);
    setText(this._button, button);
    byId("sign-in-name-field").hidden = use === "invite";
    this._name.required = use !== "invite";
    this._password.autocomplete = use === "sign-in" ? "current-password" : "new-password";
    byId("sign-in-later").hidden = use !== "first-user";
    byId("sign-in").hidden = false;
    closeDialogs();
    (use === "invite" ? this._password : this._name).focus();
  }

  /** @param {Me} me */
  show(me) {
    const button = byId("sign-out");
    button.hidden = !me.signed_in;
    button.title = `Signed in as ${me.name} (${me.role})`;
    setText(byId("sign-out-name"), me.name);
  }

  async _submit() {
    this._say("");
    this._button.disabled = true;
    try {
      const [name, password] = [this._name.value.trim(), this._password.value];
      if (this._use === "invite") await post("/v1/invite", { code: this._code, password });
      else {
        if (this._use === "first-user") {
          await post("/v1/users", { name, role: "admin", password });
          // Made: from here on a second try is a sign-in.
          this._use = "sign-in";
        }
        await post("/v1/login", { name, password });
      }
      leave();
    } catch (error) {
      this._say(error instanceof HttpError ? error.message : "The hub does not answer; try again.");
      this._password.select();
    }
    this._button.disabled = false;
  }

  async _signOut() {
    await post("/v1/logout", null).catch(() => null);
    leave();
  }

  /** @param {string} text */
  _say(text) {
    setText(byId("sign-in-error"), text);
    this._password.setAttribute("aria-invalid", String(text !== ""));
  }
}

/** A new start with the new cookie: every part of the page asks again. */
function leave() {
  location.reload();
}
