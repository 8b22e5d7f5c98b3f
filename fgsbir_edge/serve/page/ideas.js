// What could be drawn: some photos of the gallery, shown while the board is empty. Nothing depends on them, so faults are not told.

import { call } from "./api.js";
import { short } from "./results.js";

const PAGE = 200, SHOWN = 12, SIZE = 256; // photos of one listing, of it shown, and pixels of each

export class Ideas {
  constructor(box, list) {
    Object.assign(this, { box, list });
  }
  show(wanted) { this.box.hidden = !wanted || !this.list.childElementCount; }

  // Others each time, and spread over a listing, since neighbours there are often of one kind.
  async renew(wanted) {
    const photos = await some().catch(() => []);
    const step = Math.max(1, photos.length / SHOWN), start = Math.random() * step;
    const chosen = Array.from({ length: Math.min(SHOWN, photos.length) }, (_, place) => photos[Math.floor(start + place * step)]);
    this.list.replaceChildren(...chosen.filter(Boolean).map(picture));
    this.show(wanted());
  }
}

async function some() {
  const first = await call("GET", `/photos?limit=${PAGE}`);
  if (first.next === null) return first.photos;
  const later = await call("GET", `/photos?limit=${PAGE}&after=${Math.floor(Math.random() * first.total)}`);
  return later.photos.length < SHOWN ? first.photos : later.photos;
}

function picture({ id, name }) {
  const row = document.createElement("li"), image = document.createElement("img");
  image.alt = short(name);
  image.width = image.height = SIZE;
  image.draggable = false;
  image.src = `/photos/${id}/thumbnail`;
  row.append(image);
  return row;
}
