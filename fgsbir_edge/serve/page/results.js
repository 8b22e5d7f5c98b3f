// The photos found, as buttons in the order of their places. Buttons are kept from answer to answer, so that focus stays.

const SIZE = 256; // pixels of a picture

export class Results {
  constructor(list, onChoose) {
    this.list = list;
    this.onChoose = onChoose;
    this.rows = new Map();
  }
  show(hits, chosen = null) {
    const before = [...this.list.children];
    const rows = hits.map((hit) => this.row(hit, hit.id === chosen));
    for (const [id, row] of this.rows) if (!rows.includes(row)) { row.remove(); this.rows.delete(id); }
    const focused = document.activeElement;
    rows.forEach((row, place) => {
      if (this.list.children[place] !== row) this.list.insertBefore(row, this.list.children[place] ?? null);
      row.firstElementChild.classList.toggle("moved", before[place] !== row);
    });
    if (focused && this.list.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true });
  }
  clear() { this.rows.clear(); this.list.replaceChildren(); }

  row(hit, chosen) {
    let row = this.rows.get(hit.id);
    if (!row) {
      row = document.createElement("li");
      row.append(this.button(hit));
      this.rows.set(hit.id, row);
    }
    const button = row.firstElementChild;
    button.hit = hit;
    button.dataset.rank = hit.rank;
    button.setAttribute("aria-label", `${hit.rank}: ${short(hit.name)}${chosen ? ", the one you meant" : ""}`);
    button.setAttribute("aria-current", String(chosen));
    button.querySelector(".place").textContent = hit.rank;
    return row;
  }
  button(hit) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "photo";
    button.dataset.id = hit.id;
    const image = document.createElement("img");
    image.alt = "";
    image.width = image.height = SIZE;
    image.draggable = false;
    image.addEventListener("error", () => { image.src = `/photos/${hit.id}/thumbnail`; }, { once: true });
    image.src = `/photos/${hit.id}/image?side=${SIZE}`;
    const place = span("place"), name = span("name");
    name.textContent = short(hit.name);
    name.title = hit.name;
    button.append(image, place, name);
    button.addEventListener("click", () => this.onChoose(button.hit));
    return button;
  }
}

function span(kind) {
  const made = document.createElement("span");
  made.className = kind;
  return made;
}

// "chairs/oak.jpg" is "oak" to people.
export const short = (name) => name.slice(name.lastIndexOf("/") + 1).replace(/\.[^.]+$/, "");
