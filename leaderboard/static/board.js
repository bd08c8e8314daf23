/* Sorting for tables marked data-board. Without it the page is complete, sorted as built. */
"use strict";

(() => {
  const compare = (a, b, kind) => {
    if (a === b) return 0;
    if (a === "") return 1; // what is absent stays at the end, whichever way one sorts
    if (b === "") return -1;
    return kind === "number" ? Number(a) - Number(b) : a < b ? -1 : 1;
  };

  const leaves = (table) => [...table.querySelectorAll("thead th[data-key]")];
  const natural = ({ dataset }) => dataset.first ?? (dataset.key === "text" ? "ascending" : "descending");

  const sort = (table, heading, direction, status) => {
    const column = Number(heading.dataset.col);
    const body = table.tBodies[0];
    const kind = heading.dataset.key;
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row, place) => ({ row, place, key: row.cells[column].dataset.sort }));
    rows.sort((a, b) => {
      const absent = a.key === "" || b.key === "";
      return compare(a.key, b.key, kind) * (absent ? 1 : sign) || a.place - b.place;
    });
    body.append(...rows.map((item) => item.row));
    for (const other of leaves(table)) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction);
    status.textContent = `Sorted by ${heading.dataset.name}, ${direction}`;
  };

  for (const table of document.querySelectorAll("table[data-board]")) {
    if (!table.tBodies[0] || table.tBodies[0].rows.length < 2) continue;
    const status = document.createElement("p");
    status.className = "hide";
    status.setAttribute("role", "status");
    table.parentElement.after(status);

    const line = document.createElement("label");
    line.className = "sort-by";
    line.append("Sort by ");
    const select = document.createElement("select");
    line.append(select);
    table.parentElement.before(line);

    const byColumn = new Map();
    for (const heading of leaves(table).sort((a, b) => a.dataset.col - b.dataset.col)) {
      byColumn.set(heading.dataset.col, heading);
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const now = heading.getAttribute("aria-sort");
        sort(table, heading, now === "ascending" ? "descending" : now ? "ascending" : natural(heading), status);
        select.value = heading.dataset.col;
      });
      const chosen = heading.dataset.name === "Bracket"; // the order in which the table was built
      select.add(new Option(heading.dataset.name, heading.dataset.col, chosen, chosen));
    }
    select.addEventListener("change", () => {
      const heading = byColumn.get(select.value);
      sort(table, heading, natural(heading), status);
    });
  }
})();
