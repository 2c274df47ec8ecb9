"""Style and scripts of report.html: sorting, protocol tabs, charts drawn when they are first seen."""

STYLE = """
:root { color-scheme: light; }
html { scroll-padding-top: 56px; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2127; background: #f5f6f8; margin: 0; }
header, main { max-width: 1240px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 20px; }
h1 { margin: 0; overflow-wrap: anywhere; } h2 { margin: 30px 0 8px; font-size: 1.5rem; }
h3 { font-size: 1.05rem; margin: 0 0 8px; overflow-wrap: anywhere; } .scroll + h3 { margin-top: 20px; }
.about, .caption { color: #5f6b7a; margin: 4px 0 10px; overflow-wrap: anywhere; }
.caption { font-size: 0.92em; }
.synthetic { background: #7a3fb0; color: #fff; border-radius: 4px; padding: 1px 8px; font-size: 0.6em;
  vertical-align: middle; white-space: nowrap; }
nav { margin: 0 0 12px; } nav a { color: #1f6fb2; text-decoration: none; margin-right: 14px; display: inline-block; }
nav a:hover { text-decoration: underline; }
.top { position: sticky; top: 0; z-index: 5; background: #fff; border: solid #dde1e6; border-width: 1px 0; margin: 0;
  overflow-x: auto; }
.top div { max-width: 1240px; margin: 0 auto; padding: 8px 20px; white-space: nowrap; font-weight: 600; }
section { background: #fff; border: 1px solid #dde1e6; border-radius: 6px; padding: 14px 16px; min-width: 0;
  margin-bottom: 16px; }
.finding { border-left: 6px solid #8a8f98; font-size: 1.05em; overflow-wrap: anywhere; }
.finding .synthetic { font-size: 0.75em; } .finding p { margin: 0 0 8px; } .finding p:last-child { margin: 0; }
.ahead { border-left-color: #2e8b57; } .behind { border-left-color: #c9302c; } .unclear { border-left-color: #d9772b; }
.finding ul { margin: 8px 0 0; padding-left: 20px; font-size: 0.92rem; color: #3c4652; }
.scroll { overflow-x: auto; } .chart { width: 100%; }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr));
  margin-bottom: 16px; }
.grid section { margin: 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.92em; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 8px; border-bottom: 1px solid #eceef1; font-weight: normal;
  white-space: nowrap; vertical-align: top; }
thead th { color: #5f6b7a; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tbody th, tfoot th { min-width: 150px; max-width: 260px; white-space: normal; overflow-wrap: anywhere; }
th.text, td.text, td.long { text-align: left; }
td.long { white-space: normal; overflow-wrap: anywhere; min-width: 280px; max-width: 420px; }
td[colspan] { max-width: none; }
thead button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-align: inherit; white-space: nowrap; }
thead button::after { content: "\\2195"; opacity: 0.35; margin-left: 3px; }
th[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
tr.ours { background: #e8f1f9; } tr.ours th { font-weight: 600; } tr.failed { color: #a02622; }
tbody th small { color: #8a5a10; }
tfoot tr { color: #5f6b7a; } tfoot tr:first-child > * { border-top: 2px solid #c5cbd3; }
b { font-weight: 700; } u { text-underline-offset: 3px; }
[role=tablist] { display: flex; flex-wrap: wrap; gap: 6px; margin: 0 0 10px; }
[role=tab] { font: inherit; font-size: 0.92em; border: 1px solid #c5cbd3; border-radius: 4px; background: #fff;
  padding: 3px 10px; cursor: pointer; }
[role=tab][aria-selected=true] { background: #1f6fb2; border-color: #1f6fb2; color: #fff; }
:focus-visible { outline: 2px solid #d9772b; outline-offset: 1px; }
details { margin: 8px 0; } summary { cursor: pointer; color: #1f6fb2; overflow-wrap: anywhere; }
pre { background: #f0f2f5; border-radius: 4px; padding: 8px 10px; white-space: pre-wrap; overflow-wrap: anywhere;
  margin: 0; }
.pairs td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.pairs th { text-align: left; width: 30%; overflow-wrap: anywhere; white-space: normal; }
@media (max-width: 600px) { header, main { padding-left: 10px; padding-right: 10px; } section { padding: 10px; }
  tbody th, tfoot th { min-width: 120px; max-width: 140px; position: sticky; left: 0; background: inherit; }
  tbody tr, tfoot tr { background: #fff; } .top div { padding-left: 10px; } }
@media print { .top { position: static; } [role=tablist] { display: none; } }
"""

# Of plotly's buttons only those that keep the data here: one of the others uploads a chart.
CHARTS = """
const specs = new Map(JSON.parse(document.getElementById("charts").textContent).map(chart => [chart.id, chart]));
function draw(place) {
  const chart = specs.get(place.id);
  if (!chart || place.dataset.drawn) return;
  place.dataset.drawn = "yes";
  const layout = chart.layout;
  if (place.clientWidth < 620 && layout.legend && layout.legend.orientation === "v") {
    layout.legend = {...layout.legend, orientation: "h", x: 0, y: -0.16, yanchor: "top"};
    place.style.height = place.clientHeight + 8 * chart.data.length + "px";
  }
  Plotly.newPlot(place, chart.data, layout, {
    responsive: true, displaylogo: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], showSendToCloud: false, plotlyServerURL: "",
  });
}
// One at a time as it comes near, so that a long page opens at once; what is hidden is drawn when it is opened.
const seen = new IntersectionObserver(entries => {
  for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
}, {rootMargin: "600px"});
for (const place of document.querySelectorAll(".chart")) seen.observe(place);
addEventListener("beforeprint", () => document.querySelectorAll(".chart").forEach(draw));
"""

SORTING = """
function sort(table, column, header) {
  const before = header.getAttribute("aria-sort");
  const rows = [...table.tBodies[0].rows];
  const values = new Map(rows.map(row => [row, row.cells[column]?.dataset ?? {}]));
  const numeric = rows.some(row => values.get(row).number !== undefined);
  // Figures start with the largest, names with A.
  const first = numeric ? "descending" : "ascending";
  const next = before === "none" ? first : before === "ascending" ? "descending" : "ascending";
  const sign = next === "ascending" ? 1 : -1;
  const key = row => {
    const {number, text} = values.get(row);
    return number !== undefined ? Number(number) : text;
  };
  rows.sort((one, other) => {
    const a = key(one), b = key(other);
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    return typeof a === "number" && typeof b === "number" ? sign * (a - b) : sign * String(a).localeCompare(String(b));
  });
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", next);
  table.tBodies[0].append(...rows);
}
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => sort(table, column, header));
  });
}
"""

TABS = """
for (const list of document.querySelectorAll("[role=tablist]")) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const choose = chosen => tabs.forEach(tab => {
    tab.setAttribute("aria-selected", tab === chosen);
    tab.tabIndex = tab === chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  });
  list.hidden = false;
  choose(tabs[0]);
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", event => {
      const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
      if (!step) return;
      const next = tabs[(place + step + tabs.length) % tabs.length];
      choose(next);
      next.focus();
    });
  });
}
"""
