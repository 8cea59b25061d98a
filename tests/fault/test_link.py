"""Real processes over an emulated link: delay, rate, loss, another address.  The forwarder is in one
network namespace, gateway, agent and target in another, tests/tools/linkemu between them."""
import ctypes
import os
import statistics
import subprocess
import threading
import time

from faults import QUICK, background
from harness import BIN, SLOW, Skip, World, clean_env
from run import test
from services import MIB, Server, Source, blob, connect, download, echo, free_port, ping, read_exact, upload

EMU = os.environ.get('LINKEMU', os.path.join(os.path.dirname(BIN), 'tests', 'tools', 'linkemu'))
SEED = int(os.environ.get('SEED', '1'))
CLONE_NEWNET = 0x40000000


class Link:
	def __init__(self):
		if not os.access(EMU, os.X_OK):
			raise Skip('%s is not built' % EMU)
		self.p = subprocess.Popen([EMU, str(SEED)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=clean_env())
		words = self.p.stdout.readline().split()
		if not words or words[0] != 'ready':
			raise Skip('no network namespaces with TUN here (%s)' % ' '.join(words[1:]))
		self.client, self.server = ('/proc/%s/fd/%s' % (words[1], n) for n in words[2:4])
		self.prefix = ('nsenter', '--net=' + self.client)
		fd = os.open(self.server, os.O_RDONLY)
		libc = ctypes.CDLL(None, use_errno=True)
		if libc.setns(fd, CLONE_NEWNET):  # this thread and what it starts live at the server's end from now on
			raise Skip('setns: %s' % os.strerror(ctypes.get_errno()))
		os.close(fd)

	def do(self, *words):
		self.p.stdin.write(' '.join(map(str, words)) + '\n')
		self.p.stdin.flush()
		return [int(x) for x in self.p.stdout.readline().split()[1:]]

	def close(self):
		self.p.stdin.close()
		self.p.wait(10)


class LinkWorld(World):
	def build(self, handler=blob, rtt=0.0, rate=0, loss=0.0, queue=0, tunnel=None):
		self.link = Link()
		self.closers.append(self.link.close)
		self.server = Server(handler)
		self.gw_port = free_port()
		both = '127.0.0.1:%d, 10.77.0.2:%d' % (self.gw_port, self.gw_port)
		self.g = self.gateway(listen=both, public_url='https://10.77.0.2:%d' % self.gw_port, ping_interval='2s', pong_timeout='3s')
		self.ag = self.agent(**QUICK)
		t = {'port': self.server.port, 'listen': 'unix:' + self.path('t.sock'), 'reconnect_min': '20ms', 'reconnect_max': '500ms', 'ping_interval': '2s',
			'pong_timeout': '3s'}
		t.update(tunnel or {})
		self.f = self.forwarder({'t': t}, url='https://10.77.0.2:%d' % self.gw_port, prefix=self.link.prefix)
		if rtt:
			self.link.do('delay', rtt / 2)
		if queue:
			self.link.do('queue', queue)
		if rate:
			self.link.do('rate', rate)
		if loss:
			self.link.do('loss', int(loss * 100))
		return self

	def connect(self, timeout=60):
		return connect(self.path('t.sock'), timeout * SLOW)


def transfer(n, **link):
	with LinkWorld() as w:
		w.build(**link)
		c = w.connect(150)
		upload(c, 100)
		up, down = upload(c, n), download(c, n)
		packets, lost, over = w.link.do('stats')
		print('note: %d KiB up %.2f MB/s, down %.2f MB/s, %d of %d packets lost' % (n // 1024, n / up / 1e6, n / down / 1e6, lost + over, packets))
		c.close()


@test('link: 50 ms round trip, 16 MiB each way', 100)
def rtt_50():
	transfer(16 * MIB, rtt=50)


@test('link: 200 ms round trip, 8 MiB each way', 100)
def rtt_200():
	transfer(8 * MIB, rtt=200)


@test('link: 50 ms and 1 % loss, 2 MiB each way', 120)
def loss_1():
	transfer(2 * MIB, rtt=50, loss=1)


@test('link: 50 ms and 5 % loss, 512 KiB each way', 160)
def loss_5():
	transfer(512 * 1024, rtt=50, loss=5)


@test('link: 200 ms and 5 % loss, 256 KiB each way', 200, long=True)
def loss_5_200():
	transfer(256 * 1024, rtt=200, loss=5)


@test('link: 2 MB/s with a queue of 100 ms, 50 ms round trip, 6 MiB each way', 120)
def rate_2():
	transfer(6 * MIB, rtt=50, rate=2000000, queue=200000)


def mixed(handler_sock):
	if handler_sock.recv(1, 2) == b'U':  # MSG_PEEK
		blob(handler_sock)
	else:
		echo(handler_sock)


def latency_beside(bulk_up, bound, **link):
	"""Medians of a 64-byte ping alone and beside a bulk upload."""
	with LinkWorld() as w:
		w.build(handler=mixed, **link)
		p, c = w.connect(), w.connect(120)
		data = b'p' * 64
		for _ in range(3):
			ping(p, data)
		idle = sorted(ping(p, data) for _ in range(20))
		stop = []

		def bulk():
			n = 0
			while not stop:
				upload(c, bulk_up, n)
				n += 1
			return n
		j = background(bulk)
		time.sleep(1.0)  # let it get up to speed
		t0, busy = time.monotonic(), []
		while time.monotonic() - t0 < 4:
			busy.append(ping(p, data))
			time.sleep(0.01)
		stop.append(1)
		rounds = j(60)
		spent = time.monotonic() - t0 + 1.0
		busy.sort()
		mid, high = statistics.median(busy), busy[int(len(busy) * 0.95)]
		print('note: 64 bytes idle %.1f ms, beside a bulk upload of %.1f MB/s median %.1f ms, 95 %% %.1f ms' % (statistics.median(idle) * 1000,
			rounds * bulk_up / spent / 1e6, mid * 1000, high * 1000))
		assert mid - statistics.median(idle) < bound * SLOW, 'a bulk upload adds %.0f ms to a ping' % ((mid - statistics.median(idle)) * 1000)
		c.close(), p.close()


@test('link: ping beside a bulk upload, 50 ms, 5 MB/s', 90, alone=True)
def latency_rate():
	latency_beside(2 * MIB, 0.040, rtt=50, rate=5000000, queue=1000000)


@test('link: ping beside a bulk upload, 50 ms, no rate limit', 90, alone=True)
def latency_free():
	latency_beside(8 * MIB, 0.040, rtt=50)


@test('link: the client gets another address in mid-transfer', 100)
def address_change():
	with LinkWorld() as w:
		w.build(rtt=50, rate=4000000, queue=400000, tunnel={'ping_interval': '500ms', 'pong_timeout': '500ms'})
		c = w.connect(90)
		upload(c, 1000)
		for n, work in enumerate((upload, download)):
			j = background(work, c, 6 * MIB)
			time.sleep(0.5)
			assert j.running()
			w.link.do('addr', '10.77.0.%d' % (11 + n))
			t0 = time.monotonic()
			j(60)
			spent = time.monotonic() - t0
		assert len(w.api().sessions()) == 1
		print('note: the rest of 6 MiB took %.1f s after the change' % spent)
		c.close()


@test('link: down for 6 s, then up again', 90)
def link_down():
	with LinkWorld() as w:
		w.build(rtt=50, tunnel={'ping_interval': '500ms', 'pong_timeout': '500ms'})
		c = w.connect(80)
		upload(c, 1000)
		w.link.do('rate', 4000000)
		j = background(upload, c, 6 * MIB)
		time.sleep(0.4)
		w.link.do('down')
		time.sleep(6)
		w.link.do('up')
		t0 = time.monotonic()
		j(60)
		print('note: all there %.1f s after the link was' % (time.monotonic() - t0))
		assert len(w.api().sessions()) == 1
		c.close()


def links_beside(work, n, times=1, **link):
	"""How many links the client has when bulk has gone on for a while: until there are eight, n bytes as often as `times`."""
	with LinkWorld() as w:
		w.build(**link)
		c = w.connect(90)
		upload(c, 1000)
		seen = [1]
		for _ in range(times):
			j = background(work, c, n)
			while j.running() and max(seen) < 8:
				s = w.status(w.g)[0]['gateway']['sessions'][0]
				seen.append(min(s['client']['links'], s['agent']['links']))
				time.sleep(0.05)
			j(60)
			if max(seen) >= 8:
				break
		c.close()
		return max(seen)


@test('link: eight links where TCP repairs losses, whichever end sends', 60)
def lossy_links():
	assert links_beside(upload, 24 * MIB, 10, rtt=20, loss=2) == 8
	assert links_beside(download, 24 * MIB, 10, rtt=20, loss=2) == 8


@test('link: where the rate is the limit there is one link, whichever end sends', 60)
def full_link():
	assert links_beside(upload, 6 * MIB, rtt=30, rate=3000000, queue=200000) == 1
	# Who sends sees it before half a second of bulk has gone by, unless the machine is too busy for that: one of three tries.
	assert any(links_beside(download, 6 * MIB, rtt=30, rate=3000000, queue=200000) == 1 for _ in range(3))
