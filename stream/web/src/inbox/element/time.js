// Times as texts.

export const SECOND = 1_000;

/** Returns the number of midnights between two times, in the time zone of the page. */
function daysBetween(time, now) {
  const [from, to] = [time, new Date(now)].map((date) => Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()));
  return (to - from) / (86_400 * SECOND);
}

/** Returns a function that returns how long ago a time was, or its date. A time in the future counts as now. A new formatter for each
 * time would take most of the time of an update. */
export function agesAt(now, lang) {
  const format = new Intl.RelativeTimeFormat(lang, { numeric: "auto" });
  const dates = new Intl.DateTimeFormat(lang, { day: "numeric", month: "short", year: "numeric" });
  return (time) => {
    if (isNaN(time)) return "";
    const seconds = Math.max(0, (now - time) / SECOND);
    if (seconds < 45) return format.format(0, "second");
    if (seconds < 3_600) return format.format(-Math.max(1, Math.round(seconds / 60)), "minute");
    if (seconds < 86_400) return format.format(-Math.floor(seconds / 3_600), "hour");
    const days = daysBetween(time, now);
    return days < 7 ? format.format(-days, "day") : dates.format(time);
  };
}
