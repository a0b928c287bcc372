// aedes for bench_mqtt: a broker for anybody. Prints its port, serves until stdin closes.
const { createServer } = require("node:net");
const { Aedes } = require("aedes");

Aedes.createBroker().then((broker) => {
  const server = createServer(broker.handle);
  server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => console.log(server.address().port));
});
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
