// SPDX-License-Identifier: Apache-2.0
// The page of `rock_seg view`. The server sends a JSON message, followed by one JPEG for each layer
// that it lists, and waits for an acknowledgement before it sends the next one.
'use strict';

const byId = (id) => document.getElementById(id);
const canvas = byId('canvas');
const MAX_SAMPLES = 300;

let socket = null;
let message = null; // of which images are still to come
let images = [];
let frame = null; // the last one with its decoded images
let selected = null;
let samples = [];
let layers = null; // name → whether it is switched on
let marks = null; // points of the scale that is being measured, px of the image
let arrivals = []; // times of the last frames, ms

// Connection

function connect() {
  socket = new WebSocket(`ws://${location.host}/live`);
  socket.binaryType = 'blob';
  socket.onopen = () => {
    showConnection('live', true);
    samples = [];
    layers = null;
    send({ side: longestSide(), select: selected });
  };
  socket.onmessage = (event) => receive(event.data);
  socket.onclose = () => {
    showConnection('no connection; is rock_seg view running?', false);
    setTimeout(connect, 1000);
  };
}

function send(value) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(value));
}

function receive(data) {
  if (typeof data === 'string') {
    const value = JSON.parse(data);
    if (value.reply) return answered(value.rejected);
    message = value;
    images = [];
  } else {
    images.push(data);
  }
  const due = message.frame ? message.frame.layers.length : 0;
  if (images.length === due) show(message, images);
}

async function show(value, blobs) {
  const came = performance.now();
  try {
    if (value.status) showStatus(value.status);
    if (value.frame) {
      const decoded = await Promise.all(blobs.map((blob) => createImageBitmap(blob)));
      const isNew = !frame || frame.number !== value.frame.number;
      if (frame) frame.decoded.forEach((bitmap) => bitmap.close());
      frame = { ...value.frame, decoded };
      showFrame(value.link, isNew);
    }
    if (value.samples) showSamples(value.samples);
    showRock(value.track);
  } finally {
    send({ ack: value.sequence, busy: (performance.now() - came) / 1000 });
  }
}

function showConnection(text, live) {
  byId('connection').textContent = text;
  byId('connection').classList.toggle('live', live);
}

function showText(id, text) {
  byId(id).textContent = text;
  byId(id).hidden = !text;
}

// The maximum longer side of an image on this page, px.
function longestSide() {
  return Math.ceil(Math.max(byId('stage').clientWidth, tallest()) * devicePixelRatio);
}

function tallest() {
  return innerHeight * 0.66;
}

// State

function showStatus(status) {
  document.title = `${status.title} – rock_seg view`;
  byId('title').textContent = status.title;
  byId('line').textContent = status.line;
  showText('problem', status.problem);
  byId('play').textContent = status.playing ? 'Pause' : 'Play';
  byId('scale').hidden = !status.measurable;
  byId('record').textContent = status.recording ? 'Stop' : 'Record';
  byId('record').classList.toggle('on', Boolean(status.recording));
  if (status.recording) {
    showText('recording', `Recording to ${status.recording}`);
  } else if (!byId('recording').hidden) {
    showText('recording', byId('recording').textContent.replace('Recording to', 'Recorded'));
  }
  if (!layers) makeLayers(status.layers.filter((name) => name !== 'image'));
  showControls(status.controls);
}

function makeLayers(names) {
  layers = Object.fromEntries(names.map((name) => [name, name === 'overlay']));
  byId('layers').replaceChildren(...names.map((name) => {
    const box = element('input', { type: 'checkbox', id: `layer-${name}`, checked: layers[name] });
    box.onchange = () => {
      layers[name] = box.checked;
      sendLayers();
    };
    return element('label', {}, box, name[0].toUpperCase() + name.slice(1));
  }));
}

function sendLayers() {
  const wanted = Object.keys(layers).filter((name) => layers[name]);
  send({ layers: layers.overlay ? wanted : ['image', ...wanted] });
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// The image

function showFrame(link, isNew) {
  byId('waiting').hidden = true;
  draw();
  showTable();
  const now = performance.now();
  arrivals = [...arrivals.filter((time) => now - time < 3000), ...(isNew ? [now] : [])];
  const seconds = (now - arrivals[0]) / 1000;
  const rate = arrivals.length > 1 ? `, ${((arrivals.length - 1) / seconds).toFixed(1)} images/s` : '';
  byId('name').textContent = `${frame.image}${scaleText(frame.scale)}`;
  byId('link').textContent = `${link.side} px, JPEG quality ${link.quality}${rate}`;
}

// The image or overlay is at the bottom. The mask shows only rock, confidence is drawn in colours.
function draw() {
  const fit = Math.min(byId('stage').clientWidth / frame.width, tallest() / frame.height);
  canvas.style.width = `${frame.width * fit}px`;
  canvas.style.height = `${frame.height * fit}px`;
  canvas.width = Math.round(frame.width * fit * devicePixelRatio);
  canvas.height = Math.round(frame.height * fit * devicePixelRatio);
  const context = canvas.getContext('2d');
  byId('legend').hidden = !frame.layers.includes('confidence');
  frame.layers.forEach((name, number) => {
    context.globalCompositeOperation = name === 'mask' && number ? 'multiply' : 'source-over';
    context.globalAlpha = name === 'confidence' && number ? 0.6 : 1;
    context.drawImage(frame.decoded[number], 0, 0, canvas.width, canvas.height);
  });
  context.globalCompositeOperation = 'source-over';
  context.globalAlpha = 1;
  const rock = selectedRock();
  if (rock) drawOutline(context, rock);
  const scale = canvas.width / frame.width;
  for (const [x, y] of marks || []) drawMark(context, x * scale, y * scale);
}

function drawOutline(context, rock) {
  const scale = canvas.width / frame.width;
  context.beginPath();
  rock.polygon.forEach(([x, y]) => context.lineTo((x + 0.5) * scale, (y + 0.5) * scale));
  context.closePath();
  for (const [width, style] of [[5, '#000'], [2.5, '#fff']]) {
    context.lineWidth = width * devicePixelRatio;
    context.strokeStyle = style;
    context.stroke();
  }
}

function drawMark(context, x, y) {
  const arm = 9 * devicePixelRatio;
  context.beginPath();
  context.moveTo(x - arm, y);
  context.lineTo(x + arm, y);
  context.moveTo(x, y - arm);
  context.lineTo(x, y + arm);
  context.lineWidth = 2 * devicePixelRatio;
  context.strokeStyle = '#f0f';
  context.stroke();
}

function selectedRock() {
  return frame && frame.rocks.find((rock) => rock.id === selected);
}

// The smallest rock whose polygon has the point; a tap next to a small rock counts too.
function rockAt(x, y, reach) {
  let best = null;
  let least = reach;
  for (const rock of frame.rocks) { // largest first
    if (inside(rock.polygon, x, y)) {
      best = rock;
      least = 0;
    } else if (least > 0) {
      const [left, top, width, height] = rock.bbox;
      const away = Math.hypot(
        Math.max(left - x, 0, x - left - width), Math.max(top - y, 0, y - top - height));
      if (away < least) [best, least] = [rock, away];
    }
  }
  return best;
}

function inside(polygon, x, y) {
  let within = false;
  let [x1, y1] = polygon[polygon.length - 1];
  for (const [x2, y2] of polygon) {
    if (y1 > y !== y2 > y && x < (x2 - x1) * (y - y1) / (y2 - y1) + x1) within = !within;
    [x1, y1] = [x2, y2];
  }
  return within;
}

canvas.onclick = (event) => {
  if (!frame) return;
  const scale = frame.width / canvas.clientWidth;
  const [x, y] = [event.offsetX * scale, event.offsetY * scale];
  if (marks) return mark(x, y);
  const rock = rockAt(x, y, 10 * scale);
  select(rock ? rock.id : null);
};

// The scale: two points and their distance

function measure(on) {
  marks = on ? [] : null;
  byId('scale').classList.toggle('on', on);
  showText('hint', on ? 'Click two points whose distance you know, such as the ends of a ruler.' : '');
  if (frame) draw();
}

function mark(x, y) {
  marks.push([x, y]);
  draw();
  if (marks.length < 2) return;
  const points = marks.flat();
  const mm = prompt('Distance between the two points, mm');
  measure(false);
  if (mm) send({ scale: [...points, Number(mm.replace(',', '.'))] });
}

function scaleText(scale) {
  if (!scale) return '';
  if (scale.problem) return `, ${scale.problem}`;
  return `, 1 px = ${Number(scale.mm_per_px.toPrecision(3))} mm`;
}

// Rocks

function select(id) {
  selected = id;
  send({ select: id });
  if (frame) {
    draw();
    showTable();
  }
  showRock();
}

function showTable() {
  const [body] = byId('table').tBodies;
  const rocks = frame.rocks;
  byId('table').classList.toggle('metres', rocks.some(isMetric));
  byId('count').textContent = rocks.length;
  while (body.rows.length > rocks.length) body.deleteRow(-1);
  while (body.rows.length < rocks.length) makeRow(body);
  rocks.forEach((rock, number) => {
    const row = body.rows[number];
    row.dataset.id = rock.id;
    row.classList.toggle('selected', rock.id === selected);
    [rock.id, rock.area, diameter(rock), rock.score.toFixed(2)].forEach((text, column) => {
      row.cells[column].textContent = text;
    });
  });
}

function makeRow(body) {
  const row = body.insertRow();
  row.append(...Array.from({ length: 4 }, () => element('td', {})));
  row.cells[2].className = 'metric';
  row.tabIndex = 0;
  row.onclick = () => select(Number(row.dataset.id) === selected ? null : Number(row.dataset.id));
  row.onkeydown = (event) => {
    if (event.key === 'Enter') row.onclick();
  };
}

function isMetric(rock) {
  return Number.isFinite(rock.diameter_mm);
}

// Metres if they are known, otherwise pixels.
function diameter(rock) {
  return isMetric(rock) ? length(rock.diameter_mm) : `${rock.diameter.toFixed(0)} px`;
}

function length(mm) {
  if (mm < 100) return `${mm.toFixed(1)} mm`;
  return mm < 1000 ? `${(mm / 10).toFixed(1)} cm` : `${(mm / 1000).toFixed(2)} m`;
}

function showRock(track) {
  const rock = selectedRock();
  const none = selected === null;
  byId('deselect').hidden = none;
  const points = track && track.id === selected ? track.points : [];
  byId('rock').querySelector('figure').hidden = points.length < 2;
  byId('rock-title').textContent = none
    ? 'Click a rock to see its size' : `Rock ${selected}${rock ? '' : ', not in the image'}`;
  byId('rock-facts').replaceChildren(...Object.entries(rock ? facts(rock) : {}).map(
    ([name, text]) => element('div', {}, element('dt', {}, name), element('dd', {}, text))));
  if (points.length > 1) showHistory(points);
}

function facts(rock) {
  const [x, y, width, height] = rock.bbox;
  const { long_axis_mm: long, short_axis_mm: short } = rock;
  return {
    Area: `${rock.area} px`,
    Diameter: diameter(rock),
    ...(Number.isFinite(short) && { Axes: `${length(long)} × ${length(short)}` }),
    Score: rock.score.toFixed(2),
    'Bounding box': `${width} × ${height} px at ${x}, ${y}`,
  };
}

function showHistory(points) {
  const known = points.every((point) => point[2] !== null);
  byId('history-title').textContent = known ? 'Diameter over time' : 'Area over time';
  const values = points.map((point) => (known ? point[2] / 10 : point[1]));
  const seconds = points[points.length - 1][0] - points[0][0];
  const unit = known ? 'cm' : 'px';
  byId('history-range').textContent = `${points.length} images, ${seconds.toFixed(1)} s`;
  plot(byId('history-plot'), values, unit, false);
}

// Plots

function showSamples(added) {
  samples = [...samples, ...added].slice(-MAX_SAMPLES);
  const latencies = samples.map(([latency]) => latency);
  const dropped = samples.map(([, count], n) => (n ? Math.max(0, count - samples[n - 1][1]) : 0));
  byId('latency').textContent = `${latencies[latencies.length - 1].toFixed(0)} ms`;
  byId('dropped').textContent = samples[samples.length - 1][1];
  plot(byId('latency-plot'), latencies, 'ms', true);
  plot(byId('dropped-plot'), dropped, '', true);
}

// Draws a line, labelled with its minimum and maximum.
function plot(target, values, unit, fromZero) {
  const ratio = devicePixelRatio;
  const width = target.width = target.clientWidth * ratio;
  const height = target.height = target.clientHeight * ratio;
  if (!values.length || !width) return;
  const context = target.getContext('2d');
  const style = getComputedStyle(document.body);
  let low = fromZero ? 0 : Math.min(...values);
  let high = Math.max(...values, fromZero ? 1 : low);
  if (high === low) [low, high] = [low * 0.9, high * 1.1 || 1];
  const margin = 8 * ratio;
  const place = (value) => height - margin - (value - low) / (high - low) * (height - 2 * margin);
  context.font = `${11 * ratio}px system-ui, sans-serif`;
  const texts = [high, low].map((value) => `${Number(value.toPrecision(3))} ${unit}`);
  const left = Math.max(...texts.map((text) => context.measureText(text).width)) + 8 * ratio;
  context.fillStyle = style.getPropertyValue('--soft');
  context.strokeStyle = style.getPropertyValue('--line');
  context.textBaseline = 'middle';
  [high, low].forEach((value, number) => {
    context.fillText(texts[number], 0, place(value));
    context.beginPath();
    context.moveTo(left, place(value));
    context.lineTo(width, place(value));
    context.stroke();
  });
  const across = (number) => left + 2 * ratio
    + number / Math.max(values.length - 1, 1) * (width - left - 6 * ratio);
  context.strokeStyle = context.fillStyle = style.getPropertyValue('--accent');
  context.lineWidth = 1.5 * ratio;
  context.beginPath();
  values.forEach((value, number) => context.lineTo(across(number), place(value)));
  context.stroke();
  context.beginPath();
  context.arc(across(values.length - 1), place(values[values.length - 1]), 3 * ratio, 0, 7);
  context.fill();
}

// Settings. While one change is pending, only the newest value of each setting is queued.

const waiting = new Map();
let asked = false;
let controls = [];

function showControls(values) {
  controls = values;
  const names = values.map((control) => control.name).join();
  const parent = byId('controls');
  if (parent.dataset.names !== names) {
    parent.dataset.names = names;
    parent.replaceChildren(...values.map(makeControl));
  }
  for (const control of values) {
    if (!waiting.has(control.name)) setControl(control);
  }
}

function setControl({ name, value }) {
  for (const input of document.querySelectorAll(`[data-name="${name}"]`)) {
    if (input.type === 'checkbox') input.checked = value;
    else if (input !== document.activeElement || input.type === 'range' || !asked) {
      input.value = value;
    }
  }
}

function makeControl(control) {
  const own = (type) => {
    const input = element('input', { type });
    input.dataset.name = control.name;
    input.setAttribute('aria-label', control.label);
    return input;
  };
  if (control.kind === 'bool') {
    const box = own('checkbox');
    box.onchange = () => change(control.name, box.checked);
    return element('label', { className: 'switch' }, box, control.label);
  }
  const slider = Object.assign(own('range'), {
    min: control.low, max: control.end, step: control.step,
  });
  const number = Object.assign(own('number'), { step: 'any' });
  slider.oninput = () => {
    number.value = slider.value;
    change(control.name, Number(slider.value));
  };
  number.onchange = () => change(control.name, Number(number.value));
  const label = element('span', {}, control.label);
  return element('div', { className: 'control' }, label, slider, number);
}

function change(name, value) {
  waiting.set(name, value);
  if (!asked) sendChange();
}

function sendChange() {
  const [name, value] = waiting.entries().next().value;
  waiting.delete(name);
  asked = true;
  send({ set: name, value });
}

// Handles a reply. Only changes of settings wait for one.
function answered(rejected) {
  showText('rejected', rejected);
  if (!asked) return;
  asked = false;
  if (waiting.size) sendChange();
  else controls.forEach(setControl);
}

// Commands

function command(name) {
  send({ command: name });
}

byId('play').onclick = () => command(byId('play').textContent.toLowerCase());
byId('step').onclick = () => command('step');
byId('record').onclick = () => command(byId('record').textContent.toLowerCase());
byId('scale').onclick = () => measure(!marks);
byId('deselect').onclick = () => select(null);

byId('snapshot').onclick = async () => {
  const response = await fetch('snapshot');
  if (!response.ok) return showText('problem', await response.text());
  const { name, record, overlay } = await response.json();
  const bytes = Uint8Array.from(atob(overlay), (character) => character.charCodeAt(0));
  download(`${name}_overlay.jpg`, new Blob([bytes], { type: 'image/jpeg' }));
  download(`${name}.json`, new Blob([JSON.stringify(record)], { type: 'application/json' }));
};

function download(name, blob) {
  const url = URL.createObjectURL(blob);
  element('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

addEventListener('resize', () => {
  send({ side: longestSide() });
  if (frame) draw();
});
showRock();
connect();
