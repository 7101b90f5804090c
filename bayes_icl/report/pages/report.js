"use strict";
// Figures to hover over follow the page's colours; plotly keeps its own otherwise.
(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const recolour = () => {
    for (const div of document.querySelectorAll(".js-plotly-plot")) {
      const changes = {
        "font.color": colour("--ink"),
        "hoverlabel.bgcolor": colour("--wash"),
        "hoverlabel.font.color": colour("--ink"),
        "hoverlabel.bordercolor": colour("--line"),
      };
      for (const axis of Object.keys(div._fullLayout || {}).filter((key) => /^[xy]axis\d*$/.test(key))) {
        changes[axis + ".gridcolor"] = colour("--line");
        changes[axis + ".zerolinecolor"] = colour("--soft");
        changes[axis + ".linecolor"] = colour("--soft");
      }
      (div.layout.updatemenus || []).forEach((_, i) => {
        changes[`updatemenus[${i}].bgcolor`] = colour("--wash");
        changes[`updatemenus[${i}].bordercolor`] = colour("--line");
        changes[`updatemenus[${i}].font.color`] = colour("--ink");
      });
      Plotly.relayout(div, changes);
    }
  };
  window.addEventListener("load", recolour);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  // On paper nothing is folded, and colours are those of day.
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
  const narrow = matchMedia("(max-width: 60rem)");
  const contents = document.querySelector("nav details");
  const fold = () => { contents.open = !narrow.matches; };
  narrow.addEventListener("change", fold);
  fold();
})();
