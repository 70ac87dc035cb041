// Why a query was answered as it was: words that light regions of a picture, and graphs of what an item attaches to.

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
const signed = (number, digits) => `${Number(Math.abs(number).toFixed(digits)) === 0 ? "±" : number < 0 ? "−" : "+"}${Math.abs(number).toFixed(digits)}`;
const plain = (number, digits = 1) => number.toFixed(digits).replace(/^-(?=[0.]+$)/, "").replace("-", "−");
const HOW = {
  pair: "Point at a word, or reach it by Tab and the arrow keys: the picture keeps its colour in the regions that the word finds. "
    + "The darker a word, the more it counts in the text.",
  item: "Point at a node, or reach it by Tab: the picture keeps its colour where a label looks, and its edges stay. The wider an edge, the more attention.",
};

function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// One Tab stop for many buttons; arrow keys move among them, and what is pointed at or focused is active.
function walk(buttons, activate) {
  buttons.forEach((button, at) => {
    button.tabIndex = at === 0 ? 0 : -1;
    for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, () => activate(at));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      buttons[(at + step + buttons.length) % buttons.length].focus();
    });
    button.addEventListener("focus", () => buttons.forEach((other) => { other.tabIndex = other === button ? 0 : -1; }));
  });
}

// A picture whose regions fade where they have little weight; the places of regions in words.
function lit(src, grid, alt) {
  const box = make("div", { class: src ? "lit" : "lit no-picture" });
  if (src) box.append(make("img", { src, alt }));
  const cover = svg("svg", { viewBox: `0 0 ${grid || 1} ${grid || 1}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (let at = 0; grid && at < grid * grid; at++)
    cover.append(svg("rect", { x: at % grid, y: Math.floor(at / grid), width: 1, height: 1, opacity: 0 }));
  box.append(cover);
  const light = (weights, whole = 0) => { // the whole picture is lit as far as it counts itself
    const most = weights.length ? Math.max(...weights) + whole : 0;
    [...cover.children].forEach((cell, at) => cell.setAttribute("opacity", most > 0 ? 0.8 * (1 - (weights[at] + whole) / most) : 0));
  };
  return { box, light };
}

const place = (grid, at) => (grid ? `row ${Math.floor(at / grid) + 1} column ${(at % grid) + 1}` : `region ${at + 1}`);

function strongest(weights, grid, whole = 0) {
  const named = weights.map((weight, at) => [weight, place(grid, at)]);
  if (whole) named.push([whole, "the whole image"]);
  return named.sort((a, b) => b[0] - a[0]).slice(0, 3).filter(([weight]) => weight > 0)
    .map(([weight, name]) => `${name} (${percent(weight)})`).join("; ");
}

// A pair: the picture, the text word by word, and the logits of the paths beside those of the first panel.
function pairPanel({ pair, heading, right }, first, most, src, others) {
  const { box, light } = lit(src, pair.grid, `${pair.image}: the image of this pair`);
  const told = make("p", { class: "told", role: "status" });
  const shares = Math.max(...pair.words.map((word) => word.share));
  const last = pair.paths.at(-1)[0], digits = most < 2 ? 3 : 1; // cosines, or logits
  const describe = (word) => `“${word.word}” counts ${percent(word.share)} of the text and finds its regions `
    + `with a similarity of ${plain(word.found, 2)} (at most 1), which adds `
    + `${plain(pair.local_scale * word.share * word.found, digits + 1)} to ${last}. Most: ${strongest(word.regions, pair.grid, word.whole)}.`;
  const buttons = pair.words.map((word) => make("button", { type: "button", class: "word", style: `--share: ${Math.round(100 * word.share / shares)}%`,
    "aria-label": describe(word) }, word.word));
  const activate = (at, follow = true) => {
    light(pair.words[at].regions, pair.words[at].whole);
    told.textContent = describe(pair.words[at]);
    buttons.forEach((button, other) => button.classList.toggle("active", other === at));
    if (follow) others.forEach((other) => other(pair.words[at].word, activate));
  };
  walk(buttons, activate);
  others.push((word, from) => { // the same word of the other panel
    const at = pair.words.findIndex((other) => other.word === word);
    if (from !== activate && at >= 0) activate(at, false);
  });
  const bars = [...pair.paths, ["score", pair.score]].map(([path, logit], at) => {
    const track = make("span", { class: "track", "aria-hidden": "true" }), sum = at === pair.paths.length;
    if (!sum) track.append(make("span", { class: logit < 0 ? "fill negative" : "fill", style: `width: ${100 * Math.abs(logit) / most}%` }));
    const than = first === pair ? "" : signed(logit - (sum ? first.score : first.paths[at][1]), digits);
    return make("li", { class: sum ? "sum" : "" }, make("span", {}, path), track, make("span", {}, plain(logit, digits)), make("span", { class: "than" }, than));
  });
  const head = make("h4", {}, make("span", { class: right ? "good" : "bad", "aria-hidden": "true" }, heading ? (right ? "✓ " : "✗ ") : ""), heading || `${pair.image}: score ${plain(pair.score, digits)}`);
  const article = make("article", { class: "pair" }, head, box,
    make("div", {}, make("p", { class: "words", role: "group", "aria-label": `text: ${pair.text || pair.text_id}` }, ...buttons), told,
      make("ul", { class: "paths", "aria-label": first === pair ? "logits" : "logits, and how they differ from the first pair" }, ...bars)));
  const added = pair.words.map((word) => word.share * word.found);
  if (added.length) activate(added.indexOf(Math.max(...added)), false);
  return article;
}

// An item: its regions or words, the nodes of the whole and of its labels, and the training items that these attach to.
function itemPanel({ item, heading, labels }, small, src) {
  const ofImage = item.modality === "image";
  const nodes = [{ name: `the whole ${item.modality}`, parts: [], regions: [], sees: item.sees }, ...item.labels.map((label) => ({ ...label, name: label.label }))];
  const seen = new Map();
  nodes.forEach((node, at) => node.sees.forEach((one) => {
    if (!seen.has(one.id)) seen.set(one.id, { ...one, by: [] });
    seen.get(one.id).by.push([at, one.weight]);
  }));
  const neighbours = [...seen.values()];
  const { box, light } = lit(src, item.grid, `${item.id}${item.text ? `: ${item.text}` : ""}`);
  const words = ofImage ? [] : [...new Set(nodes.flatMap((node) => node.parts.map((part) => String(part.part))))];
  const wordElements = words.map((word) => make("li", {}, word));
  const nodeButtons = nodes.map((node) => make("button", { type: "button" }, make("span", {}, node.name),
    ...(labels.includes(node.name) ? [make("span", { class: "good", title: "a true label" }, " ✓")] : []),
    ...(node.received === undefined ? [] : [probability("encoder", node.predicted), probability("graph", node.received)])));
  const neighbourButtons = neighbours.map((one) => make("button", { type: "button" },
    ...(ofImage && pictureOf(small, one.id) ? [make("img", { src: pictureOf(small, one.id), alt: one.id, title: one.text || one.id })] : [make("span", { class: "quote" }, one.text || one.id)]),
    make("span", { class: "labels" }, ...one.labels.map((label) => make("span", {}, label)))));
  const edges = svg("svg", { class: "edges", "aria-hidden": "true" });
  const told = make("p", { class: "told", role: "status" });
  const heads = [ofImage ? "the image" : "words", "its nodes", "training items, with the labels that they vote for"];
  const net = make("div", { class: "net" }, ...heads.map((head) => make("span", { class: "head faint" }, head)), ofImage ? box : make("ul", { class: "parts", "aria-label": "words that labels attend to" }, ...wordElements),
    make("ul", { class: "nodes", "aria-label": "nodes of the item" }, ...nodeButtons.map((button) => make("li", {}, button))),
    make("ul", { class: "seen", "aria-label": "training items" }, ...neighbourButtons.map((button) => make("li", {}, button))), edges);

  const lines = []; // each of a node, to a neighbour or, -1, to a region or word
  function draw() {
    const frame = net.getBoundingClientRect();
    edges.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
    const at = (element, fx, fy) => {
      const rect = element.getBoundingClientRect();
      return [rect.left - frame.left + fx * rect.width, rect.top - frame.top + fy * rect.height];
    };
    for (const line of lines) {
      const [[x, y], [u, v]] = [at(...line.from), at(...line.to)];
      const bend = Math.max(16, (u - x) / 2);
      line.dot?.setAttribute("transform", `translate(${x} ${y})`);
      line.path.setAttribute("d", `M ${x} ${y} C ${x + bend} ${y}, ${u - bend} ${v}, ${u} ${v}`);
    }
  }
  function link(from, to, weight, most, node, neighbour = -1) {
    const path = svg("path", { "stroke-width": 1 + 5 * weight / most, class: neighbour < 0 ? "part" : "" });
    const dot = from[0] === box ? svg("circle", { r: 4, class: "part" }) : null;
    edges.append(path, ...(dot ? [dot] : []));
    lines.push({ from, to, path, dot, node, neighbour });
  }
  const most = Math.max(...neighbours.flatMap((one) => one.by.map(([, weight]) => weight)));
  neighbours.forEach((one, to) => one.by.forEach(([node, weight]) => link([nodeButtons[node], 1, 0.5], [neighbourButtons[to], 0, 0.5], weight, most, node, to)));
  nodes.forEach((node, to) => node.parts.slice(0, ofImage ? 2 : 4).forEach(({ part, weight }) => {
    const end = [nodeButtons[to], 0, 0.5], top = node.parts[0].weight;
    if (!ofImage) link([wordElements[words.indexOf(String(part))], 1, 0.5], end, weight, top, to);
    else if (item.grid) link([box, (part % item.grid + 0.5) / item.grid, (Math.floor(part / item.grid) + 0.5) / item.grid], end, weight, top, to);
  }));

  function activate(keeps, weights, text) {
    light(weights);
    told.textContent = text;
    for (const line of lines) for (const mark of [line.path, line.dot]) mark?.classList.toggle("off", !keeps(line));
    const kept = lines.filter(keeps);
    neighbourButtons.forEach((button, at) => button.classList.toggle("off", !kept.some((line) => line.neighbour === at)));
    nodeButtons.forEach((button, at) => button.classList.toggle("active", kept.some((line) => line.node === at)));
    wordElements.forEach((element) => element.classList.toggle("active", kept.some((line) => line.from[0] === element)));
  }
  const sees = (node) => (node.sees.length ? `Attaches to ${node.sees.map((one) => `${one.id} (${percent(one.weight)}${one.labels.length ? `: ${one.labels.join(", ")}` : ""})`).join("; ")}.`
    : "Attaches to nothing among the training items.");
  const looks = (node) => (ofImage ? strongest(node.regions, item.grid) : node.parts.map(({ part, weight }) => `“${part}” (${percent(weight)})`).join("; "));
  walk(nodeButtons, (at) => activate((line) => line.node === at, nodes[at].regions, nodes[at].received === undefined ? `The whole ${item.modality}. ${sees(nodes[at])}`
    : `${nodes[at].name}${labels.includes(nodes[at].name) ? ", a true label" : ""}: ${percent(nodes[at].predicted)} by the encoder, ${percent(nodes[at].received)} by the graph. Looks at ${looks(nodes[at]) || "nothing"}. ${sees(nodes[at])}`));
  walk(neighbourButtons, (at) => activate((line) => line.neighbour === at, [],
    `${neighbours[at].id}${neighbours[at].text ? `, “${neighbours[at].text}”` : ""}: votes for ${neighbours[at].labels.join(", ") || "no label"}; received by `
    + `${neighbours[at].by.map(([node, weight]) => `${nodes[node].name} (${percent(weight)})`).join(", ")}.`));
  new ResizeObserver(draw).observe(net);
  const text = !ofImage && item.text ? [make("p", { class: "question" }, `“${item.text}”`)] : [];
  const article = make("article", { class: "item" }, make("h4", {}, heading || item.id), ...text, net, told);
  nodeButtons[1]?.dispatchEvent(new Event("click"));
  return article;
}

function probability(by, value) {
  return make("span", { class: "probability" }, make("span", {}, by), make("span", { class: "track", "aria-hidden": "true" },
    make("span", { class: "fill", style: `width: ${100 * value}%` })), make("span", {}, percent(value)));
}

function startWhy(root) {
  const { methods, pictures: small, large } = JSON.parse(root.querySelector("script").textContent);
  const [cases, panels, how] = ["cases", "panels", "how"].map((name) => root.querySelector(`.${name}`));
  const chips = [...root.querySelectorAll(".chip")];
  let buttons = [];

  function show(query, at) {
    buttons.forEach((button, other) => { if (other === at) button.setAttribute("aria-current", "true"); else button.removeAttribute("aria-current"); });
    const pairs = query.panels.filter((panel) => panel.pair).map((panel) => panel.pair), others = [];
    const most = Math.max(...pairs.flatMap((pair) => pair.paths.map(([, logit]) => Math.abs(logit))));
    how.textContent = HOW[pairs.length ? "pair" : "item"];
    panels.classList.toggle("wide", !pairs.length);
    panels.replaceChildren(...query.panels.map((panel) => (panel.pair
      ? pairPanel(panel, pairs[0], most, pictureOf(large, panel.pair.image), others) : itemPanel(panel, small, pictureOf(large, panel.item.id)))));
  }

  function choose(method) {
    chips.forEach((chip, at) => chip.setAttribute("aria-pressed", at === method));
    const { queries } = methods[method];
    buttons = queries.map((query, at) => {
      const picture = pictureOf(small, query.image) ? [make("img", { src: pictureOf(small, query.image), alt: "" })] : [];
      const note = query.note ? [make("span", { class: "faint" }, make("span", { class: query.good ? "good" : "bad" }, query.good ? "✓ " : "✗ "), query.note)] : [];
      const button = make("button", { type: "button" }, ...picture, make("span", {}, make("span", { class: "what" }, query.title), ...note));
      button.addEventListener("click", () => show(query, at));
      return button;
    });
    cases.replaceChildren(...buttons.map((button) => make("li", {}, button)));
    if (queries.length) show(queries[0], 0);
    else panels.replaceChildren();
  }

  chips.forEach((chip, at) => chip.addEventListener("click", () => choose(at)));
  document.addEventListener("methods", ({ detail: keeps }) => {
    const first = methods.findIndex((method) => !keeps || keeps(method.name));
    if (keeps && first >= 0) choose(first);
  });
  root.hidden = false;
  choose(0);
}

document.querySelectorAll(".why").forEach(startWhy);
