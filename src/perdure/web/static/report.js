"use strict";
// Draws the charts of the page. Specifications stand in the page as data; nothing is loaded, nothing is evaluated.
(() => {
  const NARROW = 560;
  const OPTIONS = {
    actions: false,
    ast: true,
    defaultStyle: false,
    logLevel: 1, // errors only
    mode: "vega-lite",
    renderer: "svg",
    tooltip: { disableDefaultStyle: true },
  };

  function specification(figure, narrow) {
    const key = figure.dataset.chart;
    const own = narrow ? document.getElementById(`${key}-narrow`) : null;
    return JSON.parse((own ?? document.getElementById(key)).textContent);
  }

  function finish(canvas) {
    // The canvas has the label; what is drawn inside would only be read out a second time.
    const drawing = canvas.querySelector("svg");
    drawing?.setAttribute("aria-hidden", "true");
  }

  async function draw(figure, narrow) {
    const canvas = figure.querySelector(".canvas");
    try {
      await window.vegaEmbed(canvas, specification(figure, narrow), OPTIONS);
      canvas.setAttribute("role", "img");
      finish(canvas);
    } catch (error) {
      figure.querySelector(".trouble").hidden = false;
      console.error(error);
    }
  }

  const figures = [...document.querySelectorAll("figure[data-chart]")];
  let narrow = window.innerWidth < NARROW;
  const drawAll = () => figures.forEach((figure) => draw(figure, narrow));
  drawAll();
  window.addEventListener("resize", () => {
    if (window.innerWidth < NARROW !== narrow) {
      narrow = !narrow;
      drawAll();
    }
  });

  // On paper nothing can be unfolded.
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((details) => (details.open = true));
  });
  window.addEventListener("afterprint", () => folded.forEach((details) => (details.open = false)));
})();
