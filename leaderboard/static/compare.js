/* Entries side by side, on the same images. */
"use strict";

window.corobench ??= {};

/* Two-sided exact McNemar p-value: twice the binomial tail of the smaller count at one half. */
corobench.mcnemar = (onlyFirst, onlySecond) => {
  const n = onlyFirst + onlySecond;
  let term = -n * Math.LN2; // log of the probability of k = 0
  let tail = 0;
  for (let k = 0; k <= Math.min(onlyFirst, onlySecond); k += 1) {
    tail += Math.exp(term);
    term += Math.log(n - k) - Math.log(k + 1);
  }
  return n === 0 ? 1 : Math.min(1, 2 * tail);
};

/* Holm's step-down correction of a list of p-values. */
corobench.holm = (values) => {
  const order = values.map((_, place) => place).sort((a, b) => values[a] - values[b]);
  const out = [];
  let largest = 0;
  order.forEach((place, rank) => {
    largest = Math.max(largest, Math.min(1, (values.length - rank) * values[place]));
    out[place] = largest;
  });
  return out;
};

(() => {
  const form = document.querySelector("#choose");
  if (!form) return;
  const out = document.querySelector("#compared");
  const said = document.querySelector("#said"); // what is read aloud of a change: one sentence
  const boxes = [...form.querySelectorAll('input[name="e"]')];
  const radius = form.querySelector('select[name="eps"]');
  const WORDS = { c: "proven", u: "undecided", t: "timeout", e: "error", a: "broken", m: "misclassified" };
  const MEASURES = { clean: ["Clean", "cuaet"], not_attacked: ["Unbroken", "cuet"], certified: ["Proven", "c"] };
  const STEP = 48;
  const { make, button, MOST } = corobench;
  const labelOf = (box) => box.closest("label");
  const nameOf = (box) => labelOf(box).querySelector("small").textContent;
  const picker = form.querySelector("#picker");
  const find = form.querySelector("#find");
  const none = form.querySelector("#none-found");
  let every = false; // whether the matrix shows all images

  const { percent } = corobench;
  const grouped = (count) => count.toLocaleString("en-GB");
  const pValue = (p) => (p < 0.0001 ? "< 0.0001" : p.toFixed(4));
  const table = (caption, head, lines, attributes = {}) =>
    make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption },
      make("table", attributes, make("caption", {}, caption),
        make("thead", {}, make("tr", {}, ...head.map((text, place) => make("th", { scope: "col", ...(place ? { class: "num" } : {}) }, text)))),
        make("tbody", {}, ...lines.map(([first, ...rest]) =>
          make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((cell, place) => make("td", { class: "num", "data-label": head[place + 1] }, cell)))))));

  const bar = (entry, epsilon) => {
    const counts = { c: 0, u: 0, x: 0, a: 0, m: 0 };
    for (const letter of entry.epsilons[epsilon].outcomes) counts[letter in counts ? letter : "x"] += 1;
    const style = Object.entries(counts).map(([key, count]) => `--${key}:${100 * count / entry.n}`).join(";");
    const label = `${counts.c} proven, ${counts.u} undecided, ${counts.a} broken, ${counts.m} misclassified`;
    return make("span", { class: "bar bare", role: "img", "aria-label": label, style });
  };

  /* Doubts about an evaluation; they lead to where the entry's page explains them. */
  const flags = (names, epsilon, box) => (names.length ? make("a", { href: `${box.dataset.path.replace(/js$/, "html")}#flags-${epsilon.replace("/", "-")}` }, names.join(", ")) : "none");

  const show = async () => {
    const chosen = boxes.filter((box) => box.checked);
    const epsilon = radius.value;
    for (const box of boxes) box.disabled = !box.checked && chosen.length >= MOST;
    form.querySelector("#chosen").replaceChildren(
      ...chosen.map((box) => button(nameOf(box), () => { box.checked = false; show(); }, { class: "chip", "aria-label": `Remove ${nameOf(box)}` })),
      ...(chosen.length > 1 ? [button("Clear", () => { for (const box of boxes) box.checked = false; show(); }, { class: "clear" })] : []));
    picker.firstElementChild.textContent = chosen.length ? `Choose entries (${chosen.length} of at most ${MOST})` : "Choose entries";
    history.replaceState(null, "", chosen.length ? `#${new URLSearchParams({ e: chosen.map((box) => box.value).join(), eps: epsilon })}` : location.pathname + location.search);
    if (chosen.length < 2) {
      picker.open = true;
      said.textContent = chosen.length ? "Choose at least one more entry." : `Choose two to ${MOST} entries.`;
      out.replaceChildren(make("p", { class: "notice" }, said.textContent));
      return;
    }
    const { group, entries } = await corobench.load(form.dataset.group, chosen.map((box) => box.dataset.path));
    if (boxes.filter((box) => box.checked).map((box) => box.value).join() !== chosen.map((box) => box.value).join()) return;
    draw(group, entries, epsilon, chosen);
  };

  /* Entries of the picker whose title, id, method, architecture or authors hold every word. */
  const search = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const box of boxes) {
      const text = `${labelOf(box).textContent} ${labelOf(box).dataset.words}`.toLowerCase();
      labelOf(box).hidden = !words.every((word) => text.includes(word));
    }
    none.hidden = boxes.some((box) => !labelOf(box).hidden);
  };

  const draw = (group, entries, epsilon, chosen) => {
    const title = (entry) => entry.variant ? `${entry.entry} (${entry.variant})` : entry.entry;
    const at = (entry) => entry.epsilons[epsilon];
    const heads = entries.map(title);
    const share = (count, n) => (count === null ? "not asked" : `${percent(count, n)} % · ${count}`);
    const numbers = table(`Side by side at radius ${epsilon}, n = ${grouped(group.n)}`, ["Figure", ...heads], [
      ["Title", ...entries.map((e) => e.title)],
      ["Method", ...entries.map((e) => e.method)],
      ["Architecture", ...entries.map((e) => e.architecture)],
      ["Non-zero parameters", ...entries.map((e) => grouped(e.nonzero))],
      ["Packed bytes", ...entries.map((e) => grouped(e.packed))],
      ["Multiply-adds", ...entries.map((e) => grouped(e.macs))],
      ["Clean", ...entries.map((e) => share(e.clean, e.n))],
      ["Proven", ...entries.map((e) => (at(e).known || at(e).certified === null ? share(at(e).certified, e.n) : "not known"))],
      ["Unbroken", ...entries.map((e) => share(at(e).not_attacked, e.n))],
      ["ERA, PGD-50", ...entries.map((e) => share(at(e).pgd50, e.n))],
      ["AutoAttack", ...entries.map((e) => share(at(e).autoattack, e.n))],
      ...(entries.some((e) => at(e).flags.length) ? [["Flags", ...entries.map((e, place) => flags(at(e).flags, epsilon, chosen[place]))]] : []),
      ...(entries.every((e) => at(e).outcomes) ? [["Bracket", ...entries.map((e) => bar(e, epsilon))]] : []),
    ]);
    const parts = [make("h2", {}, "Side by side"), numbers, ...corobench.securityCurves(entries, heads)];
    if (entries.every((entry) => at(entry).outcomes)) {
      const found = paired(entries, epsilon);
      if (entries.length === 2) parts.unshift(make("p", { class: "lead", id: "verdict" }, found.map((test) => `${test.word}: ${verdict(test, heads)}.`).join(" ")));
      parts.push(...tests(found, entries, epsilon, heads), ...differing(group, entries, epsilon, heads));
    }
    else parts.push(make("p", { class: "notice" }, "At least one of these results has no outcome table beside it, so there is no paired comparison."));
    out.replaceChildren(...parts);
    said.textContent = `${entries.length} entries compared at radius ${epsilon}.`;
    corobench.securityCard(out.querySelector("svg.security"), entries.map((entry, place) => ({ text: heads[place], href: chosen[place].dataset.path.replace(/js$/, "html") })));
  };

  const verdict = (test, heads) => (test.holm >= 0.05 ? "no difference shown" : `${heads[test.first > test.second ? test.i : test.j]} is better`);
  const paired = (entries, epsilon) => {
    const found = [];
    for (const [measure, [word, letters]] of Object.entries(MEASURES)) {
      for (let i = 0; i < entries.length; i += 1) for (let j = i + 1; j < entries.length; j += 1) {
        if (measure === "certified" && ![i, j].every((place) => entries[place].epsilons[epsilon].known)) continue; // nothing to compare
        const [a, b] = [entries[i].epsilons[epsilon].outcomes, entries[j].epsilons[epsilon].outcomes];
        let [first, second] = [0, 0];
        for (let k = 0; k < a.length; k += 1) {
          const [x, y] = [letters.includes(a[k]), letters.includes(b[k])];
          if (x && !y) first += 1;
          if (y && !x) second += 1;
        }
        found.push({ measure, word, i, j, first, second, p: corobench.mcnemar(first, second) });
      }
    }
    corobench.holm(found.map((test) => test.p)).forEach((value, place) => { found[place].holm = value; });
    return found;
  };
  const tests = (found, entries, epsilon, heads) => {
    const lines = found.map((test) => [
      `${test.word}: ${heads[test.i]} against ${heads[test.j]}`,
      String(test.first), String(test.second), pValue(test.p), pValue(test.holm), verdict(test, heads),
    ]);
    const caption = "Exact McNemar";
    const whole = table(caption, ["Measure and pair", "Only the first", "Only the second", "p", "p, Holm", "Verdict"], lines, { class: "paired" });
    return [make("h2", {}, "Paired tests"),
      make("p", { class: "sub" }, `Exact McNemar test on the same ${grouped(entries[0].n)} images; Holm over the ${found.length} tests shown; 5 %. One training of each is compared. Boards and findings correct over more tests, so they may show no difference where this page shows one.${entries.every((entry) => entry.epsilons[epsilon].known) ? "" : " Proven is not tested where the proven share of an entry is not known."}`),
      lines.length > 18 ? make("details", {}, make("summary", {}, `All ${lines.length} tests`), whole) : whole];
  };

  /* One row per image, one column per entry. */
  const differing = (group, entries, epsilon, heads) => {
    const all = [...Array(group.n).keys()];
    const differ = all.filter((k) => new Set(entries.map((entry) => entry.epsilons[epsilon].outcomes[k])).size > 1);
    const shown = (k) => Boolean(group.pictures?.[group.images[k]]);
    const body = make("tbody");
    const more = button("More", () => add());
    let [places, done] = [[], 0];
    const cell = (entry, k) => {
      const letter = entry.epsilons[epsilon].outcomes[k];
      const wrong = letter === "m" ? ` as ${group.classes[entry.predicted[k]]}` : "";
      return make("td", {}, make("span", { class: `dot ${letter}`, "aria-hidden": "true" }), ` ${WORDS[letter]}${wrong}`);
    };
    const add = () => {
      for (const k of places.slice(done, done + STEP)) {
        const label = group.classes[group.labels[k]];
        const picture = group.pictures?.[group.images[k]];
        body.append(make("tr", {},
          make("th", { scope: "row" },
            picture ? make("img", { src: picture, alt: "" }) : make("span", { class: "nopicture", "aria-hidden": "true" }, "–"),
            make("span", {}, `${label} `, make("span", { class: "sub" }, `image ${group.images[k]}`))),
          ...entries.map((entry) => cell(entry, k))));
      }
      done = Math.min(places.length, done + STEP);
      more.hidden = done >= places.length;
      more.textContent = `Show more (${grouped(places.length - done)} left)`;
    };
    const fill = () => {
      places = [...(every ? all : differ)].sort((a, b) => shown(b) - shown(a) || a - b);
      done = 0;
      body.replaceChildren();
      add();
      nothing.hidden = places.length > 0;
    };
    const nothing = make("p", { class: "notice" }, "They have the same outcome on every image. ", button("Show all images", () => { every = true; boxEvery.checked = true; fill(); }));
    const boxEvery = make("input", { type: "checkbox", checked: every });
    boxEvery.addEventListener("change", () => { every = boxEvery.checked; fill(); });
    fill();
    return [make("h2", {}, "Images by entry"),
      make("p", { class: "sub" }, make("span", { id: "num-differing" }, `${grouped(differ.length)} of ${grouped(group.n)} images have different outcomes at radius ${epsilon}.`), " ", make("label", {}, boxEvery, " Show all images")),
      nothing,
      make("div", { class: "scroll matrix", role: "region", tabindex: "0", "aria-label": "Images by entry" },
        make("table", {}, make("caption", { class: "hide" }, `Outcome of each image at radius ${epsilon}`),
          make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Image"), ...heads.map((text) => make("th", { scope: "col" }, text)))), body)),
      more];
  };

  const read = () => {
    const parts = new URLSearchParams(location.hash.slice(1));
    const wanted = (parts.get("e") ?? "").split(",");
    boxes.forEach((box) => { box.checked = wanted.includes(box.value); });
    boxes.filter((box) => box.checked).slice(MOST).forEach((box) => { box.checked = false; });
    if ([...radius.options].some((option) => option.value === parts.get("eps"))) radius.value = parts.get("eps");
    if (boxes.filter((box) => box.checked).length >= 2) picker.open = false;
    show();
  };
  form.addEventListener("change", (event) => { if (event.target !== find) show(); });
  find.addEventListener("input", search);
  none.querySelector("button").addEventListener("click", () => { find.value = ""; search(); find.focus(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", read);
  read();
})();
