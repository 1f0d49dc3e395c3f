"use strict";
// What the pages do beside htmx; without any of it they work too.
(() => {
  // The refusal of a checked form is worth showing where its answer would have stood.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const status = event.detail.xhr.status;
    if (status === 409 || status === 413 || status === 422 || status === 429) {
      event.detail.shouldSwap = true;
      event.detail.isError = false;
    }
  });

  // On a phone the row of pages is wider than the window: the one that is open shall be seen in it.
  const open = document.querySelector("nav.sections [aria-current]");
  const row = open?.closest("nav");
  if (row && row.scrollWidth > row.clientWidth) {
    row.scrollLeft = open.offsetLeft - row.offsetLeft - (row.clientWidth - open.offsetWidth) / 2;
  }

  // A form that was sent is not sent twice.
  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented || event.target.matches("[hx-post]")) return;
    for (const button of event.target.querySelectorAll("button")) {
      setTimeout(() => (button.disabled = true), 0);
    }
  });
  window.addEventListener("pageshow", () => {
    for (const button of document.querySelectorAll("button[disabled]")) button.disabled = false;
  });
})();
