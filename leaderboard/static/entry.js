/* What several pages share: data of entries, loaded by script tags so that it works from a file;
   buttons that copy. */
"use strict";

window.corobench ??= {};

corobench.MOST = 8; // entries that are compared at once

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
