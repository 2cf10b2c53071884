// The nodes of the rows.

import { fill, textsOf } from "./content.js";
import { h, icon } from "./dom.js";
import { agesAt, SECOND } from "./time.js";

// What the page can put into a row and handles a click itself.
const CONTROLS = "a[href], button, input, select, textarea, label, summary, [controls], [contenteditable], [tabindex]";

/** A List shows rows, and marks a row as seen when it was visible for a second. */
export class List {
  node = h("ul", { part: "list", role: "list" });
  #host;
  #items = new Map(); // the nodes, by id
  #visible = new Map(); // the timers of the rows that may become seen
  #observer;

  /** @param {import("./index.js").Host} host */
  constructor(host) {
    this.#host = host;
    this.#observer = new IntersectionObserver((entries) => this.#intersect(entries), { threshold: 0.5 });
  }

  /** Removes the content of the rows from the document, and ends the timers. */
  close() {
    this.#unwatch();
    for (const li of this.#items.values()) li.content?.remove();
    this.#items.clear();
  }

  /** Shows rows. Rows that stay keep their nodes. */
  show(items) {
    const focused = this.#host.focused?.closest("li");
    const ids = new Set(items.map(({ id }) => id));
    for (const [id, li] of this.#items) {
      if (ids.has(id)) continue;
      if (li === focused) ((li.nextElementSibling ?? li.previousElementSibling)?.querySelector(".link") ?? this.#host.panel).focus();
      this.#remove(id, li);
    }
    let next = this.node.firstElementChild;
    for (const item of items) {
      const li = this.#items.get(item.id) ?? this.#row(item);
      if (li === next) next = next.nextElementSibling;
      else this.node.insertBefore(li, next);
      this.#change(li, item);
      if (li.isOld) this.#renew(li);
    }
  }

  #remove(id, li) {
    this.#observer.unobserve(li);
    clearTimeout(this.#visible.get(id));
    this.#items.delete(id);
    li.content?.remove();
    li.remove();
  }

  #row(item) {
    const { button, lang } = this.#host;
    const li = h("li", { part: "item" });
    const toggle = button("read", "icon", () => this.#host.save(this.#host.store[li.item.read ? "unread" : "read"]([item.id])), "check");
    const archive = button("archive", "icon", () => this.#host.archive(li.item), "archive");
    const link = this.link(item, () => this.#content(li, item));
    link.id = "item-" + item.id;
    for (const action of [toggle, archive]) action.setAttribute("aria-describedby", link.id);
    li.append(link, h("div", { part: "actions" }, toggle, archive));
    const known = !isNaN(item.time);
    Object.assign(li, { link, toggle, time: h("time", { part: "time", ...(known && { dateTime: item.time.toISOString(), title: item.time.toLocaleString(lang) }) }) });
    link.append(li.time);
    this.#items.set(item.id, li);
    this.#observer.observe(li);
    return li;
  }

  /** Makes show replace the content of the rows, because the page has another function render. The rows keep their nodes. */
  renew() {
    for (const li of this.#items.values()) li.isOld = true;
  }

  #renew(li) {
    li.isOld = false;
    li.content?.remove();
    li.content = undefined;
    li.link.replaceChildren(...this.#content(li, li.item), li.time);
  }

  #change(li, item) {
    if (li.item && li.item.read === item.read && li.item.seen === item.seen) return;
    li.item = item;
    li.className = item.read ? "" : "unread";
    li.part = item.read ? "item" : "item unread";
    li.content?.toggleAttribute("data-unread", !item.read);
    li.toggle.title = li.toggle.ariaLabel = this.#host.text(item.read ? "unread" : "read");
    li.toggle.replaceChildren(icon(item.read ? "dot" : "check"));
  }

  /** Returns the link or button of a row. A click marks the row as read, unless it is a click on a control in the content of the row. */
  link(item, content = () => this.#usual(item)) {
    const { url } = textsOf(item);
    const activate = (event) => {
      if (event.button > 1) return;
      const path = event.composedPath();
      if (path.slice(0, path.indexOf(link)).some((inner) => inner.matches?.(CONTROLS))) {
        link.removeAttribute("href"); // until the browser has handled the event. Chromium follows a link if a button in it is clicked
        if (url) setTimeout(() => (link.href = url));
        return;
      }
      this.#host.save(this.#host.store?.read([item.id]));
      const go = this.#host.element.dispatchEvent(new CustomEvent("rowcast-click", { detail: { item, url, event }, bubbles: true, composed: true, cancelable: true }));
      if (!go) event.preventDefault();
    };
    const link = h(url ? "a" : "button", { part: "link", onclick: activate, onauxclick: activate, ...(url ? { href: url } : { type: "button" }) });
    link.append(...content());
    return link;
  }

  /** Returns the content of a row. Content from render or from a template is put into the document, where the styles of the page apply. */
  #content(li, item) {
    const { element } = this.#host;
    try {
      const custom = this.#custom(item);
      if (custom === undefined || custom === null) return this.#usual(item);
      if (typeof custom === "object" && !custom.nodeType) throw new TypeError("render must return a node or a text");
      li.content = h("div", { slot: "item-" + item.id });
      li.content.toggleAttribute("data-unread", !item.read);
      li.content.append(custom);
      element.append(li.content);
      return [h("slot", { name: "item-" + item.id })];
    } catch (error) {
      reportError(error); // and continue, so the other rows are shown
      li.content = undefined;
      return this.#usual(item);
    }
  }

  #custom(item) {
    const { element } = this.#host;
    return element.render?.(item) ?? this.#filled(element.querySelector(":scope > template[slot=item]")?.cloneNode(true), item);
  }

  #filled(template, item) {
    if (!template) return;
    template.content.append(...template.childNodes); // React and Vue put the nodes into the template itself
    return fill(template.content, item);
  }

  #usual(item) {
    const { title, body } = textsOf(item);
    const parts = [h("span", { part: "head", dir: "auto", textContent: item.too_large ? this.#host.text("tooLarge") : title })];
    if (body) parts.push(h("span", { part: "body", dir: "auto", textContent: body }));
    return parts;
  }

  /** Updates the text of each row's age, such as "3 minutes ago". */
  tick() {
    const { lang, store } = this.#host;
    const age = agesAt(store.now(), lang);
    for (const { item, time } of this.#items.values()) {
      const text = age(item.time);
      if (time.textContent !== text) time.textContent = text;
    }
  }

  /** Moves the focus or archives the row with the focus. */
  press(event) {
    if (!event.currentTarget.getRootNode().contains(event.target)) return; // in content of the page, such as a text field in the footer
    const links = /** @type {HTMLElement[]} */ ([...this.node.querySelectorAll(".link")]);
    const li = this.#host.focused?.closest("li");
    const at = links.findIndex((link) => li?.contains(link));
    const to = { ArrowDown: at + 1, ArrowUp: Math.max(at - 1, 0), Home: 0, End: links.length - 1 }[event.key];
    if (event.key === "Delete" && li) this.#host.archive(li.item);
    else if (to === undefined || !links[to] || event.ctrlKey || event.metaKey || event.altKey) return;
    else links[to].focus();
    event.preventDefault();
  }

  /** A row is seen when half of it was visible for a second. @param {IntersectionObserverEntry[]} entries */
  #intersect(entries) {
    for (const entry of entries) {
      const { target, isIntersecting } = entry;
      const { id, seen } = /** @type {any} */ (target).item;
      clearTimeout(this.#visible.get(id));
      this.#visible.delete(id);
      const end = () => {
        if (target.checkVisibility({ visibilityProperty: true })) this.#host.store?.seen([id]);
        else this.#intersect([entry]); // waits again, because an observer does not notice changes of the property visibility
      };
      if (isIntersecting && !seen && this.#host.visible) this.#visible.set(id, setTimeout(end, SECOND));
    }
  }

  #unwatch() {
    this.#observer.disconnect();
    for (const timer of this.#visible.values()) clearTimeout(timer);
    this.#visible.clear();
  }

  /** Begins or ends to observe the rows, after the page or the panel became visible or hidden. */
  watch() {
    this.#unwatch();
    if (this.#host.visible) for (const li of this.#items.values()) this.#observer.observe(li);
  }
}
