"use strict";
// The pictures of a page, and what makes elements.

const pictures = JSON.parse(document.getElementById("pictures").textContent);

// The picture of an id, if there is one; an id may be "constructor".
const pictureOf = (numbers, id) => (Object.hasOwn(numbers, id) ? pictures[numbers[id]] : undefined);

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
