/* Enlarging a part of a plot: everything is drawn again at other places, so that lines, dots and
   text keep their size. Without this script the plot stands as it is. */
"use strict";

window.corobench ??= {};

corobench.zoom = (svg, onChange) => {
  const [left, right, top, bottom] = svg.dataset.frame.split(" ").map(Number);
  const [lowLog, highLog] = svg.dataset.ends.split(" ").map(Number);
  const whole = { x0: left, x1: right, y0: top, y1: bottom };
  const LEAST = 12; // units that a part must span, both ways
  let view = whole;
  const NS = "http://www.w3.org/2000/svg";
  const draw = (tag, attributes, text = "") => {
    const node = document.createElementNS(NS, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return node;
  };

  const fx = (x) => left + ((x - view.x0) / (view.x1 - view.x0)) * (right - left);
  const fy = (y) => top + ((y - view.y0) / (view.y1 - view.y0)) * (bottom - top);
  const back = (x, y) => [
    view.x0 + ((x - left) / (right - left)) * (view.x1 - view.x0),
    view.y0 + ((y - top) / (bottom - top)) * (view.y1 - view.y0),
  ];
  const isWhole = () => view === whole;
  const isInside = (x, y) => x >= view.x0 && x <= view.x1 && y >= view.y0 && y <= view.y1;

  /* ---------------------------------------------------------------- what is drawn again */

  const near = (value) => Math.round(value * 100) / 100;
  const pairs = (text) => {
    const numbers = text.trim().split(/[\s,]+/).map(Number);
    return numbers.map((value, place) => near(place % 2 ? fy(value) : fx(value)));
  };
  const path = (d) => d.replace(/([MLHV])([^MLHVZ]+)/g, (_, letter, text) => {
    if (letter === "H") return `H${near(fx(Number(text)))}`;
    if (letter === "V") return `V${near(fy(Number(text)))}`;
    return letter + pairs(text).join(" ");
  });
  const first = new Map(); // node -> its attributes as the page has them
  const rules = {
    path: (node, was) => node.setAttribute("d", path(was.d)),
    polyline: (node, was) => node.setAttribute("points", pairs(was.points).join(" ")),
    circle: (node, was) => {
      node.setAttribute("cx", near(fx(Number(was.cx))));
      node.setAttribute("cy", near(fy(Number(was.cy))));
    },
  };
  const moving = [...svg.querySelectorAll("path, polyline:not(.lead), circle")];
  for (const node of moving) first.set(node, Object.fromEntries(["d", "points", "cx", "cy"].map((key) => [key, node.getAttribute(key)])));

  const clip = draw("clipPath", { id: `clip-${svg.classList[1]}` });
  clip.append(draw("rect", { x: left, y: top - 6, width: right - left + 6, height: bottom - top + 12 }));
  svg.prepend(clip);
  svg.style.setProperty("--clip", `url(#${clip.id})`);

  const short = (value) => {
    for (const [factor, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (value >= factor) return `${Number((value / factor).toPrecision(3))}${unit}`;
    return `${Number(value.toPrecision(3))}`;
  };
  const sizes = (low, high) => {
    const steps = high - low > 2.5 ? [1] : high - low > 0.7 ? [1, 2, 5] : [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];
    const found = [];
    for (let decade = Math.floor(low); decade <= Math.ceil(high); decade += 1) for (const step of steps) {
      const log = Math.log10(step) + decade;
      if (log >= low && log <= high) found.push([log, short(10 ** log)]);
    }
    if (found.length >= 2) return found;
    return [0.1, 0.5, 0.9].map((part) => low + part * (high - low)).map((log) => [log, short(10 ** log)]);
  };
  const ticks = svg.querySelector(".ticks");
  const ticksFirst = [...ticks.children];
  const percents = () => {
    const rate = (y) => (100 * (bottom - y)) / (bottom - top);
    const [low, high] = [rate(view.y1), rate(view.y0)];
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20].find((one) => (high - low) / one <= 6) ?? 20;
    const found = [];
    for (let mark = Math.ceil(low / step - 1e-9); mark * step <= high + 1e-9; mark += 1) found.push(Number((mark * step).toFixed(1)));
    return found;
  };
  const redrawTicks = () => {
    if (isWhole()) { ticks.replaceChildren(...ticksFirst); return; }
    const log = (x) => lowLog + ((x - left) / (right - left)) * (highLog - lowLog);
    const out = [];
    for (const mark of percents()) {
      const y = near(fy(bottom - (mark / 100) * (bottom - top)));
      out.push(draw("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }), draw("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, mark));
    }
    for (const [at, text] of sizes(log(view.x0), log(view.x1))) {
      const x = near(fx(left + ((at - lowLog) / (highLog - lowLog)) * (right - left)));
      out.push(draw("line", { class: "mark", x1: x, x2: x, y1: bottom, y2: bottom + 5 }), draw("text", { x, y: bottom + 19, "text-anchor": "middle" }, text + svg.dataset.unit));
    }
    ticks.replaceChildren(...out);
  };

  const set = (next) => {
    view = next;
    svg.classList.toggle("zoomed", !isWhole());
    for (const node of moving) rules[node.tagName](node, first.get(node));
    redrawTicks();
    onChange();
  };
  const clamp = ({ x0, x1, y0, y1 }) => {
    const part = (a, b, from, to) => {
      const span = Math.min(Math.max(b - a, LEAST), to - from);
      const start = Math.min(Math.max((a + b - span) / 2, from), to - span);
      return [start, start + span];
    };
    const [nx0, nx1] = part(x0, x1, left, right);
    const [ny0, ny1] = part(y0, y1, top, bottom);
    const isAll = nx1 - nx0 > right - left - 0.5 && ny1 - ny0 > bottom - top - 0.5;
    return isAll ? whole : { x0: nx0, x1: nx1, y0: ny0, y1: ny1 };
  };
  const by = (factor, at) => {
    const [cx, cy] = at ?? [(view.x0 + view.x1) / 2, (view.y0 + view.y1) / 2];
    const span = (a, b, c) => [c - (c - a) * factor, c + (b - c) * factor];
    const [x0, x1] = span(view.x0, view.x1, cx);
    const [y0, y1] = span(view.y0, view.y1, cy);
    set(clamp({ x0, x1, y0, y1 }));
  };

  /* ---------------------------------------------------------------- an area by the mouse */

  const user = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [point.x, point.y];
  };
  let start = null;
  let area = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0) start = user(event);
  });
  window.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [x, y] = user(event);
    if (!area && Math.hypot(x - start[0], y - start[1]) < 6) return;
    if (!area) svg.append((area = draw("rect", { class: "area-zoomed" })));
    const box = { x: Math.min(x, start[0]), y: Math.min(y, start[1]), width: Math.abs(x - start[0]), height: Math.abs(y - start[1]) };
    for (const [key, value] of Object.entries(box)) area.setAttribute(key, value);
  });
  window.addEventListener("pointerup", (event) => {
    if (area) {
      const [a, b] = [back(...start), back(...user(event))];
      area.remove();
      set(clamp({ x0: Math.min(a[0], b[0]), x1: Math.max(a[0], b[0]), y0: Math.min(a[1], b[1]), y1: Math.max(a[1], b[1]) }));
      svg.addEventListener("click", (click) => { click.preventDefault(); click.stopPropagation(); }, { capture: true, once: true });
      setTimeout(() => svg.dispatchEvent(new Event("click", { bubbles: false })));
    }
    start = area = null;
  });
  svg.addEventListener("dragstart", (event) => event.preventDefault()); // links of a plot are not dragged away
  svg.addEventListener("dblclick", () => set(whole));
  return { fx, fy, by, isWhole, isInside, user, reset: () => set(whole) };
};
