"use strict";
// The pictures of a page, and what makes elements.

const pictures = JSON.parse(document.getElementById("pictures").textContent);

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
