"""A TCP proxy that does harm on demand.  It runs in a process of its own (so that bulk data does not
share the test's interpreter) and takes one-line commands on stdin:

    cut                 close every connection with RST, now
    cutevery N          and from now on each connection after N bytes (0: never); N counts both ways
    close               the same as cut, but with FIN
    cutone              cut the connection that has carried most since the last cutone or count
    stallone / go       forward nothing on that one
    count               start counting what connections carry anew
    stall / go          forward nothing (TCP stays up) / forward again
    hole / go           a black hole: read and throw away, new connections are swallowed as well
    chunk N             write at most N bytes at a time (0: no limit)
    flip N              change one bit in every Nth byte (0: never)
    rate BYTES DELAY    bytes a second and one-way delay in seconds (0 0: none)
    refuse / go         reset new connections
    target HOST PORT    lead new connections elsewhere

Each command is answered with "ok".  First line on stdout: the port."""
import collections
import selectors
import socket
import struct
import sys
import time

LIMIT = 1 << 20


class Flow:
	"""One direction: bytes read from src wait for their time to be written to dst."""

	def __init__(self, src, dst, pair):
		self.src, self.dst, self.pair = src, dst, pair
		self.queue = collections.deque()  # [due, bytes]
		self.size, self.eof, self.done = 0, False, False
		self.free_at = 0.0


class Proxy:
	def __init__(self, host, port):
		self.sel = selectors.DefaultSelector()
		self.target = (host, port)
		self.listener = socket.socket()
		self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
		self.listener.bind(('127.0.0.1', 0))
		self.listener.listen(512)
		self.listener.setblocking(False)
		self.flows = {}  # src socket -> Flow
		self.cut_every = self.chunk = self.flip = 0
		self.rate = self.delay = 0.0
		self.mode = 'go'
		self.bytes = self.cuts = 0
		self.next_flip = 0
		self.sel.register(self.listener, selectors.EVENT_READ)
		self.sel.register(sys.stdin, selectors.EVENT_READ)
		print(self.listener.getsockname()[1], flush=True)

	def accept(self):
		try:
			a, _ = self.listener.accept()
		except OSError:
			return
		if self.mode == 'refuse':
			self.reset(a)
			return
		b = socket.socket()
		b.settimeout(5)
		try:
			b.connect(self.target)
		except OSError:
			self.reset(a)
			b.close()
			return
		pair = {'bytes': 0, 'socks': (a, b), 'dead': False}
		for x, y in ((a, b), (b, a)):
			x.setblocking(False)
			x.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
			self.flows[x] = Flow(x, y, pair)
		for x in (a, b):
			self.sel.register(x, selectors.EVENT_READ)

	def reset(self, s):
		try:
			s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
		except OSError:
			pass
		s.close()

	def drop(self, pair, reset=True):
		if pair['dead']:
			return
		pair['dead'] = True
		for s in pair['socks']:
			try:
				self.sel.unregister(s)
			except (KeyError, ValueError):
				pass
			self.flows.pop(s, None)
			self.reset(s) if reset else s.close()

	def harm(self, data):
		if not self.flip:
			return data
		out = bytearray(data)
		i = self.next_flip
		while i < len(out):
			out[i] ^= 1 << (i % 8)
			i += self.flip
		self.next_flip = i - len(out)
		return bytes(out)

	def read(self, flow):
		try:
			data = flow.src.recv(262144 if not self.chunk else 65536)
		except BlockingIOError:
			return
		except OSError:
			self.drop(flow.pair)
			return
		if self.mode == 'hole':
			if not data:  # the end is swallowed as well
				flow.eof = flow.done = True
				if all(self.flows[s].done for s in flow.pair['socks'] if s in self.flows):
					self.drop(flow.pair)
			return
		if not data:
			flow.eof = True
		else:
			now = time.monotonic()
			due = 0.0
			if self.rate or self.delay:
				flow.free_at = max(flow.free_at, now) + (len(data) / self.rate if self.rate else 0)
				due = flow.free_at + self.delay
			flow.queue.append([due, self.harm(data)])
			flow.size += len(data)
			flow.pair['bytes'] += len(data)
			self.bytes += len(data)
		self.write(flow)
		if self.cut_every and flow.pair['bytes'] >= self.cut_every:
			self.cuts += 1
			self.drop(flow.pair)

	def write(self, flow):
		if flow.pair['dead'] or self.mode in ('stall', 'hole') or flow.pair.get('stalled'):
			return
		now = time.monotonic()
		while flow.queue and flow.queue[0][0] <= now:
			due, data = flow.queue[0]
			try:
				n = flow.dst.send(data[:self.chunk] if self.chunk else data)
			except BlockingIOError:
				break
			except OSError:
				self.drop(flow.pair)
				return
			flow.size -= n
			if n == len(data):
				flow.queue.popleft()
			else:
				flow.queue[0][1] = data[n:]
		if flow.eof and not flow.queue and not flow.done:
			flow.done = True
			try:
				flow.dst.shutdown(socket.SHUT_WR)
			except OSError:
				pass
			if all(self.flows[s].done for s in flow.pair['socks'] if s in self.flows):
				self.drop(flow.pair, reset=False)

	def interest(self):
		"""What is waited for, and how long."""
		wait, now = 1.0, time.monotonic()
		for s, flow in list(self.flows.items()):
			back = self.flows.get(flow.dst)
			want = 0
			if not flow.eof and self.mode != 'stall' and not flow.pair.get('stalled') and flow.size < LIMIT:
				want |= selectors.EVENT_READ
			if back and back.queue and self.mode not in ('stall', 'hole') and not flow.pair.get('stalled'):
				if back.queue[0][0] <= now:
					want |= selectors.EVENT_WRITE
				else:
					wait = min(wait, back.queue[0][0] - now)
			try:
				have = self.sel.get_key(s).events
			except KeyError:
				have = 0
			if want != have:
				if not have:
					self.sel.register(s, want)
				elif not want:
					self.sel.unregister(s)
				else:
					self.sel.modify(s, want)
		return wait

	def command(self):
		line = sys.stdin.readline()
		if not line:
			sys.exit(0)
		words = line.split()
		verb = words[0] if words else ''
		pairs = {id(f.pair): f.pair for f in self.flows.values()}.values()
		if verb == 'cut':
			for p in pairs:
				self.drop(p)
		elif verb in ('cutone', 'stallone', 'count'):
			most = max(pairs, key=lambda p: p['bytes'], default=None)
			if most and verb == 'cutone':
				self.cuts += 1
				self.drop(most)
			elif most and verb == 'stallone':
				most['stalled'] = True
			for p in pairs:
				p['bytes'] = 0
		elif verb == 'close':
			for p in pairs:
				self.drop(p, reset=False)
		elif verb == 'cutevery':
			self.cut_every = int(words[1])
			for p in pairs:
				p['bytes'] = 0
		elif verb == 'chunk':
			self.chunk = int(words[1])
		elif verb == 'flip':
			self.flip = self.next_flip = int(words[1])
		elif verb == 'rate':
			self.rate, self.delay = float(words[1]), float(words[2])
		elif verb in ('stall', 'go', 'hole', 'refuse'):
			self.mode = verb
			for p in pairs:
				p['stalled'] = False
		elif verb == 'target':
			self.target = (words[1], int(words[2]))
		elif verb == 'stats':
			print('ok %d %d %d' % (self.bytes, self.cuts, len(self.flows) // 2), flush=True)
			return
		print('ok', flush=True)

	def run(self):
		while True:
			for key, events in self.sel.select(self.interest()):
				s = key.fileobj
				if s is self.listener:
					self.accept()
				elif s is sys.stdin:
					self.command()
				elif s in self.flows:
					flow = self.flows[s]
					if events & selectors.EVENT_WRITE and flow.dst in self.flows:
						self.write(self.flows[flow.dst])
					if events & selectors.EVENT_READ and s in self.flows and not flow.eof:
						self.read(flow)
			if self.delay or self.rate:
				for flow in list(self.flows.values()):
					self.write(flow)


if __name__ == '__main__':
	Proxy(sys.argv[1], int(sys.argv[2])).run()
