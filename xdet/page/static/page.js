// xdet page: pictures in, boxes drawn, a threshold that filters them. Names come from strangers' files: text only, never markup.

const element = (id) => document.getElementById(id);
const [view, video, slider] = [element("view"), element("video"), element("threshold")];
const COLOURS = ["#e6194b", "#0a7d32", "#1f5fd6", "#b3570a", "#8a1fb3", "#0a7f86", "#c2188f", "#5c6b00"];

let model = null;
let worker = null;
let shown = null; // {bitmap, boxes, name}
let stream = null; // the camera's, while it runs
let asked = 0; // the request whose answer is to be shown
const waiting = new Map(); // id -> what to do with the answer

// ---- what is said

function say(text, { problem = false } = {}) {
  element("status").textContent = text;
  element("status").classList.toggle("problem", problem);
}

// ---- what is shown

function above() {
  return shown.boxes.filter(({ score }) => score > Math.fround(Number(slider.value)));
}

function draw() {
  element("threshold-value").textContent = Number(slider.value).toFixed(2);
  if (!shown) return;
  const { bitmap } = shown;
  const boxes = above();
  [view.width, view.height, view.hidden, element("hint").hidden] = [bitmap.width, bitmap.height, false, true];
  element("stage").classList.add("full");
  const drawing = view.getContext("2d");
  drawing.drawImage(bitmap, 0, 0);
  const unit = Math.max(1, bitmap.width / Math.max(1, view.clientWidth)); // picture pixels in one of the screen
  drawing.font = `600 ${14 * unit}px system-ui, sans-serif`;
  drawing.textBaseline = "top";
  for (const found of [...boxes].reverse()) drawBox(drawing, found, unit);
  const labels = [];
  for (const found of boxes) labels.push(drawLabel(drawing, found, unit, labels));
  list(boxes);
  const words = boxes.length === 1 ? "1 box" : `${boxes.length} boxes`;
  view.setAttribute("aria-label", `${shown.name}: ${words}`);
  if (!stream) say(boxes.length ? `${shown.name}: ${words}` : `${shown.name}: nothing found above this score`);
}

const colourOf = ({ classId }) => COLOURS[classId % COLOURS.length];
const nameOf = ({ classId }) => model.class_names[classId] ?? `class ${classId}`;

function corners({ box }) {
  const { width, height } = shown.bitmap;
  return [box[0] * width, box[1] * height, box[2] * width, box[3] * height];
}

function drawBox(drawing, found, unit) {
  const [x1, y1, x2, y2] = corners(found);
  [drawing.strokeStyle, drawing.lineWidth] = [colourOf(found), 3 * unit];
  drawing.strokeRect(x1, y1, x2 - x1, y2 - y1);
}

/** Name and score on the box's upper edge, or further down where another label has that place; gives its own place. */
function drawLabel(drawing, found, unit, taken) {
  const [x1, y1] = corners(found);
  const label = `${nameOf(found)} ${found.score.toFixed(2)}`;
  const [width, height] = [drawing.measureText(label).width + 8 * unit, 20 * unit];
  const left = Math.max(0, Math.min(x1, view.width - width));
  const covers = (top) => taken.some((t) => left < t.right && t.left < left + width && top < t.bottom && t.top < top + height);
  const first = y1 >= height ? y1 - height : y1;
  let top = first;
  while (covers(top) && top + 2 * height <= view.height) top += height;
  if (covers(top)) top = first;
  drawing.fillStyle = colourOf(found);
  drawing.fillRect(left, top, width, height);
  drawing.fillStyle = "#ffffff";
  drawing.fillText(label, left + 4 * unit, top + 3 * unit);
  return { left, top, right: left + width, bottom: top + height };
}

function list(boxes) {
  const rows = boxes.map((found) => {
    const row = document.createElement("tr");
    [row.dataset.anchor, row.dataset.score] = [found.anchor, found.score];
    const cells = [nameOf(found), found.score.toFixed(2), ...corners(found).map((value) => value.toFixed(1))];
    for (const [i, text] of cells.entries()) {
      const cell = row.insertCell();
      cell.textContent = text;
      if (i) cell.className = "number";
    }
    return row;
  });
  element("boxes").hidden = rows.length === 0;
  element("boxes").tBodies[0].replaceChildren(...rows);
}

// ---- what is asked of the detector

function ask(message, transfer = []) {
  const id = ++asked;
  return new Promise((resolve) => {
    waiting.set(id, resolve);
    worker.postMessage({ ...message, id }, transfer);
  });
}

function answered({ data }) {
  waiting.get(data.id)?.(data);
  waiting.delete(data.id);
}

async function show(picture, name) {
  stopCamera();
  say(`${name} …`);
  const answer = await ask({ op: "detect", picture });
  if (stream || answer.id !== asked) return; // a later picture, or the camera, has taken its place
  if (answer.problem) return say(`${name} ${answer.problem}`, { problem: true });
  take(answer, name);
}

function take({ bitmap, boxes, times }, name) {
  shown?.bitmap.close();
  shown = { bitmap, boxes, name };
  const whole = (ms) => `${Math.round(ms)} ms`;
  element("times").textContent =
    `reading ${whole(times.decode)}, resizing ${whole(times.resize)}, network ${whole(times.network)}`;
  draw();
  if (document.documentElement.dataset.firstBoxes === undefined) {
    document.documentElement.dataset.firstBoxes = performance.now().toFixed(0);
  }
}

// ---- the camera

function stopCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  video.srcObject = null;
  element("camera").setAttribute("aria-pressed", "false");
}

async function startCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    const why = { NotAllowedError: "it was not allowed", NotFoundError: "there is none" }[error.name];
    return say(`The camera cannot be used: ${why ?? "this page must be on https or localhost"}.`, { problem: true });
  }
  element("camera").setAttribute("aria-pressed", "true");
  say("Camera");
  video.srcObject = stream;
  await video.play();
  const mine = stream;
  while (stream === mine) {
    const bitmap = await createImageBitmap(video);
    const answer = await ask({ op: "detect", picture: bitmap }, [bitmap]);
    if (stream === mine && !answer.problem) take(answer, "camera");
  }
}

// ---- the beginning

// The smallest module with a vector in it: a function that gives i8x16.splat of 0.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11];

function missing() {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(new Uint8Array(SIMD))) {
    return "This browser has no WebAssembly SIMD, which the detector needs: use one from 2023 or later.";
  }
  if (typeof OffscreenCanvas !== "function") {
    return "This browser is too old for this page: use one from 2023 or later.";
  }
  return null;
}

async function start() {
  const lacking = missing();
  if (lacking) return say(lacking, { problem: true });
  const answer = await fetch("page.json").catch(() => null);
  if (!answer?.ok) return say("This page is not whole: page.json is missing beside it.", { problem: true });
  model = await answer.json();
  document.title = element("title").textContent = model.title;
  element("about").textContent = `${model.about} Made with xdet; runs on ONNX Runtime Web.`;
  [slider.min, slider.value] = [model.thresholds.lowest, model.thresholds.score];
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = answered;
  worker.onerror = () => say("The detector cannot be started: worker.js is missing or not whole.", { problem: true });
  for (const sample of model.samples) addSample(sample);
  const opened = await ask({ op: "open", model });
  if (opened.problem) return say(opened.problem, { problem: true });
  say("Ready: choose a picture, drop one here, or use the camera.");
  listen();
  document.documentElement.dataset.ready = "";
  if (model.samples.length) await showSample(model.samples[0]);
  navigator.serviceWorker?.register("offline.js").catch(() => {}); // without it the page needs its server each time
}

function addSample(name) {
  const button = document.createElement("button");
  [button.type, button.textContent, button.disabled] = ["button", `Try ${name}`, true];
  button.addEventListener("click", () => showSample(name));
  element("samples").append(button);
}

async function showSample(name) {
  const answer = await fetch(`samples/${encodeURIComponent(name)}`).catch(() => null);
  if (!answer?.ok) return say(`${name} cannot be loaded: it is missing beside this page.`, { problem: true });
  await show(await answer.blob(), name);
}

function listen() {
  for (const button of document.querySelectorAll("button")) button.disabled = false;
  slider.addEventListener("input", draw);
  window.addEventListener("resize", draw);
  element("file").addEventListener("change", ({ target }) => {
    if (target.files.length) show(target.files[0], target.files[0].name);
    target.value = "";
  });
  element("camera").addEventListener("click", () => (stream ? stopCamera() : startCamera()));
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      element("stage").classList.toggle("over", kind === "dragenter" || kind === "dragover");
      const file = kind === "drop" ? event.dataTransfer.files[0] : null;
      if (file) show(file, file.name);
    });
  }
}

draw();
start();
