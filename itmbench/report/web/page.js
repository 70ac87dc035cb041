"use strict";
// Sort and filter what the page holds; nothing is computed here.

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
