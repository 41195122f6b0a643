// Many of selvedge.js in one process, for a test that watches: lines.mjs EDGE USERS MODE... with the edge's URL, how many users, and
// for each user a line by each MODE (edge, direct). What happens to them goes to standard output, as a line of JSON each. It ends with its input.
import WebSocket from 'ws';
import '../../../../edge/client/selvedge.js';

const [edge, users, ...modes] = process.argv.slice(2);

function watch(user, mode) {
  const name = `${user} ${mode}`;
  const log = (event, fields) => console.log(JSON.stringify({ at: Date.now(), line: name, event, ...fields }));
  const line = new Selvedge(`${edge}/ws?hello=1&user=${user}&device=${mode}`, {
    direct: mode === 'direct',
    queue: 1,
    WebSocket: class extends WebSocket {
      constructor(url, ...rest) {
        log('dial', { url: url.host });
        super(url, ...rest);
      }
    },
  });
  for (const state of ['connecting', 'open', 'moved', 'waiting', 'closed']) {
    line.addEventListener(state, ({ code, reason, until }) => log(state, { code, reason, wait: until && until - Date.now() }));
  }
  line.addEventListener('message', ({ data }) => {
    const hello = data.startsWith('{"hello"') && JSON.parse(data).hello;
    if (hello) log('hello', { backend: hello.backend });
    else log('message', { data });
  });
}

// A machine that is busy with other things lets this process stand still for a while, which is said as well.
const TICK = 20, STILL = 100;  // ms
let last = Date.now();
setInterval(() => {
  const late = Date.now() - last - TICK;
  last += TICK + late;
  if (late > STILL) console.log(JSON.stringify({ at: last, line: 'user', event: 'late', wait: late }));
}, TICK);

for (let i = 0; i < Number(users); i++) for (const mode of modes) watch(`user-${i}`, mode);
process.stdin.resume().on('end', () => process.exit());
