// Socket.IO's acks for bench_command. "serve COUNT" prints its port, asks the first client COUNT times, one after the
// other, and prints the milliseconds of each as JSON; "device PORT" is that client.
const { createServer } = require("node:http");

function serve(count) {
  const { Server } = require("socket.io");
  const http = createServer();
  const io = new Server(http, { transports: ["websocket"], perMessageDeflate: false, serveClient: false });
  io.once("connection", (socket) => {
    const took = [];
    const ask = () => {
      const start = process.hrtime.bigint();
      socket.emit("fan", { speed: took.length }, () => {
        took.push(Number(process.hrtime.bigint() - start) / 1e6);
        if (took.length < count) ask();
        else console.log(JSON.stringify(took));
      });
    };
    ask();
  });
  http.listen(0, "127.0.0.1", () => console.log(http.address().port));
}

function device(port) {
  const { io } = require("socket.io-client");
  const socket = io(`http://127.0.0.1:${port}`, { transports: ["websocket"] });
  socket.on("fan", (args, ack) => ack({ speed: args.speed }));
}

const [role, number] = process.argv.slice(2);
if (role === "serve") serve(Number(number));
else device(Number(number));
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
