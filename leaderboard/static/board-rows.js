/* What a board's table holds: its lines, the entries on them, and their numbers. */
"use strict";

window.corobench ??= {};

/* A line stands for one entry, or for several seeds of a training, whose rows come after it. Every
   cell gets the class, the label and the value to sort by that the table library looks for. */
corobench.tableRows = (element, config) => {
  const { columns } = config;
  const placeOf = (key) => columns.findIndex((column) => column.key === key);
  const parting = element.querySelector("tr.parting"); // above the rows whose lower end is not known
  parting?.remove();
  const lines = [...element.tBodies[0].rows];
  const rows = lines.filter((line) => !line.classList.contains("series")); // one per entry, as in the board's files
  if (rows.some((row) => row.dataset.n)) rows.sort((a, b) => a.dataset.n - b.dataset.n);
  const tops = lines.filter((line) => !line.dataset.of);
  const members = new Map(tops.map((top) => [top, []]));
  const topNamed = new Map(tops.map((top) => [top.id, top]));
  for (const line of lines) if (!line.classList.contains("series")) members.get(topNamed.get(line.dataset.of ?? line.id)).push(line);
  const topOf = new Map([...members].flatMap(([top, entries]) => entries.map((entry) => [entry, top])));
  const isNumber = columns.map((column) => column.kind === "number");
  const kindOf = columns.map((column) => ` c-${column.key} k-${column.kind}`);
  const [bracketAt, certifiedAt] = ["bracket", "certified"].map(placeOf);
  for (const line of lines) {
    const cells = [...line.cells]; // DataTables would wrap each cell to set its class and label
    const values = line.dataset.v.split(",");
    let next = 0;
    cells.forEach((cell, place) => {
      cell.className += kindOf[place];
      cell.setAttribute("data-label", columns[place].title);
      if (isNumber[place]) cell.setAttribute("data-order", values[next++]);
    });
    cells[bracketAt].setAttribute("data-order", cells[certifiedAt].getAttribute("data-order"));
  }
  for (const row of rows) row.dataset.entry = row.cells[placeOf("entry")].querySelector("small").textContent.split(" · ")[0];
  const records = rows.map((row) => corobench.record(row, config, row.dataset.entry));
  /* An unknown lower end sorts after every known one, both ways. */
  for (const line of lines) {
    if (line.classList.contains("apart")) for (const key of ["certified", "bracket"]) line.cells[placeOf(key)].dataset.order = "";
  }
  const codes = rows.map((row) => ([...row.dataset.f].map((letter) => letter.codePointAt(0) - 48)));
  const names = rows.map((row) => row.id);
  const placeIn = new Map(rows.map((row, index) => [row, index]));
  const entriesOf = (top) => members.get(top).map((row) => placeIn.get(row));
  /* What is searched beside what is shown: the seeds of a line, and abbreviations spelled out. */
  for (const top of tops) {
    const cell = top.cells[placeOf("entry")];
    const own = members.get(top)[0] === top ? [] : members.get(top).map((row) => row.cells[placeOf("entry")].textContent);
    const said = [cell.textContent, ...own, ...["method", "architecture", "objective"].map((key) => top.cells[placeOf(key)].textContent)].join(" ");
    const spelled = Object.entries(config.words).filter(([word]) => new RegExp(`\\b${word}\\b`, "i").test(said)).map(([, words]) => words);
    cell.dataset.search = [cell.textContent, ...own, ...spelled].join(" ");
  }
  const series = tops.filter((top) => top.classList.contains("series"));
  return { parting, lines, rows, tops, series, members, topOf, kindOf, records, codes, names, placeIn, entriesOf };
};
