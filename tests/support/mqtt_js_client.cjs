// A client of mqtt.js: connects (mqtt:// or ws://), publishes each line of JSON it is told, prints what it hears.
const mqtt = require("mqtt");
const readline = require("readline");

const [url, username, password, protocolVersion] = process.argv.slice(2);
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const client = mqtt.connect(url, {username, password, protocolVersion: Number(protocolVersion), reconnectPeriod: 0});
client.on("connect", () => say({what: "connected"}));
client.on("message", (topic, payload) => say({what: "message", topic, payload: payload.toString()}));
client.on("error", (error) => say({what: "error", code: error.code, message: error.message}));
client.on("close", () => say({what: "closed"}));

readline.createInterface({input: process.stdin}).on("line", (line) => {
  const {topic, payload, subscribe} = JSON.parse(line);
  if (subscribe) {
    client.subscribe(subscribe, {qos: 1}, (error, granted) => say({what: "granted", granted: granted ?? []}));
  } else {
    client.publish(topic, payload, {qos: 1}, (error) => say({what: "acked", payload, error: error?.message ?? ""}));
  }
});
