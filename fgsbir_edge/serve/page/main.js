// The page: a board, the photos that the drawing finds, and what becomes of a tap on one.

import { call, takeTokenFromAddress, useToken } from "./api.js";
import { Board } from "./board.js";
import { Ideas } from "./ideas.js";
import { Idle } from "./idle.js";
import { People } from "./people.js";
import { Refresher } from "./refresh.js";
import { Results, short } from "./results.js";

const HITS = 24;
const QUIET = 900; // ms without a new answer before it is read out

const byId = (id) => document.getElementById(id);
let chosen = null; // the photo that was meant by the drawing as it is now
let news = 0;

takeTokenFromAddress();
const results = new Results(byId("found"), (hit) => choose(hit));
const refresher = new Refresher(ask, showFound, tell, (fresh) => { byId("found").dataset.fresh = fresh; });
const board = new Board(byId("board"), byId("cursor"), drawn);
const ideas = new Ideas(byId("ideas"), byId("ideas-list"));
const people = new People(guarded, () => { tell(null); look(); });

function sketch() {
  return board.strokes.map((stroke) => stroke.map(([x, y]) => [x, y]));
}
function question() {
  return { strokes: sketch(), k: HITS, category: byId("category").value || null };
}
function ask() {
  return call("POST", "/search", { ...question(), person: people.person });
}

function drawn(underWay) {
  byId("hint").hidden = !board.empty;
  byId("undo").disabled = !board.canUndo;
  byId("redo").disabled = !board.canRedo;
  byId("clear").disabled = byId("save").disabled = board.empty;
  if (chosen !== null || !underWay) tell(null);
  chosen = null;
  look();
}
function look() {
  if (board.empty) {
    refresher.drop();
    results.clear();
    byId("invitation").hidden = false;
    ideas.show(true);
    byId("found-title").textContent = "Photos";
  } else {
    refresher.changed();
  }
}

function showFound(found) {
  if (board.empty) return;
  byId("invitation").hidden = true;
  ideas.show(false);
  results.show(found.hits, chosen);
  const doubt = found.known === false ? "; yours may not be among them" : "";
  byId("found-title").textContent = `The nearest of ${found.photos} photos${doubt}`;
  clearTimeout(news);
  const first = found.hits.slice(0, 3).map((hit) => short(hit.name)).join(", ");
  news = setTimeout(() => { byId("news").textContent = `Nearest: ${first}${doubt}`; }, QUIET);
}

// A tap: this is the photo that was meant.
async function choose(hit) {
  if (byId("finding").ariaBusy === "true" || board.empty) return;
  const strokes = sketch();
  byId("finding").ariaBusy = "true";
  try {
    const person = await people.someone();
    refresher.drop();
    const answer = await guarded(() => call("POST", "/feedback", { ...question(), strokes, person, photo: hit.id }));
    refresher.drop();
    chosen = hit.id;
    showFound(answer);
    const [{ before, after }] = answer.ranks;
    tell({ message: learned(short(hit.name), before, after, answer) }, true);
  } catch (fault) {
    tell(fault);
  } finally {
    byId("finding").ariaBusy = "false";
  }
}
function learned(name, before, after, answer) {
  if (answer.pairs === 1) return `You meant ${name}, which comes ${place(after)}. Show one more, and learning begins: clear, draw another, tap it.`;
  const places = `Before, it came ${place(before)}; now it comes ${place(after)}.`;
  return answer.learned ? `You meant ${name}. ${places}` : `You meant ${name}: kept, but nothing has changed. ${places}`;
}
function place(rank) {
  return rank === 1 ? "first" : `in place ${rank}`;
}

function tell(what, canUnlearn = false) {
  byId("told").classList.toggle("fault", what instanceof Error);
  byId("told-text").textContent = what ? what.message : "";
  byId("unlearn").hidden = !canUnlearn;
}

// Does what writes; where the server wants a token, it is asked for and the same is done again.
async function guarded(write) {
  try {
    return await write();
  } catch (fault) {
    if (fault.status !== 401 || !(await askForToken())) throw fault;
    return write();
  }
}
function askForToken() {
  const dialog = byId("key");
  return new Promise((answer) => {
    byId("key-text").value = "";
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      useToken(byId("key-text").value.trim());
      dialog.close("given");
    };
    byId("key-close").onclick = () => dialog.close("none");
    dialog.returnValue = "none";
    dialog.addEventListener("close", () => answer(dialog.returnValue === "given"), { once: true });
    dialog.showModal();
  });
}

async function unlearn() {
  try {
    await guarded(() => call("POST", "/people/undo", { person: people.person }));
    chosen = null;
    tell({ message: "Unlearned." });
    look();
  } catch (fault) {
    tell(fault);
  }
}

function startAnew() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  people.reset();
  board.reset();
  byId("category").value = "";
  take("pen");
  tell(null);
  byId("news").textContent = "";
  ideas.renew(() => board.empty);
  scrollTo(0, 0);
  byId("board").focus({ focusVisible: false });
}

function take(tool) {
  board.lift();
  board.tool = tool;
  for (const name of ["pen", "eraser"]) byId(name).setAttribute("aria-pressed", String(name === tool));
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([board.svg()], { type: "image/svg+xml" }));
  link.download = "drawing.svg";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const ACTS = {
  pen: () => take("pen"), eraser: () => take("eraser"), undo: () => board.undo(), redo: () => board.redo(), clear: () => board.clear(),
  save, unlearn, anew: startAnew,
};
for (const [id, act] of Object.entries(ACTS)) byId(id).addEventListener("click", act);
byId("category").addEventListener("change", look);

addEventListener("keydown", (event) => {
  const control = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
  if (document.querySelector("dialog[open]") || event.target.matches("input, select")) return;
  if (control && key === "z") event.shiftKey ? board.redo() : board.undo();
  else if (control && key === "y") board.redo();
  else if (event.target === byId("board") && !control && key === "e") take("eraser");
  else if (event.target === byId("board") && !control && key === "p") take("pen");
  else if (event.target === byId("board") && key === "delete") board.clear();
  else return;
  event.preventDefault();
});

async function begin() {
  try {
    const settings = await call("GET", "/settings");
    const names = settings.categories.length > 1 ? settings.categories : [];
    byId("category").replaceChildren(new Option("all", ""), ...names.map((name) => new Option(name)));
    byId("category-label").hidden = names.length === 0;
    byId("people-kept").textContent = settings.keeps
      ? "What you show is kept in the gallery until you are forgotten."
      : "What you show is kept until you are forgotten, or the server stops.";
    const inUse = () => !board.empty || board.canUndo || people.person !== null;
    new Idle(byId("idle"), byId("idle-left"), settings.idle_seconds, inUse, startAnew);
    document.body.dataset.ready = "true";
    ideas.renew(() => board.empty);
  } catch (fault) {
    tell(fault);
    setTimeout(begin, 3000);
  }
}
begin();
