// The style sheet of all elements.

const CSS = `
:host { display: inline-block; vertical-align: middle; color-scheme: inherit; }
:host([inline]) { display: block; }
:host([hidden]) { display: none; }
.root, .root * { box-sizing: border-box; }
.root {
  all: initial; direction: inherit; color-scheme: inherit; visibility: inherit; display: block;
  --_rowcast-accent: var(--rowcast-accent, light-dark(#3457d5, #8ea6ff));
  --_rowcast-on-accent: var(--rowcast-on-accent, light-dark(#fff, #10183a));
  --_rowcast-badge: var(--rowcast-badge, light-dark(#d92d20, #ff6b5e));
  --_rowcast-on-badge: var(--rowcast-on-badge, light-dark(#fff, #2b0703));
  --_rowcast-surface: var(--rowcast-surface, light-dark(#fff, #1c1d21));
  --_rowcast-text: var(--rowcast-text, light-dark(#1a1b20, #ededf0));
  --_rowcast-muted: var(--rowcast-muted, light-dark(#62656f, #a2a5af));
  --_rowcast-border: var(--rowcast-border, light-dark(#e4e5ea, #34363d));
  --_rowcast-hover: var(--rowcast-hover, light-dark(#f5f6f9, #26282e));
  --_rowcast-width: min(var(--rowcast-width, 400px), 100% - 16px);
  --_rowcast-radius: var(--rowcast-radius, 14px);
  --_rowcast-shadow: var(--rowcast-shadow, 0 1px 3px rgb(0 0 0 / .1), 0 16px 48px rgb(0 0 0 / .2));
  color: var(--_rowcast-text); font: 14px/1.45 var(--rowcast-font, system-ui, sans-serif); text-align: start;
}
button { all: unset; box-sizing: border-box; cursor: pointer; border-radius: 8px; }
:focus-visible { outline: 2px solid var(--_rowcast-accent); outline-offset: -1px; }
[hidden] { display: none !important; }
svg { display: block; width: 20px; height: 20px; fill: none; stroke: currentColor; stroke-width: 1.7; stroke-linecap: round; stroke-linejoin: round; }
.bell { position: relative; display: grid; place-items: center; width: 40px; height: 40px; border-radius: 50%; color: var(--rowcast-bell, inherit); }
.bell svg { width: 22px; height: 22px; }
.bell:hover, .bell[aria-expanded=true] { background: color-mix(in srgb, currentColor 9%, transparent); }
.badge { position: absolute; inset-block-start: 1px; inset-inline-start: 20px; min-width: 18px; padding: 0 5px; border-radius: 9px; background: var(--_rowcast-badge); color: var(--_rowcast-on-badge); font-size: 11px; font-weight: 700; line-height: 18px; text-align: center; font-variant-numeric: tabular-nums; }
.panel, .toasts { position: fixed; inset: auto; margin: 0; padding: 0; border: 0; color: inherit; background: none; overflow: visible; }
.panel {
  inset: var(--_rowcast-top, 56px) auto var(--_rowcast-bottom, auto) clamp(8px, var(--_rowcast-left, 8px), 100% - 8px - var(--_rowcast-width)); width: var(--_rowcast-width); max-height: min(var(--_rowcast-room, 600px), 640px);
  border: 1px solid var(--_rowcast-border); border-radius: var(--_rowcast-radius); background: var(--_rowcast-surface); box-shadow: var(--_rowcast-shadow); overflow: clip; outline: none; flex-direction: column;
}
.panel.inline { position: static; isolation: isolate; display: flex; width: auto; height: var(--rowcast-height, 420px); max-height: none; box-shadow: none; }
.panel:popover-open { display: flex; animation: rise .16s ease-out; }
header { display: flex; flex: none; align-items: center; gap: 4px; padding: 12px 12px 10px; padding-inline-start: 18px; border-bottom: 1px solid var(--_rowcast-border); }
h2 { flex: 1; margin: 0; font-size: 16px; font-weight: 650; }
.text { padding: 4px 10px; color: var(--_rowcast-accent); font-size: 13px; font-weight: 550; }
.text:hover, .icon:hover { background: var(--_rowcast-hover); }
.text[aria-disabled=true] { color: var(--_rowcast-muted); cursor: default; opacity: .6; background: none; }
.icon { display: grid; place-items: center; width: 30px; height: 30px; color: var(--_rowcast-muted); }
.icon:hover { color: var(--_rowcast-text); }
.icon svg { width: 17px; height: 17px; }
.close { display: none; }
.note { display: flex; align-items: center; justify-content: space-between; gap: 8px; padding: 5px 10px 5px 18px; background: var(--_rowcast-hover); color: var(--_rowcast-muted); font-size: 13px; }
.scroll { position: relative; flex: auto; min-height: 0; overflow: auto; overscroll-behavior: contain; }
.new { position: sticky; z-index: 2; top: 8px; display: block; width: max-content; height: 28px; margin: 0 auto -28px; padding: 0 14px; border-radius: 14px; background: var(--_rowcast-accent); color: var(--_rowcast-on-accent); font-size: 13px; font-weight: 600; line-height: 28px; box-shadow: 0 2px 8px rgb(0 0 0 / .25); }
ul { list-style: none; margin: 0; padding: 0; }
li { position: relative; padding: 12px 18px; padding-inline-start: 30px; }
li + li { border-top: 1px solid var(--_rowcast-border); }
li:hover { background: var(--_rowcast-hover); }
li.unread::before { content: ""; position: absolute; inset-block-start: 19px; inset-inline-start: 13px; width: 8px; height: 8px; border-radius: 50%; background: var(--_rowcast-accent); forced-color-adjust: none; }
.link { display: block; width: 100%; color: inherit; text-align: start; text-decoration: none; overflow-wrap: anywhere; cursor: pointer; outline: none; }
.link::after { content: ""; position: absolute; inset: 0; }
::slotted([slot^=item-]), .link time { position: relative; z-index: 1; overflow-wrap: break-word; }
.link:focus-visible::after { outline: 2px solid var(--_rowcast-accent); outline-offset: -3px; border-radius: 8px; }
.head, .body { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; text-align: -webkit-match-parent; text-align: match-parent; color: var(--_rowcast-muted); }
.unread .head { color: var(--_rowcast-text); font-weight: 550; }
.body { margin-top: 1px; font-size: 13px; }
time { display: block; margin-top: 2px; color: var(--_rowcast-muted); font-size: 12px; }
.actions { position: absolute; z-index: 1; inset-block-start: 8px; inset-inline-end: 10px; display: flex; padding: 2px; border-radius: 9px; background: var(--_rowcast-surface); box-shadow: 0 0 0 1px var(--_rowcast-border); opacity: 0; }
li:hover .actions, li:focus-within .actions { opacity: 1; }
.state { display: grid; justify-items: center; gap: 6px; padding: 56px 24px; color: var(--_rowcast-muted); text-align: center; }
.state svg { width: 36px; height: 36px; margin-bottom: 4px; opacity: .55; stroke-width: 1.3; }
.state b { color: var(--_rowcast-text); font-weight: 600; }
.more { display: block; margin: 8px auto; }
::slotted([slot=footer]) { display: block; flex: none; padding: 10px 18px; border-top: 1px solid var(--_rowcast-border); }
.toasts { inset-block-end: 16px; inset-inline-end: 16px; width: min(360px, 100% - 32px); }
.toasts:popover-open { display: grid; gap: 10px; }
.toast { position: relative; display: flex; align-items: start; gap: 10px; padding: 13px 8px 13px 15px; border: 1px solid var(--_rowcast-border); border-radius: var(--_rowcast-radius); background: var(--_rowcast-surface); box-shadow: var(--_rowcast-shadow); animation: rise .2s ease-out; }
.toast > svg { flex: none; color: var(--_rowcast-accent); }
.toast .link { flex: 1; min-width: 0; font-weight: 550; }
.toast .head { color: var(--_rowcast-text); }
.toast .icon { z-index: 1; width: 26px; height: 26px; margin-block: -3px; }
.sr { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@keyframes rise { from { opacity: 0; translate: 0 6px; } }
@media (any-pointer: coarse), (hover: none) { li { padding-inline-end: 84px; } .actions { opacity: 1; background: none; box-shadow: none; } }
@media (max-width: 479px) {
  .panel:popover-open { inset: auto 0 0; width: 100%; max-height: 86dvh; min-height: 40dvh; border-width: 1px 0 0; border-radius: var(--_rowcast-radius) var(--_rowcast-radius) 0 0; }
  .panel::backdrop { background: rgb(0 0 0 / .35); }
  .panel:popover-open .close { display: grid; }
}
@media (prefers-reduced-motion: reduce) { * { animation: none !important; } }
@media print { .panel:popover-open, .toasts { display: none !important; } .panel.inline { height: auto; } .scroll { overflow: visible; } }
@media (forced-colors: active) { .badge, .new, .panel, .toast, .actions { border: 1px solid; } }
`;

const sheets = new WeakMap();

/** Returns the style sheet that the elements of a document share. A document refuses the sheets of other documents. */
export function sheetOf(document) {
  if (!sheets.has(document)) {
    const sheet = new document.defaultView.CSSStyleSheet();
    sheet.replaceSync(CSS);
    sheets.set(document, sheet);
  }
  return sheets.get(document);
}
