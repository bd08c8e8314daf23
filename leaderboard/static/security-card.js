/* The points of security curves: a card with the radius and its numbers, by mouse, finger and
   keyboard. The one that is meant is the one whose end is nearest to the pointer. */
"use strict";

window.corobench ??= {};

/* `names` has one { text, href } per entry, in the order of the groups; no href, no link. */
corobench.securityCard = (svg, names) => {
  const figure = svg.closest("figure");
  const { make, percent } = corobench;
  const n = Number(svg.dataset.n);
  const REACH = 26; // units around the pointer

  const points = [...svg.querySelectorAll("g[data-at]")].map((node) => {
    const { of, at, how, low, high } = node.dataset;
    const [top, bottom] = ["unbroken", "proven"].map((kind) => node.querySelector(`circle.${kind}`));
    const [x, highY] = ["cx", "cy"].map((key) => Number(top.getAttribute(key)));
    return { node, of: Number(of), at, how, high: Number(high), low: low === "" ? null : Number(low), x, highY, lowY: bottom ? Number(bottom.getAttribute("cy")) : null };
  });
  if (!points.length) return;
  const proven = (point) => (point.low === null ? "not known" : `${percent(point.low, n)} %`);
  const said = (point) => `${point.low === null ? "proven share not known" : `${proven(point)} proven`}, ${percent(point.high, n)} % unbroken`;

  const card = make("div", { class: "point-card", role: "status" });
  card.hidden = true;
  figure.append(card);
  let pinned = false;
  const hide = () => {
    card.hidden = true;
    pinned = false;
    card.classList.remove("pinned");
    for (const one of points) one.node.classList.remove("hot");
  };
  const show = (point, isPinned) => {
    const { text, href } = names[point.of];
    const others = points.filter((one) => one.at === point.at && one !== point);
    card.replaceChildren(
      make("p", { class: "name" }, href ? make("a", { href }, text) : text),
      make("p", { class: "sub" }, point.at === "0" ? "without an attack" : `radius ${point.at}, measured ${point.how}`),
      make("dl", {}, ...[["proven", proven(point), point.low], ["unbroken", `${percent(point.high, n)} %`, point.high]].map(([key, share, count]) =>
        make("div", {}, make("dt", {}, key), make("dd", {}, share, ...(count === null ? [] : [make("small", {}, ` ${count.toLocaleString("en-GB")}`)]))))),
    );
    if (others.length) {
      card.append(make("p", { class: "sub" }, "At the same radius:"),
        make("ul", {}, ...others.map((one) => make("li", {}, `${names[one.of].text}: ${said(one)}`))));
    }
    for (const one of points) one.node.classList.toggle("hot", one === point);
    pinned = isPinned;
    card.classList.toggle("pinned", isPinned);
    corobench.beside(card, svg, point.x, (point.highY + (point.lowY ?? point.highY)) / 2);
  };

  /* ------------------------------------------------------------- mouse, finger, keyboard */

  const found = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const far = (point) => Math.min(...[point.highY, point.lowY].filter((y) => y !== null).map((y) => Math.hypot(at.x - point.x, at.y - y)));
    const near = points.map((point) => [far(point), point]).sort(([a], [b]) => a - b)[0];
    return near[0] < REACH ? near[1] : null;
  };
  svg.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse" || pinned) return;
    const point = found(event);
    if (point) show(point, false);
    else hide();
  });
  svg.addEventListener("pointerleave", () => { if (!pinned) hide(); });
  svg.addEventListener("click", (event) => {
    const point = found(event);
    if (point) show(point, true);
    else hide();
  });
  document.addEventListener("pointerdown", (event) => {
    if (pinned && !card.contains(event.target) && !svg.contains(event.target)) hide();
  });
  figure.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  const along = (from, way) => {
    const own = points.filter((one) => one.of === from.of);
    return own[Math.min(Math.max(own.indexOf(from) + way, 0), own.length - 1)];
  };
  const across = (from, way) => {
    const same = points.filter((one) => one.at === from.at);
    return same[Math.min(Math.max(same.indexOf(from) + way, 0), same.length - 1)];
  };
  svg.setAttribute("role", "group");
  points.forEach((point, place) => {
    const label = `${names[point.of].text}, ${point.at === "0" ? "without an attack" : `radius ${point.at}`}: ${said(point)}`;
    for (const [key, value] of [["role", "img"], ["aria-label", label], ["tabindex", place ? "-1" : "0"]]) point.node.setAttribute(key, value);
    point.node.addEventListener("focus", () => { if (!pinned) show(point, false); });
    point.node.addEventListener("blur", () => { if (!pinned) hide(); });
    point.node.addEventListener("keydown", (event) => {
      const next = { ArrowRight: [along, 1], ArrowLeft: [along, -1], ArrowDown: [across, 1], ArrowUp: [across, -1] }[event.key];
      if (!next) return;
      event.preventDefault();
      pinned = false;
      const other = next[0](point, next[1]);
      for (const one of points) one.node.setAttribute("tabindex", one === other ? "0" : "-1");
      other.node.focus({ preventScroll: true });
    });
  });
};

for (const svg of document.querySelectorAll("svg.security[data-name]")) corobench.securityCard(svg, [{ text: svg.dataset.name }]);
