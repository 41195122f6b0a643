// What is known of one user: where the ring has him, where his sessions are, and what can be done about them.

import { el, member, put, some, lasted } from "./words.js";
import { get, call } from "./link.js";

const $ = (id) => document.getElementById(id);
const plural = (n) => some(n, "session");

export class User {
  #user = "";
  #service;
  #confirm;

  // service() is the one that is shown; confirm(title, text, yes) asks the operator.
  constructor(service, confirm) {
    this.#service = service;
    this.#confirm = confirm;
    $("find").addEventListener("submit", (event) => {
      event.preventDefault();
      const user = $("who").value;
      if (user !== "") this.show(user);
    });
    $("user-close").addEventListener("click", () => { this.close(); $("who").focus(); });
    $("push").addEventListener("submit", (event) => { event.preventDefault(); this.#act(event, () => this.#push()); });
    $("kick").addEventListener("submit", (event) => { event.preventDefault(); this.#act(event, () => this.#kick()); });
  }

  close() {
    this.#user = "";
    $("user").hidden = true;
  }

  async show(user) {
    this.#user = user;
    put($("user-name"), user);
    put($("user-outcome"), "");
    $("user-facts").replaceChildren();
    put($("user-sessions"), "Asking…");
    $("user").hidden = false;
    $("user").focus();
    await this.#look();
  }

  async #look() {
    const user = this.#user, service = this.#service();
    const ring = get("page/user", { service, user }).then((at) => this.#ring(user, at), (error) => error);
    const sessions = call(service, "PushService/Presence", { users: [user] }).then((answer) => answer.users[0], (error) => ({ error: { message: error.message } }));
    const at = await ring, presence = await sessions;
    if (user !== this.#user) return;  // somebody else is looked at by now
    if (at instanceof Error) $("user-facts").replaceChildren(el("dt", {}, "Ring"), el("dd", { class: "bad" }, at.message));
    this.#sessions(presence, at.successors?.[0]);
  }

  #ring(user, at) {
    if (user !== this.#user) return at;
    const [owner, ...next] = at.successors;
    $("user-facts").replaceChildren(
      el("dt", {}, "Owner"), el("dd", {}, owner ? member(owner) : "nobody: the ring is empty"),
      el("dt", {}, "Then"), el("dd", {}, ...(next.length ? next.map(member) : ["nobody else"])),
      el("dt", {}, "Hash"), el("dd", {}, el("code", {}, at.hash)),
      el("dt", {}, "Ring"), el("dd", {}, el("code", {}, at.digest)),
    );
    return at;
  }

  #sessions(presence, owner) {
    const list = presence.sessions ?? [];
    const nodes = [];
    if (presence.error) nodes.push(el("p", { class: "bad" }, `The list may be incomplete: ${presence.error.message}`));
    if (list.length === 0 && !presence.error) nodes.push(el("p", {}, "Offline: no session is open anywhere."));
    nodes.push(el("ul", {}, ...list.map((s) => el("li", {},
      member(s.backend), " ",
      s.device ? el("bdi", {}, s.device, " ") : "",
      `from ${s.address || "an unknown address"}, for ${lasted(Date.now() - Date.parse(s.since))} `,
      owner && s.backend !== owner ? el("span", { class: "astray" }, "not at its owner") : "",
      el("small", {}, s.id)))));
    $("user-sessions").replaceChildren(...nodes);
  }

  async #act(event, act) {
    const button = event.target.querySelector("button");
    button.disabled = true;
    const outcome = $("user-outcome");
    outcome.classList.remove("bad");
    try {
      put(outcome, await act() ?? "");
    } catch (error) {
      outcome.classList.add("bad");
      put(outcome, error.message);
    } finally {
      button.disabled = false;
    }
  }

  async #push() {
    const answer = await call(this.#service(), "PushService/Push", { user: this.#user, text: $("text").value });
    return answer.outcome === "DELIVERED" ? `Delivered to ${plural(answer.sessions)}.` : "Offline: no session was open.";
  }

  async #kick() {
    const user = this.#user;
    if (!await this.#confirm(`Disconnect ${user}?`, "Every session that the user has now is closed with 1008, wherever it is. Most clients do not come back by themselves.", "Disconnect")) return null;
    const answer = await call(this.#service(), "PushService/Disconnect", { user, reason: $("reason").value });
    await this.#look();
    return `Closed ${plural(answer.sessions ?? 0)}.`;
  }
}
