// A service with socket.io as its authors ship it, and neither an adapter nor a broker: socketio-server.mjs NAME EDGE. What is said to a user goes
// to an edge as plain HTTP with that user's id, which brings it to the node that holds the user.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const [name, edge] = process.argv.slice(2);
const DELIVER = 20_000;  // ms for which a message is tried, while its reader moves
const AGAIN = 250;

const http = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://here');
  if (request.method !== 'POST' || pathname !== '/deliver') return response.writeHead(404).end();
  const user = searchParams.get('user');
  let text = '';
  for await (const chunk of request) text += chunk;
  if (!io.sockets.adapter.rooms.has(user)) return response.writeHead(410).end();  // not here, or not now
  io.to(user).emit('heard', text);
  response.writeHead(204).end();
});
const io = new Server(http);

io.on('connection', (socket) => {
  socket.join(decodeURIComponent(socket.request.headers['x-selvedge-user']));
  socket.emit('welcome', name);
  socket.on('say', async (to, text, done) => {
    for (const end = Date.now() + DELIVER; Date.now() < end; await new Promise((resume) => setTimeout(resume, AGAIN))) {
      try {
        const answer = await fetch(`${edge}/deliver?user=${to}`, { method: 'POST', body: text });
        if (answer.ok) return done(true);
      } catch { /* the node that it was at is being killed */ }
    }
    done(false);
  });
});

http.listen(0, '127.0.0.1', () => console.log(`listening ${http.address().port}`));
process.stdin.resume().on('end', () => process.exit());
