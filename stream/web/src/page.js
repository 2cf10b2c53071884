/** Calls functions when the state of a page changes. Returns an AbortController that removes the listeners.
 * @param {any} window
 * @param {{ sleep(): void, wake(isRestored: boolean): void, check(): void, visible(): void }} callbacks sleep: the page is frozen, or goes into the
 *   back/forward cache. wake: it continues; isRestored is true if it was in that cache. visible: it becomes visible or hidden. check: the
 *   network is back, or the page is visible after wake or visible was called. */
export function listen(window, { sleep, wake, check, visible }) {
  const { document } = window;
  const page = new AbortController();
  const on = (target, type, listener) => target?.addEventListener?.(type, listener, { signal: page.signal });
  const checkVisible = () => document?.hidden || check();
  const wakeUp = ({ persisted = false }) => {
    wake(persisted);
    checkVisible();
  };
  on(window, "online", check);
  on(window, "pagehide", sleep);
  on(window, "pageshow", wakeUp);
  on(document, "freeze", sleep);
  on(document, "resume", wakeUp);
  on(document, "visibilitychange", () => {
    visible();
    checkVisible();
  });
  return page;
}

/** Timers with names. A new timer replaces the one with the same name. */
export class Timers {
  #window;
  #timers = {};

  /** @param {any} window */
  constructor(window) {
    this.#window = window;
  }

  after(name, ms, f) {
    this.clear(name);
    this.#timers[name] = this.#window.setTimeout(() => {
      delete this.#timers[name];
      f();
    }, ms);
  }

  has(name) {
    return name in this.#timers;
  }

  clear(name) {
    this.#window.clearTimeout(this.#timers[name]);
    delete this.#timers[name];
  }

  clearAll() {
    for (const name in this.#timers) this.clear(name);
  }
}
