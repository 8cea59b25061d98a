"""Direct links between real processes: what goes past the relay, moves in mid-transfer in both directions, who may have one and how it ends."""
import signal
import socket
import subprocess
import threading
import time

from faults import QUICK, FaultProxy, FaultWorld, background
from harness import SLOW, until
from run import test
from services import MIB, both_ways, connect, download, free_port, read_all, upload, wait_reset
from test_link import LinkWorld


class DirectWorld(FaultWorld):
	"""A third proxy, `d`, between the forwarder and the agent's direct port."""

	def build(self, agent=None, **kw):
		self.direct_port = free_port()
		self.d = FaultProxy(self.direct_port)
		self.closers.append(self.d.close)
		a = {'direct_listen': '127.0.0.1:%d' % self.direct_port, 'direct_addresses': '127.0.0.1:%d' % self.d.port}
		return super().build(agent={**a, **(agent or {})}, **kw)

	def session(self):
		sessions = self.status(self.g)[0]['gateway']['sessions']
		return sessions[0] if sessions else None

	def direct(self):
		s = self.session()
		return bool(s and s['client']['direct'] and s['agent']['direct'])

	def links(self):
		return self.status(self.ag)[0]['agent']['counters']['direct_links']

	def up(self, timeout=15):
		until(self.direct, timeout, 'a direct link')

	def relayed(self):
		s = self.session()
		return s['client']['relayed_bytes'] + s['agent']['relayed_bytes']

	def resumes(self):
		return self.status(self.ag)[0]['agent']['counters']['resumes']


@test('direct: bytes go past the relay, the gateway shows and audits them', 60, short=True)
def past_the_relay():
	with DirectWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 60)
		upload(c, 1000)
		w.up()
		before = w.relayed()
		upload(c, 24 * MIB)
		download(c, 24 * MIB)
		assert w.relayed() - before < MIB, '%d bytes went through the relay' % (w.relayed() - before)
		until(lambda: w.session()['client']['direct_received_bytes'] > 24 * MIB and w.session()['agent']['direct_received_bytes'] > 24 * MIB, 10, 'both ends\' reports')
		s = w.session()
		assert s['direct_allowed'] and s['idle_s'] < 5, s
		c.close()
		w.api().call('TerminateSession', {'SessionId': s['id']})
		w.g.wait_log(r'session ended .*direct_to_client=[1-9]')
		w.g.wait_log(r'direct link up end=client')
		w.g.wait_log(r'direct link up end=agent')


@test('direct: cut and made again in mid-transfer, both directions, no byte lost and no resume', 150)
def moves():
	with DirectWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 90)
		upload(c, 1000)
		w.up()
		moved = threading.Event()

		def transfers():
			while not moved.is_set():
				both_ways(c, 24 * MIB)
		j = background(transfers)
		for i in range(3):
			until(w.direct, 20, 'the direct link again')
			before, mark = w.d.stats()[0], w.f.mark()
			until(lambda b=before: w.d.stats()[0] > b + MIB, 20, 'the direct link carries it')
			w.d.do('cut')
			w.f.wait_log(r'direct link is gone', since=mark)
		moved.set()
		j()
		assert w.links() >= 3 and w.resumes() == 0, (w.links(), w.resumes())
		c.close()


@test('direct: the relay\'s links are cut meanwhile, which no stream notices', 90)
def without_relay():
	with DirectWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 60)
		upload(c, 1000)
		w.up()
		for p in w.both:
			p.do('hole')
			p.do('cut')
		t0 = time.monotonic()
		upload(c, 8 * MIB)
		download(c, 8 * MIB)
		d = connect(w.f.ports['t'], 20)  # a new connection as well
		upload(d, 1000)
		assert time.monotonic() - t0 < 15 * SLOW
		for p in w.both:
			p.do('go')
			p.do('cut')
		until(lambda: w.session() and w.session()['client']['attached'] and w.session()['agent']['attached'], 20, 'both ends back')
		upload(c, 100000)
		assert w.direct()
		c.close()
		d.close()


@test('direct: a link that passes nothing on does not hold what goes', 90)
def stalled():
	with DirectWorld() as w:
		w.build(tunnel={'ping_interval': '30s', 'pong_timeout': '30s'}, agent={'ping_interval': '30s', 'pong_timeout': '30s'})
		c = connect(w.f.ports['t'], 60)
		upload(c, 1000)
		w.up()
		upload(c, 4 * MIB)
		w.d.do('stall')
		t0 = time.monotonic()
		upload(c, 2 * MIB)
		download(c, 2 * MIB)
		assert time.monotonic() - t0 < 12 * SLOW, 'it waited for the stalled link'
		w.d.do('go')
		upload(c, 2 * MIB)
		c.close()


@test('direct: without the gateway it ends after direct_grace, and goes on when that is back', 120)
def grace():
	with DirectWorld() as w:
		w.build(gateway={'direct_grace': '2s'})
		c = connect(w.f.ports['t'], 90)
		upload(c, 1000)
		w.up()
		w.g.kill9()
		upload(c, 1000)  # within the time it goes on
		for p in (w.f, w.ag):
			p.wait_log(r'direct link is gone', 10)
		assert [p for p in (w.f, w.ag) if p.find(r'direct link is gone .*out of reach')]  # whose time is over first
		j = background(upload, c, 100000)
		w.regateway(direct_grace='2s')
		j()
		w.up(40)
		c.close()


@test('direct: TerminateSession ends it within 5 s', 60)
def terminated():
	with DirectWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 60)
		upload(c, 1000)
		w.up()
		t0 = time.monotonic()
		w.api().call('TerminateSession', {'SessionId': w.session()['id']})
		wait_reset(c)
		assert time.monotonic() - t0 < 5 * SLOW
		until(lambda: w.d.stats()[2] == 0, 5, 'no connection to the direct port')


@test('direct: max_session and a key that is taken back end it within 5 s', 90)
def ended_by_gateway():
	with DirectWorld() as w:
		w.build(gateway={'max_session': '4s'})
		c = connect(w.f.ports['t'], 60)
		upload(c, 1000)
		w.up()
		wait_reset(c, 9 * SLOW)
		w.write_gateway(public_port=w.c.port)
		w.g.signal(signal.SIGHUP)
		c = connect(w.f.ports['t'], 60)
		upload(c, 1000)
		w.up()
		w.keys['users'] = {'other': ('AKIDOTHERUSER', 'xyzzy-other-secret-of-forty-chars-0123456', 'i-*')}
		w.write_gateway(public_port=w.c.port)
		t0 = time.monotonic()
		w.g.signal(signal.SIGHUP)
		wait_reset(c, 10 * SLOW)
		assert time.monotonic() - t0 < 5 * SLOW
		until(lambda: w.d.stats()[2] == 0, 5, 'no connection to the direct port')


@test('direct: the gateway forbids it, at the start and later', 60)
def forbidden():
	with DirectWorld() as w:
		w.build(gateway={'direct': 'no'})
		c = connect(w.f.ports['t'], 60)
		upload(c, MIB)
		assert not w.direct() and not w.session()['direct_allowed'] and w.d.stats()[2] == 0
		w.write_gateway(public_port=w.c.port)
		w.g.signal(signal.SIGHUP)
		w.up()
		w.write_gateway(public_port=w.c.port, direct='no')
		w.g.signal(signal.SIGHUP)
		for p in (w.f, w.ag):
			p.wait_log(r'direct link is gone')
		upload(c, MIB)
		until(lambda: not w.direct() and w.d.stats()[2] == 0, 5, 'no direct link')
		c.close()


@test('direct: a key that is taken away ends it, a good one brings it back', 60)
def key_taken_away():
	with DirectWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 60)
		upload(c, MIB)
		w.up()
		key, _, targets = w.keys['users']['ops']
		w.keys['users']['ops'] = (key, 'plantedRotatedUserN4c7', targets)
		w.write_gateway(public_port=w.c.port)
		w.g.signal(signal.SIGHUP)
		w.g.wait_log('link closed: its access key was taken away')
		for p in (w.f, w.ag):
			p.wait_log(r'direct link is gone', 5)
		w.write_forwarder({'t': {'port': w.server.port, **QUICK}}, port=w.c.port, aws={'secret_access_key': 'plantedRotatedUserN4c7'})
		w.f.signal(signal.SIGHUP)
		upload(c, MIB)
		w.up()
		c.close()


@test('direct = no at the tunnel: none is asked for', 40)
def refused_by_tunnel():
	with DirectWorld() as w:
		w.build(tunnel={'direct': 'no'})
		c = connect(w.f.ports['t'], 60)
		upload(c, MIB)
		assert not w.direct() and w.links() == 0
		c.close()


@test('direct = only: nothing of the streams goes through the relay, also while the link is away', 90)
def only():
	with DirectWorld() as w:
		w.build(tunnel={'direct': 'only'})
		c = connect(w.f.ports['t'], 60)
		upload(c, 4 * MIB)
		assert w.relayed() < 64 * 1024, w.relayed()
		w.d.do('refuse')
		w.d.do('cut')
		w.f.wait_log(r'direct link is gone')
		j = background(upload, c, 4 * MIB)
		w.f.wait_log(r'no direct link, trying again')
		w.d.do('go')
		j()
		assert w.relayed() < 128 * 1024, w.relayed()
		c.close()


@test('direct = only: where the agent cannot be reached it fails, and says why', 60)
def only_unreachable():
	with DirectWorld() as w:
		w.build(tunnel={'direct': 'only'})
		w.d.do('refuse')
		t0 = time.monotonic()
		c = connect(w.f.ports['t'], 60)
		wait_reset(c, 20 * SLOW)
		assert time.monotonic() - t0 < 12 * SLOW
		w.f.wait_log(r'direct = only, and the agent cannot be reached directly')


@test('direct: the port shows nothing to who has no ticket, and turns away who keeps trying', 60)
def probes():
	with DirectWorld() as w:
		w.build()

		def probe(data):
			s = socket.socket()
			try:
				s.settimeout(5)
				s.connect(('127.0.0.1', w.direct_port))
				s.sendall(data)
				s.shutdown(socket.SHUT_WR)
				return read_all(s)
			except OSError:
				return b''
			finally:
				s.close()

		for data in (b'', b'GET / HTTP/1.1\r\nHost: a\r\n\r\n', b'SSH-2.0-x\r\n', bytes(range(256))):
			assert len(probe(data)) <= 7, data
		r = subprocess.run(['curl', '-skv', '--max-time', '5', 'https://localhost:%d/' % w.direct_port], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
		assert r.returncode and b'Server certificate' not in r.stdout and b'subject:' not in r.stdout, r.stdout
		for _ in range(30):
			probe(b'x')
		counters = w.status(w.ag)[0]['agent']['counters']
		assert counters['direct_failed'] <= 12 and counters['direct_turned_away'] >= 20, counters


class Copier:
	"""Stands before the direct port and shows the first ticket that it is shown, a name in a ClientHello, from a second place as well."""

	def __init__(self, port):
		self.port, self.hello, self.pairs = port, None, []
		self.s = socket.create_server(('127.0.0.1', 0))
		self.at = self.s.getsockname()[1]
		threading.Thread(target=self.run, daemon=True).start()

	def show(self, source):
		s = socket.create_connection(('127.0.0.1', self.port), 10, (source, 0))
		s.sendall(self.hello)
		return s

	def answer(self, s):
		"""The type of the record that answers a hello: 22 a handshake, 21 an alert, None nothing."""
		try:
			s.settimeout(10)
			return next(iter(s.recv(1, socket.MSG_PEEK)), None)
		except ConnectionResetError:
			return None

	def run(self):
		while True:
			a = self.s.accept()[0]
			self.hello = a.recv(5, socket.MSG_WAITALL)
			self.hello += a.recv(int.from_bytes(self.hello[3:], 'big'), socket.MSG_WAITALL)
			b = self.show('127.0.0.1')
			if not self.pairs:
				other = self.show('127.0.0.2')
				self.pairs.append([self.answer(b), self.answer(other)])  # whichever the agent reads first is taken
				other.close()
			for x, y in ((a, b), (b, a)):
				threading.Thread(target=self.copy, args=(x, y), daemon=True).start()

	def copy(self, x, y):
		try:
			while data := x.recv(65536):
				y.sendall(data)
			y.shutdown(socket.SHUT_WR)
		except OSError:
			pass


@test('direct: a ticket shown from two places at once, or again later, is honoured once; the link that has it goes on', 60)
def ticket_once():
	with DirectWorld() as w:
		port = free_port()
		copier = Copier(port)
		w.build(agent={'direct_listen': '127.0.0.1:%d' % port, 'direct_addresses': '127.0.0.1:%d' % copier.at})
		c = connect(w.f.ports['t'], 60)
		upload(c, 1000)
		w.up()
		with copier.show('127.0.0.2') as s:
			again = copier.answer(s)
		assert again != 22 and copier.pairs and copier.pairs[0].count(22) == 1, (copier.pairs, again)
		upload(c, MIB)
		assert w.direct() and w.links() == 1
		c.close()


@test('direct: between two network namespaces, moved in mid-transfer when its port closes and opens', 120)
def namespaces():
	with LinkWorld() as w:
		port = free_port()
		direct = {'direct_listen': '0.0.0.0:%d' % port}  # a ticket names the addresses of its machine
		quick = dict(QUICK)
		QUICK.update(direct)
		try:
			w.build(rtt=10)
		finally:
			QUICK.clear()
			QUICK.update(quick)
		c = w.connect()
		upload(c, 1000)
		until(lambda: [s for s in w.status(w.g)[0]['gateway']['sessions'] if s['client']['direct'] and s['agent']['direct']], 15, 'a direct link')
		j = background(both_ways, c, 32 * MIB)
		for _ in range(2):
			w.write_agent(**QUICK)
			mark = w.f.mark()
			w.ag.signal(signal.SIGHUP)  # no port any more: the link goes
			w.f.wait_log(r'direct link is gone', 20, mark)
			w.write_agent(**{**QUICK, **direct})
			w.ag.signal(signal.SIGHUP)
			w.f.wait_log(r'direct link is up', 40, mark)
		j()
		c.close()
