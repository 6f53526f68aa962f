// The page of thinkedit studio. It talks to /api only; see thinkedit/studio/app.py.

const byId = (id) => document.getElementById(id);
const MODES = {
  while: "The thinker looks at each edit and words the next prompt.",
  before: "The thinker words the first prompt; one edit, no critique.",
  "before+while": "The thinker words the first prompt, then looks at each edit.",
  expert: "A general model says by itself when it is satisfied; no scores.",
};
const SELECTIONS = { last: "Last edit", best_predicted: "Thinker's best", best_judge: "Judge's best" };
const ENDS = {
  accepted: "The thinker is satisfied",
  repeated: "The thinker has no better prompt",
  turn_limit: "No turns are left",
  one_edit: "Done",
  stopped: "Stopped",
  thinker_unreadable: "The thinker can't be read",
  thinker_failed: "The thinker failed",
  editor_failed: "The editor failed",
};
const WORK = { editor: "Editing", thinker: "Thinking", judge: "Judging" };
const END_CHIPS = { accepted: "satisfied", repeated: "no better prompt" };

let setup = null;
let picture = null; // the chosen file
let run = null; // { id, cards, pictures, following }

// --- talking to the server ----------------------------------------------------------------

let asking = null; // one dialog, however many calls meet a 401

async function call(path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem("token");
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    const response = await fetch(`api${path}`, { ...options, headers });
    if (response.status !== 401) return response;
    asking ??= askForToken().finally(() => { asking = null; });
    await asking;
  }
}

function askForToken() {
  const dialog = byId("token-dialog");
  byId("token").value = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    sessionStorage.setItem("token", byId("token").value.trim());
    resolve();
  }, { once: true }));
}

async function fault(response) {
  try {
    return (await response.json()).detail;
  } catch {
    return `the server answered with status ${response.status}`;
  }
}

async function* messages(id, isWanted) {
  // A stream that ends early (a sleeping laptop, a long run) goes on where it was.
  let after = 0;
  let patience = 5;
  for (;;) {
    let text = "";
    try {
      const response = await call(`/runs/${id}/events?after=${after}`);
      if (!response.ok) throw new Error(await fault(response), { cause: "refused" });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (!isWanted()) return void reader.cancel();
        if (done) break;
        text += value;
        const lines = text.split("\n");
        text = lines.pop();
        for (const line of lines) {
          if (!line) continue;
          const message = JSON.parse(line);
          after += 1;
          patience = 5;
          yield message;
          if (["finished", "stopped", "failed"].includes(message.type)) return;
        }
      }
    } catch (error) {
      if (error.cause === "refused" || !patience) throw error;
    }
    if (!patience) throw new Error("the connection to the studio was lost");
    patience -= 1;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function fetched(path) {
  const response = await call(path);
  if (!response.ok) throw new Error(await fault(response));
  return URL.createObjectURL(await response.blob());
}

// --- the form -----------------------------------------------------------------------------

function say(problem) {
  byId("problem").textContent = problem ?? "";
  byId("problem").hidden = !problem;
}

function choose(file) {
  if (!file) return;
  if (!["image/png", "image/jpeg", "image/webp"].includes(file.type)) return say("Choose a PNG, JPEG or WebP file.");
  if (file.size > setup.max_bytes) {
    return say(`The file has ${(file.size / 2 ** 20).toFixed(1)} MiB; at most ${(setup.max_bytes / 2 ** 20).toFixed(0)} are taken.`);
  }
  say(null);
  picture = file;
  const preview = byId("preview");
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.onload = () => preview.classList.toggle("crisp", preview.naturalWidth < 200);
  preview.hidden = false;
  byId("hint").hidden = true;
  byId("drop").classList.add("full");
}

async function base64(file) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
  return url.slice(url.indexOf(",") + 1);
}

async function begin(event) {
  event.preventDefault();
  say(null);
  const instruction = byId("instruction").value.trim();
  if (!picture) return say("Choose a picture first.");
  if (!instruction) return say("Say what to change.");
  const number = (id) => (byId(id).value === "" ? null : Number(byId(id).value));
  const asked = { instruction, mode: byId("mode").value, select: byId("select").value, turns: number("turns"), seed: number("seed") };
  byId("edit").disabled = true;
  try {
    const body = JSON.stringify({ image: await base64(picture), ...asked });
    const response = await call("/runs", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    if (!response.ok) throw new Error(await fault(response));
    const { id } = await response.json();
    history.replaceState(null, "", `#${id}`);
    await watch(id);
  } catch (error) {
    say(String(error.message));
  } finally {
    byId("edit").disabled = false;
  }
}

// --- a run ----------------------------------------------------------------------------------

async function watch(id) {
  for (const url of run ? run.urls : []) URL.revokeObjectURL(url);
  const mine = { id, cards: new Map(), urls: new Set(), chosen: null, picked: false };
  run = mine;
  byId("turns-list").replaceChildren();
  for (const name of ["source", "shown"]) byId(name).removeAttribute("src");
  byId("shown-name").textContent = "Edit";
  byId("shown-marks").textContent = "";
  byId("downloads").hidden = true;
  byId("empty").hidden = true;
  byId("stage").hidden = false;
  byId("stop").hidden = false;
  byId("stop").disabled = false;
  state("Sending", "busy");
  try {
    for await (const message of messages(id, () => run === mine)) await happen(mine, message);
  } catch (error) {
    state(String(error.message), "bad");
  } finally {
    if (run === mine) byId("stop").hidden = true;
  }
}

async function happen(mine, message) {
  switch (message.type) {
    case "waiting":
      return state("Waiting for another run to end", "busy");
    case "started": {
      const [width, height] = message.size;
      byId("stage").style.setProperty("--shape", `${width} / ${height}`);
      byId("instruction").value ||= message.instruction;
      show(byId("source"), await picked(mine, message.file), width);
      mine.width = width;
      return;
    }
    case "working":
      return state(WORK[message.who], "busy");
    case "rewritten": {
      const item = card(mine, -1, "Before the first edit");
      item.querySelector(".look").remove();
      item.style.gridTemplateColumns = "minmax(0, 1fr)";
      item.querySelector(".prompt").textContent = message.critique.next_prompt ?? "the instruction as it is";
      return critique(item, message.critique);
    }
    case "edited":
    case "judged":
    case "critiqued":
      return edit(mine, message.index, message.edit);
    case "finished": {
      byId("downloads").hidden = false;
      if (message.chosen === null) return; // why is told next
      mine.chosen = message.chosen;
      const item = mine.cards.get(message.chosen).item;
      chip(item, "result");
      look(mine, message.chosen);
      const end = ENDS[message.stop] + (message.detail ? `: ${message.detail}` : "");
      return state(`${end}. Edit ${message.chosen} is the result.`, message.failed ? "bad" : "done");
    }
    case "stopped": // before there was anything to keep
      return state("Stopped", "done");
    case "failed":
      return state(message.detail, "bad");
  }
}

async function edit(mine, index, made) {
  const item = card(mine, index, `Edit ${index}`);
  const known = mine.cards.get(index);
  known.made = made;
  item.querySelector(".prompt").textContent = made.prompt;
  item.querySelector(".time").textContent = `${made.seconds.toFixed(1)} s`;
  const scores = item.querySelector(".scores");
  scores.replaceChildren();
  if (made.critique) critique(item, made.critique);
  if (made.verdict) meters(scores, made.verdict, "judge");
  const fault = item.querySelector(".fault");
  fault.textContent = made.judge_fault;
  fault.hidden = !made.judge_fault;
  if (!known.url) {
    known.url = await picked(mine, made.file);
    show(item.querySelector("img"), known.url, mine.width);
    item.querySelector("img").alt = `Edit ${index}`;
    item.querySelector(".look").addEventListener("click", () => { mine.picked = true; look(mine, index); });
    if (!mine.picked) look(mine, index);
  }
  if (item.classList.contains("shown")) look(mine, index);
}

function critique(item, said) {
  const end = END_CHIPS[said.end];
  if (end) chip(item, end);
  const again = said.faults.length ? `(asked ${said.faults.length + 1} times) ` : "";
  item.querySelector(".critique").textContent = again + said.reason;
  if (said.predicted) meters(item.querySelector(".scores"), said.predicted, "thinker");
}

function chip(item, text) {
  const one = item.querySelector(".chip");
  one.textContent = one.textContent ? `${one.textContent} · ${text}` : text;
  one.hidden = false;
}

function meters(into, scores, who) {
  for (const axis of ["semantic", "quality"]) {
    const row = document.createElement("div");
    row.className = `score ${axis}`;
    const name = document.createElement("span");
    name.textContent = `${who}: ${axis}`;
    const meter = document.createElement("meter");
    Object.assign(meter, { min: 0, max: 10, value: scores[axis] });
    meter.setAttribute("aria-label", `${who}: ${axis}`);
    const value = document.createElement("b");
    value.textContent = scores[axis].toFixed(1);
    row.append(name, meter, value);
    into.append(row);
  }
}

function card(mine, index, name) {
  if (!mine.cards.has(index)) {
    const item = byId("card").content.firstElementChild.cloneNode(true);
    item.querySelector(".name").textContent = name;
    byId("turns-list").append(item);
    mine.cards.set(index, { item });
  }
  return mine.cards.get(index).item;
}

function look(mine, index) {
  const { item, url, made } = mine.cards.get(index);
  for (const { item } of mine.cards.values()) item.classList.remove("shown");
  item.classList.add("shown");
  show(byId("shown"), url, mine.width);
  byId("shown-name").textContent = `Edit ${index}`;
  const scores = made.verdict ?? made.critique?.predicted;
  const who = made.verdict ? "judge" : "thinker";
  byId("shown-marks").textContent = scores ? `${who} ${scores.semantic.toFixed(1)} / ${scores.quality.toFixed(1)}` : "";
}

async function picked(mine, file) {
  const url = await fetched(`/runs/${mine.id}/files/${file}`);
  mine.urls.add(url);
  return url;
}

function show(image, url, width) {
  image.src = url;
  image.classList.toggle("crisp", width < 200); // small pictures stay crisp
}

function state(text, kind) {
  byId("status").textContent = text;
  byId("status").className = kind;
  byId("stage").classList.toggle("busy", kind === "busy");
}

async function download(file) {
  const path = file === "all.zip" ? `/runs/${run.id}/all.zip` : `/runs/${run.id}/files/${file}`;
  try {
    const url = await fetched(path);
    const link = Object.assign(document.createElement("a"), { href: url, download: `thinkedit-${file}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    state(String(error.message), "bad");
  }
}

// --- start ----------------------------------------------------------------------------------

function options(select, names, labels, chosen) {
  select.replaceChildren(...names.map((name) => new Option(labels(name), name, false, name === chosen)));
}

function listen() {
  const drop = byId("drop");
  byId("form").addEventListener("submit", begin);
  byId("file").addEventListener("change", (event) => choose(event.target.files[0]));
  drop.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") byId("file").click(); });
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
    });
  }
  drop.addEventListener("drop", (event) => choose(event.dataTransfer.files[0]));
  document.addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
  byId("mode").addEventListener("change", explain);
  byId("instruction").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
  });
  byId("stop").addEventListener("click", async () => {
    byId("stop").disabled = true;
    await call(`/runs/${run.id}/stop`, { method: "POST" });
  });
  for (const button of byId("downloads").children) button.addEventListener("click", () => download(button.dataset.file));
}

function explain() {
  const mode = byId("mode").value;
  byId("turns").disabled = mode === "before";
  const predicts = ["while", "before+while"].includes(mode);
  for (const option of byId("select").options) {
    option.disabled = (mode === "before" && option.value !== "last") || (option.value === "best_predicted" && !predicts);
  }
  if (byId("select").selectedOptions[0].disabled) byId("select").value = "last";
  const limit = predicts ? ` It is satisfied when both its scores reach ${setup.accept_at}.` : "";
  byId("about-mode").textContent = MODES[mode] + limit;
}

function who(name, value) {
  const bold = document.createElement("b");
  bold.textContent = value;
  return [`${name} `, bold];
}

async function start() {
  const response = await call("/setup");
  if (!response.ok) throw new Error(await fault(response));
  setup = await response.json();
  byId("who").replaceChildren(...who("editor", setup.editor), "  ·  ", ...who("thinker", setup.thinker));
  options(byId("mode"), setup.modes, (name) => name, setup.mode);
  options(byId("select"), setup.selections, (name) => SELECTIONS[name], setup.select);
  byId("turns").value = setup.turns;
  byId("turns").max = setup.max_turns;
  byId("seed").value = setup.seed;
  explain();
  listen();
  if (location.hash.length > 1) await watch(location.hash.slice(1)); // a page that was loaded again
}

start().catch((error) => say(String(error.message)));
