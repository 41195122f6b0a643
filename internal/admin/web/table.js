// The table of members: the worst first, then the heaviest, unless somebody sorts it. Rows stay where they are while somebody is at them.

import { el, tint, put, percent, count, brief, rate, bytes, lasted, byID } from "./words.js";

const FIRST = 14;         // rows that are shown at first
const RESORT = 5000;      // milliseconds

const $ = (id) => document.getElementById(id);

// standing tells how a member is: a level and a word, and what more there is to say.
export function standing(m) {
  if (m.health === "critical" && m.note !== "kept") return { level: "alarm", word: "critical", more: "out of the ring" };
  if (m.note === "kept") return { level: "alarm", word: "critical", more: "kept in the ring" };
  if (m.note === "damped") return { level: "worry", word: "damped", more: "out of the ring for a while" };
  if (m.state === "draining") return m.told && m.sessions === 0 ? { level: "busy", word: "drained", more: "empty; stop or restart it" }
    : { level: "busy", word: "draining", more: "out of the ring" };
  if (m.state === "joining") return { level: "busy", word: "joining", more: "out of the ring" };
  if (m.note === "avoided") return { level: "worry", word: "avoided", more: "does not answer this edge" };
  if (m.note === "silent") return { level: "worry", word: "silent", more: "tells nothing" };
  if (m.out) return { level: "worry", word: "out", more: m.out };
  if (m.misplaced > 0) return { level: "busy", word: "moving", more: `${count(m.misplaced)} to go home` };
  if (m.health === "warning") return { level: "worry", word: "warning", more: "" };
  return { level: "calm", word: "serving", more: m.queue > 0 ? `${bytes(m.queue)} wait for slow clients` : "" };
}

const RANK = { alarm: 3, worry: 2, busy: 1, calm: 0 };

const ORDERS = {
  id: (a, b) => byID(a.id, b.id),
  state: (a, b) => RANK[b.standing.level] - RANK[a.standing.level] || b.sessions - a.sessions || byID(a.id, b.id),
  share: (a, b) => b.share - a.share || byID(a.id, b.id),
  sessions: (a, b) => b.sessions - a.sessions || byID(a.id, b.id),
  load: (a, b) => b.load - a.load || byID(a.id, b.id),
  pushes: (a, b) => b.pushes - a.pushes || byID(a.id, b.id),
};

export class Table {
  #rows = new Map();     // by id: {node, cells}
  #order = [];           // ids as they stand
  #sort = "state";
  #reverse = false;
  #sorted = -Infinity;   // when
  #all = false;
  #act;
  #onPick;

  // act has {drain(id)}; mayDrain(id) tells whether the button is there.
  constructor(act, onPick) {
    this.#act = act;
    this.#onPick = onPick;
    document.querySelectorAll("[data-sort]").forEach((button) => button.addEventListener("click", () => this.#sortBy(button.dataset.sort)));
    $("all").addEventListener("click", () => { this.#all = !this.#all; this.draw(this.members, this.words); });
    $("rows").addEventListener("pointerover", (event) => this.#onPick(event.target.closest("tr")?.dataset.member ?? null));
    $("rows").addEventListener("pointerleave", () => this.#onPick(null));
    $("rows").addEventListener("focusin", (event) => this.#onPick(event.target.closest("tr")?.dataset.member ?? null));
    $("rows").addEventListener("focusout", () => this.#onPick(null));
  }

  #sortBy(key) {
    this.#reverse = this.#sort === key && !this.#reverse;
    this.#sort = key;
    this.#sorted = -Infinity;
    for (const button of document.querySelectorAll("[data-sort]")) {
      const down = this.#reverse ? "ascending" : "descending";
      button.closest("th").setAttribute("aria-sort", button.dataset.sort !== key ? "none" : key === "id" ? (this.#reverse ? "descending" : "ascending") : down);
    }
    this.draw(this.members, this.words);
  }

  draw(members, words) {
    this.members = members;
    this.words = words;
    const by = new Map(members.map((m) => [m.id, m]));
    const asSorted = this.#ids(members);
    const shown = this.#all ? asSorted : asSorted.slice(0, FIRST);
    for (const [id, row] of this.#rows) {
      if (!by.has(id) || !shown.includes(id)) { row.node.remove(); this.#rows.delete(id); }
    }
    shown.forEach((id, i) => {
      const row = this.#row(id);
      this.#fill(row, by.get(id));
      if ($("rows").children[i] !== row.node) $("rows").insertBefore(row.node, $("rows").children[i] ?? null);
    });
    const left = members.length - FIRST;
    $("all").hidden = left <= 0;
    put($("all"), this.#all ? `Show the first ${FIRST} only` : `Show all ${members.length} members`);
    $("none").hidden = words.note === "";
    put($("none"), words.note);
    document.querySelector("#members .scroll").hidden = members.length === 0;
  }

  // ids are those of members in the order of the table, which is kept while somebody is in it, and for some seconds.
  #ids(members) {
    const known = new Set(this.#order);
    const same = members.length === known.size && members.every((m) => known.has(m.id));
    const inUse = $("rows").matches(":hover, :focus-within");
    const now = performance.now();
    if (same && (inUse && this.#sorted !== -Infinity || now - this.#sorted < RESORT)) return this.#order;
    this.#sorted = now;
    this.#order = [...members].sort(ORDERS[this.#sort]).map((m) => m.id);
    if (this.#reverse) this.#order.reverse();
    return this.#order;
  }

  #row(id) {
    let row = this.#rows.get(id);
    if (row) return row;
    const cell = (name = "td", attributes = {}) => el(name, attributes);
    const c = {
      name: el("b"), addr: el("small"), state: el("span", { class: "state" }), more: el("small"), share: el("span"), weight: el("small", { class: "weight" }),
      sessions: el("span"), own: el("small"), bar: el("i"), times: el("span"), pushes: cell("td", { class: "number" }), do: cell(),
    };
    put(c.name, id);
    const node = tint(el("tr", { "data-member": id },
      el("th", { scope: "row" }, el("span", { class: "id" }, c.name, c.addr)),
      el("td", {}, c.state, c.more),
      el("td", { class: "number share" }, c.share, c.weight),
      el("td", { class: "number" }, c.sessions, c.own),
      el("td", { class: "load" }, el("span", { class: "weigh" }, el("span", { class: "bar" }, c.bar), c.times)),
      c.pushes,
      c.do), id);
    row = { node, c };
    this.#rows.set(id, row);
    return row;
  }

  #fill({ node, c }, m) {
    const s = m.standing;
    node.classList.toggle("out", Boolean(m.out));
    node.classList.toggle("heavy", m.heavy);
    put(c.addr, m.addr);
    put(c.weight, m.weight !== 1 ? `weight ${m.weight}` : "");
    put(c.state, s.word);
    if (c.state.dataset.level !== s.level) c.state.dataset.level = s.level;
    put(c.more, s.more || (m.up ? `up ${lasted(m.up)}` : ""));
    put(c.share, m.out ? "–" : percent(m.share));
    put(c.sessions, m.told ? count(m.sessions) : this.words.edge ? count(m.own) : "–");
    put(c.own, this.words.edge && m.told && m.own !== m.sessions ? ` ${brief(m.own)} here` : this.words.edge && !m.told ? " here" : "");
    const load = m.told && !m.out ? m.load : 0;
    const width = `${Math.min(100, load * 50).toFixed(0)}%`;
    if (c.bar.style.width !== width) c.bar.style.width = width;
    put(c.times, load > 0 ? `×${load.toFixed(2)}` : "");
    put(c.pushes, m.told ? rate(m.pushes) : "–");
    const may = this.#act.mayDrain(m);
    if (may && !c.do.firstChild) {
      const button = el("button", { type: "button", "aria-label": `Drain ${m.id}` }, "Drain");
      button.addEventListener("click", () => this.#act.drain(m.id));
      c.do.append(button);
    }
    if (!may) c.do.replaceChildren();
  }

  pick(id) {
    for (const [own, row] of this.#rows) row.node.classList.toggle("picked", own === id);
  }
}
