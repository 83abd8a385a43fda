"use strict";
const run = JSON.parse(document.getElementById("data").textContent);
const epochs = [0, ...run.records.map(record => record.epoch)], last = epochs.length - 1;
const NS = "http://www.w3.org/2000/svg", charts = [];
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const degrees = distance => Math.acos(clamp(1 - distance, -1, 1)) * 180 / Math.PI;

function add(parent, tag, attributes = {}, text = "") {
  const drawn = tag === "svg" || parent.namespaceURI === NS;
  const node = drawn ? document.createElementNS(NS, tag) : document.createElement(tag);
  for (const name in attributes) node.setAttribute(name, attributes[name]);
  node.textContent = text;
  return parent.appendChild(node);
}

// Of 1, 2 and 5 times a power of ten, the least that is not below.
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 5].find(digit => digit * power >= value * (1 - 1e-9)) ?? 10);
}

function linear(low, high, count) {
  if (!(high > low)) high = low + (Math.abs(low) / 10 || 1);
  const step = round((high - low) / count), digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const start = Math.floor(low / step + 1e-9);
  const ticks = Array.from({length: Math.ceil(high / step - 1e-9) - start + 1}, (_, i) => (start + i) * step);
  const end = ticks[ticks.length - 1];
  return {place: value => (value - ticks[0]) / (end - ticks[0]), has: value => value !== null, end,
    ticks: ticks.map(value => [value, value.toFixed(digits)])};
}

function logarithmic(low, high, count) {
  let ticks = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high * 10; power++)
    for (const digit of [1, 2, 5]) ticks.push(digit * 10 ** power);
  const from = ticks.findLastIndex(tick => tick <= low * (1 + 1e-9));
  const to = ticks.findIndex(tick => tick >= high * (1 - 1e-9));
  ticks = ticks.slice(from, Math.max(to, from + 1) + 1);
  const [start, end] = [Math.log(ticks[0]), Math.log(ticks[ticks.length - 1])];
  if (ticks.length > count + 2) ticks = ticks.filter(tick => /^1/.test(tick.toExponential()));
  ticks = ticks.filter((_, i) => i % Math.ceil(ticks.length / (count + 2)) === 0);
  return {place: value => (Math.log(value) - start) / (end - start), has: value => value !== null && value > 0,
    ticks: ticks.map(value => [value, value < 1e-4 || value >= 1e6 ? value.toExponential(0) : +value.toPrecision(1)])};
}

class Chart {
  // series: [{name, color, values, joined}], values one an epoch; scales: {name: height => axis}.
  constructor(id, {series, scales, label, unit, describe, tall, angles, onshow}) {
    Object.assign(this, {series, scales, unit, describe, tall, angles, onshow, scale: Object.keys(scales)[0]});
    const card = document.getElementById(id);
    this.box = card.querySelector(".plot");
    this.svg = add(this.box, "svg", {tabindex: 0, role: "img", "aria-label": label + " Arrow keys read the points."});
    this.tip = add(this.box, "div", {class: "tip", hidden: ""});
    const head = card.querySelector(".head");
    const group = add(head, "div", {class: "scales", role: "group", "aria-label": "vertical axis"});
    const buttons = Object.keys(scales).map(name => add(group, "button", {type: "button"}, name));
    const choose = name => {
      this.scale = name;
      for (const button of buttons) button.setAttribute("aria-pressed", button.textContent === name);
      this.draw();
    };
    for (const button of buttons) button.onclick = () => choose(button.textContent);
    this.svg.onpointermove = this.svg.onpointerdown = event => this.nearest(event);
    this.svg.onpointerleave = event => { if (event.pointerType !== "touch") clear(); };
    this.svg.onfocus = () => { if (this.svg.matches(":focus-visible")) this.step(0, 0); };
    this.svg.onblur = clear;
    this.svg.onkeydown = event => {
      const moves = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
      const move = moves[event.key];
      if (move) { event.preventDefault(); this.step(...move); }
      if (event.key === "Escape") clear();
    };
    charts.push(this);
    choose(this.scale);
    new ResizeObserver(() => { if (this.box.clientWidth !== this.width) this.draw(); }).observe(this.box);
  }

  draw() {
    const width = this.width = this.box.clientWidth, height = clamp(width * .62, 230, this.tall);
    const axis = this.axis = this.scales[this.scale](Math.round((height - 60) / 55));
    const top = this.top = 26, bottom = this.bottom = height - 36;
    const left = this.left = 14 + 7 * Math.max(...axis.ticks.map(([, text]) => String(text).length));
    const right = this.right = width - (this.angles ? 38 : 14);
    this.x = i => left + (right - left) * i / last;
    this.y = value => bottom - (bottom - top) * axis.place(value);
    const svg = this.svg;
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    add(svg, "text", {x: 0, y: 12}, this.unit);
    for (const [value, text] of axis.ticks) {
      add(svg, "line", {class: "grid", x1: left, x2: right, y1: this.y(value), y2: this.y(value)});
      add(svg, "text", {x: left - 8, y: this.y(value) + 4, "text-anchor": "end"}, text);
    }
    if (this.angles) {
      add(svg, "text", {x: width, y: 12, "text-anchor": "end"}, "angle");
      const step = round(degrees(axis.end) / 8);
      for (let angle = 0, before = Infinity; angle <= degrees(axis.end) + 1e-9; angle += step) {
        const y = this.y(1 - Math.cos(angle * Math.PI / 180));
        if (before - y < 17) continue;
        before = y;
        add(svg, "text", {x: right + 6, y: y + 4}, +angle.toFixed(3) + "°");
      }
    }
    const every = Math.max(1, round(last / clamp((right - left) / 70, 2, 10)));
    for (let i = 0; i <= last; i += every) add(svg, "text", {x: this.x(i), y: bottom + 18, "text-anchor": "middle"}, i);
    add(svg, "text", {x: (left + right) / 2, y: height - 2, "text-anchor": "middle"}, "epoch");
    for (const epoch of run.drops)
      add(svg, "line", {class: "drop", x1: this.x(epoch), x2: this.x(epoch), y1: top, y2: bottom});
    const curves = add(svg, "g", {class: "curves"});
    for (const one of this.series) this.curve(curves, one);
    this.mark = add(svg, "g", {class: "mark"});
    this.point(this.shown);
  }

  curve(parent, one) {
    const lines = [[]];
    one.values.forEach((value, i) => {
      if (this.axis.has(value)) lines[lines.length - 1].push(`${this.x(i).toFixed(1)} ${this.y(value).toFixed(1)}`);
      else if (!one.joined) lines.push([]);
    });
    // A point without neighbours is drawn as one.
    const dot = "m-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0";
    const path = lines.map(line => line.length ? "M" + line.join("L") + (line.length > 1 ? "" : dot) : "").join("");
    if (one.shade) add(parent, "path", {class: "case " + one.shade, d: path});
    add(parent, "path", {class: "curve", d: path, style: "stroke:" + one.color});
  }

  // The epoch nearest to i at which a curve has a point.
  known(k, i) {
    for (let far = 0; far <= last; far++)
      for (const at of [i - far, i + far]) if (this.axis.has(this.series[k].values[at] ?? null)) return at;
  }

  nearest(event) {
    const box = this.svg.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const i = Math.round(clamp((x - this.left) / (this.right - this.left), 0, 1) * last);
    let best = Infinity, found;
    this.series.forEach((one, k) => {
      const at = this.known(k, i);
      const far = Math.hypot(this.x(at) - x, this.y(one.values[at]) - y);
      if (far < best) [best, found] = [far, [k, at]];
    });
    if (found) show(this, ...found);
  }

  step(series, points) {
    const [before, i] = this.shown?.length === 2 ? this.shown : [0, last], n = this.series.length;
    const k = (before + series + n) % n;
    let at = points ? i + points : this.known(k, i);
    while (at >= 0 && at <= last && !this.axis.has(this.series[k].values[at])) at += points;
    if (at >= 0 && at <= last) show(this, k, at, true);
  }

  // shown: [series, epoch] of a point, [epoch] of a line, or nothing.
  point(shown) {
    this.shown = shown;
    this.mark.replaceChildren();
    const point = shown?.length === 2;
    this.svg.classList.toggle("picked", point && this.series.length > 3);
    this.tip.hidden = !point;
    if (!shown) return;
    const i = shown[shown.length - 1], x = this.x(i);
    add(this.mark, "line", {class: "cursor", x1: x, x2: x, y1: this.top, y2: this.bottom});
    if (!point) return;
    const one = this.series[shown[0]], y = this.y(one.values[i]);
    if (this.series.length > 3) this.curve(this.mark, one);
    add(this.mark, "circle", {cx: x, cy: y, r: 6, style: "fill:" + one.color});
    const [title, rows] = this.describe(...shown);
    this.tip.replaceChildren();
    const name = add(this.tip, "b");
    add(name, "i", {style: "background:" + one.color});
    name.append(title);
    for (const [label, value] of rows) add(add(this.tip, "span", {}, label), "em", {}, value);
    const wide = this.tip.offsetWidth, high = this.tip.offsetHeight;
    this.tip.style.left = clamp(x < this.width / 2 ? x + 16 : x - wide - 16, 0, this.width - wide) + "px";
    this.tip.style.top = (y - high - 14 >= 0 ? y - high - 14 : y + 14) + "px";
  }
}

function show(chart, k, i, aloud) {
  for (const other of charts) other.point(other === chart ? [k, i] : [i]);
  for (const other of charts) other.onshow?.(i, other === chart ? k : -1);
  const [title, rows] = chart.describe(k, i);
  if (aloud) document.getElementById("live").textContent = [title, ...rows.map(row => row.join(" "))].join(", ");
}

function clear() {
  for (const chart of charts) { chart.point(); chart.onshow?.(last, -1); }
}

const series = (name, key, color, joined) =>
  ({name, color: `var(--${color})`, joined, values: [null, ...run.records.map(record => record[key])]});
const all = list => list.flatMap(one => one.values).filter(value => value !== null);
// Not Math.min(...values): a long run has more values than a call may have arguments.
const least = (values, start) => values.reduce((a, b) => Math.min(a, b), start);
const most = (values, start) => values.reduce((a, b) => Math.max(a, b), start);

function rotation() {
  const layers = Object.keys(run.layers);
  const curves = layers.map(name => {
    const color = run.layers[name];
    const [r, g, b] = [1, 3, 5].map(at => (parseInt(color.slice(at, at + 2), 16) / 255) ** 2.2);
    const light = .2126 * r + .7152 * g + .0722 * b;
    // What is too pale for white or too deep for black (a contrast below 3) gets an outline.
    return {name, color, shade: light > .3 ? "pale" : light < .13 ? "deep" : "",
      values: [0, ...run.records.map(record => record.rotation[name])]};
  });
  const card = document.getElementById("rotation"), list = card.querySelector(".layers");
  const farthest = most(all(curves), 0);
  const angle = distance => degrees(distance).toFixed(1) + "°";
  const rows = curves.map((one, k) => {
    const row = add(add(list, "li"), "button", {type: "button"});
    add(row, "i", {style: "background:" + one.color});
    const name = add(row, "b");
    for (const part of one.name.split(/(?<=\/)/)) { name.append(part); add(name, "wbr"); }
    const bar = add(add(row, "u"), "s", {style: "background:" + one.color});
    const cells = [add(row, "span"), add(row, "span")];
    row.onpointerenter = row.onfocus = row.onclick = () => show(chart, k, chart.known(k, chart.shown?.at(-1) ?? last));
    row.onpointerleave = event => { if (event.pointerType !== "touch") clear(); };
    row.onblur = clear;
    return {row, bar, cells};
  });
  const chart = new Chart("rotation", {
    series: curves, unit: "cosine distance", tall: 430, angles: true,
    label: `Cosine distance from initialisation of ${layers.length} layers over ${last} epochs.`,
    scales: {fit: count => linear(0, farthest, count), "0 to 1": count => linear(0, Math.max(1, farthest), count)},
    describe: (k, i) => {
      const distance = curves[k].values[i], skipped = run.records[i - 1]?.skipped[layers[k]];
      const rows = [["epoch", epochs[i]], ["cosine distance", distance.toFixed(4)], ["angle", angle(distance)]];
      return [layers[k], skipped ? [...rows, ["steps skipped", skipped]] : rows];
    },
    onshow: (i, picked) => {
      card.querySelector(".at").textContent = `After epoch ${epochs[i]}: cosine distance and angle`;
      rows.forEach(({row, bar, cells}, k) => {
        const value = curves[k].values[i];
        row.classList.toggle("on", k === picked);
        bar.style.width = 100 * (value ?? 0) / (farthest || 1) + "%";
        cells[0].textContent = value === null ? "–" : value.toFixed(4);
        cells[1].textContent = value === null ? "–" : angle(value);
      });
    },
  });
}

function curves(id, list, unit, scales, form) {
  const key = document.getElementById(id).querySelector(".key");
  for (const one of list) {
    const item = add(key, "span");
    add(item, "i", {style: "background:" + one.color});
    item.append(one.name);
  }
  const value = (one, i) => one.values[i] !== null ? form(one.values[i]) : one.joined ? "not measured" : "not finite";
  return new Chart(id, {series: list, unit, scales, tall: 300, label: `${unit} over ${last} epochs.`,
    describe: (k, i) => ["epoch " + epochs[i], list.map(one => [one.name, value(one, i)])]});
}

if (Object.keys(run.layers).length) rotation();
else document.getElementById("rotation").remove();
const losses = [series("training", "train_loss", "train")], positive = all(losses).filter(loss => loss > 0);
curves("loss", losses, "cross-entropy", {
  ...(positive.length ? {log: count => logarithmic(least(positive, Infinity), most(positive, 0), count)} : {}),
  linear: count => linear(0, most(all(losses), 0), count),
}, loss => loss.toPrecision(3));
const accuracies = [series("training", "train_accuracy", "train", true), series("test", "test_accuracy", "test", true),
  ...("validation_accuracy" in run.records[0] ? [series("held out", "validation_accuracy", "held", true)] : [])];
curves("accuracy", accuracies, "accuracy", {
  fit: count => linear(least(all(accuracies), 1), most(all(accuracies), 0), count),
  "0 to 1": count => linear(0, 1, count),
}, accuracy => accuracy.toFixed(4));
clear();
