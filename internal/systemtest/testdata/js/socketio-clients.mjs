// Many users of socketio-server.mjs with socket.io's client as its authors ship it: socketio-clients.mjs N EDGE... Of three users each, one connects as
// the client does by itself (polling, then an upgrade), one by WebSocket alone and one by polling alone. Of each such three another one writes
// to the next user every other second, and two only listen. What happens goes to standard output, as a line of JSON each. A line on
// standard input ends the talk, the end of the input all.
import { io } from 'socket.io-client';

const [n, ...edges] = process.argv.slice(2);
const TRANSPORTS = [undefined, ['websocket'], ['polling']];
const EVERY = 2_000;
const log = (user, event, fields) => console.log(JSON.stringify({ at: Date.now(), user, event, ...fields }));
let talking = true;

for (let i = 0; i < Number(n); i++) {
  const user = `user-${i}`;
  const transports = TRANSPORTS[i % 3];
  const socket = io(edges[i % edges.length], { query: { user }, forceNew: true, ...(transports && { transports }) });
  socket.on('welcome', (node) => log(user, 'welcome', { node, sid: socket.id, transport: socket.io.engine.transport.name }));
  socket.on('disconnect', (reason) => log(user, 'disconnect', { reason }));
  socket.on('connect_error', (error) => log(user, 'error', { reason: error.message }));
  socket.io.on('error', (error) => log(user, 'error', { reason: error.message }));
  socket.on('connect', () => {
    socket.io.engine.on('error', (error) => log(user, 'error', { reason: error.message }));
    socket.io.engine.on('upgrade', (transport) => log(user, 'upgrade', { transport: transport.name }));
  });
  socket.on('heard', (text) => log(user, 'heard', { text }));
  if ((i + Math.floor(i / 3)) % 3 !== 0) continue;
  let count = 0;
  const to = `user-${(i + 1) % Number(n)}`;
  const say = () => {
    if (!talking) return;
    setTimeout(say, EVERY);
    if (!socket.connected) return;
    const text = `${user}:${count++}`;
    log(user, 'said', { text, to });
    socket.timeout(30_000).emit('say', to, text, (error, delivered) => {
      if (error || !delivered) log(user, 'undelivered', { text, to, reason: String(error ?? 'the service gave up') });
    });
  };
  setTimeout(say, Math.random() * EVERY);
}

process.stdin.once('data', () => { talking = false; }).on('end', () => process.exit());
