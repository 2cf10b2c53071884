/** Listens to the life of a page, and returns an AbortController that ends this. Each change of the page is followed by a check.
 * @param {any} window
 * @param {{ sleep(): void, wake(): void, check(): void, visible(): void }} callbacks Sleep: the page is frozen, or goes into the
 *   back/forward cache. Visible: it becomes visible or hidden. */
export function listen(window, { sleep, wake, check, visible }) {
  const { document } = window;
  const page = new AbortController();
  const on = (target, type, listener) => target?.addEventListener?.(type, listener, { signal: page.signal });
  const checkVisible = () => document?.hidden || check();
  const wakeUp = () => {
    wake();
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
