// The page itself: theme, links into the table, printing.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("scripted");

  // A sandboxed page may not store anything; the theme then lasts as long as the page.
  const stored = (value) => {
    try {
      if (value) localStorage.setItem("manual-bp-theme", value);
      return localStorage.getItem("manual-bp-theme");
    } catch {
      return null;
    }
  };
  const button = document.querySelector(".theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Use the ${isDark() ? "light" : "dark"} theme`);
    button.setAttribute("aria-pressed", String(isDark()));
  };
  if (["dark", "light"].includes(stored())) root.dataset.theme = stored();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    stored(root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  show();

  document.querySelectorAll("a.node").forEach((node) =>
    node.addEventListener("click", () => manualBP.showStep(node.dataset.step)));
  const follow = () => manualBP.openRow(location.hash.slice(1));
  addEventListener("hashchange", follow);
  // A second click on the same link changes no hash, but opens the row again.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#q"]');
    if (link && !link.classList.contains("node") && link.getAttribute("href") === location.hash) follow();
  });
  follow();

  // Where a browser cannot open <details> by style alone.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll(".row:not(.quiet):not([hidden]) details:not([open])")];
    opened.forEach((details) => (details.open = true));
  });
  addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));

  const copy = document.querySelector(".copy");
  copy?.addEventListener("click", async () => {
    const code = copy.previousElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
    }
  });
})();
