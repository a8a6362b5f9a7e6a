// The table: open a row, filter, sort. Every row is a <tbody> of two lines; its data- attributes say what it is.
const manualBP = (() => {
  "use strict";
  const table = document.querySelector(".rows");
  const tools = document.querySelector(".tools");
  const rows = [...table.querySelectorAll("tbody.row")];
  const chips = [...tools.querySelectorAll(".chip")];
  const heads = [...table.querySelectorAll("th[data-sort]")];
  const nothing = document.querySelector(".nothing");

  // ---------------------------------------------------------------- opening
  const details = (row) => row.querySelector(".detail details");
  const openers = new Map();
  for (const row of rows) {
    const cell = row.querySelector(".line th");
    const opener = document.createElement("button");
    opener.type = "button";
    opener.className = "opener";
    opener.append(...cell.childNodes);
    cell.append(opener);
    openers.set(row, opener);
    const told = () => {
      opener.setAttribute("aria-expanded", String(details(row).open));
      details(row).querySelector("summary").tabIndex = -1;
    };
    details(row).addEventListener("toggle", told);
    told();
    row.querySelector(".line").addEventListener("click", () => {
      if (getSelection().isCollapsed) details(row).open = !details(row).open;
    });
  }
  const openRow = (id) => {
    const row = rows.find((one) => one.id === id);
    if (!row) return;
    if (row.hidden) reset();
    details(row).open = true;
    row.scrollIntoView({ block: "start" });
    openers.get(row).focus({ preventScroll: true });
  };

  // ---------------------------------------------------------------- filtering
  const filter = () => {
    const statuses = chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.status);
    const words = tools.elements.find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const step = tools.elements.step.value;
    let shown = 0;
    for (const row of rows) {
      const fits =
        (!statuses.length || statuses.includes(row.dataset.status)) &&
        (!step || row.dataset.step === step) &&
        words.every((word) => row.dataset.search.includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    const all = shown === rows.length;
    tools.querySelector(".shown").textContent = all ? `${shown} shown` : `${shown} of ${rows.length} shown`;
    tools.querySelector('[type="reset"]').hidden = all;
    nothing.hidden = shown > 0 || !rows.length;
  };
  const reset = () => {
    chips.forEach((chip) => chip.setAttribute("aria-pressed", "false"));
    tools.elements.find.value = "";
    tools.elements.step.value = "";
    filter();
  };
  const showStep = (step) => {
    reset();
    tools.elements.step.value = step;
    filter();
  };
  chips.forEach((chip) =>
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      filter();
    }));
  tools.addEventListener("input", filter);
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("reset", (event) => (event.preventDefault(), reset()));
  nothing.querySelector("button").addEventListener("click", reset);

  // ---------------------------------------------------------------- sorting
  const TEXT = ["name", "probe"];
  const compare = (key) => (a, b) =>
    TEXT.includes(key) ? a.dataset[key].localeCompare(b.dataset[key]) : Number(a.dataset[key]) - Number(b.dataset[key]) || 0;
  const sort = (key, descending) => {
    const sorted = [...rows].sort((a, b) => compare("rank")(a, b)).sort(compare(key));
    if (descending) sorted.reverse();
    table.append(...sorted);
    for (const head of heads) {
      if (head.dataset.sort === key) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    if (["rank", "order"].includes(key)) tools.elements.order.value = key;
  };
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const biggestFirst = ["off", "error", "used"].includes(head.dataset.sort);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      sort(head.dataset.sort, now ? now === "ascending" : biggestFirst);
    });
  }
  tools.elements.order.addEventListener("change", (event) => sort(event.target.value, false));

  filter();
  return { openRow, showStep };
})();
