// Selvedge is a WebSocket that stays: when one ends it opens the next, at a pace that suits thousands of others who do the same, and
// says which state it is in. README.md beside this file has the whole of it. It works as a classic script and as a module, in browsers
// and in Node, and defines one global either way. Times are in milliseconds.
(() => {
  "use strict";

  const RESOLVER = "/.well-known/selvedge/resolve";
  const DIAL = 10_000;         // for an attempt, and for the resolver's answer
  const STABLE = 5_000;        // a connection that lived this long was a good one: waits begin anew
  const MOVED = 250;           // after 1012, in place of base: spreads the sessions of a whole range over a moment, and no more
  const RETRY_AFTER = 60_000;  // a server's Retry-After is believed up to here
  const BUFFER = 1 << 20;      // bytes that may wait in the WebSocket; send says no beyond it
  const REMEMBERED = 1_000;    // message ids
  const PASSING = [408, 421, 425, 429];  // of the statuses below 500, those that pass by themselves

  class Selvedge extends EventTarget {
    #url; #options;
    #state = "connecting";
    #attempt = null;  // the one that counts; what others still report does not
    #socket = null;
    #timer = 0;
    #failures = 0;    // attempts and connections that ended since the last stable one
    #ids = new Set(); // the last ones, oldest first
    #queue = [];

    constructor(url, options = {}) {
      super();
      if (typeof url !== "function") absolute(url);  // throws now what would fail each time
      this.#url = url;
      this.#options = { base: 500, cap: 10_000, queue: 0, ...options };
      this.#timer = setTimeout(() => this.#dial());  // once there are listeners
    }

    get state() { return this.#state; }

    // open attempts now instead of after the wait, or again after closed. Otherwise it does nothing.
    open() {
      if (this.#state === "closed") this.#failures = 0;
      if (!["connecting", "open"].includes(this.#state)) this.#dial();
    }

    close(code = 1000, reason = "") {
      if (this.#state === "closed") return;
      clearTimeout(this.#timer);
      const socket = this.#socket;
      this.#attempt = this.#socket = null;
      socket?.close(code, reason);
      this.#enter("closed", { code, reason });
    }

    // send hands data to the WebSocket, or to the queue, and says whether there was room. True does not mean that anybody has got it.
    send(data) {
      if (this.#state === "open") {
        if (this.#socket.bufferedAmount > BUFFER) return false;
        this.#socket.send(data);
        return true;
      }
      if (this.#state === "closed" || this.#queue.length >= this.#options.queue) return false;
      this.#queue.push(data);
      return true;
    }

    async #dial() {
      clearTimeout(this.#timer);
      const attempt = this.#attempt = {};
      const current = () => this.#attempt === attempt;
      this.#enter("connecting");
      try {
        let url = absolute(await (typeof this.#url === "function" ? this.#url() : this.#url));
        if (this.#options.direct && current()) url = await this.#resolve(url);
        if (current()) this.#connect(url, current);
      } catch (error) {
        if (current()) this.#lost(error.status ?? 0, error.message, error.after);
      }
    }

    // resolve asks an edge where the user is to connect now: what it said last time may be dead.
    async #resolve(to) {
      const ask = new URL(RESOLVER, to);
      ask.protocol = to.protocol.replace("ws", "http");
      ask.search = `path=${encodeURIComponent(to.pathname)}${to.search.replace("?", "&")}`;
      const fetch = this.#options.fetch ?? globalThis.fetch;
      const answer = await fetch(ask.href, { credentials: "include", cache: "no-store", signal: AbortSignal.timeout(DIAL) });
      if (answer.ok) return new URL((await answer.json()).url);
      const { error } = await answer.json().catch(() => ({}));
      throw Object.assign(new Error(error || answer.statusText), { status: answer.status, after: Number(answer.headers.get("Retry-After")) });
    }

    #connect(url, current) {
      const socket = this.#socket = new (this.#options.WebSocket ?? globalThis.WebSocket)(url, this.#options.protocols ?? []);
      let openedAt = 0;
      socket.binaryType = "arraybuffer";
      this.#timer = setTimeout(() => socket.close(), DIAL);
      socket.onopen = () => {
        if (!current()) return;
        clearTimeout(this.#timer);
        openedAt = Date.now();
        for (const data of this.#queue.splice(0)) socket.send(data);  // before what listeners send now
        this.#enter("open");
      };
      socket.onmessage = ({ data }) => {
        if (current() && this.#isNew(data)) this.#emit("message", { data });
      };
      socket.onerror = () => {};  // close follows
      socket.onclose = ({ code, reason }) => {
        if (!current()) return;
        if (openedAt && Date.now() - openedAt >= STABLE) this.#failures = 0;
        this.#lost(code, reason);
      };
    }

    // lost decides by a close code, or the status of the resolver's answer (0: there was none), what happens next.
    #lost(code, reason, after = 0) {
      clearTimeout(this.#timer);
      this.#attempt = this.#socket = null;
      if (code === 1008 || (code >= 400 && code < 500 && !PASSING.includes(code))) {
        this.#enter("closed", { code, reason });  // asking again by itself would change nothing
        return;
      }
      const { base, cap } = this.#options;
      let wait = Math.random() * Math.min(cap, (code === 1012 ? MOVED : base) * 2 ** this.#failures++);
      if (code === 1013) wait = (cap + Math.random() * cap) / 2;
      if (after > 0) wait += Math.min(RETRY_AFTER, after * 1000);
      this.#timer = setTimeout(() => this.#dial(), wait);
      this.#enter(code === 1012 ? "moved" : "waiting", { code, reason, until: Date.now() + wait });
    }

    #isNew(data) {
      let id;
      try { id = this.#options.idOf?.(data); } catch { /* it has none */ }
      if (id == null) return true;
      if (this.#ids.has(id)) return false;
      this.#ids.add(id);
      if (this.#ids.size > REMEMBERED) this.#ids.delete(this.#ids.values().next().value);
      return true;
    }

    #enter(state, { code = 0, reason = "", until = 0 } = {}) {
      this.#state = state;
      this.#emit(state, { code, reason, until });
    }

    #emit(type, fields) { this.dispatchEvent(Object.assign(new Event(type), fields)); }
  }

  // absolute makes a URL for a WebSocket of one that may be relative to the page, or begin with http.
  function absolute(url) {
    const to = new URL(url, globalThis.location?.href);
    to.protocol = to.protocol.replace(/^http/, "ws");
    to.hash = "";
    return to;
  }

  globalThis.Selvedge = Selvedge;
})();
