"""What stands behind the tunnel in the tests, and what talks to it: a threaded server with a tiny
request protocol whose every transfer is checked by SHA-256, and plain handlers (echo, close, stall)."""
import hashlib
import os
import random
import socket
import struct
import threading
import time
import weakref

CHUNK = 256 * 1024
MIB = 1 << 20


class Source:
	"""n deterministic bytes in which no two mebibytes are alike."""

	def __init__(self, n, seed=1):
		self.n, self.block = n, random.Random(seed).randbytes(MIB)

	def __iter__(self):
		left, i = self.n, 0
		while left:
			take = min(left, MIB)
			yield (struct.pack('>Q', i) + self.block[8:])[:take]
			left, i = left - take, i + 1

	def digest(self):
		h = hashlib.sha256()
		for part in self:
			h.update(part)
		return h.digest()


def read_exact(sock, n):
	out = bytearray()
	while len(out) < n:
		got = sock.recv(min(n - len(out), CHUNK))
		if not got:
			raise EOFError('end of stream after %d of %d bytes' % (len(out), n))
		out += got
	return bytes(out)


def read_hash(sock, n):
	"""Reads n bytes, returns their SHA-256."""
	h, left, buf = hashlib.sha256(), n, bytearray(CHUNK)
	view = memoryview(buf)
	while left:
		got = sock.recv_into(view, min(left, CHUNK))
		if not got:
			raise EOFError('end of stream, %d of %d bytes missing' % (left, n))
		h.update(view[:got])
		left -= got
	return h.digest()


def read_all(sock):
	out = bytearray()
	while True:
		got = sock.recv(CHUNK)
		if not got:
			return bytes(out)
		out += got


def rst_close(sock):
	sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
	sock.close()


class Server:
	"""Accepts for ever; handler(sock) runs in a thread of its own. `family` may be AF_INET6."""

	def __init__(self, handler, host='127.0.0.1', family=socket.AF_INET, backlog=1024, rcvbuf=0, port=0):
		self.handler = handler
		self.listener = socket.socket(family, socket.SOCK_STREAM)
		self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
		if rcvbuf:
			self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
		self.listener.bind((host, port))
		self.listener.listen(backlog)
		self.port = self.listener.getsockname()[1]
		self.accepted = 0
		self.open = 0
		self.changed = threading.Condition()
		threading.Thread(target=self._run, daemon=True).start()

	def _run(self):
		while True:
			try:
				sock, _ = self.listener.accept()
			except OSError:
				return
			with self.changed:
				self.accepted += 1
				self.open += 1
				self.changed.notify_all()
			threading.Thread(target=self._one, args=(sock,), daemon=True).start()

	def _one(self, sock):
		try:
			sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
			self.handler(sock)
		except (OSError, EOFError):
			pass
		finally:
			try:
				sock.close()
			except OSError:
				pass
			with self.changed:
				self.open -= 1
				self.changed.notify_all()

	def wait_open(self, n, timeout=15):
		with self.changed:
			return self.changed.wait_for(lambda: self.open == n, timeout)

	def wait_accepted(self, n, timeout=15):
		with self.changed:
			return self.changed.wait_for(lambda: self.accepted >= n, timeout)

	def close(self):
		self.listener.close()


def echo(sock):
	while True:
		got = sock.recv(CHUNK)
		if not got:
			return
		sock.sendall(got)


def blob(sock):
	"""Requests one after the other: op, length, seed.  U: reads length bytes, answers their SHA-256.  D: sends
	length bytes made from seed and their SHA-256.  B: both at once, on two threads."""
	while True:
		head = sock.recv(1)
		if not head:
			return
		n, seed = struct.unpack('>QQ', read_exact(sock, 16))
		if head == b'U':
			sock.sendall(read_hash(sock, n))
		elif head == b'D':
			send_source(sock, n, seed)
		elif head == b'B':
			got = []
			t = threading.Thread(target=lambda: got.append(read_hash(sock, n)), daemon=True)
			t.start()
			send_source(sock, n, seed)
			t.join()
			sock.sendall(got[0])


def send_source(sock, n, seed):
	h = hashlib.sha256()
	for part in Source(n, seed):
		sock.sendall(part)
		h.update(part)
	sock.sendall(h.digest())


def request(op, n, seed):
	return op + struct.pack('>QQ', n, seed)


def upload(sock, n, seed=1):
	"""Sends n bytes; raises when the far end's hash is another one.  Returns seconds."""
	t0 = time.monotonic()
	h = hashlib.sha256()
	sock.sendall(request(b'U', n, seed))
	for part in Source(n, seed):
		sock.sendall(part)
		h.update(part)
	if read_exact(sock, 32) != h.digest():
		raise AssertionError('upload of %d bytes: hashes differ' % n)
	return time.monotonic() - t0


def download(sock, n, seed=2):
	t0 = time.monotonic()
	sock.sendall(request(b'D', n, seed))
	got = read_hash(sock, n)
	if read_exact(sock, 32) != got or got != Source(n, seed).digest():
		raise AssertionError('download of %d bytes: hashes differ' % n)
	return time.monotonic() - t0


def both_ways(sock, n, seed=3):
	t0 = time.monotonic()
	fault = []
	own = Source(n, seed + 1)

	def send():
		try:
			for part in own:
				sock.sendall(part)
		except OSError as e:
			fault.append(e)

	sock.sendall(request(b'B', n, seed))
	t = threading.Thread(target=send, daemon=True)
	t.start()
	got = read_hash(sock, n)
	if read_exact(sock, 32) != got or got != Source(n, seed).digest():
		raise AssertionError('download beside an upload: hashes differ')
	t.join()
	if fault:
		raise fault[0]
	if read_exact(sock, 32) != own.digest():
		raise AssertionError('upload beside a download: hashes differ')
	return time.monotonic() - t0


CLIENTS = weakref.WeakSet()  # connections that a test has made and may still hold


def connect(address, timeout=20, source=None):
	"""('127.0.0.1', port), ('::1', port) or a path.  Without Nagle."""
	if isinstance(address, str):
		sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
		CLIENTS.add(sock)
		sock.settimeout(timeout)
		sock.connect(address)
		return sock
	if isinstance(address, int):
		address = ('127.0.0.1', address)
	sock = socket.create_connection(address, timeout, source_address=(source, 0) if source else None)
	CLIENTS.add(sock)
	sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
	return sock


def drop_clients():
	"""At the end of a test: a drain would wait for what nobody uses any more."""
	for sock in list(CLIENTS):
		try:
			rst_close(sock)
		except OSError:
			pass  # it was closed


def ping(sock, data=b'x' * 64):
	"""One round trip against an echo service, in seconds."""
	t0 = time.perf_counter()
	sock.sendall(data)
	if read_exact(sock, len(data)) != data:
		raise AssertionError('echo differs')
	return time.perf_counter() - t0


def wait_reset(sock, timeout=10):
	"""True when the peer resets, False when it ends in order; times out otherwise."""
	sock.settimeout(timeout)
	try:
		while True:
			if not sock.recv(65536):
				return False
	except ConnectionResetError:
		return True
	except BrokenPipeError:
		return True


def refused(address, data=b'', timeout=10):
	"""Connects, sends, and says whether the connection was reset (in whatever moment)."""
	try:
		sock = connect(address, timeout)
		if data:
			sock.sendall(data)
	except (ConnectionResetError, BrokenPipeError):
		return True
	with sock:
		return wait_reset(sock, timeout)


TAKEN = []  # ports of this process, each an abstract socket whose name nobody else can have


def free_port(host='127.0.0.1'):
	"""Below the ports that the kernel gives to clients, so that no connection of another test takes it meanwhile, and
	promised to nobody else that asks here, in any process."""
	while True:
		port = random.randrange(10000, 32000)
		promise, s = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
		try:
			promise.bind('\0tunneld-test-port-%d' % port)
			s.bind((host, port))
			TAKEN.append(promise)
			return port
		except OSError:
			promise.close()
		finally:
			s.close()


def rss_peak(pid):
	"""VmHWM in bytes."""
	with open('/proc/%d/status' % pid) as f:
		for line in f:
			if line.startswith('VmHWM:'):
				return int(line.split()[1]) * 1024
	return 0


def rss_now(pid):
	with open('/proc/%d/status' % pid) as f:
		for line in f:
			if line.startswith('VmRSS:'):
				return int(line.split()[1]) * 1024
	return 0


def cpu_seconds(pid):
	with open('/proc/%d/stat' % pid) as f:
		parts = f.read().rsplit(')', 1)[1].split()
	return (int(parts[11]) + int(parts[12])) / os.sysconf('SC_CLK_TCK')


def fds(pid):
	"""What each descriptor is, without the numbers of sockets."""
	out = []
	try:
		for name in os.listdir('/proc/%d/fd' % pid):
			try:
				out.append(os.readlink('/proc/%d/fd/%s' % (pid, name)).split(':[')[0])
			except OSError:
				pass
	except OSError:
		pass
	return sorted(out)
