"use strict";
// Everything that came from a corpus, a model or a person goes in as textContent: shown, never run.
const data = JSON.parse(document.getElementById("data").textContent);
const STATES = {COMPLETE: "complete", PRUNED: "pruned", FAIL: "failed", RUNNING: "running"};
const CARDS = 24; // shown at first, and more at each press of the button
const wanted = {epoch: data.wall.start, states: new Set(Object.keys(STATES)), cards: CARDS};
const at = (id) => document.getElementById(id);

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter((child) => child !== null));
  return made;
}

function short(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(3))) : String(value);
}

function precise(value) {
  if (value === null) return "–";
  return value < 1000 ? value.toFixed(2) : value.toExponential(1);
}

// The sample with the prefix that it was given set apart from what the model wrote.
function sample(text) {
  const given = text.startsWith(data.prefix) ? data.prefix : "";
  return element(
    "blockquote", "sample",
    element("span", "given", given), element("span", "", text.slice(given.length)),
  );
}

function settings(params) {
  const list = element("dl", "params");
  for (const name of data.params) {
    list.append(element("div", "",
      element("dt", "", name.replace("_", " ")), element("dd", "", short(params[name]))));
  }
  return list;
}

function drawWinner() {
  const {counts, winner, corpus} = data;
  const parts = Object.keys(STATES).filter((state) => counts[state])
    .map((state) => `${counts[state]} ${STATES[state]}`);
  const text = corpus ? `, on ${corpus.name}: ${corpus.tokens.toLocaleString("en")} characters, ` +
    `${corpus.vocab} symbols` : "";
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const eyebrow = element("p", "eyebrow", `${total} of ${data.wanted} trials: ${parts.join(", ")}${text}`);
  if (winner === null) {
    at("winner").append(eyebrow, element("h1", "", "No trial has a value yet"));
    return;
  }
  const figure = element("div", "figure",
    element("span", "number", precise(winner.value)),
    element("span", "unit", data.metric.replace("_", " ")));
  const what = element("p", "what",
    `${data.done ? "The best" : "The best so far"}: trial ${winner.number}, at epoch ${winner.epoch}`);
  at("winner").append(eyebrow, element("div", "hero",
    element("div", "", figure, what), element("h1", "", sample(winner.text))),
    settings(winner.params));
}

function drawPictures() {
  const missing = element("ul", "missing");
  for (const picture of data.pictures) {
    if (picture.left_out) {
      missing.append(element("li", "", element("b", "", picture.title), ` is left out: ${picture.left_out}.`));
      continue;
    }
    const card = element("article", `picture ${picture.key}`,
      element("h2", "", picture.title), element("p", "caption", picture.caption));
    const grid = element("div", "panels");
    card.append(grid);
    at("plots").append(card);
    for (const figure of picture.figures) {
      const panel = element("div", "panel");
      grid.append(panel);
      drawFigure(panel, figure);
    }
  }
  at("plots").append(missing);
}

function drawFigure(panel, {data: traces, layout}) {
  Object.assign(layout, {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: {family: getComputedStyle(document.body).fontFamily, size: 12, color: "#4d483e"},
    hoverlabel: {bgcolor: "#23211c", bordercolor: "#23211c", font: {color: "#fffdf8"}},
  });
  Plotly.newPlot(panel, traces, layout, {responsive: true, displaylogo: false, displayModeBar: false});
  panel.on("plotly_click", ({points}) => {
    if (points[0].customdata !== undefined) showTrial(points[0].customdata);
  });
}

function chips(box, type, entries, onChange) {
  for (const [value, label, checked] of entries) {
    const input = element("input");
    Object.assign(input, {type, name: box.id, value, checked});
    input.addEventListener("change", () => onChange(value, input.checked));
    box.append(element("label", "chip", input, element("span", `is-${value}`, label)));
  }
}

function drawControls() {
  const epochs = data.wall.epochs.map((epoch) => [epoch, String(epoch), epoch === wanted.epoch]);
  const best = ["best", "each at its best", wanted.epoch === "best"];
  chips(at("epochs"), "radio", [...epochs, best], (value) => {
    wanted.epoch = value;
    drawWall();
  });
  const states = Object.entries(STATES).filter(([state]) => data.counts[state]);
  chips(at("states"), "checkbox", states.map(([state, name]) => [state, name, true]), (value, on) => {
    if (on) wanted.states.add(value); else wanted.states.delete(value);
    drawWall();
  });
  at("more").addEventListener("click", () => {
    wanted.cards += CARDS;
    drawWall();
  });
}

function ranked() {
  return data.wall.trials
    .filter((trial) => wanted.states.has(trial.state))
    .map((trial) => ({trial, epoch: wanted.epoch === "best" ? trial.best_epoch : wanted.epoch}))
    .filter(({trial, epoch}) => trial.texts[epoch])
    .sort((a, b) => (a.trial.texts[a.epoch].value ?? Infinity) - (b.trial.texts[b.epoch].value ?? Infinity)
      || a.trial.number - b.trial.number);
}

function meter(name, share) {
  const percent = share === null ? "–" : `${Math.round(share * 100)} %`;
  const bar = element("i", "bar", element("i", ""));
  bar.firstChild.style.width = `${(share ?? 0) * 100}%`;
  return element("span", "meter", element("span", "", name), bar, element("b", "", percent));
}

function card({trial, epoch}, rank) {
  const row = trial.texts[epoch];
  const made = element("li", `card is-${trial.state}`,
    element("header", "",
      element("span", "rank", String(rank + 1)),
      element("span", "value", precise(row.value)),
      element("span", "who", `trial ${trial.number}`, element("br"), `epoch ${epoch} of ${trial.last_epoch}`),
      element("span", "state", STATES[trial.state])),
    sample(row.text),
    element("div", "meters", meter("repeats", row.repetition), meter("copied", row.copied)),
    settings(trial.params),
    trial.reason ? element("p", "reason", trial.reason) : null);
  made.id = `trial-${trial.number}`;
  return made;
}

function drawWall() {
  const all = ranked();
  at("cards").replaceChildren(...all.slice(0, wanted.cards).map(card));
  const when = wanted.epoch === "best" ? "each at its best epoch" : `at epoch ${wanted.epoch}`;
  const shown = data.wall.trials.filter((trial) => wanted.states.has(trial.state)).length;
  const ended = shown - all.length;
  at("count").textContent = `${all.length} trials, ${when}` +
    (ended ? `; ${ended} did not get that far` : "");
  const left = Math.max(0, all.length - wanted.cards);
  at("more").hidden = left === 0;
  at("more").textContent = `Show ${Math.min(CARDS, left)} more`;
}

// A click on a trial in a picture: its card, at its best epoch.
function showTrial(number) {
  const trial = data.wall.trials.find((found) => found.number === number);
  wanted.epoch = "best";
  wanted.states.add(trial.state);
  for (const input of document.querySelectorAll(".controls input")) {
    if (input.value === "best" || input.value === trial.state) input.checked = true;
  }
  wanted.cards = Math.max(wanted.cards, 1 + ranked().findIndex((found) => found.trial === trial));
  drawWall();
  const found = at(`trial-${number}`);
  found.scrollIntoView({behavior: "smooth", block: "center"});
  found.classList.add("found");
}

at("name").textContent = data.search;
at("made").textContent = `Made ${data.made.replace("T", " ")} from the study alone` +
  (data.done ? "." : "; the search is not at its end.");
at("how").textContent = JSON.stringify(
  {command: data.command, versions: data.versions, corpus: data.corpus, config: data.config}, null, 2);
drawWinner();
drawControls();
drawWall();
drawPictures();
