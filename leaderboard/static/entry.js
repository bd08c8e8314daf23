/* What several pages share: data of entries, loaded by script tags so that it works from a file;
   numbers as the pages write them; where a card stands; buttons that copy. */
"use strict";

window.corobench ??= {};

corobench.MOST = 8; // entries that are compared at once

/* A count of n in percent, as every page writes it: a quarter is rounded to even, and nothing is
   rounded onto 0 or 100. */
corobench.percent = (count, n) => {
  const value = 100 * (count / n);
  const text = (value % 1 === 0.25 ? value - 0.05 : value).toFixed(1);
  if (text === "0.0" && count > 0) return "<0.1";
  return text === "100.0" && count < n ? ">99.9" : text;
};

/* Put a card beside a place of a drawing, inside its figure. */
corobench.beside = (card, svg, x, y) => {
  const figure = svg.closest("figure");
  figure.append(card);
  card.hidden = false;
  const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
  const box = figure.getBoundingClientRect();
  const left = at.x - box.left;
  const beside = left + 18 + card.offsetWidth <= box.width ? left + 18 : left - 18 - card.offsetWidth;
  const below = beside < 0; // too narrow for either side
  card.style.left = `${Math.max(0, Math.min(beside, box.width - card.offsetWidth))}px`;
  card.style.top = `${at.y - box.top + (below ? 24 : -card.offsetHeight / 2)}px`;
};

(() => {
  const waiting = new Map();
  const loaded = new Map();
  let last = null;
  corobench.entry = (data) => { last = data; };
  corobench.group = (data) => { last = data; };

  const one = (path) => {
    if (loaded.has(path)) return Promise.resolve(loaded.get(path));
    if (!waiting.has(path)) {
      waiting.set(path, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = path;
        script.onload = () => { loaded.set(path, last); resolve(last); };
        script.onerror = () => { waiting.delete(path); reject(new Error(`cannot load ${path}`)); };
        document.head.append(script);
      }));
    }
    return waiting.get(path);
  };

  /* One after another: each script leaves its data in `last`. */
  corobench.load = async (groupPath, entryPaths) => {
    const group = await one(groupPath);
    const entries = [];
    for (const path of entryPaths) entries.push(await one(path));
    return { group, entries };
  };

  for (const node of document.querySelectorAll("[data-copies]")) {
    const target = document.getElementById(node.dataset.copies);
    node.hidden = false;
    node.addEventListener("click", async () => {
      const before = node.textContent;
      try {
        await navigator.clipboard.writeText(target.textContent);
        node.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(target);
        node.textContent = "Selected";
      }
      setTimeout(() => { node.textContent = before; }, 2000);
    });
  }
})();
