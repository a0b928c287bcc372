// Socket.IO's own client as generator: argv = port, connections, window, readings, seconds; prints acks per second.
const { io } = require("socket.io-client");

const [port, connections, window, readings, seconds] = process.argv.slice(2).map(Number);
const values = Array.from({ length: readings }, (_, i) => 20 + (i % 50) / 10);
const dt = values.map((_, i) => i);
const batch = JSON.stringify({ op: "batch", seq: 1000, count: readings, t0: "1795376000000000000", tick: 1000000, c: { temperature: { dt, v: values } } });
let acked = 0;
let isRunning = true;

function send(socket) {
  socket.emit("m", batch, () => {
    acked++;
    if (isRunning) send(socket);
  });
}

const sockets = Array.from({ length: connections }, () => io(`http://127.0.0.1:${port}`, { transports: ["websocket"], forceNew: true }));
Promise.all(sockets.map((socket) => new Promise((resolve) => socket.on("connect", resolve)))).then(() => {
  for (const socket of sockets) for (let i = 0; i < window; i++) send(socket);
  setTimeout(() => {
    const before = acked;
    const start = process.hrtime.bigint();
    setTimeout(() => {
      const took = Number(process.hrtime.bigint() - start) / 1e9;
      isRunning = false;
      console.log((acked - before) / took);
      process.exit(0);
    }, seconds * 1000);
  }, 500);
});
