"""The main job: bytes through forwarder, gateway and agent, whole and untouched."""
import os
import socket
import subprocess
import threading

from harness import BIN, SANITIZED, Skip, World, clean_env, need, until
from run import test
from services import MIB, Server, blob, both_ways, connect, download, echo, ping, read_all, read_exact, rst_close, upload, wait_reset


@test('echo: one byte crosses three processes', 30, short=True)
def one_byte():
	with World() as w:
		s = Server(echo)
		w.standard(s.port)
		f = w.procs[-1]
		c = connect(f.ports['t'])
		c.sendall(b'x')
		assert read_exact(c, 1) == b'x'
		c.close()
		assert s.wait_open(0), 'the close did not reach the target'


@test('bytes: every value, every small length, a lone 0x0A in a message of its own', 60, short=True)
def bytes_untouched():
	with World() as w:
		s = Server(echo)
		_, _, f = w.standard(s.port)
		c = connect(f.ports['t'])
		for b in list(range(256)) + [10, 10, 13, 10]:  # one byte at a time: each is a message of its own
			c.sendall(bytes([b]))
			assert read_exact(c, 1) == bytes([b]), b
		for n in list(range(1, 260)) + [1023, 1024, 1025, 4095, 4096, 4097, 32767, 32768, 32769, 65535, 65536, 65537]:
			data = bytes((n * 7 + i) & 255 for i in range(n))
			c.sendall(data)
			assert read_exact(c, n) == data, n
		c.close()


def bulk(size):
	with World() as w:
		s = Server(blob)
		g, a, f = w.standard(s.port)
		c = connect(f.ports['t'], 120)
		up, down = upload(c, size), download(c, size)
		both = both_ways(c, size // 4)
		print('note: %d MiB up %.0f MB/s, down %.0f MB/s, both ways %.0f MB/s each' % (size // MIB, size / up / 1e6, size / down / 1e6,
			size / 4 / both / 1e6))
		c.close()


@test('bulk: 50 MiB each way, SHA-256', 180)
def bulk_50():
	bulk(50 * MIB)


@test('bulk: 4 MiB each way, SHA-256', 120, short=True)
def bulk_4():
	bulk(4 * MIB)


def many(count, size, **tunnel):
	with World() as w:
		s = Server(blob)
		g, a, f = w.standard(s.port, **tunnel)
		faults, barrier = [], threading.Barrier(count)

		def one(i):
			try:
				c = connect(f.ports['t'], 90)
				barrier.wait(60)  # all open at once
				upload(c, size, i)
				download(c, size, i + 1000)
				c.close()
			except Exception as e:
				faults.append('%d: %r' % (i, e))
				barrier.abort()

		threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(count)]
		for t in threads:
			t.start()
		for t in threads:
			t.join(150)
		assert not faults, faults[:5]
		assert s.accepted == count, s.accepted
		assert s.wait_open(0), 'connections are left at the target: %d' % s.open


@test('200 connections at once in one session, each with hashes', 170)
def two_hundred():
	many(200, 100000, max_connections=300)


@test('20 connections at once in one session, each with hashes', 120, short=True)
def twenty():
	many(20, 50000)


@test('session = per-connection: 20 connections, 20 sessions, all ended afterwards', 90, short=True)
def per_connection():
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port, session='per-connection')
		conns = [connect(f.ports['t']) for _ in range(20)]
		for c in conns:
			ping(c)
		assert len(w.api().sessions()) == 20, len(w.api().sessions())
		for c in conns:
			c.close()
		until(lambda: len(w.api().sessions()) == 0, 15, 'every session is terminated after its connection')


@test('session = per-connection: sessions one after another go over the connections of those before them', 90)
def connections_return():
	with World(log_level='debug') as w:
		s = Server(echo)
		g, a, f = w.standard(s.port, session='per-connection')
		for _ in range(20):
			with connect(f.ports['t']) as c:
				ping(c)
			until(lambda: len(w.api().sessions()) == 0, 15, 'the session is terminated')
		made = [sum('TLS is up' in line for line in p.lines) for p in (f, a)]
		assert max(made) <= 5, 'TLS connections of forwarder and agent: %s' % made


@test('session = pool 3: grows while busy, never over three', 60)
def pool():
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port, session='pool 3')
		conns = []
		for i in range(9):
			conns.append(connect(f.ports['t']))
			ping(conns[-1])
			n = len(w.api().sessions())
			assert n == min(i + 1, 3), 'connection %d: %d sessions' % (i + 1, n)
		for c in conns:
			ping(c)
			c.close()


@test('two tunnels with the same target, host and port share a session', 60)
def shared():
	with World() as w:
		s = Server(echo)
		w.gateway()
		w.agent()
		f = w.forwarder({'one': {'port': s.port}, 'two': {'port': s.port}})
		a, b = connect(f.ports['one']), connect(f.ports['two'])
		ping(a), ping(b)
		assert len(w.api().sessions()) == 1, w.api().sessions()
		a.close(), b.close()


@test('host = behind the target: the remote-host document, names resolved at the agent', 60)
def remote_host():
	with World() as w:
		s = Server(echo)
		w.gateway()
		w.agent(allow='localhost:*, 127.0.0.1:*, 127.0.0.2:*')
		f = w.forwarder({'ip': {'port': s.port, 'host': '127.0.0.1'}, 'name': {'port': s.port, 'host': 'localhost'}})
		for t in ('ip', 'name'):
			c = connect(f.ports[t])
			ping(c)
			c.close()
		docs = {x['DocumentName'] for x in w.api().sessions()}
		assert docs == {'AWS-StartPortForwardingSessionToRemoteHost'}, docs


@test('listeners: IPv6 and unix socket beside IPv4; a stale socket is replaced', 60)
def listeners():
	with World() as w:
		s = Server(echo)
		w.gateway()
		w.agent()
		path = w.path('t.sock')
		stale = socket.socket(socket.AF_UNIX)
		stale.bind(path)
		stale.close()  # the file stays behind
		tunnels = {'v4': {'port': s.port}, 'un': {'port': s.port, 'listen': 'unix:' + path}}
		have6 = True
		try:
			socket.create_server(('::1', 0), family=socket.AF_INET6).close()
			tunnels['v6'] = {'port': s.port, 'listen': '[::1]:0'}
		except OSError:
			have6 = False
		f = w.forwarder(tunnels)
		for t in tunnels:
			c = connect(f.ports[t])
			ping(c)
			c.close()
		assert os.stat(path).st_mode & 0o777 == 0o600, oct(os.stat(path).st_mode)
		assert f.stop() == 0
		assert not os.path.exists(path), 'the unix socket is left behind'
		if not have6:
			print('note: no IPv6 on this machine, that part was left out')


@test('half-close: SHUT_WR reaches the target, the whole reply comes back', 60, short=True)
def half_close():
	def reply_after_eof(sock):
		data = read_all(sock)
		sock.sendall(b'got %d\n' % len(data) + data)

	with World() as w:
		s = Server(reply_after_eof)
		_, _, f = w.standard(s.port)
		for n in (0, 1, 100000, 3 * MIB):
			c = connect(f.ports['t'], 40)
			data = os.urandom(n)
			t = threading.Thread(target=lambda: (c.sendall(data), c.shutdown(socket.SHUT_WR)))
			t.start()
			got = read_all(c)
			t.join()
			assert got == b'got %d\n' % n + data, (n, len(got))
			c.close()
		assert s.wait_open(0)


@test('half-close: the target ends first, what the client still sends arrives', 60)
def half_close_target():
	got, done = [], threading.Event()

	def eof_first(sock):
		sock.sendall(b'bye')
		sock.shutdown(socket.SHUT_WR)
		got.append(read_all(sock))
		done.set()

	with World() as w:
		s = Server(eof_first)
		_, _, f = w.standard(s.port)
		c = connect(f.ports['t'])
		c.sendall(b'a')
		assert read_all(c) == b'bye'
		data = os.urandom(200000)
		c.sendall(data)
		c.close()
		assert done.wait(15) and got[0] == b'a' + data, 'bytes after the far end had closed were lost'


@test('reset: RST crosses the tunnel both ways', 60, short=True)
def reset():
	seen, there = [], []
	cond = threading.Condition()

	def watch(sock):
		if read_exact(sock, 1) == b'R':
			rst_close(sock)
			return
		with cond:
			there.append(True)
			cond.notify_all()
		try:
			end = sock.recv(1)
			result = 'eof' if not end else 'data'
		except ConnectionResetError:
			result = 'reset'
		with cond:
			seen.append(result)
			cond.notify_all()

	with World() as w:
		s = Server(watch)
		_, _, f = w.standard(s.port)
		c = connect(f.ports['t'])
		c.sendall(b'R')
		assert wait_reset(c), 'the reset of the target arrived as an orderly end'
		c = connect(f.ports['t'])
		c.sendall(b'W')
		with cond:
			assert cond.wait_for(lambda: there, 10), 'target has the connection'
		rst_close(c)
		with cond:
			assert cond.wait_for(lambda: seen, 10), 'nothing reached the target'
		assert seen == ['reset'], seen
		c = connect(f.ports['t'])  # and an orderly end is no reset
		c.sendall(b'W')
		c.shutdown(socket.SHUT_WR)
		with cond:
			assert cond.wait_for(lambda: len(seen) == 2, 10)
		assert seen[1] == 'eof', seen
		c.close()


@test('max_connections: accepting stops, nobody is reset, and goes on', 60)
def max_connections():
	with World() as w:
		s = Server(echo)
		_, _, f = w.standard(s.port, max_connections=2)
		a, b = connect(f.ports['t']), connect(f.ports['t'])
		ping(a), ping(b)
		c = connect(f.ports['t'])  # in the backlog
		c.sendall(b'hello')
		c.settimeout(0.7)
		try:
			got = c.recv(5)
			raise AssertionError('a third connection was served: %r' % got)
		except socket.timeout:
			pass
		assert s.accepted == 2, s.accepted
		a.close()
		c.settimeout(10)
		assert read_exact(c, 5) == b'hello'
		ping(b)
		b.close(), c.close()


@test('the program is linked with no OpenSSL libcrypto', 20)
def no_openssl():
	need('ldd')
	if SANITIZED:
		raise Skip('plain build only')
	out = subprocess.run(['ldd', BIN], stdout=subprocess.PIPE, check=True, env=clean_env()).stdout.decode()
	bad = [line for line in out.splitlines() if 'libcrypto.so.3' in line or 'libssl.so.3' in line or 'libcrypto.so.1' in line or 'not found' in line]
	assert not bad, bad


@test('50 connections one after the other leave no descriptor behind', 60, short=True)
def no_leak():
	with World() as w:
		s = Server(echo)
		procs = w.standard(s.port)
		f = procs[2]
		c = connect(f.ports['t'])
		ping(c)
		c.close()
		s.wait_open(0)
		until(lambda: w.procs and all(p.count('x') >= 0 for p in procs))
		base = [len(p.fds()) for p in procs]
		for _ in range(50):
			c = connect(f.ports['t'])
			ping(c)
			c.close()
		s.wait_open(0)
		until(lambda: [len(p.fds()) for p in procs] <= base, 10, 'descriptors back to %s' % base)
