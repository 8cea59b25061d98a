"""Clients and agents that know two gateways with one store: the first is killed, silent, says 503, has a name that is none; sessions
start at the other, and nobody asks the first again with each call."""
import json
import signal
import socket
import ssl
import subprocess
import threading
import time

from cluster import Cluster
from harness import BIN, SLOW, TARGET, clean_env, until
from run import test
from services import Server, blob, connect, echo, free_port, ping, upload


class Pair(Cluster):
	"""n1 and n2, without a balancer: each tells its own address."""

	def __init__(self):
		super().__init__(names=('n1', 'n2'))

	def begin(self, *which, **options):
		if not self.peer:
			self.link_nodes()
		self.redis()
		for n in which or self.names:
			self.start_node(n, public_url=self.url_of(n), **options)
		if not which:
			self.linked()

	def url_of(self, n):
		return 'https://127.0.0.1:%d' % self.port[n]

	def both(self):
		return ', '.join(self.url_of(n) for n in self.names)

	def holder(self, n, timeout=10):
		until(lambda: [i for i in self.gateway_status(n)['instances'] if i['id'] == TARGET and i['connected']], timeout, 'the control channel is at %s' % n)


class Count:
	"""Counts who connects to that port. tls: the context with which each request is answered 503; else it hangs up."""

	def __init__(self, port, tls=None):
		self.n, self.tls = 0, tls
		self.s = socket.create_server(('127.0.0.1', port))
		threading.Thread(target=self.run, daemon=True).start()

	def run(self):
		while True:
			try:
				c, _ = self.s.accept()
			except OSError:
				return
			self.n += 1
			if self.tls:
				threading.Thread(target=self.answer, args=(c,), daemon=True).start()
			else:
				c.close()

	def answer(self, c):
		try:
			with self.tls.wrap_socket(c, server_side=True) as t:
				t.recv(65536)
				t.sendall(b'HTTP/1.1 503 Service Unavailable\r\nRetry-After: 30\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
		except OSError:
			pass

	def close(self):
		self.s.shutdown(socket.SHUT_RDWR)
		self.s.close()


def one_session(port, timeout=20):
	with connect(port, timeout * SLOW) as c:
		ping(c)


def doctor(w, conf):
	r = subprocess.run([BIN, 'doctor', '-c', conf, '--json'], stdout=subprocess.PIPE, env=clean_env(HOME=w.dir), cwd=w.dir, timeout=60 * SLOW)
	return r.returncode, json.loads(r.stdout)['rows']


def in_use(endpoints):
	return [e['url'] for e in endpoints if e['in_use']]


def moved_once(p, to, why):
	p.wait_log(r'another endpoint is used from now on endpoint=%s .*error="%s' % (to, why))
	assert p.count('another endpoint is used') == 1, [line for line in p.lines if 'another endpoint' in line]


@test('endpoints: the first of two gateways is killed: sessions start at the other at once, the agent comes there, and nobody asks it again', 90, short=True)
def killed():
	with Pair() as w:
		s = Server(echo)
		w.begin()
		a = w.agent(url=w.both(), reconnect_max='1s', wait=False)
		w.holder('n1')
		f = w.forwarder({'t': {'port': s.port, 'session': 'per-connection'}}, url=w.both())
		one_session(f.ports['t'])
		assert not f.count('another endpoint') and in_use(w.status(f)[0]['forwarder']['tunnels'][0]['endpoints']) == [w.url_of('n1')]
		w.node['n1'].kill9()
		dead = Count(w.port['n1'])
		t0 = time.monotonic()
		w.holder('n2', 5)
		one_session(f.ports['t'])
		assert time.monotonic() - t0 < 6 * SLOW, time.monotonic() - t0
		moved_once(a, w.url_of('n2'), '.+')
		moved_once(f, w.url_of('n2'), '.+')
		asked = dead.n
		for _ in range(6):
			one_session(f.ports['t'])
		assert dead.n <= asked + 1, (asked, dead.n)  # six StartSessions and six upgrades; the agent's call may have its turn once
		st = w.status(f)[0]['forwarder']['tunnels'][0]['endpoints']
		assert in_use(st) == [w.url_of('n2')] and [bool(e['error']) for e in st] == [True, False], st
		st = w.status(a)[0]['agent']['endpoints']
		assert in_use(st) == [w.url_of('n2')], st
		# It is back, and the other goes: the same way again.
		dead.close()
		w.start_node('n1', public_url=w.url_of('n1'))
		one_session(f.ports['t'])
		w.node['n2'].kill9()
		w.holder('n1', 5)
		one_session(f.ports['t'])


@test('endpoints: a session that is up goes on at the other gateway', 90)
def goes_on():
	with Pair() as w:
		s = Server(blob)
		w.begin()
		w.agent(url=w.both(), reconnect_max='1s', wait=False)
		w.holder('n1')
		f = w.forwarder({'t': {'port': s.port, 'reconnect_max': '1s'}}, url=w.both())
		with connect(f.ports['t'], 60) as c:
			upload(c, 3 << 20)
			w.node['n1'].kill9()
			upload(c, 3 << 20)
		assert f.count('session resumed') and not f.count('session lost')


@test('endpoints: the first is silent: calls and the control channel go to the other within seconds', 120)
def silent():
	with Pair() as w:
		s = Server(echo)
		w.begin()
		a = w.agent(url=w.both(), ping_interval='1s', pong_timeout='1s', reconnect_max='1s', wait=False)
		w.holder('n1')
		f = w.forwarder({'t': {'port': s.port, 'session': 'per-connection', 'ping_interval': '1s', 'pong_timeout': '1s'}}, url=w.both())
		one_session(f.ports['t'])
		w.node['n1'].signal(signal.SIGSTOP)
		try:
			t0 = time.monotonic()
			one_session(f.ports['t'], 25)
			spent = time.monotonic() - t0
			w.holder('n2', 10)
			for _ in range(3):
				t1 = time.monotonic()
				one_session(f.ports['t'])
				assert time.monotonic() - t1 < 3 * SLOW, 'the silent one was waited for again'
			print('note: the first session came up %.1f s after the gateway fell silent' % spent)
			assert spent < 15 * SLOW, spent
			moved_once(a, w.url_of('n2'), 'no sign of life|.+')
			moved_once(f, w.url_of('n2'), '.*did not answer in time')
		finally:
			w.node['n1'].signal(signal.SIGCONT)


def beside(w, first, why):
	"""n2 alone, with another address before it in the lists."""
	s = Server(echo)
	w.begin('n2')
	both = first + ',' + w.url_of('n2')
	a = w.agent(url=both, wait=False)
	w.holder('n2')
	f = w.forwarder({'t': {'port': s.port, 'session': 'per-connection'}}, url=both)
	one_session(f.ports['t'])
	moved_once(a, w.url_of('n2'), why)
	moved_once(f, w.url_of('n2'), why)
	return f


@test('endpoints: the first answers 503: the next one is asked at once, and the first not with each call', 60)
def unavailable():
	with Pair() as w:
		tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
		w.link_nodes()
		tls.load_cert_chain(w.path('gateway.pem'), w.path('gateway.key'))
		busy = Count(w.port['n1'], tls)
		t0 = time.monotonic()
		f = beside(w, w.url_of('n1'), 'HTTP status 503')
		asked = busy.n
		for _ in range(6):
			one_session(f.ports['t'])
		assert busy.n <= asked + 1 + (time.monotonic() - t0) // 2, (asked, busy.n)
		assert asked >= 2


@test('endpoints: the first has a name that is none', 60)
def no_name():
	with Pair() as w:
		f = beside(w, 'https://nowhere.invalid:8443', '.*nowhere.invalid')
		one_session(f.ports['t'])


@test('endpoints: a reload that changes the list: what is in it still stays, what is not is left', 60)
def reloaded():
	with Pair() as w:
		w.begin()
		a = w.agent(url=w.url_of('n1'), wait=False)
		w.holder('n1')

		def reload(url):
			since = a.mark()
			w.write_agent(url=url)
			a.signal(signal.SIGHUP)
			a.wait_log('reload', since=since)
			return w.status(a)[0]['agent']
		st = reload(w.both())
		assert st['counters']['control_connects'] == 1 and in_use(st['endpoints']) == [w.url_of('n1')], st
		reload(w.url_of('n2'))
		w.holder('n2')
		st = reload(w.both())  # it stays where it is
		assert st['connected'] and st['counters']['control_connects'] == 2, st
		w.holder('n2')


@test('endpoints: -t names the entry that is wrong, by file and line; doctor tests each, and one that is no good is a warning', 60)
def told():
	with Pair() as w:
		s = Server(echo)
		w.begin('n2')
		w.agent(url=w.url_of('n2'), wait=False)
		w.holder('n2')
		bad = w.write_forwarder({'t': {'port': s.port}}, url='https://a.example, http://b.example, https://c.example/x', name='bad')
		r = subprocess.run([BIN, '-t', '-c', bad], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env(), timeout=20)
		text = r.stdout.decode()
		line = 1 + [line.split(' ')[0] for line in open(bad).read().split('\n')].index('ssm_endpoint')
		assert r.returncode == 2 and 'bad.ini:%d: ssm_endpoint = http://b.example: ' % line in text and 'https://c.example/x: a path' in text, text
		assert 'a.example:' not in text, text
		dead = 'https://127.0.0.1:%d' % free_port()
		good = w.write_forwarder({'t': {'port': s.port}}, url=dead + ',' + w.url_of('n2'), name='good')
		code, every = doctor(w, good)
		found = [(r['result'], r['fact']) for r in every if r['check'] == 'connection']
		assert code == 0 and [r for r, _ in found] == ['warn', 'ok'] and ('transfer', 'ok') in [(r['check'], r['result']) for r in every], (code, every)
		assert dead.split('/')[-1] in found[0][1], found
		none = w.write_forwarder({'t': {'port': s.port}}, url=dead + ',https://127.0.0.1:%d' % free_port(), name='none')
		code, every = doctor(w, none)
		assert code == 5 and [r['result'] for r in every if r['check'] == 'connection'] == ['fail', 'fail'], every
