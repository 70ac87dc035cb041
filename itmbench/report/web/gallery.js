// Galleries of retrieved examples: a list of queries, and the first results of each method for the chosen one.

const RIGHT = { own: "own", true: "also true", label: "relevant" };
const SHOWN = 4; // methods shown at first, the best ones

function startGallery(root) {
  const { measure, methods, pictures: numbers, queries } = JSON.parse(root.querySelector("script").textContent);
  const [list, detail, status] = ["list", "detail", "status"].map((name) => root.querySelector(`.${name}`));
  const chips = [...root.querySelectorAll(".chip")];
  const [side, order, search] = ["side", "order", "search"].map((name) => root.querySelector(`[name=${name}]`));
  let shown = new Set(methods.keys()), listed = [], chosen = 0;

  const quality = (outcome) => (measure === "rank" ? 1 / outcome : outcome);
  const outcomeText = (outcome) => (measure === "rank" ? `${outcome.toLocaleString("en")}` : `${(100 * outcome).toFixed(1)}`);
  const known = (query) => [...shown].filter((method) => query.answers[method]);
  const isText = (query) => query.side === "t2i";

  // How far the shown methods are apart, of those whose results are stored; a rank counts by its reciprocal.
  function disagreement(query) {
    const values = known(query).filter((method) => query.answers[method].results)
      .map((method) => quality(query.answers[method].outcome));
    return values.length > 1 ? Math.max(...values) - Math.min(...values) : -1;
  }

  function picture(image, text) {
    const src = pictureOf(numbers, image);
    if (!src) return make("span", { class: "no-picture", title: image }, "no picture");
    return make("img", { src, alt: text ? `${image}: ${text}` : image, decoding: "async" });
  }

  function markOf(method) {
    return chips[method].querySelector("svg").cloneNode(true);
  }

  function outcomes(query) {
    return known(query).map((method) => make("span", { class: "outcome", title: methods[method].name },
      markOf(method), make("span", { class: "unseen" }, `${methods[method].name} `),
      outcomeText(query.answers[method].outcome)));
  }

  // The queries of a direction that match the search, in the chosen order.
  function select(current) {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (query) => [query.id, query.image, query.text, ...query.labels].join(" ").toLowerCase();
    const worst = order.value.startsWith("worst") ? Number(order.value.slice(5)) : -1;
    const key = worst >= 0 ? (query) => -quality(query.answers[worst].outcome) : disagreement;
    listed = queries.filter((query) => query.side === side.value && words.every((word) => text(query).includes(word))
      && (worst < 0 || query.answers[worst]) && (order.value !== "sample" || query.sampled));
    if (order.value !== "sample") listed.sort((a, b) => key(b) - key(a)); // a stable sort
    list.replaceChildren(...listed.map((query, at) => {
      const what = query.text || query.id;
      const button = make("button", { type: "button" }, isText(query) && query.text ? "" : picture(query.image, query.text),
        make("span", { class: "what" }, what), make("span", { class: "outcomes" }, ...outcomes(query)));
      button.addEventListener("click", () => choose(at));
      return make("li", {}, button);
    }));
    choose(Math.max(0, listed.indexOf(current))); // the first one if that query is not listed
  }

  function choose(at, focus = false) {
    if (listed.length) chosen = Math.max(0, Math.min(at, listed.length - 1));
    for (const [place, item] of [...list.children].entries()) {
      if (place === chosen) item.firstChild.setAttribute("aria-current", "true");
      else item.firstChild.removeAttribute("aria-current");
    }
    status.textContent = listed.length ? `Query ${chosen + 1} of ${listed.length}` : "No query matches.";
    const query = listed[chosen], button = list.children[chosen]?.firstChild;
    detail.replaceChildren(...(query ? [asked(query), ...[...shown].map((method) => answered(query, method))] : []));
    if (!button) return;
    const top = button.offsetTop - list.offsetTop; // scrolls the list, not the page
    if (top < list.scrollTop || top + button.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top;
    if (focus) button.focus({ preventScroll: true });
  }

  function labels(names) {
    return names.length ? [make("span", { class: "labels" }, ...names.map((name) => make("span", {}, name)))] : [];
  }

  function asked(query) {
    const own = make("p", { class: "faint" }, isText(query) ? `text ${query.id}, of image ${query.image}` : `image ${query.id}`);
    const text = query.text ? [make("p", { class: isText(query) ? "question" : "" }, isText(query) ? `“${query.text}”` : query.text)] : [];
    return make("div", { class: "asked" }, picture(query.image, query.text),
      make("div", {}, make("p", { class: "faint" }, isText(query) ? "Query text, beside its own image" : "Query image, with its first text"),
        ...text, ...labels(query.labels), own));
  }

  function answered(query, method) {
    const answer = query.answers[method];
    const name = make("h4", {}, markOf(method), methods[method].name);
    const box = make("article", {}, name);
    if (!answer) return box;
    const what = measure === "rank" ? "rank" : "AP";
    name.append(make("span", { class: measure === "rank" && answer.outcome === 1 ? "badge good" : "badge" }, `${what} ${outcomeText(answer.outcome)}`));
    if (!answer.results) {
      box.append(make("p", { class: "faint" }, "Its results for this query are not stored."));
      return box;
    }
    box.append(make("ol", { class: isText(query) ? "images" : "texts" }, ...answer.results.map((result) => {
      const badges = [];
      if (result.right) badges.push(make("span", { class: "badge good" }, `✓ ${RIGHT[result.right]}`));
      if (result.twin) badges.push(make("span", { class: "badge twin" }, "≈ near twin"));
      const words = isText(query) ? [] : [make("span", { class: "words" }, result.text || result.id)];
      return make("li", { class: result.right ? "right" : "", title: `${result.id}${result.text ? `: ${result.text}` : ""}` },
        picture(result.image, result.text),
        make("div", {}, ...words, ...labels(result.labels), make("span", { class: "badges" }, ...badges,
          make("span", { class: "faint score" }, result.score.toPrecision(3)))));
    })));
    return box;
  }

  function show(which) {
    shown = new Set([...methods.keys()].filter(which));
    chips.forEach((chip, method) => chip.setAttribute("aria-pressed", shown.has(method)));
    select(listed[chosen]);
  }

  chips.forEach((chip, clicked) => chip.addEventListener("click", () => show((method) => shown.has(method) !== (method === clicked))));
  for (const control of [side, order]) control.addEventListener("change", () => select());
  search.addEventListener("input", () => select());
  root.querySelector(".previous").addEventListener("click", () => choose(chosen - 1));
  root.querySelector(".next").addEventListener("click", () => choose(chosen + 1));
  list.addEventListener("keydown", (event) => {
    const to = { ArrowDown: chosen + 1, ArrowUp: chosen - 1, Home: 0, End: listed.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(to, true);
  });
  document.addEventListener("methods", ({ detail: keeps }) => show((method) => (keeps ? keeps(methods[method].name) : method < SHOWN)));
  root.hidden = false;
  show((method) => method < SHOWN);
}

document.querySelectorAll(".gallery").forEach(startGallery);
