// Shows what the demonstration's process streams, and sends the slider's value back.
"use strict";

const NAMES = {
  split: { edge: "edge layers", pack: "pack, zstd", uplink: "uplink", round_trip: "round trip",
    unpack: "unpack", cloud: "cloud layers", downlink: "downlink", rest: "rest" },
  cloud: { pack: "JPEG encoding", uplink: "uplink", round_trip: "round trip",
    unpack: "JPEG decoding", cloud: "whole network", downlink: "downlink", rest: "rest" },
};
const FLOAT_BITS = 32;
const state = { facts: null, settings: null, groups: [], plan: null, split: null, cloud: null };
const byId = (id) => document.getElementById(id);
const number = (value, digits = 0) => value.toLocaleString("en", {
  minimumFractionDigits: digits, maximumFractionDigits: digits });
const ms = (value) => `${number(value, value < 10 ? 1 : 0)} ms`;
const percent = (share) => `${number(share * 100, share < 0.0995 ? 1 : 0)} %`;
const mbps = (rate) => `${number(rate / 1e6, rate < 9.95e6 ? 1 : 0)} Mbps`;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// The slider is logarithmic: each step multiplies the rate.
function rateAt(position) {
  const { lowest_bits_per_s: low, highest_bits_per_s: high } = state.facts.limits;
  return Math.min(high, Math.max(low, low * (high / low) ** (position / 1000)));
}
function positionOf(rate) {
  const { lowest_bits_per_s: low, highest_bits_per_s: high } = state.facts.limits;
  return 1000 * Math.log(rate / low) / Math.log(high / low);
}

// Neighbouring rates with the same saved split are one row; between two rates the middle counts.
function groupPlans(rates) {
  const groups = [];
  rates.forEach((plan, index) => {
    const last = groups.at(-1);
    if (last && last.folder === plan.folder) {
      last.plans.push(index);
    } else {
      groups.push({ folder: plan.folder, plans: [index] });
    }
  });
  const middle = (index) => Math.sqrt(
    rates[index - 1].uplink_bits_per_s * rates[index].uplink_bits_per_s);
  for (const group of groups) {
    const [first, last] = [group.plans[0], group.plans.at(-1)];
    group.from = first ? middle(first) : state.facts.limits.lowest_bits_per_s;
    group.to = last + 1 < rates.length ? middle(last + 1) : state.facts.limits.highest_bits_per_s;
  }
  return groups;
}

function sentBits(plan) {
  const last = plan.on_edge.lastIndexOf(true);
  return plan.a_bits[last] === FLOAT_BITS ? "float" : `${plan.a_bits[last]}`;
}

function start(facts) {
  state.facts = facts;
  state.groups = groupPlans(facts.plans.rates);
  byId("title").textContent = facts.title;
  document.title = `autosplit: ${facts.title}`;
  for (const quality of facts.limits.jpeg_qualities) {
    byId("quality").append(make("option", { value: quality }, `${quality}`));
  }
  for (const group of state.groups) {
    const [from, to] = [positionOf(group.from) / 10, positionOf(group.to) / 10];
    const plan = facts.plans.rates[group.plans[0]];
    const label = make("span", {}, `${sentBits(plan)} bits`);
    label.style.left = `${from}%`;
    label.style.width = `${to - from}%`;
    byId("switches").append(label);
    const predicted = group.plans.map((index) => facts.plans.rates[index].latency_s * 1e3);
    byId("plans").tBodies[0].append(make("tr", {},
      make("td", {}, `${mbps(group.from)} to ${mbps(group.to)}`), make("td", {}, shortCut(plan)),
      make("td", {}, sentBits(plan)),
      make("td", { class: "number" }, `${number(plan.payload_bytes)} B`),
      make("td", { class: "number" }, `${number(plan.edge_memory_bytes / 1024)} KiB`),
      make("td", { class: "number" }, percent(plan.output_error)),
      make("td", { class: "number" }, predicted.length === 1 ? ms(predicted[0])
        : `${number(predicted.at(-1))} to ${ms(predicted[0])}`)));
  }
  byId("memory").textContent = `The edge may hold ${number(facts.memory_bytes / 1024)} KiB; the ` +
    `whole network takes ${number(facts.plans.whole_bytes / 1024)} KiB at 8 bits, so the edge ` +
    `cannot do all by itself. Input: ${facts.size.join(" x ")} pixels. Edge: ` +
    `${facts.plans.devices[0]}; cloud: ${facts.plans.devices[1]}.`;
  byId("rate").addEventListener("input", () => {
    showRate(rateAt(Number(byId("rate").value)));
    send({ uplink_bits_per_s: rateAt(Number(byId("rate").value)) });
  });
  byId("quality").addEventListener("change", () => send(
    { jpeg_quality: Number(byId("quality").value) }));
  byId("pause").addEventListener("click", () => send({ paused: !state.settings.paused }));
}

// While a request is under way, the newest wish waits.
const wishes = { waiting: null, busy: false };
async function send(change) {
  wishes.waiting = { ...wishes.waiting, ...change };
  if (wishes.busy) return;
  wishes.busy = true;
  while (wishes.waiting) {
    const body = JSON.stringify(wishes.waiting);
    wishes.waiting = null;
    try {
      await fetch("settings", { method: "POST", body,
        headers: { "Content-Type": "application/json" } });
    } catch {
      break;
    }
  }
  wishes.busy = false;
}

function showRate(rate) {
  byId("rate-text").textContent = mbps(rate);
  byId("rate").setAttribute("aria-valuetext", mbps(rate));
}

function showSettings(settings) {
  state.settings = settings;
  if (!wishes.busy) {
    byId("rate").value = positionOf(settings.uplink_bits_per_s);
    showRate(settings.uplink_bits_per_s);
  }
  byId("quality").value = settings.jpeg_quality;
  byId("pause").textContent = settings.paused ? "Go on" : "Pause";
  byId("pause").setAttribute("aria-pressed", settings.paused);
}

function showPlan(index) {
  if (index === state.plan) return;
  const changed = state.plan !== null &&
    state.facts.plans.rates[state.plan].folder !== state.facts.plans.rates[index].folder;
  state.plan = index;
  const plan = state.facts.plans.rates[index];
  const now = state.groups.findIndex((group) => group.folder === plan.folder);
  [...byId("plans").tBodies[0].rows].forEach((row, at) => {
    row.className = at === now ? (changed ? "now switched" : "now") : "";
  });
  [...byId("switches").children].forEach((label, at) => {
    label.className = at === now ? "now" : "";
  });
  const last = plan.on_edge.lastIndexOf(true);
  const cells = plan.on_edge.map((onEdge, at) => {
    const bits = (value) => (value === FLOAT_BITS ? "–" : value);
    const name = state.facts.plans.layer_names[at];
    const cell = make("div", { title: name, class: onEdge ? "on-edge" : "in-cloud" },
      make("b", {}, onEdge ? `${bits(plan.w_bits[at])}/${bits(plan.a_bits[at])}` : "f32"),
      shortName(name));
    return cell;
  });
  cells.splice(last + 1, 0, make("div", { class: "link" },
    make("b", {}, `${sentBits(plan)} bits →`), `${number(plan.payload_bytes)} B`));
  byId("layers").replaceChildren(...cells);
  byId("layers").className = "layers";
  void byId("layers").offsetWidth; // starts the animation anew
  if (changed) byId("layers").className = "layers switched";
  const edges = plan.on_edge.filter(Boolean).length;
  byId("plan-what").textContent = `${edges} of ${plan.on_edge.length} layers on the edge, blue: ` +
    "bits of weights / activations";
  byId("split-what").textContent = `${shortCut(plan)}, ${sentBits(plan)} bits`;
}

function shortName(name) {
  const last = name.replace("/Conv2d", "").split("/").at(-1);
  return last.replace("module_list_", "conv ").replace("_", " ").replace("loop", "boxes");
}
function shortCut(plan) {
  const last = plan.on_edge.lastIndexOf(true);
  return `after ${shortName(state.facts.plans.layer_names[last])}`;
}

function draw(canvas, data) {
  const picture = new Image();
  picture.onload = () => {
    canvas.width = picture.width;
    canvas.height = picture.height;
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    context.font = "600 17px system-ui, sans-serif";
    context.textBaseline = "top";
    for (const one of data.found) {
      const [left, top, right, bottom] = one.box.map(
        (value, at) => value * (at % 2 ? canvas.height : canvas.width));
      const color = one.name === "person" ? "#ffb000" : "#55c8ff";
      const label = `${one.name} ${Math.round(one.score * 100)}`;
      const width = context.measureText(label).width + 10;
      const [x, y] = [Math.min(left, canvas.width - width), Math.max(top - 23, 0)];
      context.strokeStyle = color;
      context.lineWidth = 3;
      context.strokeRect(left, top, right - left, bottom - top);
      context.fillStyle = color;
      context.fillRect(x - 1, y, width, 23);
      context.fillStyle = "#111";
      context.fillText(label, x + 4, y + 3);
    }
  };
  picture.src = data.picture;
}

function showPane(name, data) {
  const pane = byId(`pane-${name}`);
  const fault = pane.querySelector(".fault");
  fault.hidden = !data.error;
  if (data.error) {
    fault.textContent = data.error;
    return;
  }
  state[name] = data;
  draw(pane.querySelector("canvas"), data);
  const plans = state.facts.plans;
  const error = name === "split" ? plans.rates[data.plan].output_error
    : plans.jpeg_errors[state.settings.jpeg_quality];
  pane.querySelector(".latency").textContent = ms(data.total_ms);
  pane.querySelector(".bytes").textContent = number(data.sent_bytes);
  pane.querySelector(".rate-fps").textContent = number(1000 / data.total_ms, 1);
  pane.querySelector(".error").textContent = percent(error);
  showStages(pane, name, data.stages_ms);
  if (name === "split") showPlan(data.plan);
  else byId("cloud-what").textContent = `JPEG of quality ${state.settings.jpeg_quality}`;
  showVerdict();
}

// Both bars have one scale, so that their lengths can be compared.
function showStages(pane, name, stages) {
  const longest = Math.max(state.split?.total_ms ?? 0, state.cloud?.total_ms ?? 0, 1);
  const known = state.facts.stages.filter((stage) => NAMES[name][stage]);
  pane.querySelector(".bar").replaceChildren(...known.map((stage) => {
    const part = make("i", { class: stage, title: NAMES[name][stage] });
    part.style.width = `${100 * stages[stage] / longest}%`;
    return part;
  }));
  pane.querySelector(".stages").replaceChildren(...known.map((stage) => make("li", {},
    make("i", { class: stage }), make("span", {}, NAMES[name][stage]),
    make("b", {}, `${number(stages[stage], 1)} ms`))));
}

function showVerdict() {
  if (!state.split || !state.cloud) return;
  const gain = state.cloud.total_ms - state.split.total_ms;
  const slower = Math.max(state.cloud.total_ms, state.split.total_ms);
  const rate = mbps(state.settings.uplink_bits_per_s);
  const jpeg = `cloud-only JPEG of quality ${state.settings.jpeg_quality}`;
  const by = `${ms(Math.abs(gain))} (${percent(Math.abs(gain) / slower)})`;
  const times = state.split.sent_bytes / state.cloud.sent_bytes;
  const winner = gain >= 0 ? `the split answers ${by} sooner than ${jpeg}`
    : `${jpeg} answers ${by} sooner than the split`;
  const { rates, jpeg_errors: errors } = state.facts.plans;
  byId("verdict").textContent = `At ${rate} ${winner}. The split sends ${number(times, 2)} times ` +
    `the bytes, and its output error is ${percent(rates[state.split.plan].output_error)} to ` +
    `${percent(errors[state.settings.jpeg_quality])}.`;
}

async function main() {
  start(await (await fetch("facts")).json());
  const events = new EventSource("events");
  for (const [name, show] of [["settings", showSettings],
    ["split", (data) => showPane("split", data)], ["cloud", (data) => showPane("cloud", data)]]) {
    events.addEventListener(name, (event) => show(JSON.parse(event.data)));
  }
  events.addEventListener("error", () => {
    byId("verdict").textContent = "The demonstration's process does not answer; it may have ended.";
  });
}

main().catch((error) => {
  byId("verdict").textContent = `The page cannot start: ${error.message}`;
});
