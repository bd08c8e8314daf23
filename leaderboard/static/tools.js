/* The pieces of a board's toolbar: elements, menus, boxes, chips. */
"use strict";

window.corobench ??= {};

corobench.make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in node && typeof value !== "string") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
};

corobench.button = (text, act, attributes = {}) => {
  const node = corobench.make("button", { type: "button", ...attributes }, text);
  node.addEventListener("click", act);
  return node;
};

/* A box with its label; `change` is told whether it is checked. */
corobench.check = (text, change) => {
  const box = corobench.make("input", { type: "checkbox" });
  box.addEventListener("change", () => change(box.checked));
  return { box, label: corobench.make("label", {}, box, ` ${text}`) };
};

/* A text that was gzipped and written in base64. */
corobench.unpack = (packed) => {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.codePointAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};

/* A button that opens a sheet; Escape and a click elsewhere close it. */
corobench.menu = (title, attributes, ...children) => {
  const details = corobench.make("details", { class: "menu", ...attributes },
    corobench.make("summary", {}, title), corobench.make("div", { class: "sheet" }, ...children));
  details.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !details.open) return;
    details.open = false;
    details.firstElementChild.focus();
  });
  return details;
};

corobench.closeMenus = (besides) => {
  for (const open of document.querySelectorAll("details.menu[open]")) if (!open.contains(besides)) open.open = false;
};

/* A chosen filter that a click removes. */
corobench.chip = (title, value, remove) =>
  corobench.button(`${title}: ${value}`, remove, { class: "chip", "aria-label": `Remove the filter ${title}: ${value}` });

corobench.copy = async (text, node) => {
  const before = node.textContent;
  try {
    await navigator.clipboard.writeText(text);
    node.textContent = "Copied";
  } catch {
    node.textContent = "Copy it from the address bar";
  }
  setTimeout(() => { node.textContent = before; }, 2000);
};

/* The header of a table that fits its box sticks to the window; else to the box, which scrolls. */
corobench.fit = (table) => {
  const box = table.parentElement;
  const look = () => {
    box.classList.remove("fits");
    box.classList.toggle("fits", table.scrollWidth <= box.clientWidth + 1);
  };
  new ResizeObserver(look).observe(box);
  return look;
};
