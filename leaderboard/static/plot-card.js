/* The points of a board's plots: a card with name and numbers, families, walking by keyboard.

   Points hide each other, so the one that is meant is the one whose end is nearest to the pointer;
   where ends coincide the card names all of them, and another click goes on to the next. */
"use strict";

window.corobench ??= {};

corobench.plots = ({ rows, records, config, view, toggle }) => {
  const section = document.querySelector("#plots");
  if (!section) return () => {};
  for (const note of section.querySelectorAll(".scripted")) note.hidden = false;
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const percent = (count) => corobench.percent(count, config.n);
  const bytes = (count) => (count >= 999_500 ? `${(count / 1e6).toPrecision(3)} MB` : count >= 1e3 ? `${(count / 1e3).toPrecision(3)} kB` : `${count} B`);
  const href = (index) => rows[index].querySelector("th a").getAttribute("href");
  const name = (index) => rows[index].id;
  const isProvenKnown = (index) => !rows[index].classList.contains("apart") && records[index].certified !== null;
  const ends = (index) => `${isProvenKnown(index) ? `${percent(records[index].certified)} % proven` : "proven share not known"}, ${percent(records[index].not_attacked)} % unbroken`;
  const REACH = 26; // units around the pointer
  const SAME = 3; // units that a reader cannot tell apart

  /* --------------------------------------------------------------------------- the card */

  const card = make("div", { class: "point-card", role: "status" });
  card.hidden = true;
  let pinned = null; // of which plot
  const hide = () => {
    card.hidden = true;
    card.classList.remove("pinned");
    pinned = null;
    for (const node of section.querySelectorAll(".hot, .kin")) node.classList.remove("hot", "kin");
    for (const svg of section.querySelectorAll("svg.plot")) svg.classList.remove("focusing");
  };
  const fill = (index, others) => {
    const record = records[index];
    const facts = [
      ["proven", isProvenKnown(index) ? `${percent(record.certified)} %` : "not known"],
      ["unbroken", `${percent(record.not_attacked)} %`],
      ["clean", `${percent(record.clean)} %`],
      ["non-zeros", record.nonzero?.toLocaleString("en-GB")],
      ["packed", bytes(record.packed)],
    ].filter(([, text]) => text !== undefined && !/NaN/.test(text));
    card.replaceChildren(
      make("p", { class: "name" }, make("a", { href: href(index) }, record.title)),
      make("p", { class: "sub" }, record.entry, record.method ? ` · ${record.method}` : ""),
      make("dl", {}, ...facts.map(([key, text]) => make("div", {}, make("dt", {}, key), make("dd", {}, text)))),
    );
    if (others.length) {
      const list = others.slice(0, 4).map((other) => make("li", {}, `${records[other].entry}: ${ends(other)}`));
      if (others.length > 4) list.push(make("li", {}, `and ${others.length - 4} more`));
      card.append(make("p", { class: "sub" }, "At the same place:"), make("ul", {}, ...list));
    }
    const choose = make("button", { type: "button" }, view().sel.includes(name(index)) ? "Remove from the selection" : "Select");
    choose.addEventListener("click", () => { toggle(index, false); fill(index, others); });
    card.append(make("p", { class: "act" }, choose, " ", make("a", { class: "button", href: href(index) }, "Open")));
  };
  const show = (plot, mark, others = []) => {
    for (const node of section.querySelectorAll(".hot, .kin")) node.classList.remove("hot", "kin");
    for (const one of plots) {
      one.svg.classList.add("focusing");
      for (const other of one.marks) {
        if (config.families[other.index] === config.families[mark.index]) other.node.classList.add("kin");
        if (other.index === mark.index) other.node.classList.add("hot");
      }
    }
    fill(mark.index, others);
    corobench.beside(card, plot.svg, plot.zoom.fx(mark.x), plot.zoom.fy((mark.low + mark.high) / 2));
  };
  const pin = (plot) => {
    pinned = plot;
    card.classList.add("pinned");
  };

  /* -------------------------------------------------------------------------- the plots */

  const placeOf = (node) => {
    const d = (node.querySelector(".range, .touch") ?? node).getAttribute("d");
    const [, x, low, high] = /^M([\d.]+) ([\d.]+)V([\d.]+)/.exec(d).map(Number);
    const longer = node.querySelector("circle.point") ? 1 : 0; // of a curve, whose line for touching has no length of 0
    return { x, low: low - longer, high: high + longer };
  };
  const distance = (plot, mark, [px, py]) => {
    const { fx, fy } = plot.zoom;
    const [x, low, high] = [fx(mark.x), fy(mark.low), fy(mark.high)];
    const toEnds = Math.min(Math.hypot(px - x, py - low), Math.hypot(px - x, py - high));
    const inside = py <= low && py >= high ? Math.abs(px - x) + 2 * SAME : Infinity; // an end wins over a line that passes
    return Math.min(toEnds, inside);
  };
  const found = (plot, event) => {
    const at = plot.zoom.user(event);
    const near = plot.marks
      .filter((mark) => !mark.node.classList.contains("out") && !mark.isAway)
      .map((mark) => [distance(plot, mark, at), mark])
      .filter(([far]) => far < REACH)
      .sort(([a], [b]) => a - b);
    if (!near.length) return null;
    const least = near[0][0];
    return near.filter(([far]) => far <= least + SAME).map(([, mark]) => mark);
  };

  const labels = (plot) => {
    const drawn = []; // places of labels while a part is enlarged; none over another one
    for (const { node, lead, x, y, mark } of plot.labels) {
      if (lead) lead.style.display = plot.zoom.isWhole() ? "" : "none";
      if (plot.zoom.isWhole() || !mark) {
        node.setAttribute("x", x);
        node.setAttribute("y", y);
        node.style.display = plot.zoom.isWhole() ? "" : "none";
        continue;
      }
      const middle = (mark.low + mark.high) / 2;
      const at = [plot.zoom.fx(mark.x) + 9, plot.zoom.fy(middle) + 3.5];
      node.setAttribute("x", at[0]);
      node.setAttribute("y", at[1]);
      const isFree = plot.zoom.isInside(mark.x, middle) && !drawn.some(([x, y2]) => Math.abs(at[1] - y2) < 13 && Math.abs(at[0] - x) < 140);
      node.style.display = isFree ? "" : "none";
      if (isFree) drawn.push(at);
    }
  };

  const plots = [...section.querySelectorAll("svg.plot")].map((svg) => {
    const plot = { svg, labels: [] };
    plot.marks = [...svg.querySelectorAll("[data-i]")].map((node) => ({ node, index: Number(node.dataset.i), isAway: false, ...placeOf(node) }));
    for (const title of svg.querySelectorAll("title")) title.remove(); // the card says it, and more
    for (const node of svg.querySelectorAll("text.label")) {
      const owner = node.closest("[data-i]");
      plot.labels.push({ node, lead: owner?.querySelector(".lead") ?? (owner ? null : node.previousElementSibling?.matches?.(".lead") ? node.previousElementSibling : null), x: node.getAttribute("x"), y: node.getAttribute("y"), mark: plot.marks.find((mark) => mark.node === owner) });
    }
    plot.zoom = corobench.zoom(svg, () => {
      for (const mark of plot.marks) {
        mark.isAway = !plot.zoom.isWhole() && !plot.zoom.isInside(mark.x, mark.low) && !plot.zoom.isInside(mark.x, mark.high);
      }
      labels(plot);
      for (const button of plot.buttons ?? []) if (button.dataset.zoom !== "in") button.disabled = plot.zoom.isWhole();
      hide();
    });
    return plot;
  });

  const tool = (text, label, act, kind) => {
    const node = make("button", { type: "button", "aria-label": label, title: label, "data-zoom": kind }, text);
    node.addEventListener("click", act);
    return node;
  };
  for (const figure of section.querySelectorAll("figure")) {
    const own = plots.filter((plot) => figure.contains(plot.svg));
    const all = (act) => () => own.forEach(act);
    const centre = (plot) => {
      const chosen = plot.marks.filter((mark) => view().sel.includes(name(mark.index)));
      return chosen.length ? [chosen[0].x, (chosen[0].low + chosen[0].high) / 2] : undefined;
    };
    const buttons = [
      tool("+", "Zoom in", all((plot) => plot.zoom.by(0.5, centre(plot))), "in"),
      tool("−", "Zoom out", all((plot) => plot.zoom.by(2)), "out"),
      tool("Show all", "Show all of the plot", all((plot) => plot.zoom.reset()), "all"),
    ];
    buttons[1].disabled = buttons[2].disabled = true;
    for (const plot of own) plot.buttons = buttons;
    figure.querySelector(".scroll").before(make("div", { class: "zoom", role: "group", "aria-label": "Zoom" }, ...buttons));
  }
  const plotOf = (target) => plots.find((plot) => plot.svg === target.closest?.("svg.plot"));

  /* ------------------------------------------------------------- mouse, finger, keyboard */

  section.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse" || event.buttons || pinned) return;
    const plot = plotOf(event.target);
    const marks = plot && found(plot, event);
    if (marks) show(plot, marks[0], marks.slice(1).map((mark) => mark.index));
    else if (!card.hidden && !card.contains(event.target)) hide();
  });
  section.addEventListener("pointerleave", () => { if (!pinned) hide(); });
  let last = null; // what was clicked, to go on from there
  let finger = null; // where it came down: browsers move a tap's click onto the next link
  section.addEventListener("pointerdown", (event) => { finger = event.pointerType === "touch" ? event : null; });
  const pressed = (event) => {
    const plot = plotOf(event.target);
    if (!plot) return;
    const own = event.target.closest("[data-i]");
    const byHand = event.detail > 0 || event.pointerType;
    const marks = byHand ? found(plot, finger ?? event) : plot.marks.filter((mark) => mark.node === own);
    if (!marks?.length) { hide(); return; }
    event.preventDefault();
    let mark = marks[0];
    const before = marks.findIndex((one) => one === last);
    if (byHand && before >= 0 && marks.length > 1) mark = marks[(before + 1) % marks.length];
    last = mark;
    if (event.pointerType !== "touch") toggle(mark.index, false);
    show(plot, mark, marks.filter((one) => one !== mark).map((one) => one.index));
    pin(plot);
  };
  section.addEventListener("click", pressed);
  document.addEventListener("pointerdown", (event) => {
    if (pinned && !card.contains(event.target) && !plotOf(event.target)) hide();
  });

  const walk = (plot) => {
    const shown = plot.marks.filter((mark) => !mark.node.classList.contains("out") && !mark.isAway);
    return {
      x: [...shown].sort((a, b) => a.x - b.x || b.low - a.low || a.index - b.index),
      y: [...shown].sort((a, b) => b.high - a.high || b.low - a.low || a.index - b.index),
    };
  };
  const focus = (plot, mark) => {
    for (const other of plot.marks) other.node.setAttribute("tabindex", other === mark ? "0" : "-1");
    if (!mark.node.matches("a")) {
      mark.node.setAttribute("role", "img");
      mark.node.setAttribute("aria-label", `${records[mark.index].entry}: ${ends(mark.index)}`);
    }
    mark.node.focus({ preventScroll: true });
  };
  for (const plot of plots) {
    const first = walk(plot).x[0];
    for (const mark of plot.marks) mark.node.setAttribute("tabindex", mark === first ? "0" : "-1");
    if (first && !first.node.matches("a")) {
      first.node.setAttribute("role", "img");
      first.node.setAttribute("aria-label", `${records[first.index].entry}: ${ends(first.index)}`);
    }
    plot.svg.addEventListener("focusin", (event) => {
      const mark = plot.marks.find((one) => one.node === event.target);
      if (!mark || (pinned && card.contains(document.activeElement))) return;
      pinned = null;
      card.classList.remove("pinned");
      show(plot, mark);
    });
    plot.svg.addEventListener("focusout", (event) => {
      if (!pinned && !plot.svg.contains(event.relatedTarget)) hide();
    });
    plot.svg.addEventListener("keydown", (event) => {
      const mark = plot.marks.find((one) => one.node === event.target);
      if (!mark) return;
      const { x, y } = walk(plot);
      const steps = { ArrowRight: [x, 1], ArrowLeft: [x, -1], ArrowUp: [y, 1], ArrowDown: [y, -1] }[event.key];
      if (steps) {
        const [order, way] = steps;
        focus(plot, order[Math.min(Math.max(order.indexOf(mark) + way, 0), order.length - 1)]);
      } else if (event.key === "Home" || event.key === "End") focus(plot, event.key === "Home" ? x[0] : x.at(-1));
      else if (event.key === " " || (event.key === "Enter" && !mark.node.matches("a"))) {
        toggle(mark.index, false);
        show(plot, mark);
        pin(plot);
      } else return;
      event.preventDefault();
    });
  }
  section.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || card.hidden) return;
    const inside = card.contains(document.activeElement);
    const plot = pinned;
    hide();
    if (inside) plot?.svg.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
  });

  /* ------------------------------------------------------------- legend, what is selected */

  for (const item of section.querySelectorAll(".colours li")) {
    const key = item.className;
    const button = make("button", { type: "button", "aria-pressed": "false" }, ...item.childNodes);
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const other of section.querySelectorAll(".colours button")) other.setAttribute("aria-pressed", String(on && other === button));
      const figure = item.closest("figure");
      figure.classList.toggle("by-colour", on);
      for (const node of figure.querySelectorAll("svg [data-i]")) node.classList.toggle("lit", on && node.classList.contains(key));
    });
    item.append(button);
  }
  const chosen = make("p", { class: "chosen-points" });
  section.querySelector(".plots").after(chosen); // below, so that selecting moves nothing
  return () => {
    const { sel } = view();
    chosen.replaceChildren(...(sel.length ? ["Selected: "] : []), ...sel.map((one) => {
      const index = rows.findIndex((row) => row.id === one);
      const node = make("button", { type: "button", "aria-label": `Remove ${records[index].entry} from the selection` }, `${records[index].entry} ×`);
      node.addEventListener("click", () => toggle(index, false));
      return node;
    }));
    chosen.hidden = !sel.length;
  };
};
