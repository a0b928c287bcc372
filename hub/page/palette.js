/** Colours for canvases, read from the style sheet's tokens, and the theme choice. */

const NAMES = ["bg", "surface", "line", "text", "text2", "text3", "accent", "ok", "warn", "crit", "off", "grid", "hatch"];
const SERIES = 6;

/** @typedef {Record<string, string> & {series: string[], isDark: boolean}} Palette */

/** @returns {Palette} the colours of the theme in force */
export function readPalette() {
  const probe = document.createElement("span");
  document.body.append(probe);
  const read = (/** @type {string} */ name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const palette = /** @type {any} */ (Object.fromEntries(NAMES.map((name) => [name, read(name)])));
  palette.series = Array.from({ length: SERIES }, (_, i) => read(`series${i + 1}`));
  palette.isDark = isDark();
  probe.remove();
  return palette;
}

/**
 * @param {string} color as `getComputedStyle` gives it: `rgb(r, g, b)`
 * @param {number} alpha 0…1
 * @returns {string}
 */
export function withAlpha(color, alpha) {
  const parts = color.match(/[\d.]+/g) ?? ["0", "0", "0"];
  return `rgba(${parts[0]}, ${parts[1]}, ${parts[2]}, ${alpha})`;
}

const system = matchMedia("(prefers-color-scheme: dark)");

/** @returns {boolean} */
export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : system.matches;
}

/** Switch to the other theme and keep the choice; choosing what the system says goes back to following it. */
export function toggleTheme() {
  const next = isDark() ? "light" : "dark";
  const followsSystem = (next === "dark") === system.matches;
  if (followsSystem) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    if (followsSystem) localStorage.removeItem("theme");
    else localStorage.setItem("theme", next);
  } catch {
    /* Storage may be forbidden; the choice then lasts as long as the page. */
  }
}

/** @param {() => void} changed called when the system's theme changes */
export function onSystemTheme(changed) {
  system.addEventListener("change", changed);
}
