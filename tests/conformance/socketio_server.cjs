// A Socket.IO server with connection state recovery, for tests.conformance: prints its port; "COUNT FIRST PADDING" on
// stdin sends so many numbers of both series to everybody, and prints how far it is. argv: the port, 0 for a free one.
const { createServer } = require("node:http");
const { createInterface } = require("node:readline");
const { Server } = require("socket.io");

const PER_MESSAGE = 20;
const http = createServer();
const io = new Server(http, { connectionStateRecovery: { maxDisconnectionDuration: 120000 }, perMessageDeflate: false, serveClient: false });
io.on("connection", (socket) => {
  if (!socket.recovered) socket.join("watchers");
});

async function send(count, first, padding) {
  for (let begin = first; begin < first + count; begin += PER_MESSAGE) {
    const numbers = Array.from({ length: Math.min(PER_MESSAGE, first + count - begin) }, (_, i) => begin + i);
    for (const series of ["a/n", "b/n"]) io.to("watchers").emit("readings", series, numbers, "x".repeat(padding * numbers.length));
    console.log(begin + numbers.length);
    await new Promise(setImmediate);
  }
}

createInterface({ input: process.stdin }).on("line", (line) => send(...line.split(" ").map(Number))).on("close", () => process.exit(0));
http.listen(Number(process.argv[2]), "127.0.0.1", () => console.log(http.address().port));
