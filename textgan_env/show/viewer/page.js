"use strict";
// Draws the page from the JSON in #data. Every text of the data reaches the page as a text node, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

// ------------------------------------------------------------------------------------------ small parts

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
// Text of a corpus inside a sentence of ours: its direction is its own.
const bdi = (text) => el("bdi", {}, text);

const fixed = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−"));
const share = (value) => fixed(value, 2).replace(/^(−?)0\./, "$1.");
const percent = (value) => `${Math.round(100 * value)} %`;
function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e5)) return value.toExponential(1).replace("-", "−");
  return fixed(value, size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

// ------------------------------------------------------------------------------------------ colours

const theme = () => document.documentElement.dataset.theme;
function colour(value) {
  const scale = theme() === "dark" ? data.dark : data.scale;
  const [low, high] = data.limits;
  const place = Math.min(1, Math.max(0, (value - low) / (high - low))) * (scale.length - 1);
  const below = Math.min(Math.floor(place), scale.length - 2);
  return scale[below].map((part, at) => Math.round(part + (place - below) * (scale[below + 1][at] - part)));
}
function luminance(rgb) {
  const [r, g, b] = rgb.map((part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function paint(node, value) {
  const rgb = colour(value);
  const dark = luminance([33, 37, 41]) + 0.05, here = luminance(rgb) + 0.05;
  node.style.backgroundColor = `rgb(${rgb.join(" ")})`;
  node.style.color = here / dark > 1.05 / here ? "#14171a" : "#ffffff";
}
const runColour = (index) => `var(--run${index})`;
const DASHES = ["", "6 4"];
// Where there are several runs, each has a number beside its colour.
const tag = (index) => {
  if (data.runs.length === 1) return null;
  const node = el("span", { class: "tag" }, String(index + 1));
  node.style.setProperty("--run", runColour(index));
  return node;
};

// ------------------------------------------------------------------------------------------ charts

// A chart is drawn in the pixels that it has, and again when they change, so that its letters keep their size.
function chart(host, draw) {
  let width = 0;
  const again = () => {
    width = host.clientWidth;
    if (width > 40) host.replaceChildren(draw(width));
  };
  new ResizeObserver(() => host.clientWidth !== width && again()).observe(host);
  return again;
}

function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count), base = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((part) => part * base).find((part) => part >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) found.push(Number((at * step).toPrecision(12)));
  return found;
}
const tick = (value) => String(value).replace("-", "−").replace(/^(−?)0\./, "$1.");
function range(values, least) {
  let low = Math.min(...values), high = Math.max(...values);
  const missing = Math.max(0, least - (high - low)) / 2;
  low -= missing; high += missing;
  const edge = (high - low) * 0.06;
  return [low - edge, high + edge];
}

// series: [{points: [[x, y]], stroke, dash, dots}], levels: [{y, stroke}], bands: [{name, first, last}]
function lines({ width, height, series, x, y, xLabel, label, levels = [], bands = [], cursor = null, whole = false }) {
  const left = 44, right = series.some((one) => one.tag) ? 10 + 10 * data.runs.length : 10, top = bands.length ? 20 : 8, bottom = 32;
  const scale = (value, [low, high], from, to) => from + ((value - low) / (high - low || 1)) * (to - from);
  const atX = (value) => scale(value, x, left, width - right), atY = (value) => scale(value, y, height - bottom, top);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
  bands.forEach((band, index) => {
    const from = atX(Math.max(x[0], band.first - 0.5)), to = atX(Math.min(x[1], band.last + 0.5));
    if (index % 2) root.append(svg("rect", { class: "phase", x: from, y: top, width: Math.max(0, to - from), height: height - bottom - top }));
    if (to - from > 6.2 * band.name.length) root.append(svg("text", { x: from + 4, y: 12 }, band.name));
  });
  for (const value of ticks(y[0], y[1], 5)) {
    root.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: atY(value), y2: atY(value) }));
    root.append(svg("text", { x: left - 6, y: atY(value) + 4, "text-anchor": "end" }, tick(value)));
  }
  for (const value of ticks(x[0], x[1], Math.floor(width / 80))) {
    if (whole && !Number.isInteger(value)) continue;
    root.append(svg("text", { x: atX(value), y: height - bottom + 16, "text-anchor": "middle" }, tick(value)));
  }
  root.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  root.append(svg("text", { x: width - right, y: height - 2, "text-anchor": "end" }, xLabel));
  for (const level of levels) root.append(svg("line", { class: "level", x1: left, x2: width - right, y1: atY(level.y), y2: atY(level.y), stroke: level.stroke }));
  const tagged = [];
  for (const one of series) {
    root.append(svg("polyline", { class: "curve", points: one.points.map(([a, b]) => `${atX(a).toFixed(1)},${atY(b).toFixed(1)}`).join(" "), stroke: one.stroke, "stroke-dasharray": one.dash || null }));
    if (one.tag && one.points.length) {
      const [a, b] = one.points[one.points.length - 1], place = [atX(a) + 4, atY(b) + 4];
      while (tagged.some(([x1, y1]) => Math.abs(x1 - place[0]) < 8 && Math.abs(y1 - place[1]) < 11)) place[0] += 10;
      tagged.push(place);
      root.append(svg("text", { x: place[0], y: place[1], class: "strong" }, one.tag));
    }
    if (one.dots || one.points.length === 1) for (const [a, b] of one.points) root.append(svg("circle", { cx: atX(a), cy: atY(b), r: 2.8, fill: one.stroke }));
  }
  if (cursor !== null) root.append(svg("line", { class: "cursor", x1: atX(cursor), x2: atX(cursor), y1: top, y2: height - bottom }));
  root.toX = (pixel) => x[0] + ((pixel - left) / (width - right - left)) * (x[1] - x[0]);
  return root;
}
const sample = (stroke, dash) => svg("svg", { viewBox: "0 0 30 10", "aria-hidden": "true" }, svg("line", { x1: 1, x2: 29, y1: 5, y2: 5, stroke, "stroke-width": 2.4, "stroke-dasharray": dash || null }));

// ------------------------------------------------------------------------------------------ names of things

const isEnd = (token) => token === data.end;
const wordOf = (token) => (isEnd(token) ? "end" : data.words[token] === " " ? "␣" : data.words[token]);
const joined = (tokens) => tokens.filter((token) => !isEnd(token)).map((token) => data.words[token]).join(data.glue);
const KINDS = { pair: "words and near pairs", conv: "the CNN of SeqGAN" };

function discriminatorName(discriminator) {
  return `${discriminator.own ? "its own" : "the default one of the task"} (${KINDS[discriminator.kind] || discriminator.kind}, ${plural(discriminator.features, "feature")})`;
}
function badges(run) {
  const said = [run.decoding.deterministic ? "most probable token always" : run.decoding.temperature === null ? null : `temperature ${run.decoding.temperature}`];
  if (run.decoding.top_k !== null) said.push(`top-k ${run.decoding.top_k}`);
  if (run.decoding.top_p !== null) said.push(`top-p ${run.decoding.top_p}`);
  if (run.made.seed !== null) said.push(`seed ${run.made.seed}`);
  return [
    run.control ? el("span", { class: "badge control" }, `control: ${run.control} reward`) : null,
    said.filter(Boolean).map((text) => el("span", { class: "badge" }, text)),
  ];
}
const note = (...children) => el("p", { class: "note" }, ...children);

// ------------------------------------------------------------------------------------------ watch it write

const state = { text: 0, at: 0, timer: null, chosen: data.runs.map(() => null) };
const longest = () => Math.max(...data.runs.map((run) => run.texts[state.text].tokens.length));
// On a telephone what is not looked at first is folded away.
const wide = matchMedia("(min-width: 40.01rem)").matches;
const stages = data.runs.map(makeStage);

function makeStage(run, index) {
  const stage = { run, index };
  stage.tokens = el("div", { class: "tokens", dir: "auto", role: "group", "aria-label": `Tokens of ${run.name}` });
  stage.readout = el("p", { class: "readout" });
  stage.picture = el("img", { class: "molecule", hidden: true });
  stage.curve = el("div", { class: "chart" });
  stage.rollouts = el("div", { class: "behind", "aria-live": "polite" });
  stage.parts = el("div", { class: "seen" });
  stage.path = el("div", { class: "chart" });
  stage.near = el("p", { class: "small faint" });
  stage.drawCurve = chart(stage.curve, (width) => drawCurve(stage, width));
  stage.drawPath = chart(stage.path, (width) => drawPath(stage, width));
  const discriminator = run.discriminator;
  const known = discriminator.auc !== null, unsure = known && discriminator.auc < 0.55;
  stage.card = el("article", { class: "card stage" },
    el("div", { class: "head" }, el("h3", {}, tag(index), bdi(run.name)), badges(run)),
    el("p", { class: "discriminator" }, `Discriminator: ${discriminatorName(discriminator)}. `, known
      ? [`On ${plural(discriminator.texts, "real text")} and as many of this policy, unseen by either: AUC `, el("b", {}, share(discriminator.auc)), ", accuracy ", el("b", {}, share(discriminator.accuracy)), "."]
      : "How far to trust it is not known: too few texts of the test split are without unknown words."),
    unsure ? note(`AUC ${share(discriminator.auc)}: this discriminator cannot tell this policy's texts from real ones, so its Q says little here. Either the texts are that good or the discriminator is that weak; this number does not say which.`) : null,
    el("div", { class: "body" },
      el("div", {},
        el("div", {}, stage.tokens, stage.readout, stage.picture),
        el("div", {}, el("ul", { class: "keys" }, el("li", {}, sample("var(--accent)"), "Q of the token"), el("li", {}, sample("var(--faint)", "3 4"), "the discriminator's score if the text stopped here")), stage.curve),
        stage.rollouts),
      el("details", { class: "more", open: wide }, el("summary", {}, "What the discriminator sees"),
        el("div", {}, el("h4", {}, "What the discriminator sees in the whole text"), stage.parts),
        el("div", {}, el("h4", {}, "The path among real texts"), stage.path, stage.near))));
  return stage;
}

function tile(stage, text, at) {
  const token = text.tokens[at], q = at < text.q.length ? text.q[at] : null;
  const node = el("button", {
    type: "button", class: isEnd(token) ? "token end" : "token", "aria-pressed": "false",
    "aria-label": `token ${at + 1}: ${wordOf(token)}${q === null ? "" : `, Q ${fixed(q, 2)}`}`,
    onclick: () => { pause(); state.chosen[stage.index] = state.chosen[stage.index] === at ? null : at; showChosen(stage); },
  }, el("span", { class: "word" }, wordOf(token)), el("span", { class: "q" }, share(q)));
  if (q !== null) paint(node, q);
  return node;
}

function showText() {
  $("text-number").textContent = `text ${state.text + 1} of ${data.runs[0].texts.length}`;
  $("text-before").disabled = state.text === 0;
  $("text-next").disabled = state.text === data.runs[0].texts.length - 1;
  $("position").max = longest();
  for (const stage of stages) {
    stage.text = stage.run.texts[state.text];
    stage.tiles = stage.text.tokens.map((_, at) => tile(stage, stage.text, at));
    stage.tokens.replaceChildren(...stage.tiles);
    showPicture(stage);
    state.chosen[stage.index] = null;
    showParts(stage);
    showChosen(stage);
  }
  showPosition();
}

function showPicture({ picture, text }) {
  picture.hidden = !text.picture;
  picture.alt = text.picture ? `The molecule ${text.text}` : "";
  if (text.picture) picture.src = text.picture;
  else picture.removeAttribute("src");
}

function showPosition() {
  $("position").value = state.at;
  $("position").setAttribute("aria-valuetext", `${state.at} of ${plural(longest(), "token")}`);
  $("token-number").textContent = `token ${state.at} of ${longest()}`;
  $("back").disabled = state.at === 0;
  $("forward").disabled = state.at === longest();
  for (const stage of stages) {
    const { text } = stage, at = Math.min(state.at, text.tokens.length);
    stage.at = at;
    stage.tiles.forEach((node, index) => {
      node.classList.toggle("ahead", index >= at);
      node.classList.toggle("now", index === at - 1 && at < text.tokens.length);
    });
    const say = at === 0 ? ["Nothing is written yet. If it stopped here the discriminator would say ", el("b", {}, share(text.stopped[0])), "."]
      : [`Token ${at}, `, el("b", {}, bdi(wordOf(text.tokens[at - 1]))), ": Q ", el("b", {}, share(text.q[at - 1])), at < text.tokens.length ? "; if the text stopped here " : "; the whole text ", el("b", {}, share(text.stopped[at])), "."];
    stage.readout.replaceChildren(...say);
    stage.drawCurve();
    stage.drawPath();
  }
}

function drawCurve(stage, width) {
  const { text } = stage;
  const q = text.q.map((value, index) => [index + 1, value]), stopped = text.stopped.map((value, index) => [index, value]);
  return lines({
    width, height: 190, xLabel: "tokens written", whole: true, x: [0, text.tokens.length], y: range([...text.q, ...text.stopped], 0.2), cursor: stage.at,
    label: `Q and the discriminator's score over the ${text.tokens.length} tokens of this text`,
    series: [{ points: stopped, stroke: "var(--faint)", dash: "3 4" }, { points: q, stroke: "var(--accent)", dots: true }],
  });
}

function showChosen(stage) {
  const at = state.chosen[stage.index], { text, rollouts } = stage;
  stage.tiles.forEach((node, index) => node.setAttribute("aria-pressed", String(index === at)));
  if (at === null) {
    rollouts.replaceChildren(el("p", { class: "faint small" }, `Click a token to read the ${plural(data.rollouts, "completion")} behind its Q.`));
    return;
  }
  const given = text.tokens.slice(0, at + 1), found = text.completions[at];
  if (!found.length) {
    rollouts.replaceChildren(el("h4", {}, "The last token"), el("p", { class: "small faint" }, `Nothing can follow it, so its Q is the discriminator's score of the text itself: ${fixed(text.q[at], 3)}.`));
    return;
  }
  const before = joined(given.slice(-4)), far = given.length > 4 ? "… " : "";
  const rows = [...found].sort((one, other) => other[0] - one[0]).map(([score, tokens]) => {
    const badge = el("span", { class: "score" }, fixed(score, 2));
    paint(badge, score);
    const rest = joined(tokens);
    return el("li", {}, badge, el("span", { class: "written", dir: "auto" }, el("span", { class: "given" }, far, before), rest ? data.glue + rest : "", rest ? "" : el("span", { class: "given" }, " (ends here)")));
  });
  rollouts.replaceChildren(
    el("h4", {}, `${plural(found.length, "completion")} after token ${at + 1}, `, bdi(wordOf(text.tokens[at]))),
    el("p", { class: "small faint" }, "Q is the mean of their scores: ", el("b", {}, fixed(text.q[at], 3)), "."),
    strip(found.map(([score]) => score), text.q[at]),
    el("ul", { class: "rollouts", tabindex: "0", "aria-label": "Completions, the best first" }, rows));
}

// Every score a dot, the mean a line.
function strip(scores, mean) {
  const host = el("div", { class: "chart" });
  chart(host, (width) => {
    const at = (value) => 12 + value * (width - 24);
    return svg("svg", { viewBox: `0 0 ${width} 34`, height: 34, role: "img", "aria-label": `Scores from ${fixed(Math.min(...scores), 2)} to ${fixed(Math.max(...scores), 2)}, mean ${fixed(mean, 2)}` },
      svg("line", { class: "axis", x1: at(0), x2: at(1), y1: 17, y2: 17 }),
      [0, 0.5, 1].map((value) => svg("text", { x: at(value), y: 33, "text-anchor": "middle" }, tick(value))),
      scores.map((value) => svg("circle", { cx: at(value), cy: 11, r: 4, fill: "var(--accent)", "fill-opacity": 0.45 })),
      svg("line", { x1: at(mean), x2: at(mean), y1: 2, y2: 22, stroke: "var(--ink)", "stroke-width": 3 }));
  });
  return host;
}

function placeWord(text, position) {
  if (position < 0) return "⊢";
  if (position >= text.tokens.length) return "⊣";
  return isEnd(text.tokens[position]) ? el("i", {}, "end") : bdi(wordOf(text.tokens[position]));
}
function partWords(text, positions) {
  const found = [];
  positions.forEach((position, index) => {
    if (index) found.push(position - positions[index - 1] > 1 ? " · " : " ");
    found.push(placeWord(text, position));
  });
  return found;
}

function showParts(stage) {
  const { text } = stage, { parts } = text, score = text.stopped[text.stopped.length - 1];
  const largest = Math.max(...parts.strongest.map(([, , value]) => Math.abs(value)), Math.abs(parts.rest), Math.abs(parts.constant), 1e-9);
  const row = (what, kind, value, positions) => {
    const light = (on) => () => stage.tiles.forEach((node, index) => node.classList.toggle("lit", on && positions.includes(index)));
    const size = (Math.abs(value) / largest) * 48;
    const lit = positions.length > 0;
    return el("tr", { tabindex: lit ? "0" : null, onmouseenter: light(lit), onmouseleave: light(false), onfocus: light(lit), onblur: light(false) },
      el("td", {}, el("span", { class: "what", dir: "auto" }, what), el("span", { class: "kind" }, kind)),
      el("td", {}, svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("rect", { x: value < 0 ? 50 - size : 50, y: 1, width: size, height: 8, fill: value < 0 ? "var(--fake)" : "var(--accent)" }),
        svg("line", { class: "axis", x1: 50, x2: 50, y1: 0, y2: 10 }))),
      el("td", { class: "number" }, `${value < 0 ? "" : "+"}${fixed(value, 2)}`));
  };
  const rows = parts.strongest.map(([name, positions, value]) => row(positions.length ? partWords(text, positions) : name, name, value, positions));
  if (parts.others) rows.push(row(`${plural(parts.others, "other part")} together`, "", parts.rest, []));
  rows.push(row("constant", "the same for every text", parts.constant, []));
  stage.parts.replaceChildren(
    el("p", { class: "small faint" }, "Its logit ", el("b", {}, fixed(parts.logit, 2)), " is the sum of these parts, its score ", el("b", {}, fixed(score, 2)), " the sigmoid of it. To the right speaks for real, to the left for written; ⊢ and ⊣ are the marks before the first token and after the last.",
      stage.run.discriminator.kind === "conv" ? " A filter stands with the window of tokens that it matches best; the highway layer behind them mixes filters, so a window is where to look, not the whole reason." : ""),
    el("table", { class: "parts" }, el("tbody", {}, rows)));
}

function drawPath(stage, width) {
  const { run, text, at } = stage, height = Math.min(320, Math.max(230, width * 0.62));
  const all = [...run.real, ...text.path], xs = range(all.map(([x]) => x), 1e-6), ys = range(all.map(([, y]) => y), 1e-6);
  const atX = (x) => 4 + ((x - xs[0]) / (xs[1] - xs[0])) * (width - 8), atY = (y) => height - 4 - ((y - ys[0]) / (ys[1] - ys[0])) * (height - 8);
  const way = text.path.slice(0, at + 1), [x, y] = way[way.length - 1];
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `The way of ${plural(at, "token")} among ${run.real.length} real texts` });
  run.real.forEach(([a, b], index) => root.append(svg("circle", { class: "real", cx: atX(a).toFixed(1), cy: atY(b).toFixed(1), r: 2.6, "data-text": index },
    svg("title", {}, run.real_texts[index]))));
  root.append(svg("polyline", { class: "way", points: way.map(([a, b]) => `${atX(a).toFixed(1)},${atY(b).toFixed(1)}`).join(" ") }));
  way.slice(1).forEach(([a, b]) => root.append(svg("circle", { cx: atX(a), cy: atY(b), r: 2.6, fill: "var(--accent)" })));
  const [x0, y0] = text.path[0];
  root.append(svg("rect", { x: atX(x0) - 5, y: atY(y0) - 5, width: 10, height: 10, fill: "var(--run0)" }));
  root.append(svg("circle", { cx: atX(x), cy: atY(y), r: 6, fill: "var(--ink)", stroke: "var(--card)", "stroke-width": 1.5 }));
  const [first, second] = run.variance;
  stage.near.replaceChildren();
  fill(stage.near, {}, [`Grey: ${plural(run.real.length, "real text")} of the ${run.real_split} split (point at one to read it). Green square: the empty text. Dark dot: where the text is now. The two directions hold ${percent(first)} and ${percent(second)} of the variance of real texts.`,
    at < text.tokens.length ? "" : [" Nearest of them, over all features: ", el("q", {}, bdi(run.real_texts[text.nearest])), "."]]);
  return root;
}

function move(at) {
  state.at = Math.min(longest(), Math.max(0, at));
  showPosition();
}
function pause() {
  clearInterval(state.timer);
  state.timer = null;
  $("play").textContent = "Play";
  $("play").setAttribute("aria-pressed", "false");
}
function play() {
  if (state.at >= longest()) move(0);
  state.timer = setInterval(() => {
    move(state.at + 1);
    if (state.at >= longest()) pause();
  }, Number($("pace").value));
  $("play").textContent = "Pause";
  $("play").setAttribute("aria-pressed", "true");
}
const toggle = () => (state.timer === null ? play() : pause());
function choose(text) {
  pause();
  state.text = Math.min(data.runs[0].texts.length - 1, Math.max(0, text));
  state.at = longest();
  showText();
}

// ------------------------------------------------------------------------------------------ see it learn

const metricsBy = (key) => [...new Set(data.metrics.map((metric) => metric[key]))].filter(Boolean).map((name) => [name, data.metrics.filter((metric) => metric[key] === name)]);
const PANELS = metricsBy("chart").map(([title, metrics]) => [title[0].toUpperCase() + title.slice(1), Object.fromEntries(metrics.map((metric) => [metric.name, metric.label]))]);
// Those that stand beside another one, which says as much.
const BESIDE = ["nll_oracle_median"];
const NAMED = new Set(["nll_self", ...BESIDE, ...PANELS.flatMap(([, names]) => Object.keys(names))]);
const steps = [...new Set(data.runs.flatMap((run) => [...run.samples.map(([step]) => step), ...Object.values(run.curves).flatMap(([at]) => at)]))].sort((a, b) => a - b);
const drawn = [];
let round = steps.length - 1;
const lastPhase = (run) => run.phases[run.phases.length - 1];
// The first round that charts show: all of them, or the last phase and the round before it.
const firstShown = () => ($("zoom").checked ? Math.max(steps[0], Math.min(...data.runs.filter((run) => run.phases.length > 1).map((run) => lastPhase(run).first - 1))) : steps[0]);

// What stood at this round, or last before it.
function valueAt([at, values], step) {
  let found = null;
  for (let index = 0; index < at.length && at[index] <= step; index += 1) found = values[index];
  return found;
}
const phaseAt = (run, step) => (run.phases.filter((phase) => phase.first <= step).pop() || run.phases[0] || { name: "" }).name;

function panel(title, choice) {
  const host = el("div", { class: "chart" }), keys = el("ul", { class: "keys" });
  const card = el("article", { class: "card" }, title, keys, host);
  const all = () => data.runs.flatMap((run, index) => Object.entries(choice()).filter(([name]) => run.curves[name]).map(([name, said], line) => ({ run, index, said, curve: run.curves[name], line })));
  const dash = (one) => DASHES[one.line];
  const stroke = (one) => (data.runs.length > 1 ? runColour(one.index) : runColour(one.line));
  const draw = chart(host, (width) => {
    const from = firstShown(), shown = all().map((one) => ({ ...one, points: one.curve[0].map((step, at) => [step, one.curve[1][at]]).filter(([step]) => step >= from) }));
    if (!shown.length || !steps.length) return el("p", { class: "faint small" }, "Not measured.");
    const levels = shown.map((one) => ({ one, y: before(one) })).filter((level) => level.y !== null && ["NLL-valid", "NLL-oracle", "cover", "fit"].includes(level.one.said)).map(({ one, y }) => ({ y, stroke: stroke(one) }));
    const values = [...shown.flatMap((one) => one.points.map(([, value]) => value)), ...levels.map((level) => level.y)];
    const root = lines({
      width, height: 220, xLabel: "round", whole: true, x: [from, Math.max(steps[steps.length - 1], from + 1)], y: range(values.length ? values : [0], Math.abs(values[0] || 0) * 1e-3 + 1e-9), levels, cursor: steps[round] >= from ? steps[round] : null,
      bands: data.runs.length === 1 ? data.runs[0].phases : [], label: shown.map((one) => one.said).join(", "),
      series: shown.map((one) => ({ points: one.points, stroke: stroke(one), dash: dash(one), tag: data.runs.length > 1 ? String(one.index + 1) : "" })),
    });
    const seek = (event) => {
      const step = root.toX(event.clientX - root.getBoundingClientRect().left);
      showRound(steps.reduce((best, one, at) => (Math.abs(one - step) < Math.abs(steps[best] - step) ? at : best), 0));
    };
    host.onpointerdown = seek;
    host.onpointermove = (event) => event.buttons && seek(event);
    return root;
  });
  return { card, show() {
    draw();
    keys.replaceChildren(...all().map((one) => el("li", {}, tag(one.index), sample(stroke(one), dash(one)), `${one.said} `, el("b", {}, short(valueAt(one.curve, steps[round]))))));
  } };
}
// The last value before the last phase: where pre-training ended.
function before({ run, curve }) {
  if (run.phases.length < 2) return null;
  return valueAt(curve, lastPhase(run).first - 1);
}

function showRound(at) {
  round = at;
  const step = steps[round];
  $("round").value = round;
  $("round").setAttribute("aria-valuetext", `round ${step}`);
  $("round-label").textContent = `Round ${step} of ${steps[steps.length - 1]}${data.runs.length === 1 ? ` · ${phaseAt(data.runs[0], step)}` : ""}`;
  drawn.forEach((one) => one.show());
  data.runs.forEach((run, index) => {
    const look = run.samples.filter(([of]) => of <= step).pop();
    run.sampleHost.replaceChildren(
      el("p", { class: "small faint" }, look ? `What it wrote at round ${look[0]} (${phaseAt(run, look[0])}), at temperature 1:` : "No texts were kept yet."),
      el("ul", { class: "sample" }, look ? look[1].map((text) => el("li", { dir: "auto" }, text)) : []));
  });
}

function buildLearn() {
  $("learn-lead").textContent = "Move the slider, or point into a chart: the same round is shown everywhere. Curves are measured on the valid split, at temperature 1.";
  const notes = [], runs = data.runs;
  if (runs.some((run) => run.phases.length > 1)) notes.push(el("p", { class: "small faint" }, "Dotted across a chart: the value at which pre-training (maximum likelihood) ended. Where a curve lies above it afterwards, likelihood was paid for whatever else was gained."));
  const adversarial = runs.filter((run) => run.phases.length > 1 && !run.control);
  if (adversarial.length && !runs.some((run) => run.control)) notes.push(note("There is no control run on this page. Whether the discriminator taught anything shows only beside the same training with a reward that knows nothing (", el("code", {}, "--control shuffled"), "): name both runs to one report."));
  if (runs.some((run) => run.curves.nll_oracle)) notes.push(note("NLL-oracle alone is no result: safer writing lowers it. Read it together with NLL-valid, cover and fit, all at one temperature."));
  $("learn-notes").replaceChildren(...notes);
  runs.forEach((run, index) => {
    run.sampleHost = el("div");
    const card = el("article", { class: "card stage" }, el("div", { class: "head" }, el("h3", {}, tag(index), bdi(run.name)), badges(run).slice(0, 1)), run.sampleHost);
    $("samples").append(card);
  });
  const [{ real_texts: real, real_split: split }] = runs;
  $("samples").append(el("article", { class: "card stage" }, el("div", { class: "head" }, el("h3", {}, "Real text")),
    el("p", { class: "small faint" }, `From the ${split} split, to compare with:`),
    el("ul", { class: "sample" }, real.slice(0, 6).map((text) => el("li", { dir: "auto" }, text)))));
  for (const [title, names] of PANELS) {
    if (Object.keys(names).some((name) => runs.some((run) => run.curves[name]))) drawn.push(panel(el("h3", {}, title), () => names));
  }
  const rest = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))].filter((name) => !NAMED.has(name)).sort();
  if (rest.length) {
    const select = el("select", { id: "measure", "aria-label": "Another measurement" }, rest.map((name) => el("option", { value: name }, name)));
    const other = panel(el("div", { class: "head" }, el("h3", {}, "Another measurement"), select), () => ({ [select.value]: select.value }));
    select.addEventListener("change", () => other.show());
    drawn.push(other);
  }
  $("curves").replaceChildren(...drawn.map((one) => one.card));
  $("round").max = Math.max(0, steps.length - 1);
  $("round").addEventListener("input", () => showRound(Number($("round").value)));
  $("zoom").addEventListener("change", () => drawn.forEach((one) => one.show()));
  $("zoom-label").hidden = runs.every((run) => run.phases.length < 2);
  if (steps.length) showRound(steps.length - 1);
}

// ------------------------------------------------------------------------------------------ results

function buildResults() {
  const runs = data.runs, ended = runs.filter((run) => run.evaluation);
  $("results-lead").textContent = ended.length
    ? `What ${runs.length > 1 ? "each run" : "the run"} measured at its end. One column is one run with one seed: without more seeds nobody knows by how much it would differ next time.`
    : "This run has not measured itself: it was stopped before its end.";
  if (!ended.length) return;
  const temperature = (run) => (/deterministic=True/.test(run.evaluation.settings.decoding) ? "most probable always" : (/temperature=([^,)]+)/.exec(run.evaluation.settings.decoding) || [])[1] || "not known");
  const units = Object.fromEntries(data.metrics.map(({ name, unit }) => [name, unit]));
  const value = (run, name) => {
    const { values, missing } = run.evaluation;
    // Never the one without the other.
    if (name.startsWith("nll_oracle") && typeof values.nll_test !== "number" && typeof values.nll_valid !== "number") return "–";
    if (typeof values[name] === "number") return fixed(values[name], units[name] === "nats per token" ? 2 : 3);
    return missing[name] ? el("span", { class: "faint", title: missing[name] }, "–") : "–";
  };
  const real = (ended.find((run) => run.evaluation.real && Object.keys(run.evaluation.real).length) || { evaluation: {} }).evaluation.real || {};
  const ofReal = (name) => (typeof real[name] === "number" ? fixed(real[name], units[name] === "nats per token" ? 2 : 3) : "–");
  const arrows = { lower: " ↓", higher: " ↑" };
  const signed = (number) => `${number > 0 ? "+" : ""}${fixed(number, 3)}`;
  // Where the last phase began, and the difference with its interval.
  const since = ({ evaluation: { start, ends = {}, values } }, name) => {
    if (!start || typeof start[name] !== "number" || typeof values[name] !== "number") return null;
    const interval = ends[name] ? ` [${signed(ends[name][0])}, ${signed(ends[name][1])}]` : "";
    return el("small", { class: "faint" }, `began at ${fixed(start[name], 3)}: ${signed(values[name] - start[name])}${interval}`);
  };
  const row = (head, small, cells) => el("tr", {}, el("th", { scope: "row" }, head, small ? el("small", {}, small) : ""), (cells.length === ended.length ? ["", ...cells] : cells).map((cell) => el("td", {}, cell)));
  const part = (text) => el("tr", { class: "part" }, el("th", { colspan: ended.length + 2, scope: "rowgroup" }, text));
  const setting = (run, name) => (typeof run.evaluation.settings[name] === "number" ? run.evaluation.settings[name].toLocaleString("en") : String(run.evaluation.settings[name] ?? "–"));
  const rows = [row("temperature", "of the texts measured", ended.map(temperature)), row("control", "", ended.map((run) => run.control || "none"))];
  const listed = new Set(BESIDE);
  for (const [title, metrics] of metricsBy("part")) {
    const here = metrics.filter(({ name }) => !listed.has(name) && ended.some((run) => typeof run.evaluation.values[name] === "number"));
    here.forEach(({ name }) => listed.add(name));
    if (here.length) rows.push(part(`${title}, ${here[0].unit === "share" ? "shares" : here[0].unit}`), ...here.map(({ name, label, about, better }) => row(label + (arrows[better] || ""), about, [ofReal(name), ...ended.map((run) => [value(run, name), since(run, name)])])));
  }
  const others = [...new Set(ended.flatMap((run) => Object.keys(run.evaluation.values)))].filter((name) => !listed.has(name));
  if (others.length) rows.push(part("Other"), ...others.map((name) => row(name, "", ended.map((run) => value(run, name)))));
  rows.push(part("How it was measured"));
  const names = { split: "references from", samples: "texts measured", references: "references", bleu_samples: "texts of BLEU", bleu: "BLEU", tokens: "tokens by", seed: "seed of the texts" };
  rows.push(...Object.entries(names).map(([name, said]) => row(said, "", ended.map((run) => setting(run, name)))));
  rows.push(row("weights", "", ended.map((run) => (run.evaluation.select === "best" ? `of round ${run.evaluation.round}, lowest NLL-valid` : `of the last round, ${run.evaluation.round}`))));
  const reasons = [...new Set(ended.flatMap((run) => Object.entries(run.evaluation.missing).map(([name, why]) => `${name}: ${why}`)))];
  $("table").replaceChildren(
    ...ended.filter((run) => run.evaluation.sentence).map((run) => el("p", { class: "verdict" }, tag(runs.indexOf(run)), bdi(run.name), ": ", run.evaluation.sentence)),
    el("p", { class: "small faint" }, "↓ lower is better, ↑ higher is better, if all else stays. Intervals are over the texts of one run: other seeds can differ by more (textgan compare)."),
    el("table", { class: "results" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "measure"), el("th", { scope: "col" }, "real text"), ended.map((run) => el("th", { scope: "col" }, tag(runs.indexOf(run)), bdi(run.name))))), el("tbody", {}, rows)),
    reasons.length ? el("details", {}, el("summary", {}, "What could not be measured, and why"), el("ul", { class: "small faint" }, reasons.map((text) => el("li", {}, text)))) : "");
}

// ------------------------------------------------------------------------------------------ how it was made

const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
// As it was typed: the program of a command may be several words, and a script is started by Python.
function typed([program, ...words]) {
  if (program === undefined) return "";
  const started = program.startsWith("textgan ") ? program : program.endsWith(".py") ? `python ${quoted(program)}` : quoted(program);
  return [started, ...words.map(quoted)].join(" ");
}
function buildMade() {
  data.runs.forEach((run, index) => {
    const { made } = run, { machine } = made, source = made.source;
    const facts = [
      ["commit", source ? `${source.commit}${source.dirty ? " (with changes that are in no commit)" : ""}` : "not known: it did not run from a checkout"],
      ["seed", String(made.seed)],
      ["Python", made.python],
      ["versions", Object.entries(made.versions).map(([name, version]) => `${name} ${version}`).join(", ")],
      ["machine", [machine.cpu, machine.cores && plural(machine.cores, "core"), machine.threads && plural(machine.threads, "thread"), machine.device, machine.system].filter(Boolean).join(", ")],
      ["phases", run.phases.map((phase) => `${phase.name} ${phase.first} to ${phase.last}`).join(", ")],
      ["discriminator here", discriminatorName(run.discriminator)],
      ["text", data.task.about],
    ];
    const options = Object.entries(made.config).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value === null ? "–" : String(value))]);
    const card = el("article", { class: "card stage" },
      el("div", { class: "head" }, el("h3", {}, tag(index), bdi(run.name)), badges(run)),
      el("pre", {}, typed(made.command)),
      el("details", { class: "more", open: wide }, el("summary", {}, "Where and with what"), el("dl", { class: "facts" }, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]))),
      el("details", {}, el("summary", {}, `All ${options.length} options`), el("dl", { class: "facts" }, options)));
    $("made-runs").append(card);
  });
}

// ------------------------------------------------------------------------------------------ the whole page

function buildTop() {
  const { task, runs } = data;
  $("names").replaceChildren(...runs.flatMap((run, index) => [index ? " · " : "", bdi(run.name)]));
  $("about").textContent = `Task ${task.name}: texts of ${task.oracle ? "" : "at most "}${plural(task.length, "token")} out of ${task.tokens.toLocaleString("en")}${task.oracle ? ", written by an oracle whose law is known" : ""}.`;
  $("write-lead").textContent = `A token stands on the colour of its Q: how real the discriminator finds, on average, ${plural(data.rollouts, "text")} that go on from there. Space plays, ← and → step.`;
  const discriminators = new Set(runs.map((run) => (run.discriminator.own ? run.name : "default")));
  if (discriminators.size > 1) $("write-notes").append(note("These runs are scored by different discriminators. The colours share one scale, but scores of different discriminators do not compare; ", el("code", {}, "textgan report --discriminator default"), " asks one discriminator about all."));
  $("footer").textContent = `Made by textgan_env ${data.version}. Texts and completions drawn with seed ${data.seed}; the same runs and options give the same page.`;
}
function legend() {
  const [low, high] = data.limits;
  const ramp = el("span", { class: "ramp", "aria-hidden": "true" }, Array.from({ length: 13 }, (_, at) => {
    const cell = el("i");
    paint(cell, low + ((high - low) * at) / 12);
    return cell;
  }));
  $("legend").replaceChildren(el("span", {}, `Q ${tick(low)}: less real`), ramp, el("span", {}, `${tick(high)}: more real`), el("span", {}, "In the middle, at .5, the discriminator does not know. One scale for all texts and runs of this page."));
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = name === "dark" ? "☀" : "☾";
  $("theme").setAttribute("aria-label", name === "dark" ? "Switch to light" : "Switch to dark");
}
const system = matchMedia("(prefers-color-scheme: dark)");
let asked = null;
const repaint = () => { legend(); const chosen = [...state.chosen], { at } = state; showText(); state.chosen = chosen; state.at = at; stages.forEach(showChosen); showPosition(); };
$("theme").addEventListener("click", () => { asked = theme() === "dark" ? "light" : "dark"; setTheme(asked); repaint(); });
system.addEventListener("change", () => { if (asked === null) { setTheme(system.matches ? "dark" : "light"); repaint(); } });

$("play").addEventListener("click", toggle);
$("back").addEventListener("click", () => { pause(); move(state.at - 1); });
$("forward").addEventListener("click", () => { pause(); move(state.at + 1); });
$("position").addEventListener("input", () => { pause(); move(Number($("position").value)); });
$("text-before").addEventListener("click", () => choose(state.text - 1));
$("text-next").addEventListener("click", () => choose(state.text + 1));
$("pace").addEventListener("change", () => { if (state.timer !== null) { pause(); play(); } });
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, .scroll, .rollouts")) return;
  if (event.key === " " && !event.target.closest("button, a, summary, [tabindex]")) toggle();
  else if (event.key === "ArrowRight") { pause(); move(state.at + 1); }
  else if (event.key === "ArrowLeft") { pause(); move(state.at - 1); }
  else return;
  event.preventDefault();
});

setTheme(system.matches ? "dark" : "light");
buildTop();
$("words").open = wide;
legend();
$("stages").replaceChildren(...stages.map((stage) => stage.card));
choose(0);
buildLearn();
buildResults();
buildMade();
// Shown at its end where nobody wants things that move.
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
