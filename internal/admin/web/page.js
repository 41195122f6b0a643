// The operator's page. It keeps what the frames tell, and shows it: the verdict first, then who is heavy, then what just changed.

import { Link, token, call } from "./link.js";
import { Circle } from "./circle.js";
import { Table, standing } from "./table.js";
import { User } from "./user.js";
import { el, svg, member, put, count, some, rate, percent, bytes, ago, lasted, byID } from "./words.js";

const CHANGES = 24, CLOSURES = 60;   // that are listed
const TRANSFERS = 4;                 // of each change
const STEPS = 3;                     // of the last change, in one line
const RECENT = 120_000;              // milliseconds that the ring shows where the last change took users from
const HISTORY = 180;                 // frames of the small curves
const WINDOW = 5000;                 // milliseconds that rates are taken over
const LATE = 6000;                   // milliseconds without a frame: what is shown is old

const $ = (id) => document.getElementById(id);

const blank = () => ({
  service: "", process: {}, verdict: null, ring: {}, totals: {}, members: new Map(), live: new Map(), failures: new Map(),
  changes: [], closures: [], history: [], offset: 0, heard: 0,
});
let known = blank();
let services = [];
let picked = null;

const clock = () => Date.now() + known.offset;   // the listener's

// ---- what is heard

const link = new Link({
  frame(frame) {
    if (frame.first) {
      const service = frame.service;
      if (service !== known.service) lists.clear();
      known = { ...blank(), service, history: service === known.service ? known.history : [] };
      lists.clear();
      reveal("open");
    }
    known.heard = performance.now();
    known.offset = frame.now - Date.now();
    if (frame.services) services = frame.services;
    for (const part of ["process", "verdict", "ring", "totals"]) if (frame[part]) known[part] = frame[part];
    for (const part of ["members", "live", "failures"]) {
      for (const [id, row] of Object.entries(frame[part] ?? {})) known[part].set(id, row);
    }
    for (const id of frame.gone ?? []) for (const part of ["members", "live", "failures"]) known[part].delete(id);
    known.changes = [...known.changes, ...frame.changes ?? []].slice(-CHANGES);
    known.closures = [...known.closures, ...frame.closures ?? []].sort((a, b) => a.at - b.at || a.n - b.n).slice(-CLOSURES);
    show();
  },
  state(state, why) {
    if (document.body.dataset.link === state && state === "live") return;
    document.body.dataset.link = state;
    put($("link"), { live: "Live", connecting: "Connecting", lost: `No word from the ${known.process.role ?? "listener"}${why ? `: ${why}` : ""}. Trying again` }[state]);
    title();
  },
  locked(wrong) {
    token.forget();
    reveal("locked");
    document.body.dataset.link = "locked";
    document.body.dataset.level = "unknown";
    put($("link"), "Locked");
    put($("token-error"), wrong ? "That is not the token of this listener." : "");
    document.title = "Locked · Selvedge";
    $("token").focus();
  },
});

function reveal(what) {
  $("locked").hidden = what !== "locked";
  $("open").hidden = what !== "open";
  $("find").hidden = what !== "open";
  $("forget").hidden = what !== "open" || token.get() === "";
}

$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set($("token").value.trim());
  $("token").value = "";
  put($("token-error"), "");
  link.open();
});
$("forget").addEventListener("click", () => { token.forget(); location.reload(); });

// ---- what is made of it

// members are all that are known, with their figures in words of their own.
function members() {
  const edge = known.process.role === "edge";
  const list = [...known.members].map(([id, facts]) => {
    const [share, own, sessions, pushes, misplaced, queue, moves] = known.live.get(id) ?? [0, 0, 0, 0, 0, 0, 0];
    return { id, ...facts, share, own, sessions: facts.told ? sessions : edge ? own : 0, pushes, misplaced, queue, moves, up: facts.up ? clock() - facts.up : 0 };
  }).sort((a, b) => byID(a.id, b.id));
  const counted = list.filter((m) => m.share > 0 && (m.told || edge));
  const total = counted.reduce((sum, m) => sum + m.sessions, 0);
  const shares = counted.reduce((sum, m) => sum + m.share, 0);
  for (const m of list) {
    const fair = shares > 0 && (m.told || edge) ? total * m.share / shares : 0;
    m.load = fair > 0 && counted.length > 1 ? m.sessions / fair : 0;
    m.heavy = m.load >= 1.5 && m.sessions - fair > 6 * Math.sqrt(fair);
    m.standing = standing(m);
  }
  return list;
}

function show() {
  const list = members();
  const told = list.filter((m) => m.told);
  const edge = known.process.role === "edge";
  const now = {
    at: clock(), upgrades: known.totals.upgrades ?? 0, closures: known.totals.closures ?? 0,
    sessions: told.length > 0 ? told.reduce((sum, m) => sum + m.sessions, 0) : known.totals.sessions ?? 0,
    pushes: told.reduce((sum, m) => sum + m.pushes, 0),
  };
  known.history.push(now);
  known.history = known.history.slice(-HISTORY);

  document.body.dataset.role = known.process.role;
  document.body.dataset.level = known.verdict.level;
  put($("role"), edge ? "Edge" : "Backend");
  put($("name"), known.process.name);
  showServices();
  showVerdict(list);
  showTotals(list, told, now, edge);
  const latest = known.changes.at(-1);
  const onRing = list.filter((m) => m.share > 0);
  circle.draw({
    members: onRing, total: now.sessions, pushes: now.pushes,
    change: latest && clock() - latest.at < RECENT && latest.moves.some((move) => move.from !== "") ? latest : null,
    complete: whose(told, list, edge),
  });
  table.draw(list, { edge, note: list.length === 0 ? "Members appear here by themselves as soon as they are registered."
    : edge ? "" : "How the others are is theirs to tell: the page of an edge asks them all." });
  lists.changes(known.changes);
  lists.closures(known.closures);
  lists.failures(known.failures);
  times();
  title();
}

// whose the sessions are that are added up.
function whose(told, list, edge) {
  const asked = list.filter((m) => m.rpc).length;
  if (!edge) return "sessions here";
  if (told.length === 0) return "sessions through this edge";
  return told.length >= asked ? "sessions at all members" : `sessions at ${told.length} of ${asked} members`;
}

function title() {
  const mark = { calm: "●", busy: "→", worry: "!", alarm: "✕" }[known.verdict?.level] ?? "…";
  const text = document.body.dataset.link === "lost" ? `? No word · ${known.process.name ?? "Selvedge"}`
    : `${mark} ${known.verdict?.headline ?? "Selvedge"} · ${known.process.name ?? ""}`;
  if (document.title !== text) document.title = text;
}

function showServices() {
  const nav = $("services");
  nav.hidden = services.length < 2;
  const key = JSON.stringify([services, known.service]);
  if (nav.hidden || nav.dataset.key === key) return;
  nav.dataset.key = key;
  const had = nav.contains(document.activeElement) ? document.activeElement.dataset.service : "";
  nav.replaceChildren(...services.map(({ name, level }) => {
    const button = el("button", { type: "button", "data-service": name, "data-level": level, "aria-current": name === known.service ? "true" : null,
      title: level }, el("span", { class: "dot" }), name);
    button.addEventListener("click", () => {
      user.close();
      history.replaceState(null, "", `?${new URLSearchParams({ service: name })}`);
      link.open(name);
    });
    return button;
  }));
  if (had) nav.querySelector(`[data-service="${CSS.escape(had)}"]`)?.focus();
}

function showVerdict(list) {
  const { headline, findings = [] } = known.verdict;
  put($("headline"), headline);
  const calm = `${some(list.filter((m) => m.share > 0).length, "member")} on the ring. Nothing is under way.`;
  const wanted = findings.length > 0 ? findings : [{ level: "calm", text: calm }];
  const key = JSON.stringify(wanted);
  if ($("findings").dataset.key !== key) {
    $("findings").dataset.key = key;
    $("findings").replaceChildren(...wanted.map((f) => el("li", { "data-level": f.level }, el("span", {}, f.text, f.hint ? el("small", {}, f.hint) : ""))));
  }
  const parts = [];
  const heaviest = list.filter((m) => m.told && m.load > 0).sort((a, b) => b.load - a.load)[0];
  const latest = known.changes.at(-1);
  if (latest) {
    parts.push(el("span", {}, el("b", {}, "Last change "), el("time", { "data-at": latest.at }), `: ${sentence(latest)}`));
  }
  if (heaviest && list.filter((m) => m.told).length > 1) {
    parts.push(el("span", {}, el("b", {}, "Heaviest "), member(heaviest.id), ` with ${some(heaviest.sessions, "session")}, ${heaviest.load.toFixed(2)} times its share.`));
  }
  const said = parts.map((part) => part.textContent).join("") + (latest?.at ?? "");
  if ($("newest").dataset.said !== said) {
    $("newest").dataset.said = said;
    $("newest").replaceChildren(...parts);
  }
}

const step = (s) => (s.what === "weight" ? `weight ${s.why}` : s.why ? `${s.what} (${s.why})` : s.what);

// sentence tells a change in one line.
function sentence(change) {
  const shown = change.steps.slice(0, STEPS).map((s) => `${s.member} ${step(s)}`);
  if (change.steps.length > STEPS) shown.push("and others");
  const steps = shown.join(", ") || "there and back";
  if (change.moves.length > 0 && change.moves.every((move) => move.from === "")) return `the first ring, of ${some(change.members, "member")}.`;
  return `${steps}; ${percent(change.moved)} of users moved.`;
}

function showTotals(list, told, now, edge) {
  const first = known.history.find((h) => now.at - h.at <= WINDOW) ?? now;
  const seconds = (now.at - first.at) / 1000;
  const per = (key) => (seconds > 0.5 ? rate(Math.max(0, now[key] - first[key]) / seconds) : "…");
  const { totals, process, ring } = known;
  put($("t-sessions"), count(now.sessions));
  put($("s-sessions"), edge ? (told.length > 0 ? `${whose(told, list, edge).replace("sessions ", "")}; ${count(totals.sessions)} through this edge` : "through this edge")
    : process.limit && process.limit < 1e9 ? `of ${count(process.limit)} at most` : "");
  put($("t-pushes"), told.length > 0 ? rate(now.pushes) : "–");
  put($("s-pushes"), told.length > 0 ? "over the last ten seconds" : "members do not tell");
  put($("t-ring"), `${count(ring.size)} of ${count(ring.known)}`);
  put($("s-ring"), ring.digest);
  put($("t-upgrades"), per("upgrades"));
  put($("s-upgrades"), `${count(totals.refusals)} refused`);
  put($("t-closed"), per("closures"));
  put($("s-closed"), `${count(totals.closures)} since its start`);
  put($("t-dials"), count(totals.dial_failures));
  const last = Math.max(0, ...[...known.failures.values()].map((f) => f.at));
  put($("s-dials"), totals.dial_failures === 0 ? "since its start" : last > 0 ? `last ${ago(clock() - last)}` : "since its start");
  put($("t-moves"), count(told.reduce((sum, m) => sum + m.moves, 0)));
  curve($("k-sessions"), known.history.map((h) => h.sessions));
  curve($("k-pushes"), known.history.map((h) => h.pushes));
}

// curve draws what has been since the page is open, the newest at the right.
function curve(node, values) {
  if (!node.firstChild) {
    const box = svg("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none" });
    box.append(svg("path", { class: "base", d: "M0 20H100" }), svg("path", { class: "area" }), svg("path", { class: "line" }));
    node.append(box);
  }
  const low = Math.min(...values) * 0.95, high = Math.max(...values) * 1.02 || 1;
  const at = (v, i) => `${(100 - (values.length - 1 - i) * 100 / (HISTORY - 1)).toFixed(2)} ${(20 - 19 * (v - low) / (high - low || 1)).toFixed(2)}`;
  const line = values.map(at).join("L");
  const left = (100 - (values.length - 1) * 100 / (HISTORY - 1)).toFixed(2);
  const area = node.querySelector(".area"), path = node.querySelector(".line");
  path.setAttribute("d", values.length > 1 ? `M${line}` : "");
  area.setAttribute("d", values.length > 1 ? `M${left} 20L${line}L100 20Z` : "");
}

// ---- what happened

const BAD = new Set(["overloaded", "protocol", "panic", "ping_timeout", "too_big", "rate", "backend_reset", "backend_lost", "failed"]);

// A list shows the newest first; what stands there already is left alone.
const lists = {
  seen: new Map(),   // by list: the items that stand there, by key

  clear() {
    this.seen.clear();
    for (const id of ["change-list", "closure-list", "failure-list"]) $(id).replaceChildren();
  },

  fill(id, items, key, make, none) {
    const list = $(id);
    const had = this.seen.get(id) ?? new Map(), has = new Map();
    items.forEach((item, i) => {
      const k = key(item);
      const node = had.get(k) ?? make(item);
      has.set(k, node);
      if (list.children[i] !== node) list.insertBefore(node, list.children[i] ?? null);
    });
    while (list.children.length > items.length) list.lastChild.remove();
    if (items.length === 0) list.append(el("li", { class: "nothing" }, none));
    this.seen.set(id, has);
  },

  changes(changes) {
    this.fill("change-list", changes.toReversed(), (c) => c.n, (c) => {
      const first = c.moves.length > 0 && c.moves.every((move) => move.from === "");
      const steps = c.steps.flatMap((s, i) => [i > 0 ? ", " : "", member(s.member), ` ${step(s)}`]);
      const shown = first ? [] : c.moves.slice(0, TRANSFERS);
      const more = first ? [] : c.moves.slice(TRANSFERS);
      const others = first ? 0 : more.length + (c.others ?? 0);
      const share = more.reduce((sum, move) => sum + move.share, c.others_share ?? 0);
      return el("li", {},
        el("time", { "data-at": c.at }),
        el("span", { class: "what" }, ...(first ? [`The first ring, of ${some(c.members, "member")}`] : steps)),
        first ? "" : el("small", {}, `${percent(c.moved)} of users moved; ${some(c.members, "member")} now${c.rings > 1 ? `; ${c.rings} changes within a second` : ""}`),
        el("div", { class: "moves" }, ...shown.flatMap((move) => [
          el("span", { class: "number" }, percent(move.share)), member(move.from), el("span", {}, "→ ", member(move.to)),
          el("span", {}, move.sessions > 0 ? `about ${some(move.sessions, "session")}` : ""),
        ])),
        others > 0 ? el("small", {}, `and ${percent(share)} in ${some(others, "transfer")} more`) : "");
    }, "None since this process started.");
  },

  closures(closures) {
    this.fill("closure-list", closures.toReversed(), (c) => c.n, (c) => el("li", {},
      el("time", { "data-at": c.at }),
      el("span", { class: "reason", "data-level": BAD.has(c.reason) ? "worry" : null }, c.reason.replaceAll("_", " ")), " ",
      c.user ? el("bdi", {}, c.user) : "", " ", member(c.member),
      el("small", {}, [c.by === "edge" ? "as this edge saw it" : `after ${lasted(c.lasted ?? 0)}`, c.device ?? ""].filter(Boolean).join(", "))),
    "None yet.");
  },

  failures(failures) {
    const rows = [...failures].map(([id, f]) => ({ id, ...f })).sort((a, b) => b.at - a.at);
    this.fill("failure-list", rows, (f) => `${f.id} ${f.count}`, (f) => el("li", {},
      el("time", { "data-at": f.at }), member(f.id), ` ${some(f.count, "time")}`, el("small", {}, f.error)), "Every dial has succeeded.");
  },
};

function times() {
  for (const node of document.querySelectorAll("time[data-at]")) put(node, ago(clock() - Number(node.dataset.at)));
}

// ---- what is done

function confirm(heading, text, yes) {
  put($("ask-title"), heading);
  put($("ask-text"), text);
  put($("ask-yes"), yes);
  const dialog = $("ask");
  dialog.returnValue = "no";
  dialog.showModal();
  $("ask-no").focus();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

async function drain(id) {
  const m = members().find((one) => one.id === id);
  const text = `${id} leaves the ring at once and takes no new session; ${m?.told ? `its ${some(m.sessions, "session")}` : "its sessions"} ` +
    "move to the others at a pace. The process goes on, empty, until you stop it. To have it back, restart it.";
  if (!await confirm(`Drain ${id}?`, text, `Drain ${id}`)) return;
  const outcome = $("outcome");
  outcome.classList.remove("bad");
  try {
    const answer = await call(known.service, "RingService/Drain", { member: id });
    const said = `${id} drains: ${some(answer.sessions ?? 0, "session")} to send away.`;
    put(outcome, said);
    setTimeout(() => { if (outcome.textContent === said) put(outcome, ""); }, 30_000);
  } catch (error) {
    outcome.classList.add("bad");
    put(outcome, `${id} does not drain: ${error.message}`);
  }
}

function pick(id) {
  if (id === picked) return;
  picked = id;
  circle.pick(id);
  table.pick(id);
}

const circle = new Circle(pick);
const table = new Table({
  drain,
  mayDrain: (m) => m.state === "serving" && m.health !== "critical" && Boolean(m.rpc) && (known.process.role === "edge" || m.id === known.process.name),
}, pick);
const user = new User(() => known.service, confirm);

addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !event.target.closest("input, dialog") && !$("find").hidden) {
    event.preventDefault();
    $("who").focus();
  }
});

setInterval(() => {
  times();
  if (document.body.dataset.link === "live" && performance.now() - known.heard > LATE) {
    document.body.dataset.link = "lost";
    put($("link"), `No word for ${lasted(performance.now() - known.heard)}`);
    title();
  }
}, 1000);

link.open(new URLSearchParams(location.search).get("service") ?? "");
