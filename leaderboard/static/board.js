/* The board: sorting, filters, columns, selection, permanent link, export.

   The table is complete without this script. DataTables sorts, searches and pages its lines: one per
   entry, or one for several seeds of a training, whose entries unfold below it. Everything that is
   chosen on the page is in `view`, and `view` is in the address, so that a link shows the same. */
"use strict";

window.corobench ??= {};

(async () => {
  const element = document.querySelector("table[data-config]");
  const config = element && JSON.parse(element.dataset.config);
  if (!element || !corobench.packed || !window.DecompressionStream || config.rest !== Boolean(corobench.rows)) {
    element?.classList.add("plain"); // the table as it is in the page
    return;
  }
  const [library, rest] = await Promise.all([corobench.unpack(corobench.packed), config.rest && corobench.unpack(corobench.rows)]);
  document.head.append(Object.assign(document.createElement("script"), { textContent: library }));
  if (rest) element.tBodies[0].insertAdjacentHTML("beforeend", rest); // the rows of a large board that are not in the page
  const { columns, facets } = config;
  const phone = matchMedia("(max-width: 47.99rem)").matches;
  const PAGE = 100;
  const FIRST = 1; // a column of checkboxes stands before those of the table

  const { make, button, check, menu, chip, closeMenus, copy } = corobench;

  const held = corobench.tableRows(element, config);
  const { parting, lines, rows, tops, series, members, topOf, kindOf, records, codes, names, placeIn, entriesOf } = held;
  const { GROUPS, inOrder, placeOf, shownFirst, fresh, toFragment, fromFragment } = corobench.views({ config, names, series, phone });
  let view = fresh();

  /* The view that the address asks for. */
  const asked = () => (location.hash.includes("=") ? fromFragment(location.hash.slice(1)) : fresh());

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
  [...head.cells].forEach((cell, place) => { cell.className += kindOf[place]; });
  head.prepend(make("th", { scope: "col", class: "pick" }, make("span", { class: "hide" }, "Select")));
  for (const line of lines) {
    const what = line.dataset.entry ?? `all seeds of ${line.cells[placeOf("entry")].querySelector(".t").textContent}`;
    line.prepend(make("td", { class: "pick" }, make("input", { type: "checkbox", "aria-label": `Select ${what}` })));
  }
  for (const top of series) {
    const place = top.querySelector(".open");
    place.replaceWith(button(place.textContent, () => {
      set({ open: view.open.includes(top.id) ? view.open.filter((id) => id !== top.id) : [...view.open, top.id] });
    }, { class: "open", "aria-expanded": "false" }));
    for (const row of members.get(top)) row.remove();
  }

  const opened = asked();
  const table = new DataTable(element, {
    autoWidth: false,
    deferRender: true,
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: tops.length > PAGE ? "paging" : null },
    order: [],
    orderMulti: false,
    orderCellsTop: true,
    pageLength: PAGE,
    paging: tops.length > PAGE,
    info: false,
    language: { zeroRecords: "No matching entries.", emptyTable: "No entries." },
    columnDefs: [
      { targets: 0, orderable: false, searchable: false },
      ...columns.map((column, place) => ({
        targets: place + FIRST,
        type: column.kind === "text" ? "string" : "count",
        orderSequence: column.first === "asc" ? ["asc", "desc"] : ["desc", "asc"],
        searchable: column.kind === "text",
        visible: opened.cols.includes(column.key),
      })),
    ],
  });
  element.classList.add("live");

  const passes = (index) =>
    facets.every((facet, place) => {
      const chosen = view.f[facet.key];
      return !chosen?.length || chosen.includes(facet.values[codes[index][place]]);
    });
  table.search.fixed("facets", (text, data, index) => entriesOf(tops[index]).some(passes));

  for (const dense of document.querySelectorAll("g.dense")) [...dense.children].forEach((path, index) => { path.dataset.i = index; });
  const points = document.querySelectorAll("svg [data-i]");

  /* ----------------------------------------------------------------------- the toolbar */

  const status = make("p", { class: "count", role: "status" });
  const search = make("input", { type: "search", id: "q", placeholder: "Search entries, methods, authors", autocomplete: "off" });
  document.addEventListener("click", (event) => closeMenus(event.target));

  const counts = facets.map((facet, place) => facet.values.map((_, code) => codes.filter((row) => row[place] === code).length));
  const facetBoxes = facets.map((facet, place) =>
    facet.values.map((value, code) => {
      const entry = check(value, (on) => {
        const now = view.f[facet.key] ?? [];
        set({ f: { ...view.f, [facet.key]: on ? [...now, value] : now.filter((item) => item !== value) }, page: 0 });
      });
      entry.label.append(make("span", { class: "many" }, ` ${counts[place][code]}`));
      return entry;
    }),
  );
  const without = (facet, value) => ({ f: { ...view.f, [facet.key]: view.f[facet.key].filter((item) => item !== value) }, page: 0 });
  const filterMenu = menu("Filters", { class: "menu filters" }, make("div", { class: "facets" }, ...facets.map((facet, place) =>
    make("fieldset", {}, make("legend", {}, facet.title), ...facetBoxes[place].map((entry) => entry.label)))));
  filterMenu.hidden = !facets.length;
  const chips = make("div", { class: "line chips", role: "group", "aria-label": "Chosen filters" });
  const columnBoxes = columns.map((column) =>
    check(column.title, (on) => {
      const cols = on ? [...view.cols, column.key] : view.cols.filter((key) => key !== column.key);
      set({ cols: inOrder(cols) });
    }),
  );
  columnBoxes[placeOf("entry")].box.disabled = true;
  const kinds = config.parts.map((about) => {
    const own = columns.map((column, place) => place).filter((place) => columns[place].about === about);
    const many = make("span", { class: "many" });
    const box = make("details", { open: !phone }, make("summary", {}, about, many), make("fieldset", {}, make("legend", { class: "hide" }, about), ...own.map((place) => columnBoxes[place].label)));
    return { box, tell: () => { many.textContent = ` ${own.filter((place) => view.cols.includes(columns[place].key)).length} of ${own.length}`; } };
  });
  const columnMenu = menu(
    "Columns", { class: "menu columns" },
    make("div", { class: "groups" }, ...kinds.map((kind) => kind.box)),
    make("p", {}, button("All", () => set({ cols: columns.map((c) => c.key) })), " ", button("Reset columns", () => set({ cols: shownFirst(view.rank) }))),
  );
  const exportMenu = menu(
    "Export", {},
    make("p", { class: "sub" }, "Rows and columns of this view; counts out of n."),
    button("CSV", () => exportCsv()), button("JSON", () => exportJson()),
    make("p", { class: "sub" }, "Selected rows; without a selection, those of this page."),
    button("LaTeX", () => cite("latex")), button("BibTeX", () => cite("bibtex")),
  );
  const linkButton = button("Copy link", async () => copy(location.href, linkButton), { class: "link" });
  const clear = () => set({ ...fresh(view.rank), cols: view.cols, size: view.size, open: view.open });
  const clearButton = button("Clear", clear, { class: "clear" });
  const compareLink = make("a", { class: "button go", href: config.compare }, "Compare");
  const sorts = make("select", { "aria-label": "Sort by" }, make("option", { value: "" }, "Sort"),
    ...columns.filter((c) => c.kind !== "bar").flatMap((c) => [c.first, c.first === "asc" ? "desc" : "asc"].map((way) =>
      make("option", { value: `${c.key}.${way}` }, `${c.title} ${way === "asc" ? "↑" : "↓"}`))));
  sorts.addEventListener("change", () => set({ sort: sorts.value, page: 0 }));

  const ranks = Object.keys(GROUPS).map((rank) => {
    const isKnown = rank === "unbroken" || config.rank === "proven"; // of some entry
    const choice = make("input", { type: "radio", name: "rank", value: rank, disabled: !isKnown });
    choice.addEventListener("change", () => set({ rank, sort: "", page: 0, cols: inOrder(view.cols.map((key) => (key === GROUPS[view.rank] ? GROUPS[rank] : key))) }));
    return make("label", isKnown ? {} : { title: "Nothing is known as proven here", class: "off" }, choice, ` ${rank}`);
  });
  const rankBy = make("fieldset", { class: "rank" }, make("legend", {}, config.ranked ? "Rank by" : "Order by"), ...ranks);

  document.querySelector("#tools").replaceChildren(
    make("div", { class: "line" }, rankBy, make("label", { class: "hide", for: "q" }, "Search"), search, filterMenu, make("span", { class: "sort-by" }, sorts), columnMenu, exportMenu, linkButton, compareLink),
    chips,
    status,
  );

  /* --------------------------------------------------------------- view -> everything */

  const fit = corobench.fit(element);
  let drawing = false;
  let onPaper = false; // a printed board has no pages to turn
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
    if (tops.length > PAGE) table.page.len(onPaper ? -1 : PAGE);
    table.draw();
    if (!onPaper) {
      view.page = Math.min(view.page, Math.max(0, table.page.info().pages - 1));
      if (table.page() !== view.page) table.page(view.page).draw("page");
    }
    drawing = false;
    drawn = tableKey();
    const empty = element.querySelector("td.dt-empty");
    if (empty && rows.length) empty.append(" ", button("Clear filters", clear));
  };
  /* The entries of a line with several seeds, below it where it is open. */
  const unfold = () => {
    for (const top of series) {
      const open = view.open.includes(top.id);
      const found = members.get(top).filter((row) => passes(placeIn.get(row)));
      const line = table.row(top);
      const key = open ? found.map((row) => row.id).join() : "";
      if ((top.dataset.unfolded ?? "") !== key) {
        top.dataset.unfolded = key;
        if (key) line.child(found).show();
        else line.child.remove();
      }
      top.querySelector("button.open").setAttribute("aria-expanded", String(open));
      for (const row of members.get(top)) columns.forEach((column, at) => { row.cells[at + FIRST].hidden = !view.cols.includes(column.key); });
    }
  };
  const apply = () => {
    draw();
    unfold();
    parting?.remove();
    const apart = view.rank === "proven" && !view.sort && element.tBodies[0].querySelector("tr.apart");
    if (parting && apart) {
      parting.cells[0].colSpan = view.cols.length + FIRST;
      apart.before(parting);
    }
    fit();
    for (const part of element.querySelectorAll("[data-rank]")) part.hidden = part.dataset.rank !== view.rank;
    for (const choice of rankBy.querySelectorAll("input")) choice.checked = choice.value === view.rank;
    columns.forEach((column, place) => { columnBoxes[place].box.checked = view.cols.includes(column.key); });
    for (const kind of kinds) kind.tell();
    if (search.value !== view.q) search.value = view.q;
    sorts.value = view.sort;
    facets.forEach((facet, place) => {
      facetBoxes[place].forEach((entry, code) => { entry.box.checked = (view.f[facet.key] ?? []).includes(facet.values[code]); });
    });
    const chosenFilters = facets.flatMap((facet) => (view.f[facet.key] ?? []).map((value) => chip(facet.title, value, () => set(without(facet, value)))));
    const awayFilters = view.away.f.map((pair) => chip("Not applied here", pair[1], () => set({ away: { ...view.away, f: view.away.f.filter((one) => one !== pair) } })));
    const hasChoice = Boolean(view.q || view.sort || view.sel.length || chosenFilters.length || awayFilters.length);
    chips.replaceChildren(...chosenFilters, ...awayFilters, ...(hasChoice ? [clearButton] : []));
    filterMenu.firstElementChild.textContent = chosenFilters.length ? `Filters (${chosenFilters.length})` : "Filters";
    filterMenu.classList.toggle("on", chosenFilters.length > 0);
    const inside = new Set(table.rows({ search: "applied" }).indexes().toArray().flatMap((at) => entriesOf(tops[at])).filter(passes));
    rows.forEach((row, index) => {
      const on = view.sel.includes(names[index]);
      row.classList.toggle("on", on);
      row.cells[0].firstChild.checked = on;
    });
    for (const top of series) {
      const on = members.get(top).filter((row) => row.classList.contains("on")).length;
      top.classList.toggle("on", on > 0);
      Object.assign(top.cells[0].firstChild, { checked: on === members.get(top).length, indeterminate: on > 0 && on < members.get(top).length });
    }
    for (const point of points) {
      const index = Number(point.dataset.i);
      point.classList.toggle("on", view.sel.includes(names[index]));
      point.classList.toggle("out", !inside.has(index));
    }
    tellPlots();
    const size = document.querySelector(`input[name="size"][value="${view.size}"]`);
    if (size) size.checked = true;
    const chosen = view.sel.length;
    const comparable = chosen >= 2 && chosen <= corobench.MOST;
    compareLink.textContent = chosen ? `Compare ${chosen}` : "Compare";
    compareLink.href = `${config.compare}#${new URLSearchParams({ ...(chosen ? { e: view.sel.slice(0, corobench.MOST).join() } : {}), eps: config.epsilon })}`;
    compareLink.classList.toggle("ready", comparable);
    const some = inside.size === rows.length ? `${rows.length} entries` : `${inside.size} of ${rows.length} entries`;
    status.textContent = chosen ? `${some}, ${chosen} selected${comparable ? "" : ` (compare takes 2 to ${corobench.MOST})`}` : some;
  };

  const write = () => {
    const fragment = toFragment(view);
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
  /* Bring the line of an entry into view: its page, and unfolded where it has several seeds. */
  const show = (index) => {
    const top = topOf.get(rows[index]);
    view.page = Math.floor(tops.indexOf(top) / PAGE);
    if (top !== rows[index] && !view.open.includes(top.id)) view.open = [...view.open, top.id];
  };
  /* Whatever stands in the address: what cannot be decoded is the name of nothing. */
  const plain = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };
  const read = () => {
    const text = location.hash.slice(1);
    const index = names.indexOf(plain(text));
    if (drawn && text && index < 0 && document.getElementById(text)) return; // a jump within the page
    view = asked();
    if (index >= 0) show(index);
    apply();
    carry(toFragment(view));
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
    if (!row || event.target.type !== "checkbox") return;
    if (!series.includes(row)) toggle(rows.indexOf(row), false);
    else {
      const all = entriesOf(row).filter(passes).map((index) => names[index]);
      const rest = view.sel.filter((name) => !all.includes(name));
      set({ sel: event.target.checked ? [...rest, ...all] : rest });
    }
  });
  const toggle = (index, look) => {
    const name = names[index];
    const on = !view.sel.includes(name);
    const change = { sel: on ? [...view.sel, name] : view.sel.filter((item) => item !== name) };
    const top = topOf.get(rows[index]);
    if (on && look) {
      const place = table.rows({ search: "applied" }).indexes().toArray().indexOf(tops.indexOf(top));
      if (place >= 0 && table.page.info().pages > 1) change.page = Math.floor(place / PAGE);
      if (top !== rows[index] && !view.open.includes(top.id)) change.open = [...view.open, top.id];
    }
    set(change);
    if (on && look) rows[index].scrollIntoView({ block: "nearest", behavior: "smooth" });
  };
  const print = (on) => {
    if (on === onPaper) return;
    onPaper = on;
    drawn = "";
    apply();
  };
  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));
  matchMedia("print").addEventListener("change", (event) => print(event.matches));
  window.addEventListener("hashchange", read);
  const tellPlots = corobench.plots({ rows, records, config, view: () => view, toggle });

  /* ------------------------------------------------------------------- points of plots */

  for (const input of document.querySelectorAll('input[name="size"]')) {
    input.addEventListener("change", () => set({ size: input.value }));
  }

  /* ---------------------------------------------------------------------------- export */

  const shownEntries = (of) => table.rows({ search: "applied", order: "applied", ...of }).indexes().toArray().flatMap((at) => entriesOf(tops[at])).filter(passes);
  const viewRecords = () => shownEntries().map((index) => corobench.part(records[index], view.cols));
  const download = (ending, type, text) => {
    closeMenus(null);
    corobench.download(`${config.board}.${ending}`, type, text);
  };
  const exportCsv = () => download("csv", "text/csv", corobench.csv(viewRecords()));
  const exportJson = () => {
    const record = { board: config.board, epsilon: config.epsilon, n: config.n, quick: config.quick, view: toFragment(view), rows: viewRecords() };
    download("json", "application/json", `${JSON.stringify(record, null, 1)}\n`);
  };

  /* ----------------------------------------------------------------- LaTeX and BibTeX */

  const dialog = document.querySelector("#cite");
  const cite = async (kind) => {
    const chosen = view.sel.length ? view.sel.map((name) => names.indexOf(name)) : shownEntries({ page: "current" });
    const { group, entries } = await corobench.load(config.data, chosen.map((index) => rows[index].querySelector("th a").getAttribute("href").replace(/html$/, "js")));
    const text = kind === "bibtex"
      ? entries.map((entry) => entry.bibtex).join("\n\n")
      : [group.header, ...entries.map((entry) => entry.epsilons[config.epsilon].latex), group.footer].join("\n");
    dialog.querySelector("h2").textContent = kind === "bibtex" ? "BibTeX" : "LaTeX";
    dialog.querySelector("pre").textContent = text;
    closeMenus(null);
    dialog.showModal();
  };
  dialog.querySelector("[data-copy]").addEventListener("click", (event) => copy(dialog.querySelector("pre").textContent, event.currentTarget));

  read();
})();
