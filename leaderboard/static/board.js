/* The board: sorting, filters, columns, selection, permanent link, export.

   The table is complete without this script. DataTables sorts, searches and pages; everything that
   is chosen on the page is in `view`, and `view` is in the address, so that a link shows the same. */
"use strict";

window.corobench ??= {};

(async () => {
  const element = document.querySelector("table[data-config]");
  if (!element || !corobench.packed || !window.DecompressionStream) {
    element?.classList.add("plain"); // the whole table as it is
    return;
  }
  const bytes = Uint8Array.from(atob(corobench.packed), (letter) => letter.codePointAt(0));
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(Object.assign(document.createElement("script"), { textContent: await new Response(unpacked).text() }));
  const config = JSON.parse(element.dataset.config);
  const { columns, facets } = config;
  const phone = matchMedia("(max-width: 47.99rem)").matches;
  const onPhone = new Set(["entry", "bracket", "certified", "not_attacked", "nonzero", "group", "group_unbroken"]);
  const PAGE = 100;
  const FIRST = 1; // a column of checkboxes stands before those of the table

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key in node && typeof value !== "string") node[key] = value;
      else node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  };
  const inOrder = (keys) => columns.map((column) => column.key).filter((key) => keys.includes(key));
  const placeOf = (key) => columns.findIndex((column) => column.key === key);

  /* ------------------------------------------------------------- what the table holds */

  const parting = element.querySelector("tr.parting"); // above the rows whose lower end is not known
  parting?.remove();
  const rows = [...element.tBodies[0].rows];
  rows.forEach((row) => {
    const values = row.dataset.v.split(",");
    columns.forEach((column, place) => {
      const cell = row.cells[place];
      if (column.kind === "number") cell.dataset.order = values.shift();
      if (column.key === "entry") row.dataset.entry = cell.querySelector("small").textContent.split(" · ")[0];
    });
    const certified = columns.findIndex((column) => column.key === "certified");
    row.cells[placeOf("bracket")].dataset.order = row.cells[certified].dataset.order;
  });
  const records = rows.map((row) => {
    const record = { entry: row.dataset.entry, epsilon: config.epsilon, n: config.n, quick: config.quick };
    columns.forEach((column, place) => {
      const cell = row.cells[place];
      if (column.key === "bracket") return;
      if (column.key === "entry") record.title = cell.querySelector("a").textContent.trim();
      else if (column.kind === "text") record[column.key] = cell.textContent.trim().replace(/^—$/, "");
      else record[column.key] = cell.dataset.order === "" ? null : Number(cell.dataset.order);
    });
    return record;
  });
  /* An unknown lower end sorts after every known one, both ways. */
  for (const row of rows) {
    if (row.classList.contains("apart")) for (const key of ["certified", "bracket"]) row.cells[placeOf(key)].dataset.order = "";
  }
  const codes = rows.map((row) => ([...row.dataset.f].map((letter) => letter.codePointAt(0) - 48)));
  const names = rows.map((row) => row.id);

  /* ------------------------------------------------------------------------- the view */

  const GROUPS = { proven: "group", unbroken: "group_unbroken" };
  const shownFirst = (rank) => columns
    .filter((c) => (Object.values(GROUPS).includes(c.key) ? c.key === GROUPS[rank] : phone ? onPhone.has(c.key) : c.shown))
    .map((c) => c.key);
  const fresh = (rank = "proven") => ({ q: "", rank, sort: "", cols: shownFirst(rank), f: {}, sel: [], size: "nonzero", page: 0 });
  let view = fresh();

  const entryOf = (name) => name.replace(/\.n\d+(\.mirror)?$/, "");
  const toFragment = () => {
    const parts = new URLSearchParams();
    if (view.q) parts.set("q", view.q);
    if (view.rank !== "proven") parts.set("rank", view.rank);
    if (view.sort) parts.set("sort", view.sort);
    if (view.cols.join() !== shownFirst(view.rank).join()) parts.set("cols", view.cols.join());
    for (const facet of facets) if (view.f[facet.key]?.length) parts.set(`f.${facet.key}`, view.f[facet.key].join("|"));
    if (view.sel.length) parts.set("sel", view.sel.join());
    if (view.size !== "nonzero") parts.set("size", view.size);
    if (view.page) parts.set("page", view.page);
    return parts.toString();
  };

  const fromFragment = (text) => {
    const parts = new URLSearchParams(text);
    const next = fresh(parts.get("rank") === "unbroken" ? "unbroken" : "proven");
    next.q = parts.get("q") ?? "";
    const [key, way] = (parts.get("sort") ?? "").split(".");
    if (placeOf(key) >= 0 && ["asc", "desc"].includes(way)) next.sort = `${key}.${way}`;
    const cols = parts.get("cols")?.split(",").filter((name) => placeOf(name) >= 0);
    if (cols?.length) next.cols = inOrder(cols);
    for (const facet of facets) {
      const chosen = parts.get(`f.${facet.key}`)?.split("|").filter((value) => facet.values.includes(value));
      if (chosen?.length) next.f[facet.key] = chosen;
    }
    const wanted = new Set((parts.get("sel") ?? "").split(",").map(entryOf)); // a link from another subset names another n
    next.sel = names.filter((name) => wanted.has(entryOf(name)));
    if (document.querySelector(`input[name="size"][value="${CSS.escape(parts.get("size") ?? "")}"]`)) next.size = parts.get("size");
    next.page = Math.max(0, Number.parseInt(parts.get("page") ?? "0", 10) || 0);
    return next;
  };

  /* ------------------------------------------------------------------------ the table */

  const absentLast = (sign) => (a, b) => {
    if (a === b) return 0;
    if (a === "" || b === "") return a === "" ? 1 : -1;
    return sign * (a - b);
  };
  DataTable.type("count", {
    order: {
      pre: (value) => (value === "" || value === null ? "" : Number(String(value).replace(/[^\d.eE+-]/g, ""))),
      asc: absentLast(1),
      desc: absentLast(-1),
    },
  });

  const head = element.tHead.rows[0];
  head.prepend(make("th", { scope: "col", class: "pick" }, make("span", { class: "hide" }, "Select")));
  rows.forEach((row, index) => {
    const box = make("input", { type: "checkbox", "aria-label": `Select ${records[index].entry}` });
    row.prepend(make("td", { class: "pick" }, box));
  });

  const table = new DataTable(element, {
    autoWidth: false,
    deferRender: true,
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: rows.length > PAGE ? "paging" : null },
    order: [],
    orderMulti: false,
    orderCellsTop: true,
    pageLength: PAGE,
    paging: rows.length > PAGE,
    info: false,
    columnDefs: [
      { targets: 0, orderable: false, searchable: false },
      ...columns.map((column, place) => ({
        targets: place + FIRST,
        type: column.kind === "text" ? "string" : "count",
        orderSequence: column.first === "asc" ? ["asc", "desc"] : ["desc", "asc"],
        className: `c-${column.key} k-${column.kind}`,
        searchable: column.kind === "text",
        createdCell: (cell) => { cell.dataset.label = column.title; },
      })),
    ],
  });
  element.classList.add("live");

  table.search.fixed("facets", (text, data, index) =>
    facets.every((facet, place) => {
      const chosen = view.f[facet.key];
      return !chosen?.length || chosen.includes(facet.values[codes[index][place]]);
    }),
  );

  for (const dense of document.querySelectorAll("g.dense")) [...dense.children].forEach((path, index) => { path.dataset.i = index; });
  const points = document.querySelectorAll("[data-i]");

  /* ----------------------------------------------------------------------- the toolbar */

  const status = make("p", { class: "count", role: "status" });
  const search = make("input", { type: "search", id: "q", placeholder: "Search entries, methods, authors", autocomplete: "off" });
  const menu = (title, ...children) => {
    const details = make("details", { class: "menu" }, make("summary", {}, title), make("div", { class: "sheet" }, ...children));
    details.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !details.open) return;
      details.open = false;
      details.firstElementChild.focus();
    });
    return details;
  };
  const closeMenus = (besides) => {
    for (const open of document.querySelectorAll("details.menu[open]")) if (!open.contains(besides)) open.open = false;
  };
  document.addEventListener("click", (event) => closeMenus(event.target));
  const check = (text, checked, change) => {
    const box = make("input", { type: "checkbox", checked });
    box.addEventListener("change", () => change(box.checked));
    return { box, label: make("label", {}, box, ` ${text}`) };
  };
  const button = (text, act, attributes = {}) => {
    const node = make("button", { type: "button", ...attributes }, text);
    node.addEventListener("click", act);
    return node;
  };

  const counts = facets.map((facet, place) => facet.values.map((_, code) => codes.filter((row) => row[place] === code).length));
  const facetBoxes = facets.map((facet, place) =>
    facet.values.map((value, code) => {
      const entry = check(value, false, (on) => {
        const now = view.f[facet.key] ?? [];
        set({ f: { ...view.f, [facet.key]: on ? [...now, value] : now.filter((item) => item !== value) }, page: 0 });
      });
      entry.label.append(make("span", { class: "many" }, ` ${counts[place][code]}`));
      return entry;
    }),
  );
  const facetMenus = facets.map((facet, place) =>
    menu(facet.title, make("fieldset", {}, make("legend", { class: "hide" }, facet.title), ...facetBoxes[place].map((entry) => entry.label))),
  );
  const columnBoxes = columns.map((column) =>
    check(column.title, false, (on) => {
      const cols = on ? [...view.cols, column.key] : view.cols.filter((key) => key !== column.key);
      set({ cols: inOrder(cols) });
    }),
  );
  columnBoxes[placeOf("entry")].box.disabled = true;
  const columnMenu = menu(
    "Columns",
    make("fieldset", { class: "two" }, make("legend", { class: "hide" }, "Columns"), ...columnBoxes.map((entry) => entry.label)),
    make("p", {}, button("All", () => set({ cols: columns.map((c) => c.key) })), " ", button("Reset columns", () => set({ cols: shownFirst(view.rank) }))),
  );
  const exportMenu = menu(
    "Export",
    make("p", { class: "sub" }, "Rows and columns of this view; counts out of n."),
    button("CSV", () => exportCsv()), button("JSON", () => exportJson()),
    make("p", { class: "sub" }, "Selected rows; without a selection, those of this page."),
    button("LaTeX", () => cite("latex")), button("BibTeX", () => cite("bibtex")),
  );
  const linkButton = button("Copy link", async () => copy(location.href, linkButton));
  const clearButton = button("Clear", () => set({ ...fresh(view.rank), cols: view.cols, size: view.size }));
  const compareLink = make("a", { class: "button go", href: config.compare }, "Compare");
  const sorts = make("select", { "aria-label": "Sort by" }, make("option", { value: "" }, "Sort: default"),
    ...columns.filter((c) => c.kind !== "bar").flatMap((c) => [c.first, c.first === "asc" ? "desc" : "asc"].map((way) =>
      make("option", { value: `${c.key}.${way}` }, `${c.title} ${way === "asc" ? "↑" : "↓"}`))));
  sorts.addEventListener("change", () => set({ sort: sorts.value, page: 0 }));

  const ranks = Object.keys(GROUPS).map((rank) => {
    const choice = make("input", { type: "radio", name: "rank", value: rank });
    choice.addEventListener("change", () => set({ rank, sort: "", page: 0, cols: inOrder(view.cols.map((key) => (key === GROUPS[view.rank] ? GROUPS[rank] : key))) }));
    return make("label", {}, choice, ` ${rank}`);
  });
  const rankBy = make("fieldset", { class: "rank" }, make("legend", {}, config.ranked ? "Rank by" : "Order by"), ...ranks);

  document.querySelector("#tools").replaceChildren(
    rankBy,
    make("div", { class: "line" }, make("label", { class: "hide", for: "q" }, "Search"), search, make("span", { class: "sort-by" }, sorts), columnMenu, exportMenu, linkButton, compareLink),
    make("div", { class: "line filters", role: "group", "aria-label": "Filters" }, ...facetMenus, clearButton),
    status,
  );

  /* --------------------------------------------------------------- view -> everything */

  let drawing = false;
  let drawn = ""; // what of the view the table shows, so that it is drawn once per change
  const tableKey = () => JSON.stringify([view.q, view.rank, view.sort, view.f, view.cols, view.page]);
  const draw = () => {
    if (drawn === tableKey()) return;
    drawing = true;
    columns.forEach((column, place) => {
      const on = view.cols.includes(column.key);
      if (table.column(place + FIRST).visible() !== on) table.column(place + FIRST).visible(on, false);
    });
    const [key, way] = view.sort.split(".");
    if (key) table.order([[placeOf(key) + FIRST, way]]);
    else if (view.rank === "unbroken") table.order([[placeOf("not_attacked") + FIRST, "desc"]]); // ties stay in the order by proven
    else table.order([]);
    table.search(view.q);
    table.draw();
    const last = Math.max(0, table.page.info().pages - 1);
    view.page = Math.min(view.page, last);
    if (table.page() !== view.page) table.page(view.page).draw("page");
    drawing = false;
    drawn = tableKey();
  };
  const apply = () => {
    draw();
    parting?.remove();
    const apart = view.rank === "proven" && !view.sort && element.tBodies[0].querySelector("tr.apart");
    if (parting && apart) {
      parting.cells[0].colSpan = view.cols.length + FIRST;
      apart.before(parting);
    }
    for (const part of element.querySelectorAll("[data-rank]")) part.hidden = part.dataset.rank !== view.rank;
    for (const choice of rankBy.querySelectorAll("input")) choice.checked = choice.value === view.rank;
    columns.forEach((column, place) => { columnBoxes[place].box.checked = view.cols.includes(column.key); });
    if (search.value !== view.q) search.value = view.q;
    sorts.value = view.sort;
    facets.forEach((facet, place) => {
      const chosen = view.f[facet.key] ?? [];
      facetBoxes[place].forEach((entry, code) => { entry.box.checked = chosen.includes(facet.values[code]); });
      const summary = facetMenus[place].firstElementChild;
      summary.textContent = chosen.length ? `${facet.title}: ${chosen.join(", ")}` : facet.title;
      facetMenus[place].classList.toggle("on", chosen.length > 0);
    });
    const inside = new Set(table.rows({ search: "applied" }).indexes().toArray());
    rows.forEach((row, index) => {
      const on = view.sel.includes(names[index]);
      row.classList.toggle("on", on);
      row.cells[0].firstChild.checked = on;
    });
    for (const point of points) {
      const index = Number(point.dataset.i);
      point.classList.toggle("on", view.sel.includes(names[index]));
      point.classList.toggle("out", !inside.has(index));
    }
    const size = document.querySelector(`input[name="size"][value="${view.size}"]`);
    if (size) size.checked = true;
    const chosen = view.sel.length;
    const comparable = chosen >= 2 && chosen <= 4;
    compareLink.textContent = chosen ? `Compare ${chosen}` : "Compare";
    compareLink.href = comparable ? `${config.compare}#${new URLSearchParams({ e: view.sel.join(), eps: config.epsilon })}` : config.compare;
    compareLink.classList.toggle("ready", comparable);
    const some = inside.size === rows.length ? `${rows.length} entries` : `${inside.size} of ${rows.length} entries`;
    status.textContent = chosen ? `${some}, ${chosen} selected${comparable ? "" : " (compare takes 2 to 4)"}` : some;
    clearButton.hidden = !(view.q || view.sort || chosen || Object.values(view.f).some((values) => values.length));
  };

  const write = () => {
    const fragment = toFragment();
    history.replaceState(null, "", fragment ? `#${fragment}` : location.pathname + location.search);
    carry(fragment);
  };
  /* Boards of other radii and data open with the same view. */
  const carry = (fragment) => {
    for (const link of document.querySelectorAll(".radii a")) {
      link.href = link.getAttribute("href").split("#")[0] + (fragment ? `#${fragment}` : "");
    }
  };
  const set = (change) => {
    view = { ...view, ...change };
    apply();
    write();
  };
  /* What the table did by itself: it is drawn already. */
  const follow = (change) => {
    view = { ...view, ...change };
    drawn = tableKey();
    apply();
    write();
  };
  const read = () => {
    const text = location.hash.slice(1);
    const index = names.indexOf(decodeURIComponent(text));
    view = text.includes("=") ? fromFragment(text) : fresh();
    if (index >= 0) view.page = Math.floor(index / PAGE);
    apply();
    carry(toFragment());
    if (index >= 0) rows[index].scrollIntoView({ block: "center" });
  };

  search.addEventListener("input", () => set({ q: search.value, page: 0 }));
  table.on("order.dt", () => {
    if (drawing) return;
    const [first] = table.order();
    const sort = first ? `${columns[first[0] - FIRST].key}.${first[1]}` : "";
    queueMicrotask(() => follow({ sort, page: 0 }));
  });
  table.on("page.dt", () => { if (!drawing) queueMicrotask(() => follow({ page: table.page() })); });
  element.tBodies[0].addEventListener("change", (event) => {
    const row = event.target.closest("tr");
    if (row && event.target.type === "checkbox") toggle(rows.indexOf(row), false);
  });
  const toggle = (index, show) => {
    const name = names[index];
    const on = !view.sel.includes(name);
    let page = view.page;
    if (on && show && table.page.info().pages > 1) {
      const place = table.rows({ search: "applied" }).indexes().toArray().indexOf(index);
      if (place >= 0) page = Math.floor(place / PAGE);
    }
    set({ sel: on ? [...view.sel, name] : view.sel.filter((item) => item !== name), page });
    if (on && show) rows[index].scrollIntoView({ block: "nearest", behavior: "smooth" });
  };
  window.addEventListener("hashchange", read);

  /* ------------------------------------------------------------------- points of plots */

  document.querySelector("#plots")?.addEventListener("click", (event) => {
    const point = event.target.closest("[data-i]") ?? nearest(event);
    if (!point) return;
    event.preventDefault();
    toggle(Number(point.dataset.i), true);
  });
  const nearest = (event) => {
    const svg = event.target.closest("svg.plot");
    let best = null;
    let least = 12;
    for (const point of svg?.querySelectorAll("[data-i]:not(.out)") ?? []) {
      const box = point.getBoundingClientRect();
      const dx = Math.abs(event.clientX - (box.left + box.right) / 2);
      const dy = Math.max(box.top - event.clientY, event.clientY - box.bottom, 0);
      if (Math.hypot(dx, dy) < least) [best, least] = [point, Math.hypot(dx, dy)];
    }
    return best;
  };
  for (const input of document.querySelectorAll('input[name="size"]')) {
    input.addEventListener("change", () => set({ size: input.value }));
  }

  /* ---------------------------------------------------------------------------- export */

  const download = (name, type, text) => {
    closeMenus(null);
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };
  const viewRecords = () => {
    const keys = ["entry", "epsilon", "n", "quick", ...view.cols.filter((key) => key !== "bracket").map((key) => (key === "entry" ? "title" : key))];
    return table.rows({ search: "applied", order: "applied" }).indexes().toArray()
      .map((index) => Object.fromEntries(keys.map((key) => [key, records[index][key] ?? null])));
  };
  const quote = (value) => {
    const text = value === null ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text; // a spreadsheet runs formulas
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const exportCsv = () => {
    const found = viewRecords();
    const keys = Object.keys(found[0] ?? { entry: "" });
    const lines = [keys.join(","), ...found.map((record) => keys.map((key) => quote(record[key])).join(","))];
    download(`${config.board}.csv`, "text/csv", `${lines.join("\n")}\n`);
  };
  const exportJson = () => {
    const record = { board: config.board, epsilon: config.epsilon, n: config.n, quick: config.quick, view: toFragment(), rows: viewRecords() };
    download(`${config.board}.json`, "application/json", `${JSON.stringify(record, null, 1)}\n`);
  };
  const copy = async (text, node) => {
    const before = node.textContent;
    try {
      await navigator.clipboard.writeText(text);
      node.textContent = "Copied";
    } catch {
      node.textContent = "Copy it from the address bar";
    }
    setTimeout(() => { node.textContent = before; }, 2000);
  };

  /* ----------------------------------------------------------------- LaTeX and BibTeX */

  const dialog = document.querySelector("#cite");
  const cite = async (kind) => {
    const page = table.rows({ search: "applied", order: "applied", page: "current" }).indexes().toArray();
    const chosen = view.sel.length ? view.sel.map((name) => names.indexOf(name)) : page;
    const { group, entries } = await corobench.load(config.data, chosen.map((index) => rows[index].querySelector("th a").getAttribute("href").replace(/html$/, "js")));
    const text = kind === "bibtex"
      ? entries.map((entry) => entry.bibtex).join("\n\n")
      : [group.header, ...entries.map((entry) => entry.epsilons[config.epsilon].latex)].join("\n");
    dialog.querySelector("h2").textContent = kind === "bibtex" ? "BibTeX" : "LaTeX";
    dialog.querySelector("pre").textContent = text;
    closeMenus(null);
    dialog.showModal();
  };
  dialog.querySelector("[data-copy]").addEventListener("click", (event) => copy(dialog.querySelector("pre").textContent, event.currentTarget));

  read();
})();
