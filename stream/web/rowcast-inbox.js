// The element <rowcast-inbox>: a bell with the list of the user's inbox, documented in README.md and rowcast-inbox.d.ts. Data of rows
// enters the document as text only. Times are in milliseconds.

import { MANY, RowcastInbox } from "./rowcast-inbox-store.js";

export { RowcastInbox };

const SECOND = 1_000;

const STRINGS = {
  en: {
    title: "Notifications",
    bell: { other: "Notifications, {n} new" },
    many: "more than 99",
    new: { one: "{n} new notification", other: "{n} new notifications" },
    readAll: "Mark all as read",
    read: "Mark as read",
    unread: "Mark as unread",
    archive: "Archive",
    archived: "Archived",
    allRead: "All marked as read",
    undo: "Undo",
    more: "Load more",
    close: "Close",
    retry: "Try again",
    empty: "You are all caught up",
    emptyHint: "New notifications appear here.",
    loading: "Loading…",
    offline: "Reconnecting…",
    delayed: "Notifications may arrive late",
    signedOut: "You are signed out",
    failed: "Notifications cannot be loaded",
    unsaved: "The change could not be saved",
    tooLarge: "This notification is too large to be shown",
  },
  zh: {
    title: "通知",
    bell: { other: "通知，{n} 条新消息" },
    many: "超过 99",
    new: { other: "{n} 条新通知" },
    readAll: "全部标为已读",
    read: "标为已读",
    unread: "标为未读",
    archive: "归档",
    archived: "已归档",
    allRead: "已全部标为已读",
    undo: "撤销",
    more: "加载更多",
    close: "关闭",
    retry: "重试",
    empty: "没有新通知",
    emptyHint: "新的通知会显示在这里。",
    loading: "正在加载…",
    offline: "正在重新连接…",
    delayed: "通知可能会延迟",
    signedOut: "您已退出登录",
    failed: "无法加载通知",
    unsaved: "无法保存更改",
    tooLarge: "此通知太大，无法显示",
  },
};

const CSS = `
:host { display: inline-block; vertical-align: middle; color-scheme: inherit; }
:host([inline]) { display: block; }
:host([hidden]) { display: none; }
.root, .root * { box-sizing: border-box; }
.root {
  all: initial; direction: inherit; color-scheme: inherit; display: block;
  --accent: var(--rowcast-accent, light-dark(#3457d5, #8ea6ff));
  --on-accent: var(--rowcast-on-accent, light-dark(#fff, #10183a));
  --badge: var(--rowcast-badge, light-dark(#d92d20, #ff6b5e));
  --on-badge: var(--rowcast-on-badge, light-dark(#fff, #2b0703));
  --surface: var(--rowcast-surface, light-dark(#fff, #1c1d21));
  --text: var(--rowcast-text, light-dark(#1a1b20, #ededf0));
  --muted: var(--rowcast-muted, light-dark(#62656f, #a2a5af));
  --border: var(--rowcast-border, light-dark(#e4e5ea, #34363d));
  --hover: var(--rowcast-hover, light-dark(#f5f6f9, #26282e));
  --radius: var(--rowcast-radius, 14px);
  --shadow: var(--rowcast-shadow, 0 1px 3px rgb(0 0 0 / .1), 0 16px 48px rgb(0 0 0 / .2));
  color: var(--text); font: 14px/1.45 var(--rowcast-font, system-ui, sans-serif); text-align: start;
}
button { all: unset; box-sizing: border-box; cursor: pointer; border-radius: 8px; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: -1px; }
[hidden] { display: none !important; }
svg { display: block; width: 20px; height: 20px; fill: none; stroke: currentColor; stroke-width: 1.7; stroke-linecap: round; stroke-linejoin: round; }
.bell { position: relative; display: grid; place-items: center; width: 40px; height: 40px; border-radius: 50%; color: var(--rowcast-bell, inherit); }
.bell svg { width: 22px; height: 22px; }
.bell:hover, .bell[aria-expanded=true] { background: color-mix(in srgb, currentColor 9%, transparent); }
.badge { position: absolute; inset-block-start: 1px; inset-inline-start: 20px; min-width: 18px; padding: 0 5px; border-radius: 9px; background: var(--badge); color: var(--on-badge); font-size: 11px; font-weight: 700; line-height: 18px; text-align: center; font-variant-numeric: tabular-nums; }
.panel, .toasts { position: fixed; inset: auto; margin: 0; padding: 0; border: 0; color: inherit; background: none; overflow: visible; }
.panel {
  left: var(--left, 8px); top: var(--top, 56px); width: min(var(--rowcast-width, 400px), 100vw - 16px); max-height: min(var(--room, 600px), 640px);
  border: 1px solid var(--border); border-radius: var(--radius); background: var(--surface); box-shadow: var(--shadow); overflow: clip; outline: none;
}
.panel.inline { position: static; display: flex; flex-direction: column; width: auto; height: var(--rowcast-height, 420px); max-height: none; box-shadow: none; }
.panel:popover-open { display: flex; flex-direction: column; animation: rise .16s ease-out; }
header { display: flex; align-items: center; gap: 4px; padding: 12px 12px 10px; padding-inline-start: 18px; border-bottom: 1px solid var(--border); }
h2 { flex: 1; margin: 0; font-size: 16px; font-weight: 650; letter-spacing: -.01em; }
.text { padding: 4px 10px; color: var(--accent); font-size: 13px; font-weight: 550; }
.text:hover, .icon:hover { background: var(--hover); }
.text[aria-disabled=true] { color: var(--muted); cursor: default; opacity: .6; background: none; }
.icon { display: grid; place-items: center; width: 30px; height: 30px; color: var(--muted); }
.icon:hover { color: var(--text); }
.icon svg { width: 17px; height: 17px; }
.close { display: none; }
.note { display: flex; align-items: center; justify-content: space-between; gap: 8px; padding: 5px 10px 5px 18px; background: var(--hover); color: var(--muted); font-size: 13px; }
.scroll { position: relative; flex: 1; min-height: 0; overflow: auto; overscroll-behavior: contain; }
.new { position: sticky; z-index: 2; top: 8px; display: block; width: max-content; height: 28px; margin: 0 auto -28px; padding: 0 14px; border-radius: 14px; background: var(--accent); color: var(--on-accent); font-size: 13px; font-weight: 600; line-height: 28px; box-shadow: 0 2px 8px rgb(0 0 0 / .25); }
ul { list-style: none; margin: 0; padding: 0; }
li { position: relative; padding: 12px 18px; padding-inline-start: 30px; }
li + li { border-top: 1px solid var(--border); }
li:hover { background: var(--hover); }
li.unread::before { content: ""; position: absolute; inset-block-start: 19px; inset-inline-start: 13px; width: 8px; height: 8px; border-radius: 50%; background: var(--accent); forced-color-adjust: none; }
.link { display: block; width: 100%; color: inherit; text-align: start; text-decoration: none; cursor: pointer; outline: none; }
.link::after { content: ""; position: absolute; inset: 0; }
.link:focus-visible::after { outline: 2px solid var(--accent); outline-offset: -3px; border-radius: 8px; }
.head, .body { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; overflow-wrap: anywhere; text-align: -webkit-match-parent; text-align: match-parent; }
.head { color: var(--muted); }
.unread .head { color: var(--text); font-weight: 550; }
.body { margin-top: 1px; color: var(--muted); font-size: 13px; }
time { display: block; margin-top: 2px; color: var(--muted); font-size: 12px; }
.actions { position: absolute; inset-block-start: 8px; inset-inline-end: 10px; display: flex; padding: 2px; border-radius: 9px; background: var(--surface); box-shadow: 0 0 0 1px var(--border); opacity: 0; }
li:hover .actions, li:focus-within .actions { opacity: 1; }
.state { display: grid; justify-items: center; gap: 6px; padding: 56px 24px; color: var(--muted); text-align: center; }
.state svg { width: 36px; height: 36px; margin-bottom: 4px; opacity: .55; stroke-width: 1.3; }
.state b { color: var(--text); font-weight: 600; }
.more { display: block; margin: 8px auto; }
.toasts { inset-block-end: 16px; inset-inline-end: 16px; width: min(360px, 100vw - 32px); }
.toasts:popover-open { display: grid; gap: 10px; }
.toast { position: relative; display: flex; align-items: start; gap: 10px; padding: 13px 8px 13px 15px; border: 1px solid var(--border); border-radius: var(--radius); background: var(--surface); box-shadow: var(--shadow); animation: rise .2s ease-out; }
.toast > svg { flex: none; color: var(--accent); }
.toast .link { flex: 1; min-width: 0; font-weight: 550; }
.toast .head { color: var(--text); }
.toast .icon { z-index: 1; width: 26px; height: 26px; margin-block: -3px; }
.sr { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@keyframes rise { from { opacity: 0; translate: 0 6px; } }
@media (hover: none) { li { padding-inline-end: 84px; } .actions { opacity: 1; background: none; box-shadow: none; } }
@media (max-width: 479px) {
  .panel:not(.inline) { inset: auto 0 0; width: 100%; max-height: 86dvh; min-height: 40dvh; border-width: 1px 0 0; border-radius: var(--radius) var(--radius) 0 0; }
  .panel::backdrop { background: rgb(0 0 0 / .35); }
  .panel:not(.inline) .close { display: grid; }
}
@media (prefers-reduced-motion: reduce) { * { animation: none !important; } }
@media (forced-colors: active) { .badge, .new { border: 1px solid; } .panel, .toast, .actions { border: 1px solid; } }
`;

const ICONS = {
  bell: "M18 9a6 6 0 1 0-12 0c0 6-2.5 7.5-2.5 7.5h17S18 15 18 9M10 20.5a2.3 2.3 0 0 0 4 0",
  archive: "M4 8v11h16V8M3 4h18v4H3zM10 12h4",
  check: "M5 12.5l4.5 4.5L19 7.5",
  dot: "M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8",
  close: "M6 6l12 12M18 6L6 18",
};

/** Returns an element. Properties with a dash are attributes. @param {string} name @param {Record<string, any>} [properties] */
function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "part") {
      element.className = element.part = value;
    } else if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

function icon(name) {
  const [svg, path] = ["svg", "path"].map((name) => document.createElementNS("http://www.w3.org/2000/svg", name));
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** Returns the URL of a link or an image, unless it could run a script. */
function safeURL(text) {
  try {
    const url = new URL(text, document.baseURI);
    return typeof text === "string" && /^https?:$/.test(url.protocol) ? url.href : undefined;
  } catch {}
}

const text = (...values) => values.find((value) => typeof value === "string" && value !== "") ?? "";
const member = (object, path) => path.split(".").reduce((value, name) => (value !== null && typeof value === "object" && Object.hasOwn(value, name) ? value[name] : undefined), object);

/** Returns the texts of a row: members of data that usually have them. */
function textsOf({ data, event }) {
  if (typeof data === "string") return { title: data, body: "" };
  const [title, ...rest] = ["title", "msg", "message", "text", "body"].map((name) => member(data, name)).filter((value) => text(value));
  return { title: title ?? event, body: rest[0] ?? "", url: safeURL(member(data, "url")) };
}

const stores = new Map(); // one store for all elements with the same URLs
const toasted = new Set();

/** Calls show once for all tabs and all elements. A lock of the browser is held while a tab may still receive the row. */
function once(key, show) {
  if (!navigator.locks) return toasted.has(key) || (toasted.add(key), show());
  navigator.locks.request("rowcast-toast " + key, { ifAvailable: true }, (lock) => lock && (show(), new Promise((resolve) => setTimeout(resolve, 30 * SECOND)))).catch(() => {});
}

let sheet; // of all elements

/** The bell with its list. */
export class RowcastInboxElement extends (globalThis.HTMLElement ?? Object) {
  /** The texts by language. A page may add languages. */
  static strings = STRINGS;
  static observedAttributes = ["events", "inbox", "inline", "lang", "title-badge"];
  /** Returns the content of a row, or undefined for the usual content. @type {((item: any) => Node | string | undefined) | undefined} */
  render;
  token;
  withCredentials = false;
  #strings = {};
  #own; // the style sheet with the position
  #store;
  #key;
  #page; // ends the listeners
  #parts = /** @type {Record<string, any>} */ ({});
  #isOpen = false; // the panel is open, or is about to open
  #items = new Map(); // the nodes of the rows, by id
  #visible = new Map(); // the timers of the rows that may become seen
  #observer;
  #timers = /** @type {Record<string, any>} */ ({});
  #fresh = /** @type {any[]} */ ([]); // rows that are not announced yet
  #undone; // whether the note offers to undo

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
    if (this.#store && !this.#inline) this.#parts.panel.togglePopover(!!open);
  }

  /** Texts that replace those of the dictionary. */
  get strings() {
    return this.#strings;
  }

  set strings(strings) {
    this.#strings = strings ?? {};
    this.#rebuild();
  }

  connectedCallback() {
    this.#page = new AbortController();
    const options = { events: this.getAttribute("events") ?? "/events", inbox: this.getAttribute("inbox") ?? undefined, token: this.token, withCredentials: this.withCredentials };
    this.#key = [options.events, options.inbox].join(" ");
    const shared = stores.get(this.#key) ?? { store: new RowcastInbox(options), users: 0 };
    stores.set(this.#key, shared);
    shared.users++;
    clearTimeout(shared.timer);
    const store = (this.#store = shared.store);
    const { signal } = this.#page;
    store.addEventListener("change", () => this.#update(), { signal });
    store.addEventListener("row", ({ detail }) => this.#receive(detail), { signal });
    store.addEventListener("error", () => this.#say("unsaved"), { signal });
    document.addEventListener("visibilitychange", () => this.#watch(), { signal });
    globalThis.addEventListener("resize", () => this.open && this.#place(), { signal });
    this.#rebuild();
  }

  disconnectedCallback() {
    const [shared, key] = [stores.get(this.#key), this.#key];
    if (!--shared.users) shared.timer = setTimeout(() => stores.delete(key) && shared.store.close()); // unless an element returns at once
    this.#page.abort();
    this.#observer?.disconnect();
    for (const timer of [...Object.values(this.#timers), ...this.#visible.values()]) clearTimeout(timer);
    if (this.hasAttribute("title-badge")) setTitle(0);
    this.#store = undefined;
  }

  attributeChangedCallback(name) {
    if (!this.#store) return;
    if (name !== "events" && name !== "inbox") return this.#rebuild();
    this.disconnectedCallback();
    this.connectedCallback();
  }

  get #lang() {
    const lang = this.closest("[lang]")?.getAttribute("lang") || navigator.language;
    try {
      return Intl.getCanonicalLocales(lang)[0];
    } catch {
      return "en";
    }
  }

  #text(key, n) {
    const lang = this.#lang;
    const all = RowcastInboxElement.strings;
    const value = this.#strings[key] ?? (all[lang] ?? all[lang.split("-")[0]])?.[key] ?? STRINGS.en[key];
    const form = typeof value === "string" ? value : (value[new Intl.PluralRules(lang).select(n)] ?? value.other);
    return n === undefined ? form : form.replace("{n}", n >= MANY ? this.#text("many") : new Intl.NumberFormat(lang).format(n));
  }

  #button(key, part, action, image) {
    const label = this.#text(key);
    return h("button", { part, type: "button", onclick: action, ...(image && { title: label, "aria-label": label }) }, image ? icon(image) : label);
  }

  /** Builds everything except the rows. */
  #rebuild() {
    if (!this.#store) return;
    const open = this.#parts.panel && this.open;
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    if (!sheet) (sheet = new CSSStyleSheet()).replaceSync(CSS);
    if (!this.#own) (this.#own = new CSSStyleSheet()).replaceSync(".root {}");
    root.adoptedStyleSheets = [sheet, this.#own];
    const p = (this.#parts = {
      badge: h("span", { part: "badge", "aria-hidden": "true" }),
      panel: h("div", { part: "panel", role: this.#inline ? "region" : "dialog", tabIndex: -1, "aria-label": this.#text("title") }),
      all: this.#button("readAll", "text", () => this.#markAll()),
      note: h("div", { part: "note", role: "status" }),
      fresh: h("button", { part: "new", type: "button", onclick: () => this.#showWaiting() }),
      list: h("ul", { part: "list", role: "list" }),
      state: h("div", { part: "state" }),
      more: this.#button("more", "text more", () => this.#store.loadMore()),
      toasts: h("div", { part: "toasts", popover: "manual" }),
      live: h("div", { className: "sr", role: "status" }),
    });
    if (this.#inline) p.panel.classList.add("inline");
    else p.panel.popover = "auto";
    p.bell = h("button", { part: "bell", type: "button", hidden: this.#inline, popoverTargetElement: p.panel, "aria-haspopup": "dialog", "aria-expanded": "false" }, h("slot", { name: "bell" }, icon("bell")), p.badge);
    p.scroll = h("div", { part: "scroll", onscroll: () => this.#hold() }, p.fresh, p.list, p.state, p.more);
    p.panel.append(h("header", { part: "header" }, h("h2", { part: "title", textContent: this.#text("title") }), p.all, this.#button("close", "icon close", () => p.panel.hidePopover(), "close")), p.note, p.scroll, h("slot", { name: "footer" }));
    this.#isOpen = false;
    p.panel.addEventListener("beforetoggle", ({ newState }) => {
      this.#isOpen = newState === "open";
      if (!this.#isOpen) return;
      this.#place();
      this.#update();
    });
    p.panel.addEventListener("toggle", ({ newState }) => this.#toggled(newState === "open"));
    p.panel.onkeydown = (event) => this.#press(event);
    p.list.addEventListener("focusin", () => this.#hold());
    p.list.addEventListener("focusout", () => setTimeout(() => this.#hold()));
    this.#observer?.disconnect();
    this.#observer = new IntersectionObserver((entries) => this.#intersect(entries), { root: p.scroll, threshold: 0.5 });
    this.#items.clear();
    root.replaceChildren(h("div", { className: "root", lang: this.#lang }, p.bell, p.panel, p.toasts, p.live));
    p.note.hidden = true;
    clearInterval(this.#timers.tick);
    if (this.#inline) this.#timers.tick = setInterval(() => this.#tick(), 10 * SECOND);
    else if (open) this.open = true;
    this.#update();
  }

  /** Places the panel below the bell, within the viewport. */
  #place() {
    const { left, right, bottom, top } = this.#parts.bell.getBoundingClientRect();
    const style = /** @type {CSSStyleRule} */ (this.#own.cssRules[0]).style;
    const { clientWidth: width, clientHeight: height } = document.documentElement;
    const below = height - bottom >= 320 || bottom < height / 2;
    const size = this.#parts.panel.offsetWidth || Math.min(parseInt(getComputedStyle(this).getPropertyValue("--rowcast-width")) || 400, width - 16);
    const start = getComputedStyle(this).direction === "rtl" ? left : right - size;
    style.setProperty("--left", Math.max(8, Math.min(start, width - size - 8)) + "px");
    const room = Math.max(160, (below ? height - bottom : top) - 16);
    style.setProperty("--room", room + "px");
    style.setProperty("--top", (below ? bottom + 8 : Math.max(8, top - 8 - Math.min(room, 640))) + "px");
  }

  #toggled(open) {
    const { bell, panel, toasts } = this.#parts;
    bell.setAttribute("aria-expanded", open);
    this.#hold();
    if (open) {
      panel.focus({ preventScroll: true });
      toasts.replaceChildren();
      toasts.hidePopover();
      this.#timers.tick = setInterval(() => this.#tick(), 10 * SECOND);
    } else {
      clearInterval(this.#timers.tick);
      if (this.shadowRoot.activeElement && panel.contains(this.shadowRoot.activeElement)) bell.focus();
    }
    this.#update();
    this.#watch();
    this.dispatchEvent(new Event("toggle"));
  }

  /** Lets new rows wait while the user reads further down or uses a row. */
  #hold() {
    const { scroll, list } = this.#parts;
    if (this.#store) this.#store.hold = this.open && (scroll.scrollTop > 8 || list.contains(this.shadowRoot.activeElement));
  }

  #showWaiting() {
    this.#parts.panel.focus({ preventScroll: true });
    this.#parts.scroll.scrollTop = 0;
    this.#store.hold = false;
  }

  #press(event) {
    const links = [...this.#parts.list.querySelectorAll(".link")];
    const li = this.shadowRoot.activeElement?.closest("li");
    const at = links.findIndex((link) => li?.contains(link));
    const to = { ArrowDown: at + 1, ArrowUp: Math.max(at - 1, 0), Home: 0, End: links.length - 1 }[event.key];
    if (event.key === "Delete" && li) this.#archive(li.item);
    else if (to === undefined || !links[to] || event.ctrlKey || event.metaKey || event.altKey) return;
    else links[to].focus();
    event.preventDefault();
  }

  #update() {
    const { badge, bell, all, note, fresh, list, state, more } = this.#parts;
    const { unseenCount: unseen, unreadCount: unread, items, waiting } = this.#store;
    badge.hidden = !unseen;
    badge.textContent = unseen >= MANY ? "99+" : unseen;
    bell.setAttribute("aria-label", unseen ? this.#text("bell", unseen) : this.#text("title"));
    if (this.hasAttribute("title-badge")) setTitle(unseen);
    if (!this.open) return;
    all.setAttribute("aria-disabled", !unread);
    fresh.hidden = !waiting;
    fresh.textContent = this.#text("new", waiting);
    more.hidden = !this.#store.hasMore || !items.length;
    this.#list(list, items);
    this.#showState(state, items);
    this.#tick();
    if (!this.#undone) this.#connection(note);
  }

  #list(list, items) {
    const focused = this.shadowRoot.activeElement?.closest("li");
    const ids = new Set(items.map(({ id }) => id));
    for (const [id, li] of this.#items) {
      if (ids.has(id)) continue;
      if (li === focused) ((li.nextElementSibling ?? li.previousElementSibling)?.querySelector(".link") ?? this.#parts.panel).focus();
      this.#observer.unobserve(li);
      clearTimeout(this.#visible.get(id));
      this.#items.delete(id);
      li.content?.remove();
      li.remove();
    }
    let next = list.firstElementChild;
    for (const item of items) {
      const li = this.#items.get(item.id) ?? this.#row(item);
      if (li === next) next = next.nextElementSibling;
      else list.insertBefore(li, next);
      this.#change(li, item);
    }
  }

  #row(item) {
    const li = h("li", { part: "item" });
    const toggle = this.#button("read", "icon", () => this.#store[li.item.read ? "unread" : "read"]([item.id]), "check");
    li.append(this.#link(item, () => this.#content(li, item)), h("div", { part: "actions" }, toggle, this.#button("archive", "icon", () => this.#archive(li.item), "archive")));
    Object.assign(li, { toggle, time: h("time", { part: "time", dateTime: item.time.toISOString(), title: item.time.toLocaleString(this.#lang) }) });
    li.querySelector(".link").append(li.time);
    this.#items.set(item.id, li);
    this.#observer.observe(li);
    return li;
  }

  #change(li, item) {
    if (li.item && li.item.read === item.read && li.item.seen === item.seen) return;
    li.item = item;
    li.className = item.read ? "" : "unread";
    li.part = item.read ? "item" : "item unread";
    li.content?.toggleAttribute("data-unread", !item.read);
    const label = this.#text(item.read ? "unread" : "read");
    li.toggle.title = label;
    li.toggle.setAttribute("aria-label", label);
    li.toggle.replaceChildren(icon(item.read ? "dot" : "check"));
  }

  /** Returns the link or button of a row. A click marks the row as read. */
  #link(item, content) {
    const { url } = textsOf(item);
    const activate = (event) => {
      if (event.button > 1) return;
      this.#store?.read([item.id]);
      const go = this.dispatchEvent(new CustomEvent("rowcast-click", { detail: { item, url, event }, bubbles: true, composed: true, cancelable: true }));
      if (!go) event.preventDefault();
    };
    const link = h(url ? "a" : "button", { part: "link", onclick: activate, onauxclick: activate, ...(url ? { href: url } : { type: "button" }) });
    link.append(...content());
    return link;
  }

  /** Returns the content of a row. Content from render or from a template is put into the document, where the styles of the page apply. */
  #content(li, item) {
    const template = this.querySelector(":scope > template[slot=item]");
    const custom = this.render?.(item) ?? (template && fill(template.content.cloneNode(true), item));
    if (custom === undefined || custom === null) return this.#usual(item);
    li.content = h("div", { slot: "item-" + item.id });
    li.content.append(custom);
    this.append(li.content);
    return [h("slot", { name: "item-" + item.id })];
  }

  #usual(item) {
    const { title, body } = textsOf(item);
    const parts = [h("span", { part: "head", dir: "auto", textContent: item.too_large ? this.#text("tooLarge") : title })];
    if (body) parts.push(h("span", { part: "body", dir: "auto", textContent: body }));
    return parts;
  }

  #tick() {
    const lang = this.#lang;
    for (const { item, time } of this.#items.values()) time.textContent = age(item.time, this.#store.now(), lang);
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

  /** Shows a state of the connection that lasts for two seconds. */
  #connection(note) {
    const key = { retrying: "offline", delayed: "delayed", "signed-out": "signedOut" }[this.#store.state];
    if (note.key === key) return;
    note.key = key;
    clearTimeout(this.#timers.note);
    note.hidden = true;
    if (key) this.#timers.note = setTimeout(() => this.#say(key, 0), 2 * SECOND);
  }

  /** Shows a note for a time, or until another note. */
  #say(key, time = 10 * SECOND, ...more) {
    const { note } = this.#parts;
    clearTimeout(this.#timers.note);
    note.replaceChildren(h("span", { textContent: this.#text(key) }), ...more);
    note.hidden = false;
    this.#undone = time > 0;
    if (time) this.#timers.note = setTimeout(() => this.#quiet(), time);
  }

  #quiet() {
    const { note } = this.#parts;
    if (note.contains(this.shadowRoot.activeElement)) this.#parts.panel.focus();
    note.hidden = true;
    note.key = this.#undone = undefined;
    if (this.#store) this.#connection(note);
  }

  #offerUndo(key) {
    this.#say(key, 12 * SECOND, this.#button("undo", "text", () => {
      this.#store.undo();
      this.#quiet();
    }));
  }

  #archive(item) {
    this.#store.archive([item.id]);
    this.#offerUndo("archived");
  }

  #markAll() {
    if (!this.#store.unreadCount) return;
    this.#store.readAll();
    this.#offerUndo("allRead");
  }

  /** A row is seen when half of it was visible for a second. @param {IntersectionObserverEntry[]} entries */
  #intersect(entries) {
    for (const { target, isIntersecting } of entries) {
      const { id, seen } = target.item;
      clearTimeout(this.#visible.get(id));
      this.#visible.delete(id);
      if (isIntersecting && !seen && this.open && !document.hidden) this.#visible.set(id, setTimeout(() => this.#store?.seen([id]), SECOND));
    }
  }

  /** Begins to observe again after the page or the panel became visible or hidden. */
  #watch() {
    this.#observer.disconnect();
    for (const timer of this.#visible.values()) clearTimeout(timer);
    this.#visible.clear();
    if (this.open && !document.hidden) for (const li of this.#items.values()) this.#observer.observe(li);
  }

  #receive(item) {
    this.#fresh.push(item);
    clearTimeout(this.#timers.announce);
    this.#timers.announce = setTimeout(() => {
      const { length } = this.#fresh.splice(0);
      this.#parts.live.textContent = this.#text("new", length);
    }, SECOND);
    if (!this.hasAttribute("toasts") || document.hidden || this.open || this.#store.now() - item.time > 30 * SECOND) return;
    once(`${this.#store.url} ${item.id}`, () => this.#toast(item));
  }

  #toast(item) {
    const { toasts } = this.#parts;
    const remove = () => {
      toast.remove();
      if (!toasts.childElementCount) toasts.hidePopover();
    };
    let timer;
    const start = () => (timer = setTimeout(remove, 6 * SECOND));
    const link = this.#link(item, () => this.#usual(item));
    link.addEventListener("click", remove);
    const toast = h("div", { part: "toast", onpointerenter: () => clearTimeout(timer), onpointerleave: start }, icon("bell"), link, this.#button("close", "icon", remove, "close"));
    start();
    toasts.append(toast);
    while (toasts.childElementCount > 3) toasts.firstElementChild.remove();
    toasts.hidePopover();
    toasts.showPopover(); // above what has opened meanwhile
  }
}

/** Fills the elements of a template that have data-field, the path of a member of data. */
function fill(content, item) {
  for (const element of content.querySelectorAll("[data-field]")) {
    const field = element.dataset.field;
    const value = field === "event" ? item.event : member(item.data, field);
    if (element instanceof HTMLAnchorElement) element.href = safeURL(value) ?? "";
    else if (element instanceof HTMLImageElement) element.src = safeURL(value) ?? "";
    else element.textContent = typeof value === "object" ? "" : String(value ?? "");
  }
  return content;
}

/** Returns how long ago a time was, or its date. */
function age(time, now, lang) {
  const seconds = Math.max(0, (now - time) / SECOND);
  const format = new Intl.RelativeTimeFormat(lang, { numeric: "auto" });
  if (seconds < 45) return format.format(0, "second");
  if (seconds < 3_600) return format.format(-Math.max(1, Math.round(seconds / 60)), "minute");
  if (seconds < 86_400) return format.format(-Math.floor(seconds / 3_600), "hour");
  if (seconds < 7 * 86_400) return format.format(-Math.floor(seconds / 86_400), "day");
  return time.toLocaleDateString(lang, { day: "numeric", month: "short", year: "numeric" });
}

function setTitle(n) {
  const title = document.title.replace(/^\(\d+\+?\) /, "");
  const wanted = n ? `(${n >= MANY ? "99+" : n}) ${title}` : title;
  if (document.title !== wanted) document.title = wanted;
}

if (globalThis.customElements && !customElements.get("rowcast-inbox")) customElements.define("rowcast-inbox", RowcastInboxElement);
