/* What is chosen on a board, and how it stands in the address, so that a link shows the same. */
"use strict";

window.corobench ??= {};

/* `names` of all rows, `series` of lines with several seeds; `phone` has fewer columns at first. */
corobench.views = ({ config, names, series, phone }) => {
  const { columns, facets } = config;
  const onPhone = new Set(["entry", "bracket", "certified", "not_attacked", "nonzero", "group", "group_unbroken"]);
  const inOrder = (keys) => columns.map((column) => column.key).filter((key) => keys.includes(key));
  const placeOf = (key) => columns.findIndex((column) => column.key === key);
  const GROUPS = { proven: "group", unbroken: "group_unbroken" };
  const shownFirst = (rank) => columns
    .filter((c) => (Object.values(GROUPS).includes(c.key) ? c.key === GROUPS[rank] : phone ? onPhone.has(c.key) : c.shown))
    .map((c) => c.key);
  const fresh = (rank = config.rank) => ({ q: "", rank, sort: "", cols: shownFirst(rank), f: {}, sel: [], open: [], size: "nonzero", page: 0, away: { f: [], sel: [], open: [] } });

  const entryOf = (name) => name.replace(/\.n\d+(\.mirror)?$/, "");
  const toFragment = (view) => {
    const parts = new URLSearchParams();
    if (view.q) parts.set("q", view.q);
    if (view.rank !== config.rank) parts.set("rank", view.rank);
    if (view.sort) parts.set("sort", view.sort);
    if (view.cols.join() !== shownFirst(view.rank).join()) parts.set("cols", view.cols.join());
    for (const facet of facets) for (const value of view.f[facet.key] ?? []) parts.append(`f.${facet.key}`, value);
    for (const [key, value] of view.away.f) parts.append(key, value);
    for (const key of ["sel", "open"]) {
      const all = [...view[key], ...view.away[key]];
      if (all.length) parts.set(key, all.join());
    }
    if (view.size !== "nonzero") parts.set("size", view.size);
    if (view.page) parts.set("page", view.page);
    return parts.toString();
  };

  const fromFragment = (text) => {
    const parts = new URLSearchParams(text);
    const next = fresh(parts.get("rank") === "unbroken" ? "unbroken" : config.rank);
    next.q = parts.get("q") ?? "";
    const [key, way] = (parts.get("sort") ?? "").split(".");
    if (placeOf(key) >= 0 && ["asc", "desc"].includes(way)) next.sort = `${key}.${way}`;
    const cols = parts.get("cols")?.split(",").filter((name) => placeOf(name) >= 0);
    if (cols?.length) next.cols = inOrder(["entry", ...cols]); // a line without its entry could not be opened
    for (const facet of facets) {
      const chosen = parts.getAll(`f.${facet.key}`).flatMap((value) => (facet.values.includes(value) ? value : value.split("|"))).filter((value) => facet.values.includes(value));
      if (chosen.length) next.f[facet.key] = chosen;
    }
    /* What this board does not have, or what all its rows have, is kept for the next board. */
    const has = (key, value) => facets.some((facet) => key === `f.${facet.key}` && [value, ...value.split("|")].some((one) => facet.values.includes(one)));
    next.away.f = [...parts].filter(([key, value]) => key.startsWith("f.") && !has(key, value));
    for (const [key, known] of [["sel", names], ["open", series.map((top) => top.id)]]) {
      const wanted = new Set((parts.get(key) ?? "").split(",").filter(Boolean).map(entryOf)); // a link from another subset names another n
      next[key] = known.filter((id) => wanted.has(entryOf(id)));
      for (const id of known) wanted.delete(entryOf(id));
      next.away[key] = [...wanted];
    }
    if (document.querySelector(`input[name="size"][value="${CSS.escape(parts.get("size") ?? "")}"]`)) next.size = parts.get("size");
    next.page = Math.max(0, Number.parseInt(parts.get("page") ?? "0", 10) || 0);
    return next;
  };

  return { GROUPS, inOrder, placeOf, shownFirst, fresh, toFragment, fromFragment };
};
