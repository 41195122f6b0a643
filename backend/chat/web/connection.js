// A connection that stays: it opens a WebSocket, opens it again when it ends, and says which of five states it is in.
// It knows nothing of chat and nothing of the page, so that another client can take its place.
//
//   connecting    the first attempt is under way
//   connected     messages flow
//   reconnecting  it ended by itself; the next attempt is at retryAt, or under way when retryAt is 0
//   moved         the server asked us to come back at once (close code 1012); retryAt as above
//   refused       nothing happens until retry() is called: asking again by itself would change nothing
//
// A state is {name, why, code, retryAt}: why is a sentence for a person, code the close code or HTTP status (0: none),
// retryAt a Date.now() time. Times are in milliseconds.

const BACKOFF_BASE = 500;        // the first wait is random in [0, BACKOFF_BASE): full jitter, doubled at each failure
const BACKOFF_CAP = 5_000;
const MOVED_JITTER = 250;        // spreads the sessions of a whole range over a moment, and no more
const OVERLOADED_WAIT = 5_000;   // after 1013: this plus as much again at random
const RETRY_AFTER_CAP = 60_000;  // a server's Retry-After is believed up to here
const DIAL_TIMEOUT = 10_000;
const PROBE_TIMEOUT = 3_000;
const STABLE = 5_000;            // a connection that lived this long was a good one: back off from the start again
const SEND_BUFFER = 1 << 20;     // bytes waiting in the browser; send() says no beyond it

export class Connection {
  #urls; #on;
  #socket = null;
  #timer = 0;
  #failures = 0;  // attempts since the last stable connection
  #state = { name: "connecting", why: "", code: 0, retryAt: 0 };

  // urls.socket: the WebSocket's. urls.probe: plain HTTP with the same key, which is asked why when an upgrade fails, since a
  // browser hides the status of one; its error answers are {"error": "..."}. on.state(state) and on.message(data) are called.
  constructor(urls, on) {
    this.#urls = urls;
    this.#on = on;
  }

  get state() { return this.#state; }

  open() {
    this.#failures = 0;
    this.#enter({ name: "connecting" });
    this.#dial();
  }

  // retry attempts now instead of at retryAt, or after a refusal. While an attempt is under way it does nothing.
  retry() {
    if (this.#state.name === "refused") this.open();
    else if (this.#state.retryAt) this.#dial();
  }

  close() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  // send hands data to the browser and says whether it took it. True does not mean that anybody has got it.
  send(data) {
    if (this.#state.name !== "connected" || this.#socket.bufferedAmount > SEND_BUFFER) return false;
    this.#socket.send(data);
    return true;
  }

  // dial makes one attempt. Whatever an earlier socket still reports counts no more once #socket is another one.
  #dial() {
    this.close();
    if (this.#state.retryAt) this.#enter({ ...this.#state, retryAt: 0 });

    const socket = this.#socket = new WebSocket(this.#urls.socket);
    const current = () => this.#socket === socket;
    let openedAt = 0;
    socket.binaryType = "arraybuffer";
    this.#timer = setTimeout(() => socket.close(), DIAL_TIMEOUT);
    socket.onopen = () => {
      if (!current()) return;
      clearTimeout(this.#timer);
      openedAt = Date.now();
      this.#enter({ name: "connected" });
    };
    socket.onmessage = ({ data }) => {
      if (current()) this.#on.message(data);
    };
    socket.onclose = async ({ code, reason }) => {
      if (!current()) return;
      clearTimeout(this.#timer);
      if (openedAt && Date.now() - openedAt >= STABLE) this.#failures = 0;
      const verdict = openedAt ? judgeClose(code, reason) : await this.#diagnose();
      if (current()) this.#end(verdict);
    };
  }

  #end({ name, why, code, wait }) {
    this.#socket = null;
    if (name === "refused") {
      this.#enter({ name, why, code });
      return;
    }
    const jitter = name === "moved" && this.#failures === 0
      ? MOVED_JITTER
      : Math.min(BACKOFF_CAP, BACKOFF_BASE * 2 ** this.#failures);
    const delay = wait ?? Math.random() * jitter;
    this.#failures++;
    this.#timer = setTimeout(() => this.#dial(), delay);
    this.#enter({ name, why, code, retryAt: Date.now() + delay });
  }

  async #diagnose() {
    try {
      const answer = await fetch(this.#urls.probe, { cache: "no-store", signal: AbortSignal.timeout(PROBE_TIMEOUT) });
      if (answer.ok) return { name: "reconnecting", why: "The connection could not be opened.", code: 0 };
      const error = await answer.json().then((body) => body.error, () => "");
      return judgeStatus(answer.status, String(error || answer.statusText), Number(answer.headers.get("Retry-After")));
    } catch {
      return { name: "reconnecting", why: "The server cannot be reached.", code: 0 };
    }
  }

  #enter({ name, why = "", code = 0, retryAt = 0 }) {
    this.#state = { name, why, code, retryAt };
    this.#on.state(this.#state);
  }
}

// judgeClose says what the close code of an open connection means for the next attempt.
function judgeClose(code, reason) {
  switch (code) {
    case 1001: return { name: "reconnecting", why: "The server has stopped.", code };
    case 1008: return { name: "refused", why: reason || "The server ended this session.", code };
    case 1009: return { name: "reconnecting", why: "A message was too big for the server.", code };
    case 1012: return { name: "moved", why: reason === "restart" ? "The server restarts." : "Your place on the ring has moved.", code };
    case 1013: return {
      name: "reconnecting", why: "The server is overloaded.", code, wait: OVERLOADED_WAIT * (1 + Math.random()),
    };
    default: return { name: "reconnecting", why: reason || "The connection was lost.", code };
  }
}

// judgeStatus does the same for an upgrade that was answered with an HTTP error. 429 and 5xx pass by themselves, the rest does not.
function judgeStatus(status, why, retryAfter) {
  if (status < 500 && status !== 429) return { name: "refused", why, code: status };
  const wait = retryAfter > 0 ? Math.min(RETRY_AFTER_CAP, (retryAfter + Math.random()) * 1000) : undefined;
  return { name: "reconnecting", why, code: status, wait };
}
