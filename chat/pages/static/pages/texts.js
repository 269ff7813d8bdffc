// Texts, numbers and times in the language of the page.

const texts = JSON.parse(document.getElementById("texts").textContent);
export const config = JSON.parse(document.getElementById("config").textContent);
export const language = document.documentElement.lang;

// The text with this key; {name} in it stands for values.name.
export function t(key, values = {}) {
  if (!(key in texts)) throw new Error(`there is no text "${key}"`);
  return texts[key].replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

export function percent(share) {
  return new Intl.NumberFormat(language, { style: "percent" }).format(share);
}

// "40 seconds", "3 minutes", "2 hours"
export function duration(secs) {
  const [unit, value] = secs < 100 ? ["second", secs] : secs < 5400 ? ["minute", secs / 60] : ["hour", secs / 3600];
  const style = { style: "unit", unit, unitDisplay: "long", maximumFractionDigits: 0 };
  return new Intl.NumberFormat(language, style).format(Math.ceil(value));
}

// "1st" in English; a number with a dot in German.
export function ordinal(value) {
  if (language !== "en") return `${number(value)}.`;
  const suffixes = { one: "st", two: "nd", few: "rd", other: "th" };
  return value + suffixes[new Intl.PluralRules("en", { type: "ordinal" }).select(value)];
}

export function dateTime(text) {
  const moment = new Date(text);
  if (Number.isNaN(moment.getTime())) return text;
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(moment);
}

// The name of the group that a conversation of this time belongs to.
export function dayGroup(text, now = new Date()) {
  const moment = new Date(text);
  const midnight = (date) => new Date(date.getFullYear(), date.getMonth(), date.getDate());
  const days = Math.round((midnight(now) - midnight(moment)) / 86_400_000);
  if (days <= 0) return t("today");
  if (days === 1) return t("yesterday");
  if (days < 7) return t("lastWeek");
  if (days < 30) return t("lastMonth");
  return new Intl.DateTimeFormat(language, { month: "long", year: "numeric" }).format(moment);
}

// 75 -> "1:15"
export function offset(seconds) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((part, index) => (index ? String(part).padStart(2, "0") : part)).join(":");
}
