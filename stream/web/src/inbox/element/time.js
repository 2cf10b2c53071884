// Times as texts.

const SECOND = 1_000;

/** Returns how long ago a time was, or its date. A time in the future counts as now. */
export function age(time, now, lang) {
  if (isNaN(time)) return "";
  const seconds = Math.max(0, (now - time) / SECOND);
  const format = new Intl.RelativeTimeFormat(lang, { numeric: "auto" });
  if (seconds < 45) return format.format(0, "second");
  if (seconds < 3_600) return format.format(-Math.max(1, Math.round(seconds / 60)), "minute");
  if (seconds < 86_400) return format.format(-Math.floor(seconds / 3_600), "hour");
  if (seconds < 7 * 86_400) return format.format(-Math.floor(seconds / 86_400), "day");
  return time.toLocaleDateString(lang, { day: "numeric", month: "short", year: "numeric" });
}
