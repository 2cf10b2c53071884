/** Places the panel below or above the bell, within the viewport. @param {HTMLElement} element @param {any} parts @param {CSSStyleDeclaration} style */
export function place(element, { bell, panel }, style) {
  const { left, right, bottom, top } = bell.getBoundingClientRect();
  const { clientWidth: width, clientHeight: height } = document.documentElement;
  const below = height - bottom >= 320 || bottom < height / 2;
  const computed = getComputedStyle(element);
  const size = panel.offsetWidth || Math.min(parseInt(computed.getPropertyValue("--rowcast-width")) || 400, width - 16);
  const start = computed.direction === "rtl" ? left : right - size;
  style.setProperty("--left", Math.max(8, Math.min(start, width - size - 8)) + "px");
  const room = Math.max(160, (below ? height - bottom : top) - 16);
  style.setProperty("--room", room + "px");
  style.setProperty("--top", (below ? bottom + 8 : Math.max(8, top - 8 - Math.min(room, 640))) + "px");
}
