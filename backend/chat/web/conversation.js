// The list of messages: what was said, by whom, where it was held, and what became of it. Whatever others wrote is only ever
// set as text.
//
// Each entry is <li data-kind=... data-outcome=...>. Kinds: mine, theirs, other-tab (mine, sent elsewhere), notice (a push from
// outside), event (what happened to the connection). Outcomes, of mine alone: PENDING until the answer comes, then the server's
// DELIVERED or OFFLINE, or ERROR; LOST when the connection ended before an answer.

const MAX_ENTRIES = 300;       // older ones leave the page
const FOLD_AT = 2_000;         // characters shown of a long text until the reader asks for the rest
const NEAR_END = 48;           // px from the end of the list that still count as being there
const GROUP_WITHIN = 120_000;  // ms in which entries of one author share a heading

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });

export class Conversation {
  #list; #log; #newer; #on;
  #waiting = new Map();  // message id -> {item, message}: sent, and no good answer yet; entries leave with their item
  #where = "";           // the backend that holds us, for the colour of what comes now
  #last = null;          // what the newest entry is about, to group the next one with it
  #following = true;     // the reader is at the end and stays there; false once they have scrolled back
  #top = 0;              // where the list was scrolled to when we last looked, px
  #unseen = 0;

  // on.reply(users), on.resend(message), on.tint(element, backend), on.change()
  constructor({ list, log, newer }, on) {
    this.#list = list;
    this.#log = log;
    this.#newer = newer;
    this.#on = on;
    log.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    newer.addEventListener("click", () => this.#toEnd());
    const resized = new ResizeObserver(() => { if (this.#following) this.#toEnd(); });
    resized.observe(log);
    resized.observe(list);
  }

  clear() {
    this.#list.replaceChildren();
    this.#waiting.clear();
    this.#where = "";
    this.#last = null;
    this.#sawAll();
    this.#on.change();
  }

  heldBy(backend) { this.#where = backend; }

  sent(message) {
    const item = this.#entry("mine", message);
    this.#waiting.set(message.id, { item, message });
    this.#outcome(item, "PENDING", [text("span", "Sending…")]);
    this.#toEnd();
  }

  received(message, me) {
    this.#entry(message.from === me ? "other-tab" : "theirs", message);
  }

  // answered fills in what became of a message; false: it is none that this page waits for.
  answered(answer) {
    const waiting = this.#waiting.get(answer.ack);
    if (!waiting) return false;
    const { item, message } = waiting;
    const results = Array.isArray(answer.results) && answer.results.length > 0 ? answer.results : [answer];
    const described = results.map(describe);
    if (answer.error) {
      this.#outcome(item, "ERROR", [...described, this.#resendButton(message)]);
    } else {
      this.#waiting.delete(answer.ack);
      this.#outcome(item, String(answer.outcome), described);
    }
    return true;
  }

  // broke says of all messages without an answer that none will come.
  broke() {
    for (const { item, message } of this.#waiting.values()) {
      if (item.dataset.outcome !== "PENDING") continue;
      this.#outcome(item, "LOST", [text("span", "The connection ended before an answer came."), this.#resendButton(message)]);
    }
  }

  resent(id) {
    const waiting = this.#waiting.get(id);
    if (waiting) this.#outcome(waiting.item, "PENDING", [text("span", "Sending again…")]);
  }

  notice(content) {
    this.#add("notice", "notice", [element("p", "heading", text("span", "Pushed from outside")), body(content)]);
  }

  binary(bytes) {
    const head = Array.from(bytes.slice(0, 16), (b) => b.toString(16).padStart(2, "0")).join(" ");
    const size = element("p", "text", text("span", `Binary, ${count(bytes.length, "bytes")}`));
    const dump = text("code", bytes.length > 16 ? `${head} …` : head);
    this.#add("notice", "notice", [element("p", "heading", text("span", "Pushed from outside")), size, ...(head ? [dump] : [])]);
  }

  // event marks a seam in the list: parts are strings and elements.
  event(...parts) {
    this.#add("event", null, [element("p", "text", ...parts)]);
  }

  #entry(kind, { from, to, text: content }) {
    const users = [to].flat();
    const heading = element("p", "heading");
    if (kind === "theirs") {
      const others = users.filter((user) => user !== from);
      const reply = text("button", from, { type: "button", title: "Reply", className: "name" });
      reply.addEventListener("click", () => this.#on.reply([from, ...others]));
      heading.append(bdi(reply));
      if (users.length > 1) heading.append(text("span", " to "), ...names(users));
    } else {
      heading.append(text("span", kind === "mine" ? "to " : "from your other tab, to "), ...names(users));
    }
    return this.#add(kind, JSON.stringify([kind, from, to]), [heading, body(content)]);
  }

  #add(kind, group, children) {
    const now = new Date();
    const item = element("li", "", ...children);
    item.dataset.kind = kind;
    const grouped = group !== null && this.#last?.group === group && now - this.#last.at < GROUP_WITHIN;
    if (grouped) item.dataset.continued = "";
    this.#last = { group, at: now };
    this.#on.tint(item, this.#where);

    const time = text("time", clock.format(now), { dateTime: now.toISOString() });
    item.querySelector(".heading")?.append(time);

    this.#list.append(item);
    while (this.#list.childElementCount > MAX_ENTRIES) this.#drop(this.#list.firstElementChild);
    this.#on.change();
    if (this.#following) this.#toEnd();
    else if (kind !== "event") this.#announceUnseen();
    return item;
  }

  #drop(item) {
    for (const [id, waiting] of this.#waiting) if (waiting.item === item) this.#waiting.delete(id);
    item.remove();
    this.#list.firstElementChild?.removeAttribute("data-continued");
  }

  #outcome(item, outcome, children) {
    item.dataset.outcome = outcome;
    let line = item.querySelector(".outcome");
    if (!line) item.append(line = element("p", "outcome"));
    line.replaceChildren(...children);
    if (this.#following) this.#toEnd();
  }

  #resendButton(message) {
    const button = text("button", "Send again", { type: "button", className: "link" });
    button.addEventListener("click", () => this.#on.resend(message));
    return button;
  }

  // scrolled is called late, maybe after the list has grown: only a way up means that the reader has left the end.
  #scrolled() {
    const top = this.#log.scrollTop;
    if (this.#log.scrollHeight - top - this.#log.clientHeight < NEAR_END) {
      this.#following = true;
      this.#sawAll();
    } else if (top < this.#top) {
      this.#following = false;
    }
    this.#top = top;
  }

  #toEnd() {
    this.#following = true;
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#top = this.#log.scrollTop;
    this.#sawAll();
  }

  #announceUnseen() {
    this.#unseen++;
    this.#newer.textContent = this.#unseen === 1 ? "1 new message" : `${this.#unseen} new messages`;
    this.#newer.hidden = false;
  }

  #sawAll() {
    this.#unseen = 0;
    this.#newer.hidden = true;
  }
}

// describe says of one receiver, or of all at once where the answer names none, what became of a message.
function describe({ user, outcome, sessions, error }) {
  const part = element("span", "result");
  if (user) part.append(bdi(user), " ");
  part.dataset.outcome = error ? "ERROR" : String(outcome);
  if (error) part.append(user ? `failed: ${error}` : `Failed: ${error}`);
  else if (outcome === "DELIVERED") part.append(`${user ? "" : "Delivered to "}${count(sessions, "sessions")}`);
  else if (outcome === "OFFLINE") part.append(user ? "offline" : "Offline: nobody of that name is here");
  else part.append(String(outcome));
  return part;
}

function body(content) {
  const p = text("p", content, { className: "text", dir: "auto" });
  if (content.length <= FOLD_AT) return p;
  const more = text("button", `Show all ${count(content.length, "characters")}`, { type: "button", className: "link" });
  p.textContent = `${content.slice(0, FOLD_AT)}… `;
  p.append(more);
  more.addEventListener("click", () => { p.textContent = content; });
  return p;
}

function names(users) {
  return users.flatMap((user, i) => (i ? [", ", bdi(user)] : [bdi(user)]));
}

function count(n, units) {
  return `${n.toLocaleString()} ${n === 1 ? units.slice(0, -1) : units}`;
}

export function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function text(tag, content, properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: content }, properties);
}

function bdi(child) { return element("bdi", "", child); }
