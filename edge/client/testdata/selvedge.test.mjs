// selvedge.js with WebSockets, an edge and a clock that the tests hold in their hands: node --test.
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import "../selvedge.js";

let sockets, clock;

class Socket {
  sent = [];
  closed = null;
  bufferedAmount = 0;
  constructor(url, protocols) { Object.assign(this, { url: String(url), protocols }); sockets.push(this); }
  send(data) { this.sent.push(data); }
  close(code, reason) { this.closed = { code, reason }; }
}

// What a real one would report.
const opens = (socket) => socket.onopen({});
const brings = (socket, data) => socket.onmessage({ data });
const ends = (socket, code = 1006, reason = "") => socket.onclose({ code, reason });

beforeEach(() => {
  sockets = [];
  clock = mock.timers;
  clock.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  mock.method(Math, "random", () => 0.5);
});
afterEach(() => { clock.reset(); mock.restoreAll(); });

// line is a Selvedge whose events are logged, up to the first attempt.
async function line(options = {}, url = "https://chat.example.com/ws?user=alice") {
  const one = new Selvedge(url, { WebSocket: Socket, ...options });
  const log = [];
  for (const type of ["connecting", "open", "moved", "waiting", "closed", "message"]) {
    one.addEventListener(type, (event) => {
      assert.equal(one.state, type === "message" ? "open" : type);
      const { code, reason, until, data } = event;
      log.push(type === "message" ? data : [type, code, until && until - Date.now(), reason].filter(Boolean).join(" "));
    });
  }
  assert.deepEqual([one.state, sockets.length], ["connecting", 0]);
  await tick();
  return { one, log };
}

// tick lets time go by, and whatever waited for it happen.
async function tick(ms = 1) { clock.tick(ms); await turn(); await turn(); }

// after counts the milliseconds until the next attempt, and lets them pass.
async function after() {
  const before = sockets.length, from = Date.now();
  while (sockets.length === before) {
    assert.ok(Date.now() - from < 120_000, "no attempt within two minutes");
    await tick();
  }
  return Date.now() - from;
}

test("it connects, and its messages pass both ways", async () => {
  const { one, log } = await line({ protocols: ["a", "b"] });
  assert.equal(sockets[0].url, "wss://chat.example.com/ws?user=alice");
  assert.deepEqual(sockets[0].protocols, ["a", "b"]);
  assert.equal(one.send("early"), false);
  opens(sockets[0]);
  assert.equal(sockets[0].binaryType, "arraybuffer");
  assert.equal(one.send("hi"), true);
  sockets[0].bufferedAmount = 2 ** 20 + 1;
  assert.equal(one.send("too much"), false);
  assert.deepEqual(sockets[0].sent, ["hi"]);
  brings(sockets[0], "ho");
  assert.deepEqual(log, ["connecting", "open", "ho"]);
  one.close();
  assert.deepEqual(sockets[0].closed, { code: 1000, reason: "" });
  brings(sockets[0], "late");
  ends(sockets[0], 1000);
  one.close();
  assert.deepEqual(log.slice(3), ["closed 1000"]);
  await tick(60_000);
  assert.equal(sockets.length, 1);
  assert.equal(one.send("late"), false);
});

test("waits are random up to a time that doubles, to the cap, and begin anew after a stable connection", async () => {
  const { log } = await line({ base: 100, cap: 1000 });
  for (const most of [100, 200, 400, 800, 1000, 1000, 1000]) {
    ends(sockets.at(-1));
    assert.equal(await after(), most / 2);
  }
  opens(sockets.at(-1));
  await tick(4_999);
  ends(sockets.at(-1));
  assert.equal(await after(), 500, "a connection of 4,999 ms is not stable");
  opens(sockets.at(-1));
  await tick(5_000);
  ends(sockets.at(-1));
  assert.equal(await after(), 50);
  assert.deepEqual(log.slice(0, 4), ["connecting", "waiting 1006 50", "connecting", "waiting 1006 100"]);

  Math.random.mock.restore();
  const waits = [];
  for (let i = 0; i < 200; i++) {
    opens(sockets.at(-1));
    await tick(5_000);
    ends(sockets.at(-1));
    waits.push(Number(log.at(-1).split(" ")[2]));
    await after();
  }
  for (let i = 0; i < 10; i++) {
    const share = waits.filter((ms) => ms >= i * 10 && ms < (i + 1) * 10).length;
    assert.ok(share >= 4 && share <= 45, `${share} of 200 waits are in ${i * 10} to ${i * 10 + 10} ms: ${waits}`);
  }
});

test("close codes decide", async () => {
  const { one, log } = await line({ cap: 4000 });
  const next = async (code, reason) => {
    opens(sockets.at(-1));
    await tick(5_000);
    ends(sockets.at(-1), code, reason);
    return after();
  };
  assert.equal(await next(1012, "moved"), 125);
  assert.equal(await next(1013), 3000);
  assert.equal(await next(1001, "going away"), 250);
  assert.equal(await next(1000), 250);
  assert.equal(await next(4000), 250);
  assert.deepEqual(log.filter((entry) => /^(moved|waiting)/.test(entry)),
    ["moved 1012 125 moved", "waiting 1013 3000", "waiting 1001 250 going away", "waiting 1000 250", "waiting 4000 250"]);

  // A server that sends everybody on again and again is not hammered.
  opens(sockets.at(-1));
  ends(sockets.at(-1), 1012);
  const waits = [await after()];
  for (let i = 0; i < 5; i++) {
    opens(sockets.at(-1));
    ends(sockets.at(-1), 1012);
    waits.push(await after());
  }
  assert.deepEqual(waits, [250, 500, 1000, 2000, 2000, 2000]);

  opens(sockets.at(-1));
  ends(sockets.at(-1), 1008, "kicked");
  const before = sockets.length;
  await tick(120_000);
  assert.equal(sockets.length, before);
  assert.equal(log.at(-1), "closed 1008 kicked");
  one.open();
  await tick();
  assert.equal(sockets.length, before + 1);
  assert.equal(log.at(-1), "connecting");
});

test("open ends a wait, and does nothing else while there is a connection or an attempt", async () => {
  const { one } = await line();
  one.open();
  opens(sockets[0]);
  one.open();
  await tick(60_000);
  assert.equal(sockets.length, 1);
  ends(sockets[0]);
  one.open();
  await tick();
  assert.equal(sockets.length, 2);
  await tick(9_000);
  assert.equal(sockets.length, 2, "the wait that was cut short has not come back");
});

test("an attempt that hangs is given up", async () => {
  const { one } = await line();
  await tick(10_000);
  assert.notEqual(sockets[0].closed, null);
  ends(sockets[0]);
  await after();
  opens(sockets[1]);
  await tick(20_000);
  assert.equal(sockets[1].closed, null);
  one.close();
});

test("close before and within an attempt", async () => {
  const early = new Selvedge("wss://a/", { WebSocket: Socket });
  early.close();
  await tick(60_000);
  assert.equal(sockets.length, 0);

  let answer;
  const { one, log } = await line({}, () => new Promise((resolve) => { answer = resolve; }));
  one.close(4001, "bye");
  answer("wss://a/");
  await tick(60_000);
  assert.equal(sockets.length, 0);
  assert.deepEqual(log, ["connecting", "closed 4001 bye"]);

  // And one that is opened again at once does not hear of the old one.
  one.open();
  const old = answer;
  one.close();
  one.open();
  old("wss://old/");
  answer("wss://new/");
  await tick();
  assert.deepEqual(sockets.map((socket) => socket.url), ["wss://new/"]);
});

test("a function gives each attempt a URL of its own, and may fail", async () => {
  let n = 0;
  const { log } = await line({}, async () => {
    if (++n === 2) throw new Error("no token");
    return `https://a.example/ws?token=${n}`;
  });
  ends(sockets[0]);
  await after();
  assert.deepEqual(sockets.map((socket) => socket.url), ["wss://a.example/ws?token=1", "wss://a.example/ws?token=3"]);
  assert.deepEqual(log, ["connecting", "waiting 1006 250", "connecting", "waiting 500 no token", "connecting"]);
  assert.throws(() => new Selvedge("/ws"), TypeError, "relative to no page");
});

test("the queue is bounded, and goes out first", async () => {
  const { one } = await line({ queue: 2 });
  one.addEventListener("open", () => one.send("from a listener"));
  assert.deepEqual([one.send("1"), one.send("2"), one.send("3")], [true, true, false]);
  opens(sockets[0]);
  assert.deepEqual(sockets[0].sent, ["1", "2", "from a listener"]);
  ends(sockets[0]);
  assert.equal(one.send("4"), true);
  await after();
  opens(sockets[1]);
  assert.deepEqual(sockets[1].sent, ["4", "from a listener"], "what has been handed over is not sent twice");
});

test("repeated message ids are dropped, across connections; the last 1,000 are known", async () => {
  const { log } = await line({ idOf: (data) => JSON.parse(data).id });
  const before = log.length;
  opens(sockets[0]);
  for (const text of ['{"id":"a"}', '{"id":"a"}', '{"id":1}', '{"no":"id"}', '{"no":"id"}', "no JSON", "no JSON"]) brings(sockets[0], text);
  ends(sockets[0]);
  await after();
  opens(sockets[1]);
  for (const text of ['{"id":"a"}', '{"id":"b"}', '{"id":1}']) brings(sockets[1], text);
  const got = () => log.slice(before).filter((entry) => /[{J]/.test(entry));
  assert.deepEqual(got(), ['{"id":"a"}', '{"id":1}', '{"no":"id"}', '{"no":"id"}', "no JSON", "no JSON", '{"id":"b"}']);
  for (let i = 0; i < 997; i++) brings(sockets[1], `{"id":"x${i}"}`);
  brings(sockets[1], '{"id":"a"}');
  assert.equal(got().length, 7 + 997, "of 1,000");
  for (let i = 997; i < 1000; i++) brings(sockets[1], `{"id":"x${i}"}`);
  brings(sockets[1], '{"id":"a"}');
  assert.equal(got().at(-1), '{"id":"a"}', "of 1,003");
});

test("direct: the edge is asked on every attempt", async () => {
  const asked = [];
  const says = (status, body, headers = {}) => async (url, init) => {
    asked.push(url);
    assert.deepEqual([init.credentials, init.cache, init.signal.aborted], ["include", "no-store", false]);
    return new Response(body === undefined ? "<html>" : JSON.stringify(body), { status, statusText: "Said So", headers });
  };
  let answer = says(200, { url: "wss://b1.example/ws?user=alice&selvedge_ticket=1" });
  const options = { direct: true, fetch: (...args) => answer(...args) };
  const { one, log } = await line(options, "wss://edge.example/a%20b?user=al%26ice&device=x#y");
  assert.deepEqual(asked, ["https://edge.example/.well-known/selvedge/resolve?path=%2Fa%2520b&user=al%26ice&device=x"]);
  assert.equal(sockets[0].url, "wss://b1.example/ws?user=alice&selvedge_ticket=1");
  opens(sockets[0]);
  answer = says(200, { url: "wss://b2.example/ws" });
  ends(sockets[0]);
  await after();
  assert.equal(sockets[1].url, "wss://b2.example/ws");
  ends(sockets[1]);  // refused with 421, say, which a browser hides
  await after();
  assert.equal(asked.length, 3);
  one.close();
  assert.equal(log.at(-1), "closed 1000");

  for (const [next, want] of [
    [says(503, { error: "none" }, { "Retry-After": "2" }), "waiting 503 2250 none"],
    [says(503, { error: "none" }, { "Retry-After": "3600" }), "waiting 503 60250 none"],
    [says(503, { error: "none" }, { "Retry-After": "soon" }), "waiting 503 250 none"],
    [says(421), "waiting 421 250 Said So"],
    [says(429, {}), "waiting 429 250 Said So"],
    [async () => { throw new TypeError("fetch failed"); }, "waiting 250 fetch failed"],
    [says(200), /^waiting 250 .*JSON/],
    [says(200, {}), /^waiting 250 /],
    [says(400, { error: "no user" }), "closed 400 no user"],
    [says(401, { error: "token expired" }), "closed 401 token expired"],
    [says(404), "closed 404 Said So"],
  ]) {
    answer = next;
    sockets = [];
    const { one, log } = await line(options, "http://edge.example/ws");
    assert.match(asked.at(-1), /^http:/);
    assert.equal(log.length, 2);
    if (want instanceof RegExp) assert.match(log[1], want); else assert.equal(log[1], want);
    answer = says(200, { url: "wss://b3.example/ws" });
    if (one.state === "closed") {
      await tick(120_000);
      assert.equal(sockets.length, 0);
      one.open();
      await tick();
    } else {
      await after();
    }
    assert.equal(sockets.at(-1).url, "wss://b3.example/ws");
    one.close();
  }
});
