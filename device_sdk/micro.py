"""A device on a microcontroller: docs/how-to/microcontrollers.md. Private: what has no docstring."""

import json
import os
import socket
import time

ticks_ms = getattr(time, "ticks_ms", lambda: int(time.monotonic() * 1000))


def dump(value):
 return json.dumps(value, separators=(",", ":"))


class Device:
 """Use `record`, `tick` or `wait`, `close`. ``schema``: ``channels`` and ``commands``."""

 tls = on_command = on_desired = sock = seen = None
 online, why, batch_ms = False, "", 1000
 dropped = no_value = up = newest = until = acked = next = at = tries = pid = lost = retry = 0

 def __init__(s, name, host, port=1883, token="", rows=100, prefix="hub/v1/", **schema):
  s.name, s.address, s.token, s.rows, s.topic = name, (host, port), token, rows, prefix + name + "/"
  s.ticks, s.ring, s.cut, s.ranges, s.done = ticks_ms(), [], [], {}, []
  s.channels, s.schema = schema.setdefault("channels", {}), schema
  s.stream, s.boot = os.urandom(8).hex(), os.urandom(8).hex()

 def record(_, *pair, **values):
  """Keep ``record("door", True)`` or ``record(t=21.5, humidity=44)``."""
  if pair:
   values[pair[0]] = pair[1]
  row = {k: v for k, v in values.items() if v is not None and v * 0 in (0, "") and len(str(v)) < 800}
  _.no_value += len(values) - len(row)
  _.newest = max(_.uptime(), _.newest + 1)
  if row:
   _.ring += [(_.newest, row)]
  if len(_.ring) > _.rows:
   ms, row = _.ring[0]
   for name in row:
    _.ranges[name] = _.ranges.get(name, [ms])[:1] + [ms]
   _.lost += len(row)
   _.dropped += len(row)
   _.ring.pop(0)

 def wait(s, seconds):
  """Tick for so long."""
  end = s.uptime() + int(seconds * 1000)
  while s.uptime() < end:
   s.tick()
   time.sleep(0.01)

 def tick(s):
  """Do what is due; waits to connect only, 5 s at most."""
  try:
   if s.uptime() >= s.at:
    if s.sock:
     s.receive()
    else:
     s.talk = s.connect()
    next(s.talk)
    if s.out and s.write(s.out) != len(s.out):
     raise OSError("stuck")
    s.out = b""
  except Exception as error:
   s.close(error)

 def close(s, why="closed"):
  """End the connection; `tick` begins another."""
  if s.sock:
   s.sock.close()
  s.at = s.uptime() + (s.retry or os.urandom(1)[0] << 2 + s.tries)
  s.tries = min(s.tries + 1, 6)
  s.sock, s.online, s.why = None, False, str(why)

 def uptime(s):
  now = ticks_ms()
  s.up += now - s.ticks & 0x3FFFFFFF
  s.ticks = now
  return s.up

 def connect(s):
  s.retry = s.skip = s.due = s.hellos = 0
  s.rx = s.out = s.answer = b""
  s.say = []
  found = socket.getaddrinfo(*s.address)[0]
  sock = s.sock = socket.socket(found[0])
  sock.settimeout(5)
  sock.connect(found[-1])
  s.read, s.write = sock.recv, sock.send
  if s.tls:
   sock = s.sock = s.tls.wrap_socket(sock, server_hostname=s.address[0])
   s.read, s.write = sock.read, sock.write
  sock.setblocking(False)
  # TLS is slow.
  s.heard = s.uptime()
  s.ping = s.heard + 15000
  state = '{"on":%d,"boot":"' + s.boot + '"}'
  yield from s.ask(b" \2\0\0", 16, b"\0\4MQTT\4\xee\0\x1e",
   (s.name, s.topic + "state", state % 0, s.name, s.token))
  yield from s.ask(b"\x90\3\0\1", 130, b"\0\1", [s.topic + "down"], b"\1")
  yield from s.publish(state % 1, "state", 51)
  while True:
   if s.up >= s.due:
    if s.hellos > 4:
     raise OSError("no welcome")
    s.due = s.up + (10000 << s.hellos)
    s.hellos += 1
    s.tell("hello", proto=1, sdk="micro/0.1.0", device=s.name, stream=s.stream, boot=s.boot, run=s.boot,
     acked=s.acked, next=s.acked + len(s.cut) + 1, seen=s.seen)
   if s.say:
    yield from s.publish(s.say.pop(0))
   elif s.online and s.next < len(s.cut):
    head, text = s.cut[s.next]
    s.next += 1
    s.due = min(s.due, s.up + 20000)
    yield from s.publish(head % (s.stream, s.acked + s.next) + text)
   else:
    if s.online and len(s.cut) < 4:
     s.slice()
    yield

 def tell(s, op, **message):
  text = dump(message)
  if text[5000:]:
   raise OSError("too long")
  s.say = s.say[-8:] + ['{"op":"%s",' % op + text[1:]]

 def publish(s, text, leaf="up", kind=50):
  s.pid = s.pid % 65535 + 1
  pid = s.pid.to_bytes(2, "big")
  return s.ask(b"@\2" + pid, kind, b"", [s.topic + leaf], pid + text.encode())

 def ask(s, answer, kind, data, fields, tail=b""):
  for field in fields:
   data += len(field).to_bytes(2, "big") + field.encode()
  data += tail
  size = len(data)
  for wait in 10, 20, 40, 80, 160:
   s.out += bytes((kind, size) if size < 128 else (kind, size & 127 | 128, size >> 7)) + data
   end = s.up + wait * 1000
   while s.up < end:
    yield
    if s.answer == answer:
     return
   kind |= 8
  raise OSError("no answer")

 def slice(s):
  ring = s.ring
  if s.lost:
   ranges = {name: ["%d000000" % (ms + s.wall) for ms in both] for name, both in s.ranges.items()}
   s.cut.append(('{"op":"gap","stream":"%s","seq":%d',
    ',"count":%d,"reason":"spool_full","ranges":%s}' % (s.lost, dump(ranges))))
   s.lost = 0
   s.ranges = {}
  elif ring and (ring[30:] or s.up - ring[0][0] >= s.batch_ms):
   base, texts = ring[0][0], []
   for _, row in ring[:40]:
    for name in row:
     if name not in s.channels:
      s.channels[name], s.say = {}, []
      s.tell("schema", **s.schema)
   names = dump(list(s.channels))
   size = len(names)
   for ms, row in ring[:40]:
    text = dump([ms - base] + [row.get(name) for name in s.channels])
    size += len(text) + 1
    if texts and size > 900:
     break
    texts.append(text)
    last = ms - base
   # The hub's time may go back.
   start = max(base + s.wall, s.until + 1)
   s.cut.append(('{"s":"%s","q":%d', ',"t":"%d","f":%s,"r":[%s]}' % (start, names, ",".join(texts))))
   # Last: memory may end.
   s.until = start + last
   del ring[:len(texts)]

 def receive(s):
  data = None
  try:
   data = s.read(512)
  except OSError as error:
   # EAGAIN; 2, 3: of TLS.
   if error.errno not in (2, 3, 11, 35):
    raise
  if data:
   s.heard = s.up
  elif data == b"" or s.up - s.heard > 45000:
   raise OSError("silence")
  if s.up >= s.ping:
   s.ping, s.tries = s.up + 15000, 0
   s.out += b"\xc0\0"
  data = data or b""
  rx = s.rx + data[s.skip:]
  s.skip = max(0, s.skip - len(data))
  while len(rx) > 3:
   size, at = rx[1], 2
   while size >> 7 * at - 7:
    size += rx[at] - 1 << 7 * at - 7
    at += 1
   end = at + size
   if end > len(rx):
    if end > 2048:
     s.skip, rx = end - len(rx), b""
    break
   kind, head, data, rx = rx[0], rx[:4], rx[at:end], rx[end:]
   if kind >> 4 == 3:
    at = 2 + (data[0] << 8 | data[1])
    if kind & 6:
     s.out += b"@\2" + data[at:at + 2]
     at += 2
    try:
     s.hear(json.loads(data[at:]))
    except Exception as error:
     s.why = str(error)
   elif kind < 200:
    s.answer = head
    if kind == 32 and data[1]:
     s.retry = 60000
     raise OSError("refused %d" % data[1])
  s.rx = rx

 def hear(s, said):
  op, up = said["op"], s.up
  # A command comes again.
  if op in "slow error bye" or (op == "command" and s.say[7:]):
   s.retry = said.get("retry_ms", 1000)
   s.due, s.online = up + s.retry, False
  elif op == "command":
   id = said["id"]
   for reply in s.done:
    if reply["id"] == id:
     break
   else:
    reply = dict(id=id, ok=True)
    s.done = s.done[-15:] + [reply]
    try:
     reply["value"] = s.on_command(said["name"], said["args"])
    except Exception as error:
     reply.update(ok=False, error=str(error))
   s.tell("reply", **reply)
  elif op == "desired":
   s.tell("reported", state=s.on_desired(said["state"]), version=said["version"], mark=said.get("mark", ""))
  else:
   stored = said["stored"]
   # Of an older start?
   if (op == "welcome" and not s.hellos) or stored > s.acked + len(s.cut):
    return
   s.seen = said["pos"]
   if op == "new_stream" or (op == "welcome" and stored < s.acked):
    # The hub was restored.
    s.stream = os.urandom(8).hex()
    s.acked = s.next = s.due = s.online = 0
    return
   while s.acked < stored:
    s.cut.pop(0)
    s.acked += 1
    s.next = max(s.next - 1, 0)
   if op == "welcome":
    s.wall = int(said["time_ns"]) // 1000000 - up
    s.sync = up + 3600000
    s.hellos = s.next = s.retry = 0
    s.online = True
    s.tell("schema", **s.schema)
   if s.online:
    s.due = min(s.sync, up + 20000) if s.cut else s.sync
