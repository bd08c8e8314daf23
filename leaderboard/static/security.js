/* The security curves of compared entries in one plot: a band from proven to unbroken each. */
"use strict";

window.corobench ??= {};

corobench.securityCurves = (entries, heads) => {
  const NS = "http://www.w3.org/2000/svg";
  const [LEFT, RIGHT, TOP, BOTTOM] = [40, 585, 22, 252];
  const draw = (tag, attributes, ...children) => {
    const node = document.createElementNS(NS, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const make = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const largest = Math.max(...entries.flatMap((entry) => entry.curve.map(([, radius]) => radius)));
  const x = (radius) => (LEFT + (radius / largest) * (RIGHT - LEFT)).toFixed(2);
  const y = (rate) => (BOTTOM - rate * (BOTTOM - TOP)).toFixed(2);
  const svg = draw("svg", { class: "plot security", "data-n": entries[0].n, viewBox: "0 0 612 300", role: "img", "aria-label": `Proven and unbroken shares of ${heads.join(", ")} as the radius grows` });
  for (let percent = 0; percent <= 100; percent += 20) {
    svg.append(draw("line", { class: "grid", x1: LEFT, x2: RIGHT, y1: y(percent / 100), y2: y(percent / 100) }),
      draw("text", { x: LEFT - 8, y: Number(y(percent / 100)) + 4, "text-anchor": "end" }, String(percent)));
  }
  svg.append(draw("text", { x: LEFT, y: 12 }, "% still right"), draw("text", { x: RIGHT, y: 290, "text-anchor": "end" }, "ℓ∞ radius"));
  const ticks = new Map(entries.flatMap((entry) => entry.curve.filter(([, , , , cheap]) => !cheap).map(([text, radius]) => [text, radius])));
  for (const [text, radius] of ticks) {
    svg.append(draw("line", { class: "mark", x1: x(radius), x2: x(radius), y1: BOTTOM, y2: BOTTOM + 5 }), draw("text", { x: x(radius), y: BOTTOM + 19, "text-anchor": "middle" }, text));
  }
  entries.forEach((entry, place) => {
    const at = (radius, count) => `${x(radius)},${y(count / entry.n)}`;
    const high = entry.curve.map(([, radius, , unbroken]) => at(radius, unbroken));
    const known = entry.curve.filter(([, , proven]) => proven !== null);
    const low = known.map(([, radius, proven]) => at(radius, proven));
    const group = draw("g", { class: `k${place}` });
    if (low.length > 1) group.append(draw("path", { class: "band", d: `M${high.slice(0, low.length).join("L")}L${[...low].reverse().join("L")}Z` }), draw("polyline", { class: "proven", points: low.join(" ") }));
    group.append(draw("polyline", { class: "unbroken", points: high.join(" ") }));
    for (const [text, radius, proven, unbroken, cheap] of entry.curve) {
      const kind = cheap ? " cheap" : "";
      const point = draw("g", { "data-of": place, "data-at": text, "data-how": cheap ? "cheaply" : "for the board", "data-low": proven ?? "", "data-high": unbroken });
      point.append(draw("circle", { class: `unbroken${kind}`, cx: x(radius), cy: y(unbroken / entry.n), r: 3.5 }));
      if (proven !== null) point.append(draw("circle", { class: `proven${kind}`, cx: x(radius), cy: y(proven / entry.n), r: 3.5 }));
      group.append(point);
    }
    svg.append(group);
  });
  const legend = make("ul", { class: "colours shown" }, ...heads.map((head, place) =>
    make("li", { class: `k${place}` }, make("span", { class: "dot", "aria-hidden": "true" }), head)));
  const isCheap = entries.some((entry) => entry.curve.some(([, , , , cheap]) => cheap));
  return [make("h2", {}, "Security curves"),
    make("p", { class: "sub" }, `Dashed: unbroken. Solid: proven. The true share of each entry lies in its band. Point at a circle, tap it, or walk with the arrow keys to see its numbers.${isCheap ? " Hollow points are measured cheaply, by IBP, CROWN-IBP, CROWN and PGD-50 alone, and are not ranked." : ""}`),
    make("figure", {}, legend, make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Security curves" }, svg))];
};
