"use strict";
// Choose, sort and filter what the page holds; nothing is computed here.

// A button in every heading of a table with data-sort: by number where cells have data-value, else by text.
for (const table of document.querySelectorAll("table[data-sort]")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") !== "descending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compare(a.cells[column], b.cells[column], down));
      table.tBodies[0].append(...rows);
    });
  });
}

function compare(a, b, down) {
  const [x, y] = [a.dataset.value, b.dataset.value];
  if (x === undefined && y === undefined) {
    const order = a.textContent.trim().localeCompare(b.textContent.trim());
    return a.tagName === "TD" ? 0 : down ? order : -order; // names from A to Z first, missing numbers stay
  }
  if (x === undefined || y === undefined) return x === undefined ? 1 : -1; // what is missing comes last
  return down ? y - x : x - y;
}

// Words in the filter: an element with data-method stays if its method contains one of them.
const filter = document.getElementById("filter");
const count = document.getElementById("filtered");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
  const keeps = (name) => !words.length || words.some((word) => name.toLowerCase().includes(word));
  const names = new Set();
  for (const element of document.querySelectorAll("[data-method]")) {
    names.add(element.dataset.method);
    element.hidden = !keeps(element.dataset.method);
  }
  const kept = [...names].filter(keeps).length;
  document.dispatchEvent(new CustomEvent("methods", { detail: words.length ? keeps : null })); // for the galleries
  count.textContent = words.length ? `${kept} of ${names.size} methods` : "";
});
filter.parentElement.hidden = false;

// One table and all that belongs to it at a time; its headings are linked before the legend.
const sections = [...document.querySelectorAll("main > [id^=table]")];
const within = document.getElementById("within");
let [chosen] = sections;
for (const section of sections) {
  section.querySelectorAll("h3").forEach((heading, number) => {
    heading.id = `${section.id}-${number + 1}`;
    const link = document.createElement("a");
    [link.href, link.textContent] = [`#${heading.id}`, heading.textContent.replace(/:.*| from .*/, "")];
    within.insertBefore(link, within.querySelector("[href='#legend']"));
  });
}
function choose() {
  const target = document.getElementById(location.hash.slice(1));
  chosen = sections.find((section) => section.contains(target)) || chosen;
  for (const section of sections) {
    section.classList.toggle("unchosen", section !== chosen);
    for (const link of within.querySelectorAll(`[href^="#${section.id}-"]`)) link.hidden = section !== chosen;
    const link = document.querySelector(`#tables [href="#${section.id}"]`);
    section === chosen ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  }
  target?.scrollIntoView();
}
window.addEventListener("hashchange", choose);
choose();
