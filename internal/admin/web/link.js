// The line to the listener: the stream of frames, and calls. A token, where one is asked for, lives in this tab's session storage and goes
// out as a header, so that no address, log or referrer ever holds it.

const KEY = "selvedge-admin-token";
const SILENCE = 30_000;  // milliseconds; frames come every second, or some seconds after a large one
const AGAIN = [500, 1000, 2000, 5000];

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

const credentials = () => (token.get() ? { Authorization: `Bearer ${token.get()}` } : {});

// Link reads the frames of a service and says how it stands: on.frame(frame), on.state("connecting" | "live" | "lost", why),
// on.locked(wrong: a token was shown).
export class Link {
  #on;
  #service = "";
  #abort = null;
  #tries = 0;

  constructor(on) { this.#on = on; }

  open(service = this.#service) {
    this.#service = service;
    this.#abort?.abort();
    const abort = this.#abort = new AbortController();
    this.#run(abort.signal);
  }

  async #run(signal) {
    while (!signal.aborted) {
      let why = "";
      try {
        const answer = await fetch(`page/events?${new URLSearchParams(this.#service ? { service: this.#service } : {})}`,
          { headers: credentials(), cache: "no-store", signal });
        if (answer.status === 401) return this.#on.locked(token.get() !== "");
        if (answer.status === 404 && this.#service) { this.#service = ""; continue; }
        if (!answer.ok) why = await answer.text();
        else await this.#read(answer.body, signal);
      } catch (error) {
        why = error.message;
      }
      if (signal.aborted) return;
      const pause = AGAIN[Math.min(this.#tries++, AGAIN.length - 1)];
      this.#on.state("lost", why);
      await new Promise((done) => setTimeout(done, pause));
    }
  }

  async #read(body, signal) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let held = "", silence;
    try {
      while (true) {
        clearTimeout(silence);
        silence = setTimeout(() => reader.cancel(), SILENCE);
        const { value, done } = await reader.read();
        if (done || signal.aborted) return;
        held += value;
        for (let end = held.indexOf("\n\n"); end >= 0; end = held.indexOf("\n\n")) {
          const event = held.slice(0, end);
          held = held.slice(end + 2);
          if (!event.startsWith("data: ")) continue;
          this.#tries = 0;
          this.#on.state("live", "");
          this.#on.frame(JSON.parse(event.slice(6)));
        }
      }
    } finally {
      clearTimeout(silence);
      reader.cancel().catch(() => {});  // it has ended in any case
    }
  }
}

// get asks the page's own data.
export async function get(path, query) {
  return answered(await fetch(`${path}?${new URLSearchParams(query)}`, { headers: credentials(), cache: "no-store" }));
}

// call asks the push service: by POST, which other sites' pages cannot make a browser do here.
export async function call(service, method, request) {
  return answered(await fetch(`selvedge.push.v1.${method}`, {
    method: "POST",
    headers: { ...credentials(), "Content-Type": "application/json", "Selvedge-Service": service },
    body: JSON.stringify(request),
  }));
}

async function answered(answer) {
  const text = await answer.text();
  if (answer.ok) return JSON.parse(text);
  let said;
  try { said = JSON.parse(text).message; } catch { said = text.trim(); }
  throw new Error(said || `${answer.status} ${answer.statusText}`);
}
