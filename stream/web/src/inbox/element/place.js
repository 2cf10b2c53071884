/** Places the panel below or above the bell, within the viewport. A bell outside of the viewport counts as at its edge. @param {any} element
 * @param {any} bell @param {CSSStyleDeclaration} style */
export function place(element, bell, style) {
  const document = element.ownerDocument;
  const zoom = element.currentCSSZoom ?? 1; // lengths of the style are multiplied by it
  const rect = bell.getBoundingClientRect();
  const [left, right, bottom, top] = [rect.left, rect.right, rect.bottom, rect.top].map((length) => length / zoom);
  const height = (document.scrollingElement ?? document.documentElement).clientHeight / zoom;
  const [above, under] = [top, height - bottom].map((space) => Math.min(Math.max(space, 0), height)); // the space above and under the bell
  const below = under >= 320 || under > height / 2;
  const room = Math.max(160, (below ? under : above) - 16);
  const edge = Math.max(8, Math.min(height - (below ? under : above) + 8, height - 8 - room)) + "px";
  style.setProperty("--_rowcast-left", getComputedStyle(element).direction === "rtl" ? left + "px" : `calc(${right}px - var(--_rowcast-width))`);
  style.setProperty("--_rowcast-room", room + "px");
  style.setProperty("--_rowcast-top", below ? edge : "auto");
  style.setProperty("--_rowcast-bottom", below ? "auto" : edge);
}
