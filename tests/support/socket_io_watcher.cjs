// A watcher by Socket.IO's own client: prints a JSON line for each thing it hears, obeys "cut" and "stop" on stdin.
// node socket_io_watcher.cjs URL TOKEN TRANSPORT
const { io } = require("socket.io-client");

const [url, token, transport] = process.argv.slice(2);
const say = (what, fields) => console.log(JSON.stringify({ what, ...fields }));
const socket = io(`${url}/watch`, {
  auth: { token },
  transports: transport.split(","),
  reconnectionDelay: 50,
  reconnectionDelayMax: 200,
});
let since;

socket.on("connect", () => {
  socket.emit("sub", { sub: "s1", match: ["d"], since }, (answer) => {
    since = answer.from;
    say("ok", answer);
  });
});
socket.on("data", (data) => {
  since = data.o;
  say("data", { values: data.u.map((row) => row[2]) });
});
socket.on("live", (live) => {
  since = live.o;
  say("live", { transport: socket.io.engine.transport.name });
});
socket.on("reset", (reset) => say("reset", reset));
socket.on("bye", (bye) => say("bye", bye));
socket.on("connect_error", (error) => say("connect_error", { message: error.message, data: error.data ?? null }));
socket.on("disconnect", (reason) => say("disconnect", { reason, active: socket.active }));

require("node:readline")
  .createInterface({ input: process.stdin })
  .on("line", (line) => {
    if (line === "cut") {
      // As a network that fails: no packet says goodbye.
      const { transport } = socket.io.engine;
      if (transport.ws) transport.ws.terminate();
      else socket.io.engine.close();
    } else socket.disconnect();
  })
  .on("close", () => process.exit(0));
