// Two users of the chat, each with the ws package as its authors ship it: chat.mjs URL-OF-THE-EDGE.
// It prints "ok" and exits with 0, or says what went wrong.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import WebSocket from 'ws';

const base = process.argv[2];
const within = (promise, what) => Promise.race([
  promise,
  new Promise((_, reject) => setTimeout(() => reject(new Error(`no ${what} within 10 s`)), 10_000).unref()),
]);

async function open(path) {
  const socket = new WebSocket(base + path);
  socket.queue = [];
  socket.on('message', (data, binary) => {
    socket.queue.push(binary ? data : data.toString());
    socket.emit('queued');
  });
  await within(once(socket, 'open'), `open of ${path}`);
  return socket;
}

async function next(socket, what) {
  while (socket.queue.length === 0) await within(once(socket, 'queued'), what);
  return socket.queue.shift();
}

// The chat: one to one, to the sender's other device, and back.
const alice = await open('/ws?user=alice&device=phone');
const twin = await open('/ws?user=alice&device=laptop');
const bob = await open('/ws?user=bob');
alice.send(JSON.stringify({ to: 'bob', text: 'hi' }));
const got = JSON.parse(await next(bob, 'message for bob'));
assert.deepEqual({ ...got, id: undefined }, { from: 'alice', to: 'bob', text: 'hi', id: undefined });
assert.deepEqual(JSON.parse(await next(twin, 'copy for the other device')), got);
assert.deepEqual(JSON.parse(await next(alice, 'ack')), { ack: got.id, outcome: 'DELIVERED', sessions: 1 });
alice.send(JSON.stringify({ to: ['bob', 'nobody'], text: 'both' }));
assert.deepEqual(JSON.parse(await next(bob, 'message to two')).to, ['bob', 'nobody']);
assert.equal(JSON.parse(await next(alice, 'ack')).outcome, 'DELIVERED');
alice.send('{');
assert.match(JSON.parse(await next(alice, 'complaint')).error, /want/);

// Echo: text and binary of many sizes, fragments, and a ping.
const echo = await open('/echo?user=alice');
for (const size of [0, 1, 125, 126, 127, 65535, 65536, 300_000]) {
  echo.send('x'.repeat(size));
  assert.equal((await next(echo, `echo of ${size}`)).length, size);
  echo.send(Buffer.alloc(size, 7));
  assert.equal(Buffer.compare(await next(echo, `binary echo of ${size}`), Buffer.alloc(size, 7)), 0);
}
echo.send('frag', { fin: false });
echo.ping('are you there');
const pong = within(once(echo, 'pong'), 'pong');
echo.send('ments', { fin: true });
assert.equal(await next(echo, 'echo of fragments'), 'fragments');
assert.equal((await pong)[0].toString(), 'are you there');

// The close handshake: the code that was sent comes back.
const closed = within(once(echo, 'close'), 'close');
echo.close(4001, 'bye');
assert.equal((await closed)[0], 4001);

// A refused upgrade is an HTTP answer.
const refused = new WebSocket(base + '/ws');
const [, response] = await within(once(refused, 'unexpected-response'), 'refusal');
assert.equal(response.statusCode, 400);
refused.on('error', () => {});
refused.terminate();

for (const socket of [alice, twin, bob]) socket.terminate();
console.log('ok');
