/* Runs before the first paint, so that nobody sees a flash of the other theme. Not a module: modules run later. */
(function () {
  try {
    const chosen = localStorage.getItem("theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch {
    /* Storage may be forbidden; then the system's theme is used. */
  }
})();
