// Times as texts.

export const SECOND = 1_000;

/** Returns the number of midnights between two times, in the time zone of the page. */
function daysBetween(time, now) {
  const [from, to] = [time, new Date(now)].map((date) => Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()));
  return (to - from) / (86_400 * SECOND);
}

/** Returns how long ago a time was, or its date. A time in the future counts as now. */
export function age(time, now, lang) {
  if (isNaN(time)) return "";
  const seconds = Math.max(0, (now - time) / SECOND);
  const format = new Intl.RelativeTimeFormat(lang, { numeric: "auto" });
  if (seconds < 45) return format.format(0, "second");
  if (seconds < 3_600) return format.format(-Math.max(1, Math.round(seconds / 60)), "minute");
  if (seconds < 86_400) return format.format(-Math.floor(seconds / 3_600), "hour");
  const days = daysBetween(time, now);
  if (days < 7) return format.format(-days, "day");
  return time.toLocaleDateString(lang, { day: "numeric", month: "short", year: "numeric" });
}
