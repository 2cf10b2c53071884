// The element <rowcast-inbox>: a bell with the list of the user's inbox, documented in README.md and rowcast-inbox.d.ts.

import { RowcastInbox } from "../../../rowcast-inbox-store.js";
import { MANY } from "../many.js";
import { findOutward, h, icon } from "./dom.js";
import { List } from "./list.js";
import { Notes } from "./note.js";
import { place } from "./place.js";
import { take } from "./stores.js";
import { sheetOf } from "./style.js";
import { allTexts, isText, languageOf, STRINGS, translate } from "./texts.js";
import { SECOND } from "./time.js";
import { showInTitle } from "./title.js";
import { once, SHOWN, Toasts } from "./toasts.js";

export { RowcastInbox };

const announced = new WeakSet(); // rows that an element has announced

/** The members of the element that its parts use.
 * @typedef {object} Host
 * @property {any} element @property {any} store @property {any} lang @property {any} panel @property {any} focused @property {boolean} visible
 * @property {(key: string, n?: number) => string} text @property {(key: string, part: string, action: () => void, image?: string) => any} button
 * @property {(item: any) => void} archive @property {(saved: Promise<boolean> | undefined) => void} save */

const Base = /** @type {typeof HTMLElement} */ (globalThis.HTMLElement ?? Object); // Node has no elements

/** The bell with its list. */
export class RowcastInboxElement extends Base {
  /** The texts by language. A page may add languages. */
  static strings = STRINGS;
  static observedAttributes = ["events", "inbox", "with-credentials", "inline", "lang", "title-badge"];
  #isConnected = false;
  #render;
  #token = /** @type {import("../../../rowcast-inbox-store.js").InboxOptions["token"]} */ (undefined);
  #strings = /** @type {Record<string, import("../../../rowcast-inbox.js").InboxText>} */ ({});
  #texts; // the texts that the element shows (see allTexts)
  #store;
  #giveBack;
  #setHold;
  #page; // ends the listeners
  #parts = /** @type {Record<string, any>} */ ({});
  #isOpen = false; // the panel is open, or will open as soon as the element is in a document
  #timers = /** @type {Record<string, any>} */ ({});
  #arrived = 0; // rows that are not announced yet

  /** The store, while the element is in a document. */
  get store() {
    return this.#store;
  }

  get #inline() {
    return this.hasAttribute("inline");
  }

  /** Whether the list is shown. */
  get open() {
    return !!this.#store && (this.#inline || this.#isOpen);
  }

  set open(open) {
    if (!this.#store) this.#isOpen = !!open;
    else if (!this.#inline) this.#parts.panel.togglePopover(!!open);
  }

  /**
   * A function that returns the content of a row. If it returns undefined or null, the template is used, if there is one.
   * Otherwise the row has the usual content. @type {((item: any) => Node | string | null | undefined) | undefined}
   */
  get render() {
    return this.#render;
  }

  set render(render) {
    this.#render = render;
    this.#parts.list?.renew();
    if (this.#store && this.open) this.#update(); // before that, a property of the page can hide open (see #takeOver)
  }

  get token() {
    return this.#token;
  }

  set token(token) {
    if (token === this.#token) return;
    this.#token = token;
    this.#restart();
  }

  get withCredentials() {
    return this.hasAttribute("with-credentials");
  }

  set withCredentials(value) {
    this.toggleAttribute("with-credentials", !!value);
  }

  /** Texts that replace texts of the dictionary. */
  get strings() {
    return this.#strings;
  }

  set strings(strings) {
    this.#strings = strings ?? {};
    for (const [key, value] of Object.entries(this.#strings)) {
      if (!isText(value)) reportError(new TypeError(`the text ${key} of strings must be a text, or an object with texts, such as { other: "{n} new" }`));
    }
    if (this.#allTexts !== this.#texts) this.#rebuild(); // a framework may set an equal object at each rendering
  }

  connectedCallback() {
    const document = this.ownerDocument; // a page may move the element to another document than that of this script
    const window = document.defaultView;
    if (!window) return; // for example, the frame of the document was removed
    this.#takeOver();
    this.#isConnected = true;
    const options = { events: this.getAttribute("events") ?? "/events", inbox: this.getAttribute("inbox") ?? undefined, token: this.#token ?? undefined, withCredentials: this.withCredentials };
    [this.#store, this.#giveBack, this.#setHold] = take(options);
    this.#page = new AbortController();
    const { signal } = this.#page;
    this.#store.addEventListener("change", () => this.#update(), { signal });
    this.#store.addEventListener("row", ({ detail }) => this.#receive(detail), { signal });
    this.#store.addEventListener("error", ({ action }) => this.#fail(action), { signal });
    document.addEventListener("visibilitychange", () => this.#parts.list.watch(), { signal });
    window.addEventListener("resize", () => this.open && this.#place(), { signal });
    // Nothing else tells the element that its frame was removed, or its window closed.
    window.addEventListener("pagehide", ({ persisted }) => persisted || this.disconnectedCallback(), { signal });
    for (const target of [this, document]) target.addEventListener("keydown", (event) => this.#escape(event), { signal });
    this.#rebuild();
    this.#timers.tick = setInterval(() => this.open && this.#parts.list.tick(), 10 * SECOND);
    const languages = new MutationObserver(() => this.#lang !== this.#parts.lang && this.#rebuild());
    languages.observe(document, { subtree: true, attributeFilter: ["lang"] });
    signal.addEventListener("abort", () => languages.disconnect());
  }

  /** Takes over the properties that a page has set before this script was loaded. They hide the properties of the class. */
  #takeOver() {
    for (const name of ["token", "withCredentials", "render", "strings", "open"]) {
      if (!Object.hasOwn(this, name)) continue;
      const value = this[name];
      delete this[name];
      this[name] = value;
    }
  }

  disconnectedCallback() {
    this.#isConnected = false;
    if (!this.#store) return; // the options were refused
    this.#giveBack();
    this.#page.abort();
    this.#closeParts();
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    showInTitle(this, undefined);
    this.#store = undefined;
    this.#isOpen = false;
  }

  attributeChangedCallback(name, before, value) {
    if (before === value) return;
    if (["events", "inbox", "with-credentials"].includes(name)) this.#restart();
    else this.#rebuild();
  }

  /** Replaces the store by a store for the present options. */
  #restart() {
    if (!this.#isConnected) return;
    const { open } = this;
    this.disconnectedCallback();
    if (!this.#inline) this.#isOpen = open;
    this.connectedCallback();
  }

  get #lang() {
    return languageOf(this, RowcastInboxElement.strings);
  }

  get #allTexts() {
    return allTexts(this.#strings, RowcastInboxElement.strings, this.#lang);
  }

  #text(key, n = undefined) {
    return translate(this.#strings, RowcastInboxElement.strings, this.#lang, key, n);
  }

  #button(key, part, action, image = undefined) {
    const label = this.#text(key);
    return h("button", { part, type: "button", onclick: action, ...(image && { title: label, "aria-label": label }) }, image ? icon(image) : label);
  }

  /** @returns {Host} */
  #host() {
    const self = this;
    return {
      element: this,
      get store() {
        return self.#store;
      },
      get lang() {
        return self.#lang;
      },
      get panel() {
        return self.#parts.panel;
      },
      get focused() {
        return self.shadowRoot.activeElement;
      },
      get visible() {
        return self.open && !self.ownerDocument.hidden;
      },
      text: (key, n) => this.#text(key, n),
      button: (...args) => this.#button(...args),
      archive: (item) => this.#archive(item),
      save: (saved) => this.#save(saved),
    };
  }

  #closeParts() {
    this.#parts.list?.close();
    this.#parts.note?.close();
  }

  /** Builds the element anew. If the list is shown, that includes its rows. */
  #rebuild() {
    if (!this.#store) return;
    const { open } = this;
    this.#texts = this.#allTexts;
    this.#closeParts();
    for (const copy of this.querySelectorAll(":scope > [slot^=item-]")) copy.remove(); // a page that has cloned an element has cloned its rows
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheetOf(this.ownerDocument)];
    const p = (this.#parts = this.#build());
    this.#isOpen = false;
    this.#listen(p);
    root.replaceChildren(p.root);
    if (open) this.open = true;
    this.#update();
    this.#hold(); // the new list begins at the top
  }

  #build() {
    const host = this.#host();
    const p = /** @type {Record<string, any>} */ ({
      badge: h("span", { part: "badge", "aria-hidden": "true" }),
      panel: h("div", { part: "panel", role: this.#inline ? "region" : "dialog", tabIndex: -1, "aria-label": this.#text("title") }),
      all: this.#button("readAll", "text", () => this.#markAll()),
      fresh: h("button", { part: "new", type: "button", onclick: () => this.#showWaiting() }),
      state: h("div", { part: "state" }),
      more: this.#button("more", "text more", () => this.#store?.loadMore()),
      live: h("div", { className: "sr", role: "status" }),
      scroll: h("div", { part: "scroll", onscroll: () => this.#hold() }),
      lang: this.#lang,
      note: new Notes(host),
      toasts: new Toasts(host),
    });
    p.list = new List(host);
    p.scroll.append(p.fresh, p.list.node, p.state, p.more);
    if (this.#inline) p.panel.classList.add("inline");
    else p.panel.popover = "auto";
    const bell = { part: "bell", type: "button", hidden: this.#inline, popoverTargetElement: p.panel, "aria-haspopup": "dialog", "aria-expanded": "false" };
    p.bell = h("button", bell, h("slot", { name: "bell" }, icon("bell")), p.badge);
    const close = this.#button("close", "icon close", () => p.panel.hidePopover(), "close");
    const header = h("header", { part: "header" }, h("h2", { part: "title", textContent: this.#text("title") }), p.all, close);
    p.panel.append(header, p.note.node, p.scroll, h("slot", { name: "footer" }));
    p.root = h("div", { className: "root", lang: p.lang }, p.bell, p.panel, p.toasts.node, p.live);
    return p;
  }

  #listen(p) {
    p.panel.addEventListener("beforetoggle", ({ newState }) => {
      this.#isOpen = newState === "open";
      if (!this.#isOpen) return;
      this.#place();
      this.#update();
    });
    p.panel.addEventListener("toggle", (event) => this.#toggled(event));
    p.panel.onkeydown = (event) => p.list.press(event);
    p.list.node.addEventListener("focusin", () => this.#hold());
    p.list.node.addEventListener("focusout", () => setTimeout(() => this.#hold()));
  }

  #place() {
    place(this, this.#parts.bell, this.#parts.root.style);
  }

  #toggled(event) {
    if (!this.#store) return; // the element was removed meanwhile
    const open = event.newState === "open";
    const { bell, panel, toasts, list } = this.#parts;
    bell.ariaExpanded = open;
    this.#hold();
    if (open) {
      this.#store.showWaiting(); // also if another element lets them wait
      panel.focus({ preventScroll: true });
      toasts.clear();
    } else if (panel.contains(this.shadowRoot.activeElement)) bell.focus();
    this.#update();
    list.watch();
    this.dispatchEvent(new ToggleEvent("toggle", event));
  }

  /** Closes only the list, and not a dialog around it. The browser could close both with one press of the key, if the user did not click
   * between the opening of the dialog and of the list. If something was opened from the list, the browser closes that first. */
  #escape(event) {
    if (event.key !== "Escape" || event.defaultPrevented || event.isComposing || !this.#isOpen || this.#inline) return;
    if ([...this.ownerDocument.querySelectorAll(":popover-open:not([popover=manual]), :modal")].some((other) => !findOutward(this, (outer) => other.contains(outer)))) return;
    event.preventDefault();
    this.open = false;
  }

  /** Lets new rows wait while the user reads further down or uses a row. */
  #hold() {
    const { scroll, list } = this.#parts;
    if (this.#store) this.#setHold(this.open && (scroll.scrollTop > 8 || list.node.contains(this.shadowRoot.activeElement)));
  }

  #showWaiting() {
    this.#parts.panel.focus({ preventScroll: true });
    this.#parts.scroll.scrollTop = 0;
    this.#setHold(false);
    this.#store.showWaiting(); // also if another element lets them wait
  }

  #update() {
    const { badge, bell, panel, all, note, fresh, list, state, more } = this.#parts;
    const { unseenCount: unseen, unreadCount: unread, items, waiting } = this.#store;
    badge.hidden = !unseen;
    badge.textContent = unseen >= MANY ? "99+" : unseen;
    bell.ariaLabel = unseen ? this.#text("bell", unseen) : this.#text("title");
    showInTitle(this, this.hasAttribute("title-badge") ? this.#store : undefined);
    if (this.#store.state === "signed-out") this.#forget();
    if (!this.open) return;
    const focused = this.shadowRoot.activeElement;
    all.ariaDisabled = !unread;
    fresh.hidden = !waiting;
    fresh.textContent = this.#text("new", waiting);
    more.hidden = !this.#store.hasMore || !items.length;
    list.show(items);
    this.#showState(state, items);
    if (focused && !this.shadowRoot.activeElement?.checkVisibility()) panel.focus({ preventScroll: true }); // the button with the focus has disappeared
    list.tick();
    note.connection();
  }

  /** Removes what would still show rows of a user who has signed out. */
  #forget() {
    this.#parts.toasts.clear();
    this.#parts.note.clear();
    clearTimeout(this.#timers.announce);
    this.#arrived = 0;
  }

  #save(saved) {
    saved?.then((isSaved) => isSaved && this.#parts.note.saved());
  }

  #fail(action) {
    if (this.#store.state === "signed-out" || action === "seen") return; // the list says so, or the user has done nothing
    this.#parts.note.fail(action === "list" ? "failed" : "unsaved");
  }

  #showState(state, items) {
    state.hidden = items.length > 0;
    if (items.length) return;
    const kind = this.#store.state;
    const failed = { failed: "failed", retrying: this.#store.error && "failed", "signed-out": "signedOut", forbidden: "failed" }[kind];
    const key = failed || (kind === "loading" ? "loading" : "empty");
    if (state.key === key) return;
    state.key = key;
    state.replaceChildren(icon("bell"), h("b", { textContent: this.#text(key) }));
    if (key === "empty") state.append(h("span", { textContent: this.#text("emptyHint") }));
    if (failed) state.append(this.#button("retry", "text", () => this.#store.load()));
  }

  #archive(item) {
    if (!this.#store) return;
    this.#parts.note.offerUndo("archived");
    this.#save(this.#store.archive([item.id]));
  }

  #markAll() {
    if (!this.#store.unreadCount) return;
    this.#parts.note.offerUndo("allRead");
    this.#save(this.#store.readAll());
  }

  /** Announces a new row, and shows it in a toast. An element that is not visible does neither, so that another one does. */
  #receive(item) {
    if (!this.#parts.live.checkVisibility({ visibilityProperty: true })) return; // the host itself may have display: contents
    this.#announce(item);
    if (!this.hasAttribute("toasts") || this.ownerDocument.hidden || this.open || this.#store.now() - item.time > SHOWN) return;
    once(`${this.#store.url} ${item.id}`, () => this.#parts.toasts.show(this.#parts.list.link(item)));
  }

  /** Counts a new row in a text for screen readers. Of the elements that share a store, the first visible one does so. */
  #announce(item) {
    if (announced.has(item)) return;
    announced.add(item);
    this.#arrived++;
    clearTimeout(this.#timers.announce);
    this.#timers.announce = setTimeout(() => {
      this.#parts.live.textContent = this.#text("new", this.#arrived);
      this.#arrived = 0;
    }, SECOND);
  }
}

if (globalThis.customElements && !customElements.get("rowcast-inbox")) customElements.define("rowcast-inbox", RowcastInboxElement);
