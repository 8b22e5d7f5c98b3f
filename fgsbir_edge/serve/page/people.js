// Who draws: nobody yet, a guest, or somebody whom the gallery knows; chosen, added and forgotten in a dialog.

import { call } from "./api.js";

const PAGE = 100; // people of one listing

export class People {
  constructor(guarded, onChange) {
    this.guarded = guarded; // runs a call that writes, and asks for the token where one is needed
    this.onChange = onChange;
    this.person = null;
    this.guest = false;
    this.dialog = byId("people");
    byId("person").addEventListener("click", () => this.open());
    byId("people-close").addEventListener("click", () => this.dialog.close());
    byId("people-more").addEventListener("click", () => this.more());
    byId("people-form").addEventListener("submit", (event) => { event.preventDefault(); this.add(); });
  }
  choose(person, guest = false) {
    if (this.guest && person !== this.person) this.forgetGuest();
    this.person = person;
    this.guest = guest;
    const name = guest ? "Guest" : person;
    byId("person-name").textContent = name ?? "Who draws?";
    byId("person").setAttribute("aria-label", name === null ? "Who draws?" : `Who draws: ${name}`);
    this.onChange();
  }
  // The one who draws; a guest where nobody was chosen.
  async someone() {
    if (this.person === null) {
      const made = await this.guarded(() => call("POST", "/people", { guest: true }));
      this.choose(made.person, true);
    }
    return this.person;
  }
  forgetGuest() {
    call("POST", "/people/forget", { person: this.person }).catch(() => {}); // the server does it later in any case
  }
  reset() {
    this.dialog.close();
    byId("confirm").close();
    if (this.person !== null) this.choose(null);
  }

  async open() {
    byId("people-fault").textContent = "";
    byId("people-new").value = "";
    byId("people-list").replaceChildren(this.row(null, "A guest", "forgotten when the page starts anew"));
    this.next = "";
    if (!this.dialog.open) this.dialog.showModal();
    await this.more();
  }
  async more() {
    await this.told(async () => {
      const page = await call("GET", `/people?limit=${PAGE}&after=${encodeURIComponent(this.next)}`);
      const rows = page.people.filter(({ guest }) => !guest).map(({ person, pairs }) => this.row(person, person, drawings(pairs)));
      byId("people-list").append(...rows);
      this.next = page.next;
      byId("people-more").hidden = page.next === null;
    });
  }
  row(person, name, note) {
    const row = document.createElement("li");
    row.className = "row";
    const who = document.createElement("button");
    who.type = "button";
    who.className = "who";
    who.textContent = `${name}, ${note}`;
    const already = person === this.person || (person === null && this.guest);
    who.setAttribute("aria-pressed", String(already));
    who.addEventListener("click", () => {
      if (!already) this.choose(person);
      this.dialog.close();
    });
    row.append(who);
    if (person !== null) {
      const forget = document.createElement("button");
      forget.type = "button";
      forget.textContent = "Forget";
      forget.setAttribute("aria-label", `Forget ${name}`);
      forget.addEventListener("click", () => this.forget(person));
      row.append(forget);
    }
    return row;
  }
  async add() {
    await this.told(async () => {
      const made = await this.guarded(() => call("POST", "/people", { person: byId("people-new").value.trim() }));
      this.choose(made.person);
      this.dialog.close();
    });
  }
  async forget(person) {
    byId("confirm-text").textContent = `Everything that ${person} has shown is deleted, and cannot be brought back.`;
    if (!(await asked())) return;
    await this.told(async () => {
      await this.guarded(() => call("POST", "/people/forget", { person }));
      if (person === this.person) this.choose(null);
      await this.open();
    });
  }
  async told(act) {
    try {
      await act();
    } catch (fault) {
      byId("people-fault").textContent = fault.message;
    }
  }
}

const drawings = (pairs) => (pairs === 1 ? "1 drawing shown" : `${pairs} drawings shown`);
const byId = (id) => document.getElementById(id);

// Whether the question in #confirm is answered with yes.
function asked() {
  const dialog = byId("confirm");
  return new Promise((answer) => {
    byId("confirm-yes").onclick = () => dialog.close("yes");
    byId("confirm-no").onclick = () => dialog.close("no");
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
    byId("confirm-no").focus();
  });
}
