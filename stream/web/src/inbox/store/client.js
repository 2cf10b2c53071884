// The requests for the list and for changes of the list.

import { checkToken } from "../../token.js";

const SECOND = 1_000;
const ANSWER = 15 * SECOND; // the time limit of a request
const CALLBACK = 30 * SECOND; // the time limit of the token callback

/** Returns the value of a promise, or fails after the time limit of the token callback. Otherwise a callback that never answers would hold
 * up all later changes. */
function inTime(promise) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("the token callback has not answered in time")), CALLBACK)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A Client sends the requests of an inbox. */
export class Client {
  #options;
  #token;
  #forgotten = 0; // the number of calls of forget
  #skew = 0; // the time of the hub minus the time of this machine
  #refused;

  /** @param {URL} url @param {import("../../../rowcast-inbox-store.js").InboxOptions} options
   * @param {(error: any, user: string) => void} refused is called if the credential is not valid, or belongs to another user */
  constructor(url, options, refused) {
    this.url = url;
    this.#options = options;
    this.#refused = refused;
  }

  /** Returns the time of the hub. */
  now() {
    return Date.now() + this.#skew;
  }

  /** Returns the token. A new one is requested unless why is "open" and there is a token. */
  async token(why) {
    if (why === "open" && this.#token !== undefined) return this.#token;
    const forgotten = this.#forgotten;
    const text = checkToken(await inTime(this.#options.token(why)));
    if (forgotten === this.#forgotten) this.#token = text;
    return text;
  }

  /** Forgets the token, which may belong to a user who has signed out. A token that was requested before is not kept either. */
  forget() {
    this.#token = undefined;
    this.#forgotten++;
  }

  /** Returns a page of the list: the first page, or the page that the value before selects. The hub refuses a request if the credential does
   * not belong to the user. */
  list(user, limit, before = undefined) {
    return this.#request("GET", "", { limit, ...(before && { before }) }, user);
  }

  /** Sends a change. */
  change(action, body, user) {
    return this.#request("POST", "/" + action, body, user);
  }

  async #request(method, path, values, user, why = "open") {
    const { token, withCredentials } = this.#options;
    const url = new URL(this.url);
    const headers = /** @type {Record<string, string>} */ ({ Accept: "application/json" });
    const text = token && (await this.token(why));
    if (text) headers.Authorization = `Bearer ${text}`;
    const init = /** @type {RequestInit} */ ({ method, headers, cache: "no-store", credentials: withCredentials ? "include" : "same-origin", signal: AbortSignal.timeout(ANSWER) });
    url.pathname += path;
    if (user !== undefined) url.searchParams.set("user", user);
    if (method === "POST") {
      headers["Content-Type"] = "application/json";
      Object.assign(init, { body: JSON.stringify(values), keepalive: true }); // a click on a link may leave the page before the answer
    } else for (const [name, value] of Object.entries(values)) url.searchParams.set(name, value);
    const response = await fetch(url, init);
    const date = Date.parse(response.headers.get("Date"));
    if (date) this.#skew = Math.abs(date - Date.now()) > 2 * SECOND ? date - Date.now() : 0; // the header Date has whole seconds
    if (response.status === 401 && token && why === "open") return this.#request(method, path, values, user, "refused");
    if (response.ok) return response.json();
    const retryAfter = +response.headers.get("Retry-After") || 0;
    const error = Object.assign(new Error((await response.text()).trim() || `status ${response.status}`), { status: response.status, retryAfter });
    if (error.status === 401 || error.status === 412) this.#refused(error, user);
    throw error;
  }
}
