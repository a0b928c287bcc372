// Peers of bench_fanout in Node: "socketio" or "ws". Prints its port, serves until stdin closes.
const { createServer } = require("node:http");

const http = createServer();
if (process.argv[2] === "socketio") {
  const { Server } = require("socket.io");
  // Pings would come between what is counted; a run is shorter.
  const io = new Server(http, { transports: ["websocket"], perMessageDeflate: false, serveClient: false, pingInterval: 120000 });
  io.on("connection", (socket) => {
    socket.on("sub", (room) => {
      socket.join(room);
      socket.emit("ready");
    });
    socket.on("r", (reading) => io.to("all").emit("r", reading));
  });
} else {
  const { WebSocketServer, WebSocket } = require("ws");
  const server = new WebSocketServer({ server: http, perMessageDeflate: false });
  const watchers = new Set();
  server.on("connection", (socket, request) => {
    socket.on("error", () => {});
    if (request.url === "/publish") {
      // As its documentation shows a broadcast.
      socket.on("message", (data, isBinary) => {
        for (const watcher of watchers) if (watcher.readyState === WebSocket.OPEN) watcher.send(data, { binary: isBinary });
      });
    } else {
      watchers.add(socket);
      socket.on("close", () => watchers.delete(socket));
    }
    socket.send("ready");
  });
}
http.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => console.log(http.address().port));
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
