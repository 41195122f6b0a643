// The ring as a ring: an arc for each member, as long as its share of users; outside of it a bar, as high as its sessions are to what would
// be fair; inside, after a change, a thread in the colours of those whom the users came from.

import { svg, tint, put, percent, count, rate, some } from "./words.js";

const INNER = 124, OUTER = 148;             // of the arcs
const BASE = 152, FAIR = 180, MOST = 205;   // of the bars
const THREAD = [115, 120];
const LABELS = 24;                          // members, and each has its name at the ring

const $ = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");

const point = (r, turn) => {
  const a = (turn - 0.25) * 2 * Math.PI;
  return `${(r * Math.cos(a)).toFixed(2)} ${(r * Math.sin(a)).toFixed(2)}`;
};

// band is the outline of a piece of a ring, from one turn (0 to 1) to another.
function band(inner, outer, from, to) {
  const sweep = Math.min(to - from, 0.99999);
  const end = from + sweep, large = sweep > 0.5 ? 1 : 0;
  return `M${point(outer, from)}A${outer} ${outer} 0 ${large} 1 ${point(outer, end)}L${point(inner, end)}` +
    `A${inner} ${inner} 0 ${large} 0 ${point(inner, from)}Z`;
}

export class Circle {
  #pieces = new Map();   // by member: {arc, load, label, from, to, share}
  #threads = [];
  #drawn = "";
  #view = null;
  #picked = null;
  #onPick;

  constructor(onPick) {
    this.#onPick = onPick;
    const svgNode = $("circle");
    svgNode.addEventListener("pointermove", (event) => this.#onPick(event.target.dataset?.member ?? null));
    svgNode.addEventListener("pointerleave", () => this.#onPick(null));
  }

  // draw shows a view: {members: [{id, share, sessions, told, load, heavy, pushes}] on the ring in order, total, pushes, change, complete}.
  draw(view) {
    this.#view = view;
    let turn = 0;
    const gap = view.members.length > 1 ? Math.min(0.0025, 0.2 / view.members.length) : 0;
    const targets = new Map();
    for (const m of view.members) {
      targets.set(m.id, { from: turn + gap / 2, to: Math.max(turn + gap / 2, turn + m.share - gap / 2), m });
      turn += m.share;
    }
    for (const [id, piece] of this.#pieces) {
      if (targets.has(id)) continue;
      piece.arc.remove(); piece.load.remove(); piece.label.remove();
      this.#pieces.delete(id);
    }
    const moving = [];
    for (const [id, target] of targets) {
      let piece = this.#pieces.get(id);
      if (!piece) {
        piece = {
          arc: tint(svg("path", { "data-member": id }), id), load: tint(svg("path", { "data-member": id }), id), label: svg("text"),
          from: this.#drawn ? target.from : target.from, to: this.#drawn ? target.from : target.to,
        };
        piece.label.textContent = id.length > 14 ? `${id.slice(0, 13)}…` : id;
        $("arcs").append(piece.arc); $("loads").append(piece.load); $("labels").append(piece.label);
        this.#pieces.set(id, piece);
      }
      piece.m = target.m;
      piece.label.toggleAttribute("hidden", view.members.length > LABELS && !target.m.heavy);
      piece.label.style.display = view.members.length > LABELS && !target.m.heavy ? "none" : "";
      piece.load.classList.toggle("heavy", target.m.heavy);
      if (piece.from !== target.from || piece.to !== target.to) moving.push([piece, { from: piece.from, to: piece.to }, target]);
      else this.#shape(piece);
    }
    const drawn = view.members.map((m) => `${m.id} ${m.share}`).join();
    if (moving.length > 0) this.#move(moving, this.#drawn !== "" && view.members.length <= LABELS && !still.matches);
    if (drawn !== this.#drawn) {
      this.#drawn = drawn;
      this.#empty(view.members.length === 0);
      const named = view.members.slice(0, 8).map((m) => `${m.id} ${percent(m.share)}`);
      put($("circle-words"), view.members.length === 0 ? "The ring is empty"
        : `Ring of ${some(view.members.length, "member")}: ${named.join(", ")}${view.members.length > 8 ? ", and others, as in the table" : ""}`);
    }
    this.#thread(view, targets);
    this.#hub();
  }

  // pick shows one member by itself; null: all.
  pick(id) {
    if (id !== null && !this.#pieces.has(id)) id = null;
    if (id === this.#picked) return;
    this.#picked = id;
    $("circle").classList.toggle("picked", id !== null);
    for (const [own, piece] of this.#pieces) {
      for (const node of [piece.arc, piece.load, piece.label]) node.classList.toggle("picked", own === id);
      if (this.#view.members.length > LABELS && !piece.m.heavy) piece.label.style.display = own === id ? "" : "none";
    }
    this.#hub();
  }

  #move(moving, smoothly) {
    cancelAnimationFrame(this.frame);
    const began = performance.now(), time = 700;
    const step = (now) => {
      const t = smoothly ? Math.min(1, Math.max(0, now - began) / time) : 1;
      const eased = 1 - (1 - t) ** 3;
      for (const [piece, was, target] of moving) {
        piece.from = t === 1 ? target.from : was.from + (target.from - was.from) * eased;
        piece.to = t === 1 ? target.to : was.to + (target.to - was.to) * eased;
        this.#shape(piece);
      }
      if (t < 1) this.frame = requestAnimationFrame(step);
    };
    step(began);
  }

  #shape(piece) {
    const { m, from, to } = piece;
    const height = Math.min(MOST, BASE + (FAIR - BASE) * m.load);
    const shape = `${from} ${to} ${height}`;
    if (piece.shape === shape) return;
    piece.shape = shape;
    piece.arc.setAttribute("d", band(INNER, OUTER, from, to));
    piece.load.setAttribute("d", m.load > 0 ? band(BASE, height, from, to) : "");
    const [x, y] = point(this.#view.members.length > LABELS ? THREAD[0] - 12 : (INNER + OUTER) / 2, (from + to) / 2).split(" ");
    piece.label.setAttribute("x", x);
    piece.label.setAttribute("y", y);
  }

  // thread shows where each member's newest users came from: its arc's end, as long as what it got.
  #thread(view, targets) {
    const key = view.change ? `${view.change.n} ${this.#drawn}` : "";
    if (key === this.threadKey) return;
    this.threadKey = key;
    this.#threads.forEach((node) => node.remove());
    this.#threads = [];
    $("origin-key").hidden = key === "";
    if (!view.change) return;
    for (const [id, { from, to }] of targets) {
      let end = to;
      for (const move of view.change.moves.filter((move) => move.to === id)) {
        const start = Math.max(from, end - move.share);
        const node = svg("path", { d: band(THREAD[0], THREAD[1], start, end) });
        if (move.from === "") node.classList.add("nobody"); else tint(node, move.from);
        $("origins").append(node);
        this.#threads.push(node);
        end = start;
      }
    }
  }

  #empty(is) {
    $("arcs").querySelector(".empty-ring")?.remove();
    if (is) $("arcs").append(svg("circle", { class: "empty-ring", r: (INNER + OUTER) / 2 }));
    $("fair").style.display = is ? "none" : "";
  }

  #hub() {
    const { members, total, pushes, complete } = this.#view;
    const m = this.#picked !== null && this.#pieces.get(this.#picked)?.m;
    if (m) {
      put($("hub-top"), m.id);
      put($("hub-main"), m.told ? count(m.sessions) : "…");
      put($("hub-sub"), `sessions on ${percent(m.share)}`);
      put($("hub-more"), m.told ? `${rate(m.pushes)} pushes/s` : "it does not tell");
      return;
    }
    put($("hub-top"), "");
    put($("hub-main"), members.length === 0 ? "empty" : count(total));
    put($("hub-sub"), members.length === 0 ? "nobody is on the ring" : complete);
    put($("hub-more"), members.length === 0 ? "" : `${rate(pushes)} pushes/s`);
  }
}
