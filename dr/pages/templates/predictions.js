"use strict";
// The list of images: filtered, sorted and searched here, and rendered in batches while it is scrolled.
(() => {
  const byId = (id) => document.getElementById(id);
  const { rows, labels, thresholds, range, flags } = JSON.parse(byId("content").textContent);
  const thumbnails = JSON.parse(byId("thumbnails").textContent);
  const BATCH = 60;
  const state = { grades: new Set(), flags: new Set(), search: "", sort: "severe", table: false };
  let shown = [], drawn = 0, current = 0, list = null;

  const groups = new Map();
  rows.forEach((row, place) => {
    row.place = place;
    if (row.group !== null) groups.set(row.group, [...(groups.get(row.group) || []), row]);
  });

  // --- small parts -----------------------------------------------------------------------------
  function make(tag, options = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(options))
      if (name in node && name !== "style") node[name] = value; else node.setAttribute(name, value);
    node.append(...children.filter((child) => child !== null));
    return node;
  }
  const share = (grade) => grade / Math.max(1, labels.length - 1);
  const colour = (grade) => `color-mix(in oklab, var(--high) ${(100 * share(grade)).toFixed(1)}%, var(--low))`;
  function stripes(ends) {  // ends of all classes except the last, in 0..1 -> a CSS background
    let from = 0;
    return "linear-gradient(to right, " + [...ends, 1].map((end, grade) => {
      const to = 100 * Math.min(1, Math.max(0, end));
      const stop = `${colour(grade)} ${from.toFixed(1)}% ${to.toFixed(1)}%`;
      from = to;
      return stop;
    }).join(", ") + ")";
  }
  const along = (score) => Math.min(1, Math.max(0, (score - range[0]) / (range[1] - range[0])));
  if (thresholds) document.documentElement.style.setProperty("--scale", stripes(thresholds.map(along)));

  function grade(row) {
    return make("span", { className: "grade" + (share(row.grade) > 0.6 ? " dark" : ""), style: `--share:${share(row.grade)}` },
      labels[row.grade]);
  }
  function scale(row) {
    if (thresholds) {
      const text = `score ${row.score.toFixed(2)}; thresholds ${thresholds.map((threshold) => threshold.toFixed(2)).join(", ")}`;
      return make("div", { className: "scale", role: "img", ariaLabel: text, title: text },
        make("i", { style: `left:${(100 * along(row.score)).toFixed(1)}%` }));
    }
    let sum = 0;
    const ends = row.probabilities.slice(0, -1).map((probability) => (sum += probability));
    const text = row.probabilities.map((probability, k) => `${labels[k]} ${probability.toFixed(2)}`).join(", ");
    return make("div", { className: "scale", role: "img", ariaLabel: text, title: text, style: `background:${stripes(ends)}` });
  }
  function margin(row) {  // to the nearest threshold or, without thresholds, to the next class
    if (thresholds) {
      const away = thresholds.map((threshold) => Math.abs(row.score - threshold));
      const k = away.indexOf(Math.min(...away));
      const next = row.probabilities ? `; most probable ${named(byProbability(row)[0])}` : "";
      return `${away[k].toFixed(2)} ${row.score < thresholds[k] ? "below" : "above"} the threshold of ${labels[k + 1]}${next}`;
    }
    const given = row.probabilities[row.grade];
    const [other] = byProbability(row).filter(([, k]) => k !== row.grade);
    return `probability ${given.toFixed(2)}, ${other[0] > given ? "below" : "next"} ${named(other)}`;
  }
  const byProbability = (row) => row.probabilities.map((probability, k) => [probability, k]).sort((a, b) => b[0] - a[0]);
  const named = ([probability, k]) => `${labels[k]} ${probability.toFixed(2)}`;
  const wrong = (row) => row.truth !== null && row.grade !== null && row.truth !== row.grade;
  function chips(row) {
    const nodes = row.flags.map((name) => {
      const flag = flags.find((each) => each.name === name);
      const value = flag.column ? ` ${row[flag.column].toFixed(flag.digits)}` : "";
      return make("span", { className: "flag", title: flag.meaning }, flag.label + value);
    });
    if (wrong(row)) nodes.unshift(make("span", { className: "flag", title: "its label" }, `label ${labels[row.truth]}`));
    if (row.group !== null) {
      const others = groups.get(row.group).filter((other) => other !== row);
      const differ = others.some((other) => other.grade !== row.grade) ? ", graded differently" : "";
      const text = others.length === 1 ? `duplicate of ${others[0].file}` : `one of ${others.length + 1} duplicates`;
      nodes.push(make("span", { className: "flag", title: others.map((other) => other.file).join(", ") }, text + differ));
    }
    return nodes;
  }
  function image(row) {
    if (thumbnails[row.place])
      return make("img", { className: "thumbnail", alt: "", decoding: "async", src: "data:image/jpeg;base64," + thumbnails[row.place] });
    return make("div", { className: "unreadable" }, row.error ? "not graded" : "no thumbnail");
  }

  // --- gallery and table -----------------------------------------------------------------------
  function card(row) {
    const text = row.error ? [make("span", { className: "error" }, row.error)]
      : [grade(row), scale(row), make("div", { className: "margin" }, `score ${row.score.toFixed(2)}, ${margin(row)}`)];
    return make("li", { className: "card" }, image(row),
      make("div", { className: "text" }, make("span", { className: "file" }, row.file), ...text, ...chips(row)));
  }
  const number = (value, digits) => make("td", { className: "number" }, value === null ? "" : value.toFixed(digits));
  function line(row) {
    const cells = row.error ? [make("td", { colSpan: 4, className: "error" }, row.error)]
      : [make("td", {}, grade(row)), number(row.score, 2),
        make("td", { className: "measured" }, scale(row), make("span", { className: "margin" }, margin(row))), number(row.doubt, 2)];
    return make("tr", {}, make("td", {}, image(row)), make("td", { className: "file" }, row.file), ...cells,
      number(row.brightness, 0), number(row.sharpness, 1), number(row.cut_off, 2), make("td", {}, ...chips(row)));
  }
  const HEADS = [["", null], ["File", "name"], ["Grade", null], ["Score", "severe", "number"], ["Margin", null],
    ["Doubt", "doubt", "number"], ["Bright\u00adness", null, "number"], ["Sharp\u00adness", null, "number"],
    ["Cut off", null, "number"], ["Flags", null]];
  function head() {
    return make("thead", {}, make("tr", {}, ...HEADS.map(([title, key, className = ""]) => {
      const cell = make("th", { scope: "col", className });
      const on = key === state.sort || (key === "severe" && state.sort === "mild");
      if (key) {
        cell.setAttribute("aria-sort", !on ? "none" : ["name", "mild"].includes(state.sort) ? "ascending" : "descending");
        cell.append(make("button", { onclick: () => sortBy(key === "severe" && state.sort === "severe" ? "mild" : key) }, title));
      } else cell.append(title);
      return cell;
    })));
  }
  function more(count = BATCH) {
    const batch = shown.slice(drawn, drawn + count);
    list.append(...batch.map((row, i) => {
      const node = state.table ? line(row) : card(row);
      const place = drawn + i;
      node.tabIndex = place === current ? 0 : -1;
      node.addEventListener("click", () => { current = place; open(); });
      return node;
    }));
    drawn += batch.length;
  }
  function draw() {
    drawn = current = 0;
    list = state.table ? make("tbody", { id: "list" }) : make("ul", { id: "list", className: "gallery" });
    byId("rows").replaceChildren(state.table
      ? make("div", { className: "scroll" }, make("table", { className: "data" }, head(), list)) : list);
    more();
    byId("shown").textContent = `${shown.length} of ${rows.length} shown. `;
    watcher.unobserve(byId("more"));  // observed again, it reports again
    watcher.observe(byId("more"));
  }
  const watcher = new IntersectionObserver((entries) => {
    if (!entries.at(-1).isIntersecting || drawn >= shown.length) return;
    more();
    watcher.unobserve(byId("more"));
    watcher.observe(byId("more"));
  }, { rootMargin: "800px" });
  addEventListener("beforeprint", () => more(Infinity));

  // --- filters and sorting ----------------------------------------------------------------------
  const ORDERS = {
    severe: (a, b) => b.score - a.score, mild: (a, b) => a.score - b.score, doubt: (a, b) => b.doubt - a.doubt, name: () => 0,
  };
  const kinds = (row) => [...(wrong(row) ? ["wrong"] : []), ...row.flags, ...(row.group === null ? [] : ["duplicate"]),
    ...(row.error ? ["error"] : [])];
  function refresh() {
    const text = state.search.toLowerCase();
    shown = rows.filter((row) => row.file.toLowerCase().includes(text)
      && (!state.grades.size || state.grades.has(row.grade))
      && (!state.flags.size || kinds(row).some((kind) => state.flags.has(kind)) || (state.flags.has("none") && !kinds(row).length)));
    const graded = shown.filter((row) => !row.error).sort((a, b) => ORDERS[state.sort](a, b) || a.place - b.place);
    shown = state.sort === "name" ? shown : [...graded, ...shown.filter((row) => row.error)];
    draw();
  }
  function sortBy(key) {
    state.sort = byId("sort").value = key;
    refresh();
  }
  function option(place, set, value, label, count) {
    const button = make("button", { ariaPressed: "false" }, `${label} (${count})`);
    button.dataset.value = value;
    button.addEventListener("click", () => {
      if (!set.delete(value)) set.add(value);
      button.ariaPressed = String(set.has(value));
      refresh();
    });
    byId(place).append(button);
  }
  labels.forEach((label, k) => option("grades", state.grades, k, label, rows.filter((row) => row.grade === k).length));
  for (const [kind, label] of [["wrong", "differs from label"], ...flags.map((flag) => [flag.name, flag.label]),
    ["duplicate", "duplicate"], ["error", "not graded"]]) {
    const count = rows.filter((row) => kinds(row).includes(kind)).length;
    if (count) option("flags", state.flags, kind, label, count);
  }
  option("flags", state.flags, "none", "none", rows.filter((row) => !kinds(row).length).length);
  let waiting = null;
  byId("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.search = byId("search").value.trim(); refresh(); }, 120);
  });
  byId("sort").addEventListener("change", () => sortBy(byId("sort").value));
  function view(table) {
    state.table = table;
    byId("as-table").ariaPressed = String(table);
    byId("as-gallery").ariaPressed = String(!table);
    refresh();
  }
  byId("as-table").addEventListener("click", () => view(true));
  byId("as-gallery").addEventListener("click", () => view(false));

  // --- one image, and keys -----------------------------------------------------------------------
  const dialog = byId("image");
  function enlarged(row) {
    const pair = [...document.querySelectorAll(".explained .card")].find((each) => each.querySelector(".file").textContent === row.file);
    if (!pair) return image(row);
    const copy = pair.querySelector(".pair").cloneNode(true);
    copy.removeAttribute("style");
    const slider = copy.querySelector("input");
    slider.value = 50;
    slider.addEventListener("input", () => copy.style.setProperty("--seen", slider.value + "%"));
    return copy;
  }
  function open() {
    const row = shown[current];
    if (!row) return;
    const pairs = row.error ? [["error", row.error]]
      : [["grade", grade(row)], ["score", row.score.toFixed(4)], ["margin", margin(row)], ["doubt", row.doubt.toFixed(2)],
        ["brightness", row.brightness.toFixed(1)], ["sharpness", row.sharpness.toFixed(1)],
        ["cut off", row.cut_off === null ? "not measured" : row.cut_off.toFixed(2)]];
    if (!row.error && row.probabilities) pairs.push(["probabilities", row.probabilities.map((p, k) => `${labels[k]} ${p.toFixed(3)}`).join(", ")]);
    const flagged = chips(row);
    if (flagged.length) pairs.push(["flags", make("span", {}, ...flagged)]);
    byId("image-name").textContent = row.file;
    byId("image-body").replaceChildren(enlarged(row), ...(row.error ? [] : [scale(row)]),
      make("dl", { className: "facts" }, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
    if (!dialog.open) dialog.showModal();
  }
  function go(to, focus) {
    if (to < 0 || to >= shown.length) return;
    while (drawn <= to) more();
    list.children[current].tabIndex = -1;
    current = to;
    list.children[current].tabIndex = 0;
    if (focus) list.children[current].focus();
  }
  const step = (by) => { go(current + by, false); open(); };
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => list.children[current] && list.children[current].focus());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.type === "range") return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  function columns() {
    if (state.table) return 1;
    const top = list.children[0].offsetTop;
    const below = [...list.children].findIndex((node) => node.offsetTop > top);
    return below < 0 ? list.children.length : below;
  }
  byId("rows").addEventListener("keydown", (event) => {
    if (event.target.parentElement !== list) return;
    current = [...list.children].indexOf(event.target);
    const across = state.table ? 0 : 1;
    const moves = { ArrowLeft: -across, ArrowRight: across, ArrowUp: -columns(), ArrowDown: columns(), Home: -current };
    if (event.key === "Enter" || event.key === " ") open();
    else if (event.key in moves) go(current + moves[event.key], true);
    else return;
    event.preventDefault();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName) || dialog.open) return;
    event.preventDefault();
    byId("search").focus();
  });
  refresh();
})();
