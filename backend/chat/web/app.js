// The chat page: ties a connection to a Conversation and to the controls around them.

import { connect } from "./connection.js";
import { Conversation, element } from "./conversation.js";

const $ = (id) => document.getElementById(id);
const FABRICS = [
  "calico", "chambray", "chintz", "corduroy", "damask", "denim", "drill", "flannel", "gauze", "gingham", "jersey", "linen",
  "madras", "muslin", "organza", "poplin", "sateen", "taffeta", "tulle", "tweed", "twill", "velvet", "voile", "worsted",
];
const ADMIN = "http://127.0.0.1:8081";  // where `selvedge dev` takes pushes unless told otherwise
const MOVED_SHOWN_FOR = 6_000;          // ms for which the header names the backend that we came from
const STATE_NAMES = {
  connecting: "Connecting", open: "Connected", waiting: "Reconnecting", moved: "Moving", closed: "Refused",
};

// A tab is a device. It gets a new name at each load, since a tab that the browser duplicates inherits what is stored.
const device = `tab-${randomId(4)}`;
let me = "";
let backend = "";       // that holds this session, or held the last one
let connection = null;
let nextAttempt = 0;    // when it is, ms; 0: it is under way, or there is none
let unread = 0;         // messages that came while the tab was hidden
let cameFromTimer = 0;

const conversation = new Conversation({ list: $("messages"), log: $("log"), newer: $("newer") }, {
  reply(users) {
    $("to").value = [...new Set(users)].filter((user) => user !== me || users.length === 1).join(", ");
    $("text").focus();
  },
  resend(message) {
    if (connection.send(JSON.stringify(message))) conversation.resent(message.id);
    else hint("Not connected: try again in a moment.");
  },
  tint,
  change() { document.body.dataset.empty = String($("messages").childElementCount === 0); },
});

// ---- who am I

function start() {
  const given = new URLSearchParams(location.search);
  $("to").value = given.get("to") ?? "";
  const name = given.get("user") ?? sessionStorage.getItem("user") ?? "";
  if (nameError(name)) ask();
  else become(name);
}

function ask() {
  $("name").value = me || suggestion();
  $("name-error").textContent = "";
  $("cancel").hidden = !me;
  $("ask").showModal();
  $("name").select();
}

// become makes this tab another person: a new connection, and nothing on the page of what the one before has read.
function become(name) {
  const address = new URL(location.href);
  address.searchParams.set("user", name);
  address.searchParams.delete("to");
  history.replaceState(null, "", address);
  sessionStorage.setItem("user", name);
  me = name;

  const peer = me === "bob" ? "alice" : "bob";
  for (const node of document.querySelectorAll("[data-me]")) node.textContent = me;
  for (const node of document.querySelectorAll("[data-peer]")) node.textContent = peer;
  $("me").textContent = $("me").title = me;
  $("second").href = $("guide-second").href = `?${new URLSearchParams({ user: peer, to: me })}`;
  $("guide-twin").href = `?${new URLSearchParams({ user: me })}`;
  $("command-push").textContent = `bin/selvedge push --to ${shellQuoted(me)} --text hi --via ${ADMIN}`;
  $("command-kick").textContent = `bin/selvedge kick ${shellQuoted(me)} --via ${ADMIN}`;

  const before = connection;
  connection = null;
  before?.close();
  backend = "";
  conversation.clear();
  showGuide(false);
  showBackend();
  connection = newConnection();
}

// nameError applies the rules that the edge has for a user id: 1 to 256 bytes, no control characters.
function nameError(name) {
  if (name === "") return "A name is needed.";
  if (/\p{Cc}/u.test(name) || !name.isWellFormed()) return "A name cannot hold control characters.";
  if (new TextEncoder().encode(name).length > 256) return "A name has at most 256 bytes.";
  return "";
}

function suggestion() {
  return `${FABRICS[Math.floor(Math.random() * FABRICS.length)]}-${Math.floor(10 + Math.random() * 90)}`;
}

$("change").addEventListener("click", ask);
$("another").addEventListener("click", () => { $("name").value = suggestion(); $("name").select(); });
$("cancel").addEventListener("click", () => $("ask").close());
$("ask").addEventListener("close", () => { if (!me) ask(); });
$("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  const error = nameError(name);
  $("name-error").textContent = error;
  if (error) return;
  if (name !== me) become(name);
  $("ask").close();
  ($("to").value ? $("text") : $("to")).focus();
});

// ---- the connection

function newConnection() {
  const socket = new URL("ws", document.baseURI);
  socket.protocol = socket.protocol.replace("http", "ws");
  socket.search = new URLSearchParams({ user: me, device, hello: "1" });
  const probe = new URL("whoami", document.baseURI);
  probe.search = new URLSearchParams({ user: me });

  const line = connect({ socket, probe }, idOf, {
    state(state) { if (line === connection) showState(state); },
    message(data) { if (line === connection) take(data); },
  });
  return line;
}

// idOf is what a message of the chat is known by, should it come twice. What is pushed from outside has no id.
function idOf(data) {
  const message = parsed(data);
  return message?.id && isChat(message) ? JSON.stringify([message.from, message.id]) : null;
}

function showState(state) {
  if (state.name !== "open") {
    conversation.broke();
    showBackend();
  }
  $("state").dataset.state = document.body.dataset.state = state.name;
  setText($("state-name"), STATE_NAMES[state.name]);
  setText($("why"), state.code && state.name === "closed" ? `${state.why} (${state.code})` : state.why);
  $("retry").hidden = state.name !== "closed" && state.name !== "waiting";
  setText($("retry"), state.name === "closed" ? "Connect again" : "Try now");
  if (state.name === "closed") conversation.event(`Refused: ${state.why}`);
  nextAttempt = state.until;
  showCountdown();
  if (state.name === "open") hint("");
}

function showCountdown() {
  const seconds = Math.ceil((nextAttempt - Date.now()) / 1000);
  const waiting = $("state").dataset.state === "waiting";
  setText($("countdown"), !waiting ? "" : seconds > 0 ? `in ${seconds} s` : "now");
  $("retry").disabled = waiting && seconds <= 0;
}

// greeted: the first message of each session says where it is held.
function greeted({ backend: holder, session }) {
  const before = backend;
  backend = holder;
  conversation.heldBy(holder);
  if (before === "") {
    showBackend(session);
  } else if (before === holder) {
    showBackend(session);
    conversation.event("Back on ", tag(holder));
  } else {
    showBackend(session, before);
    conversation.event("Moved from ", tag(before), " to ", tag(holder));
  }
}

function showBackend(session = "", before = "") {
  setText($("held"), !backend || session ? "Held by" : "Last held by");
  setText($("backend"), backend || "…");
  $("session").textContent = session && `session ${session}`;
  $("backend").title = session && `session ${session}`;
  tint(document.documentElement, backend);

  clearTimeout(cameFromTimer);
  $("came-from").hidden = !before;
  $("came-from").textContent = before;
  tint($("came-from"), before);
  document.body.classList.toggle("just-moved", before !== "");
  if (before) cameFromTimer = setTimeout(() => showBackend(session), MOVED_SHOWN_FOR);
  showTitle();
}

function tag(name) {
  const node = element("b", "tag", name);
  tint(node, name);
  return node;
}

const HUE_OFFSET = 40;  // degrees: turns b1, b2 and b3 away from red, which is for errors

// tint gives each backend a hue of its own. Ids that end in a number, b1, b2, ..., are a golden angle apart, and so differ well.
function tint(node, id) {
  if (!id) {
    node.style.removeProperty("--hue");
    node.style.setProperty("--known", "0");
    return;
  }
  const [, stem, number] = /^(.*?)(\d*)$/s.exec(id);
  let hash = 0;
  for (const char of stem) hash = (hash * 31 + char.codePointAt(0)) % 360;
  node.style.setProperty("--hue", ((HUE_OFFSET + hash + Number(number) * 137.508) % 360).toFixed(1));
  node.style.setProperty("--known", "1");
}

// hurry ends a wait. Who was refused is let in again by nothing but the button.
function hurry() { if (connection?.state !== "closed") connection?.open(); }

$("retry").addEventListener("click", () => connection.open());
addEventListener("online", hurry);
addEventListener("pageshow", (event) => { if (event.persisted) hurry(); });
setInterval(() => { if (nextAttempt) showCountdown(); }, 250);

// ---- what comes in

// take tells the chat's own messages from what somebody pushed from outside, which may be any text or bytes.
function take(data) {
  if (typeof data !== "string") {
    conversation.binary(new Uint8Array(data));
    countUnread();
    return;
  }
  const message = parsed(data);
  if (typeof message?.hello?.backend === "string") {
    greeted({ backend: message.hello.backend, session: String(message.hello.session ?? "") });
  } else if (isChat(message)) {
    conversation.received(message, me);
    if (message.from !== me && $("to").value === "") $("to").value = message.from;
    countUnread();
  } else if (typeof message?.ack !== "string" || !conversation.answered(message)) {
    conversation.notice(data);
    countUnread();
  }
}

function isChat(message) {
  const { from, to, text } = message ?? {};
  const isNames = typeof to === "string" || (Array.isArray(to) && to.every((user) => typeof user === "string"));
  return typeof from === "string" && isNames && typeof text === "string";
}

function parsed(data) {
  try { return JSON.parse(data); } catch { return null; }
}

function countUnread() {
  if (document.hidden) unread++;
  showTitle();
}

function showTitle() {
  document.title = `${unread ? `(${unread}) ` : ""}${me}${backend && ` on ${backend}`} · Selvedge chat`;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unread = 0;
  showTitle();
  hurry();
});

// ---- what goes out

$("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  const users = [...new Set($("to").value.split(",").map((user) => user.trim()).filter(Boolean))];
  const bad = users.map(nameError).find(Boolean);
  const content = $("text").value;
  if (users.length === 0 || bad) {
    hint(bad ?? "Who is it for? One name, or several with commas between.");
    $("to").focus();
    return;
  }
  if (content.trim() === "") {
    $("text").focus();
    return;
  }
  const message = { id: randomId(12), to: users.length === 1 ? users[0] : users, text: content };
  if (!connection?.send(JSON.stringify(message))) {
    hint("Not connected. Your text stays here until you send it again.");
    return;
  }
  hint("");
  showGuide(false);
  conversation.sent(message);
  $("text").value = "";
  fit();
  $("text").focus();
});

$("to").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing) return;
  event.preventDefault();
  $("text").focus();
});
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("compose").requestSubmit();
});
$("text").addEventListener("input", fit);
$("compose").addEventListener("input", () => hint(""));

// fit lets the text field grow with its text, up to the height that the style sheet allows.
function fit() {
  const field = $("text");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
}

function hint(sentence) { setText($("hint"), sentence); }

// ---- small things

// showGuide puts the guide in place of the messages; while there are none it is there by itself.
function showGuide(shown) {
  document.body.classList.toggle("trying", shown);
  $("more").setAttribute("aria-expanded", String(shown));
  $("more").textContent = shown ? "Back to messages" : "Try more";
}

$("more").addEventListener("click", () => showGuide(!document.body.classList.contains("trying")));

// setText leaves an equal text alone, so that screen readers do not say it again.
function setText(node, content) {
  if (node.textContent !== content) node.textContent = content;
}

// randomId needs no secure context, unlike crypto.randomUUID: the page must work on http://10.0.0.5 too.
function randomId(bytes) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (b) => b.toString(16).padStart(2, "0")).join("");
}

function shellQuoted(word) {
  return /^[\w.@%+:\/-]+$/.test(word) && !word.startsWith("-") ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard;  // only in secure contexts; elsewhere a click selects the command
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText($(button.dataset.copy).textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1_500);
  });
}

start();
