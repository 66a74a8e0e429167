// SIGTERM under load: `node drain.mjs UPSTREAM_PORT GATE_URL PID TOKEN`.
//
// Plays the upstream (answers after 200 ms, notes every request number it gets) and 32 clients on connections kept
// alive, sends SIGTERM to PID amidst them, and goes on until the gate's port is closed. A request that reached the
// upstream had its head read by the gate: each must have been answered, in full. Prints one line of counts as JSON.
import http from 'node:http';

const [upstreamPort, gate, pid, token] = process.argv.slice(2);
const CLIENTS = 32;
const LIMIT_MS = 20_000;

const reached = new Set();
const answered = new Set();
const counts = { sent: 0, answered: 0, after_sigterm: 0, refused_status: 0, unanswered: 0, lost: 0 };
let next = 0;
let terminated = false;

const upstream = http.createServer((request, response) => {
  reached.add(request.headers['x-number']);
  setTimeout(() => response.end('x'.repeat(2000)), 200);
});

const agent = new http.Agent({ keepAlive: true, maxSockets: CLIENTS });

function ask(number) {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}`, 'x-number': number };
    const request = http.get(gate, { agent, headers }, (response) => {
      let length = 0;
      response.on('data', (chunk) => { length += chunk.length; });
      response.on('end', () => resolve({ status: response.statusCode, whole: length === 2000 }));
      response.on('error', reject);
      response.on('aborted', () => reject(new Error('cut')));
    });
    request.on('error', reject);
  });
}

async function client(until) {
  while (Date.now() < until) {
    const number = String(next++);
    const late = terminated;
    counts.sent += 1;
    try {
      const { status, whole } = await ask(number);
      if (status !== 200) counts.refused_status += 1;
      if (status !== 200 || !whole) continue;
      answered.add(number);
      counts.answered += 1;
      if (late) counts.after_sigterm += 1;
    } catch (error) {
      // The listener is closed: this client is done.
      if (error.code === 'ECONNREFUSED') return;
      counts.unanswered += 1;
    }
  }
}

upstream.listen(Number(upstreamPort), '127.0.0.1', async () => {
  setTimeout(() => { terminated = true; process.kill(Number(pid), 'SIGTERM'); }, 1500);
  const until = Date.now() + LIMIT_MS;
  await Promise.all(Array.from({ length: CLIENTS }, () => client(until)));
  counts.lost = [...reached].filter((number) => !answered.has(number)).length;
  console.log(JSON.stringify(counts));
  process.exit(0);
});
