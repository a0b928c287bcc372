/** The page's keys. They never take a key from a field, nor from a control reached by keyboard. */

const SCROLLING = new Set(["ArrowDown", "ArrowUp", " "]);

/**
 * @typedef {object} Actions
 * @property {() => void} search
 * @property {() => void} pause
 * @property {(by: number) => void} move
 * @property {(index: number) => void} range
 * @property {() => void} back
 * @property {() => void} help
 * @property {() => void} theme
 * @property {() => void} delivery
 * @property {() => void} control
 */

/** @param {Actions} actions */
export function bindKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target instanceof Element ? event.target : document.body;
    if (target.closest("dialog")) return;
    // What scrolls is scrolled with them, also from a button in it.
    if (target.closest('[role="region"]') && SCROLLING.has(event.key)) return;
    const isField = target.matches("input, textarea, select");
    if (isField) return fieldKey(event, target, actions);
    // Space on a button that was reached by Tab presses that button; after a click it means pause again.
    const isControl = target.matches("button, a") && target.matches(":focus-visible");
    if (event.key === " " && isControl) return;
    const action = actionOf(event.key, actions);
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** @param {KeyboardEvent} event @param {Element} target @param {Actions} actions */
function fieldKey(event, target, actions) {
  // In other fields arrows change a number or a choice.
  const isFilter = target.id === "filter";
  if (isFilter && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    event.preventDefault();
    actions.move(event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "Escape" && target instanceof HTMLElement) target.blur();
}

/** @param {string} key @param {Actions} actions @returns {(() => void) | undefined} */
function actionOf(key, actions) {
  if (/^[1-5]$/.test(key)) return () => actions.range(Number(key) - 1);
  return /** @type {Record<string, () => void>} */ ({
    "/": actions.search,
    " ": actions.pause,
    ArrowDown: () => actions.move(1),
    j: () => actions.move(1),
    ArrowUp: () => actions.move(-1),
    k: () => actions.move(-1),
    Escape: actions.back,
    "?": actions.help,
    t: actions.theme,
    d: actions.delivery,
    c: actions.control,
  })[key];
}
