/* A board's view as records for machines: the same keys and values as the board's own files. */
"use strict";

window.corobench ??= {};

/* The Wilson 95 % interval of a count of n, to four digits. */
corobench.wilson = (count, n) => {
  const z = 1.959963984540054;
  const [rate, weight] = [count / n, (z * z) / n];
  const middle = (rate + weight / 2) / (1 + weight);
  const half = (z * Math.sqrt((rate * (1 - rate)) / n + weight / (4 * n))) / (1 + weight);
  const short = (value) => Math.round(Math.min(1, Math.max(0, value)) * 1e4) / 1e4;
  return [count === 0 ? 0 : short(middle - half), count === n ? 1 : short(middle + half)];
};

/* The record of one entry, read from its row before anything is added to it. */
corobench.record = (row, config, entry) => {
  const cell = (key) => row.cells[config.columns.findIndex((column) => column.key === key)];
  const number = (key) => (cell(key).dataset.order === "" ? null : Number(cell(key).dataset.order));
  const record = {
    entry,
    title: cell("entry").querySelector("a").textContent.trim(),
    seed: number("seed"),
    parent: cell("parent").textContent.trim() || null,
    epsilon: config.epsilon,
    n: config.n,
    quick: config.quick,
  };
  for (const { key, kind, share } of config.columns) {
    if (key in record || key === "bracket") continue;
    record[key] = kind === "text" ? cell(key).textContent.trim().replace(/^—$/, "") : number(key);
    if (share) [record[`${key}_low`], record[`${key}_high`]] = record[key] === null ? [null, null] : corobench.wilson(record[key], config.n);
    if (key.startsWith("group")) {
      const ranks = cell(key).querySelector("i")?.textContent.match(/\d+/g)?.map(Number) ?? [null];
      [record[`${key}_best`], record[`${key}_worst`]] = [ranks[0], ranks.at(-1)];
    }
  }
  return record;
};

/* Of a record what the chosen columns hold, after what is always there. */
corobench.ALWAYS = ["entry", "title", "seed", "parent", "epsilon", "n", "quick"];
corobench.part = (record, columns) => {
  const wanted = (key) => columns.some((column) => key === column || /^_(low|high|best|worst)$/.test(key.slice(column.length)) && key.startsWith(column));
  return Object.fromEntries(Object.entries(record).filter(([key]) => corobench.ALWAYS.includes(key) || wanted(key)));
};

/* A value of a CSV file; what a spreadsheet would run as a formula gets an apostrophe. */
corobench.csvValue = (value) => {
  const text = value === null ? "" : String(value);
  const safe = typeof value === "string" && /^[=+\-@＝＋－＠\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};

corobench.csv = (records) => {
  const keys = Object.keys(records[0] ?? { entry: "" });
  const lines = records.map((record) => keys.map((key) => corobench.csvValue(record[key])).join(","));
  return `${[keys.join(","), ...lines].join("\n")}\n`;
};

corobench.download = (name, type, text) => {
  const link = corobench.make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};
