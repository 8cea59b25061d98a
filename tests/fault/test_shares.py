"""What one peer can use up: memory, descriptors.  Others are served, and what keeps a process reachable comes back."""
import signal
import socket
import threading
import time

from faults import FaultWorld
from harness import SANITIZED, SLOW, World, until
from run import test
from services import MIB, Server, blob, connect, download, echo, ping, read_exact, request, rss_peak, upload
from wire import WebSocket, encode


def pour(sock, stop):
	"""Sends until nobody takes it any more, and then a little when somebody does."""
	sock.settimeout(0.2)
	block = bytes(65536)
	while not stop.is_set():
		try:
			sock.send(block)
		except TimeoutError:
			pass
		except OSError:
			return


def pouring(w, port, n):
	"""n connections that send to somebody who does not read; ends with the world."""
	stop = threading.Event()
	socks = [connect(port, 30) for _ in range(n)]
	threads = [threading.Thread(target=pour, args=(s, stop), daemon=True) for s in socks]
	for t in threads:
		t.start()
	w.closers.append(lambda: (stop.set(), [t.join(5) for t in threads], [s.close() for s in socks]))
	return socks


def flood(ws):
	"""Frames for an end that is not there, until nothing more is taken."""
	ws.sock.settimeout(1)
	m = encode('input_stream_data', bytes(32768), ptype=1)
	try:
		for _ in range(5 * MIB // len(m)):
			ws.frame(2, m)
	except OSError:
		pass


@test('22 sessions that an instance does not read: gateway serves others, accepts, says which user it is', 120)
def unread_at_the_gateway():
	with World() as w:
		w.keys['instances']['i-deaf'] = ('AKIDDEAFDEAFDEAFDEAF', 'a-secret-of-the-deaf-one')
		w.keys['users']['other'] = ('AKIDOTHEROTHEROTHER1', 'a-secret-of-the-other-user', '*')
		s = Server(blob)
		g = w.gateway(td_memory_limit='40M')
		w.agent()
		deaf = w.agent(name='deaf', instance='i-deaf', drain_timeout='200ms')
		other = w.forwarder({'t': {'port': s.port}}, name='other',
			aws={'access_key_id': 'AKIDOTHEROTHEROTHER1', 'secret_access_key': 'a-secret-of-the-other-user'})
		c = connect(other.ports['t'], 30)
		upload(c, 1000)
		deaf.signal(signal.SIGSTOP)
		try:
			links = []
			for _ in range(22):
				status, out = w.api().start('i-deaf', 5432)
				assert status == 200, out
				links.append(WebSocket(out['StreamUrl'], w.path('ca.pem')))
				links[-1].token(out['TokenValue'])
			threads = [threading.Thread(target=flood, args=(x,), daemon=True) for x in links]
			for t in threads:
				t.start()
			for t in threads:
				t.join(60)
			assert sum('memory limit reached by user ops' in x for x in g.lines) == 1
			st = w.status(g)[0]['gateway']
			share = {x['name']: x for x in st['user_shares']}['ops']
			assert share['memory_limit_reached_times'] > 0 and 8 * MIB < share['kept'] < 20 * MIB, share
			t0 = time.monotonic()
			for _ in range(5):
				upload(c, MIB), download(c, MIB)
				assert w.api('AKIDOTHEROTHEROTHER1', 'a-secret-of-the-other-user').instances(), 'no answer'
			d = connect(other.ports['t'], 20)
			upload(d, MIB)
			d.close()
			assert not any('accepting stops' in x for x in g.lines), 'the gateway accepted nobody'
			if not SANITIZED:
				print('note: gateway %.0f MiB at most; 11 MiB beside them in %.1f s' % (rss_peak(g.pid) / MIB, time.monotonic() - t0))
			for x in links:
				x.close()
		finally:
			deaf.signal(signal.SIGCONT)
		c.close()


@test('16 sessions whose services or readers do not read: agent and forwarder serve others beside them', 120)
def unread_at_the_ends():
	with World() as w:
		gate = threading.Event()
		w.closers.append(gate.set)

		def handler(sock):
			gate.wait(100)
			blob(sock)
		wall, s = Server(handler, rcvbuf=65536), Server(blob)
		w.gateway()
		a = w.agent(td_memory_limit='48M', session_memory='16M', drain_timeout='200ms')
		f = w.forwarder({'wall': {'port': wall.port, 'session': 'per-connection', 'session_memory': '16M'},
			'slow': {'port': s.port, 'session': 'per-connection', 'session_memory': '16M'}, 't': {'port': s.port}}, memory_limit='48M', drain_timeout='200ms')
		pouring(w, f.ports['wall'], 8)
		idle = [connect(f.ports['slow'], 30) for _ in range(8)]
		for x in idle:
			x.sendall(request(b'D', 64 * MIB, 5))
		time.sleep(2)
		t0 = time.monotonic()
		for _ in range(5):
			c = connect(f.ports['t'], 30)
			upload(c, 2 * MIB)
			download(c, 2 * MIB)
			c.close()
		print('note: 20 MiB beside them in %.1f s' % (time.monotonic() - t0))
		for p in (a, f):
			st = w.status(p)[0]['memory']
			assert st['used'] <= st['limit'], (p.name, st)
		c = connect(f.ports['wall'], 20)  # a new session: the control channel goes on
		until(lambda: sum('session starts' in x for x in a.lines) >= 18, 20, 'the new session')
		c.close()
		gate.set()
		for x in idle:
			x.close()


@test('240 sessions whose readers do not read fill both ends: one that is read goes on', 60)
def very_many_at_the_ends():
	with World() as w:
		s = Server(blob)
		w.gateway()
		a = w.agent(td_memory_limit='16M', drain_timeout='200ms')
		f = w.forwarder({'slow': {'port': s.port, 'session': 'per-connection', 'max_connections': 300}, 't': {'port': s.port}}, memory_limit='16M',
			drain_timeout='200ms')
		c = connect(f.ports['t'], 60)
		upload(c, 1000)
		idle = []
		for _ in range(240):  # while there is room for new ones
			idle.append(connect(f.ports['slow'], 60))
			idle[-1].sendall(request(b'D', 1000, 5))
			read_exact(idle[-1], 1000)
		for x in idle:
			x.sendall(request(b'D', 8 * MIB, 5))
		until(lambda: w.status(f)[0]['memory']['used'] > 15 * MIB, 30, 'a full process')
		t0 = time.monotonic()
		for _ in range(5):
			upload(c, MIB), download(c, MIB)
		used = [w.status(p)[0]['memory']['used'] / MIB for p in (a, f)]
		print('note: 10 MiB beside them in %.1f s; agent %.0f MiB, forwarder %.0f' % (time.monotonic() - t0, *used))
		for x in idle:
			x.close()
		c.close()


def pour_all(socks, stop):
	"""Sends on each whatever is taken, from one thread."""
	block = bytes(65536)
	for s in socks:
		s.setblocking(False)
	while not stop.wait(0.02):
		for s in socks:
			try:
				s.send(block)
			except OSError:
				pass


@test('60 sessions whose readers and 60 whose services do not read, 16 MiB each end: memory keeps to it, another flows', 120, alone=True)
def resident_at_the_ends():
	limit = 16 * MIB
	with World() as w:
		gate, stop = threading.Event(), threading.Event()
		w.closers += [gate.set, stop.set]
		wall, s = Server(lambda sock: gate.wait(100), rcvbuf=65536), Server(blob)
		each = {'session': 'per-connection', 'max_connections': 100}
		w.gateway()
		a = w.agent(td_memory_limit='16M', drain_timeout='200ms')
		f = w.forwarder({'slow': {'port': s.port, **each}, 'wall': {'port': wall.port, **each}, 't': {'port': s.port}},
			memory_limit='16M', drain_timeout='200ms')
		c = connect(f.ports['t'], 90)
		upload(c, 1000)
		slow = [connect(f.ports['slow'], 60) for _ in range(60)]
		for x in slow:
			x.sendall(request(b'D', 1000, 5))
		for x in slow:
			read_exact(x, 1032)
		deaf = [connect(f.ports['wall'], 60) for _ in range(60)]
		assert wall.wait_accepted(60, 60 * SLOW), 'sessions to the services that do not read'
		for x in slow:
			x.sendall(request(b'D', 8 * MIB, 5))
		t = threading.Thread(target=pour_all, args=(deaf, stop), daemon=True)
		t.start()
		used = {}

		def look():
			for p in (a, f):
				used[p.name] = max(used.get(p.name, 0), w.status(p)[0]['memory']['used'])
			return min(used.values())
		until(lambda: look() > limit * 3 // 4, 60, 'memory to be used up')
		t0 = time.monotonic()
		for _ in range(5):
			upload(c, MIB), download(c, MIB)
		spent = time.monotonic() - t0
		look()
		peak = {p.name: rss_peak(p.pid) for p in (a, f)}
		print('note: 10 MiB beside them in %.1f s; MiB in the account and resident: %s' % (spent,
			', '.join('%s %.0f, %.0f' % (n, used[n] / MIB, peak[n] / MIB) for n in used)))
		for n in used:
			assert used[n] < 2 * limit, '%s used %.0f MiB' % (n, used[n] / MIB)
			assert SANITIZED or peak[n] < 5 * limit // 2, '%s was resident with %.0f MiB' % (n, peak[n] / MIB)
		d = connect(f.ports['t'], 60)
		download(d, MIB)
		stop.set(), gate.set()
		for x in slow + deaf + [c, d]:
			x.close()


def limited(n):
	return ('prlimit', '--nofile=%d:%d' % (n, n))


def hold(port, n):
	"""Up to n connections through the tunnel that answer; those that were turned away are closed."""
	good = []
	for _ in range(n):
		c = None
		try:
			c = connect(port, 20)
			ping(c)
			good.append(c)
		except (OSError, EOFError):  # in whatever moment
			if c:
				c.close()
	return good


@test('all descriptors of an agent are taken by connections: its control channel comes back, held ones go on', 120)
def agent_descriptors():
	with FaultWorld() as w:
		w.build(handler=echo, agent={'prefix': limited(96)})
		held = hold(w.f.ports['t'], 110)
		print('note: %d of 110 connections, %d descriptors' % (len(held), len(w.ag.fds())))
		assert 40 < len(held) < 90
		assert len(w.ag.fds()) <= 96 - 96 // 8 + 1, 'the last descriptors were given away'
		w.g.kill9()
		w.regateway()
		w.wait_online()
		for c in held:
			ping(c)
		held.pop().close()
		until(lambda: len(hold(w.f.ports['t'], 1)) == 1, 20, 'a new connection')
		for c in held:
			c.close()


@test('all descriptors of a forwarder are taken by local connections: its session resumes, held ones go on', 120)
def forwarder_descriptors():
	with FaultWorld() as w:
		w.build(handler=echo, forwarder={'prefix': limited(96)})
		held = hold(w.f.ports['t'], 70)
		socks = []
		for _ in range(60):  # more than there are
			s = socket.socket()
			s.setblocking(False)
			s.connect_ex(('127.0.0.1', w.f.ports['t']))
			socks.append(s)
		time.sleep(0.3)
		assert len(w.f.fds()) <= 96 - 96 // 8 + 1, 'the last descriptors were given away'
		w.g.kill9()
		w.regateway()
		w.wait_online()
		for c in held:
			ping(c)
		for c in held + socks:
			c.close()


def still_open(sock):
	sock.setblocking(False)
	try:
		return bool(sock.recv(1))
	except BlockingIOError:
		return True
	except OSError:
		return False


@test('a gateway whose descriptors are taken by silent connections answers calls, and its agent comes back', 120)
def gateway_descriptors():
	with FaultWorld() as w:
		w.build(handler=echo, gateway={'prefix': limited(96)})
		c = connect(w.f.ports['t'], 60)
		ping(c)
		silent = [connect(w.gw_port, 5) for _ in range(120)]
		until(lambda: len(w.g.fds()) >= 80, 10, 'the gateway to be full')
		for _ in range(5):
			assert w.api().instances(), 'no answer'
		left = sum(still_open(x) for x in silent)
		assert left > 40, 'it answered when the time of the silent ones was over: %d are left' % left
		for p in w.both:
			p.do('cut')
		ping(c)
		w.wait_online()
		for s in silent + [c]:
			s.close()
