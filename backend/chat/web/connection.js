// The page's connection: a Selvedge, which does the work, and a sentence for a person about each state that it enters. It knows nothing of
// chat, and nothing of the page.
//
// The library is where every edge serves it, as seen from this page. The chat serves the same file there itself, for those who reach it
// without an edge.

import "./.well-known/selvedge/client.js";

const PROBE_TIMEOUT = 3_000;  // ms
const STATES = ["connecting", "open", "moved", "waiting", "closed"];

// connect opens urls.socket. on.state({name, why, code, until}) is told of each state: its name, a sentence, the close code or HTTP status
// (0: none), and when the next attempt is (0: under way, or none). An attempt that follows moved or waiting is shown as that still.
// on.message(data) gets what comes, once for each id that idOf finds.
//
// A browser hides why an upgrade was refused. urls.probe, plain HTTP with the same key, is asked then; its error answers are {"error": "..."}.
export function connect(urls, idOf, on) {
  const line = new Selvedge(urls.socket, { idOf });
  let shown = { name: "connecting", why: "", code: 0, until: 0 };
  let trying = false;
  const show = (state) => { shown = state; on.state(state); };

  for (const name of STATES) {
    line.addEventListener(name, ({ code, reason, until }) => {
      const failed = trying && name === "waiting";
      trying = name === "connecting";
      if (trying && shown.until) show({ ...shown, until: 0 });
      else show({ name, why: failed ? "The connection could not be opened." : sentence(name, code, reason), code, until });
      if (failed) diagnose();
    });
  }
  line.addEventListener("message", ({ data }) => on.message(data));
  return line;

  async function diagnose() {
    let status = 0, why = "The server cannot be reached.";
    try {
      const answer = await fetch(urls.probe, { cache: "no-store", signal: AbortSignal.timeout(PROBE_TIMEOUT) });
      if (answer.ok) return;
      status = answer.status;
      why = String(await answer.json().then((body) => body.error, () => "") || answer.statusText);
    } catch { /* it cannot */ }
    if (line.state !== "waiting") return;
    if (status >= 400 && status < 500 && status !== 429) line.close(status, why);  // the rest passes by itself
    else show({ ...shown, why, code: status });
  }
}

function sentence(state, code, reason) {
  switch (code) {
    case 1001: return "The server has stopped.";
    case 1006: return "The connection was lost.";
    case 1009: return "A message was too big for the server.";
    case 1012: return reason === "restart" ? "The server restarts." : "Your place on the ring has moved.";
    case 1013: return "The server is overloaded.";
  }
  if (reason) return reason;
  return { waiting: "The connection was lost.", closed: "The server ended this session." }[state] ?? "";
}
