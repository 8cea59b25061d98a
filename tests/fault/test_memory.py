"""Bounded memory and descriptors: stalled readers, many connections."""
import os
import resource
import socket
import subprocess
import sys
import threading
import time

from faults import FaultWorld, background
from harness import SANITIZED, SLOW, Skip, World, until
from run import test
from services import (MIB, Server, Source, blob, connect, download, echo, fds, ping, read_exact, request, rss_now, rss_peak, upload)

HERE = os.path.dirname(os.path.abspath(__file__))
CAP = 120 * MIB


def check_rss(w):
	if SANITIZED:
		return 'not measured under sanitizers'
	peaks = {p.name: rss_peak(p.pid) for p in w.procs if p.alive() and p.name in ('forwarder', 'agent', 'gateway')}
	for name, peak in peaks.items():
		assert peak < CAP, '%s used %.0f MiB' % (name, peak / MIB)
	return ', '.join('%s %.0f MiB' % (n, p / MIB) for n, p in sorted(peaks.items()))


def stalled_target(total, seconds):
	"""Upload to a target that reads nothing for a while; other connections go on."""
	gate = threading.Event()

	def handler(sock):
		if sock.recv(1, socket.MSG_PEEK) == b'U':
			gate.wait(120)
		blob(sock)

	with World() as w:
		s = Server(handler, rcvbuf=65536)
		g, a, f = w.standard(s.port)
		c = connect(f.ports['t'], 200)
		j = background(upload, c, total)
		d = connect(f.ports['t'], 60)
		t0, slowest = time.monotonic(), 0
		while time.monotonic() - t0 < seconds:
			t1 = time.monotonic()
			download(d, 100000)
			slowest = max(slowest, time.monotonic() - t1)
			time.sleep(0.05)
		assert j.running()
		text = check_rss(w)
		gate.set()
		j(150)
		print('note: %s; beside it 100 KB took %.0f ms at most' % (text, slowest * 1000))
		assert slowest < 5 * SLOW, 'a stalled stream held up another for %.1f s' % slowest
		check_rss(w)
		c.close(), d.close()


def stalled_reader(total, seconds):
	"""Download to a local reader that reads nothing for a while."""
	with World() as w:
		s = Server(blob)
		g, a, f = w.standard(s.port)
		c = socket.socket()
		c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
		c.settimeout(200)
		c.connect(('127.0.0.1', f.ports['t']))
		c.sendall(request(b'D', total, 5))
		d = connect(f.ports['t'], 60)
		t0, slowest = time.monotonic(), 0
		while time.monotonic() - t0 < seconds:
			t1 = time.monotonic()
			upload(d, 100000)
			slowest = max(slowest, time.monotonic() - t1)
			time.sleep(0.05)
		text = check_rss(w)
		from services import read_hash
		got = read_hash(c, total)
		assert read_exact(c, 32) == got == Source(total, 5).digest(), 'hashes differ'
		print('note: %s; beside it 100 KB took %.0f ms at most' % (text, slowest * 1000))
		assert slowest < 5 * SLOW, 'a stalled stream held up another for %.1f s' % slowest
		check_rss(w)
		c.close(), d.close()


@test('400 MB to a target that stalls: every process under 120 MiB, others go on', 240, alone=True)
def target_400():
	stalled_target(400 * 1000 * 1000, 3)


@test('400 MB to a local reader that stalls: every process under 120 MiB, others go on', 240, alone=True)
def reader_400():
	stalled_reader(400 * 1000 * 1000, 3)


@test('10 MB to a target that stalls, others go on', 120, short=True)
def target_10():
	stalled_target(10 * 1000 * 1000, 1)


@test('40 stalled connections in one session: memory stays under the cap, the 41st goes on', 120, alone=True)
def forty_stalled():
	with World() as w:
		gate = threading.Event()

		def handler(sock):
			if sock.recv(1, socket.MSG_PEEK) == b'U':
				gate.wait(100)
			blob(sock)
		s = Server(handler, rcvbuf=65536)
		g, a, f = w.standard(s.port)
		joins, conns = [], []
		for i in range(40):
			conns.append(connect(f.ports['t'], 100))
			joins.append(background(upload, conns[-1], 5 * MIB, i))
		time.sleep(1.5)
		assert all(j.running() for j in joins)
		text = check_rss(w)
		d = connect(f.ports['t'], 30)
		t0 = time.monotonic()
		download(d, 100000)
		spent = time.monotonic() - t0
		gate.set()
		for j in joins:
			j(90)
		print('note: %s; the 41st took %.0f ms' % (text, spent * 1000))
		for c in conns + [d]:
			c.close()


@test('a gateway that stalls (SIGSTOP) for 3 s: readers stop, memory stays, all arrives', 90, alone=True)
def gateway_stopped():
	import signal
	with FaultWorld() as w:
		w.build(tunnel={'ping_interval': '30s', 'pong_timeout': '20s'}, agent={'ping_interval': '30s', 'pong_timeout': '20s'})
		c = connect(w.f.ports['t'], 80)
		upload(c, 1000)
		j = background(upload, c, 100 * MIB)
		time.sleep(0.1)
		w.g.signal(signal.SIGSTOP)
		try:
			time.sleep(3)
			text = check_rss(w)
			assert j.running()
		finally:
			w.g.signal(signal.SIGCONT)
		j(60)
		print('note: ' + text)
		c.close()


def drive(port, count, mode):
	"""A driver process of its own: `hold` opens count connections, pings each, then closes all; `seq` one after the other."""
	p = subprocess.Popen([sys.executable, os.path.join(HERE, 'driver.py'), str(port), str(count), mode], stdout=subprocess.PIPE, stdin=subprocess.PIPE,
		text=True, bufsize=1)
	return p


def connections(sequential, concurrent):
	limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
	# The forwarder needs one descriptor per connection, the agent as well, the echo server's process one, each driver one.
	fit = min(concurrent, limit - 600)
	if fit < concurrent:
		print('note: scaled to %d at once, the hard limit of descriptors is %d' % (fit, limit))
	with World() as w:
		resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
		echo_p = drive(0, 0, 'echo')
		w.closers.append(lambda: (echo_p.stdin.close(), echo_p.wait(10)))
		port = int(echo_p.stdout.readline())
		w.gateway()
		w.agent(max_streams=20000)
		g, a = w.procs[0], w.procs[1]
		f = w.forwarder({'t': {'port': port, 'max_connections': 20000}})
		procs = (f, a, g)

		def wave(n, mode):
			parts = [n - n // 2, n // 2] if n > 1 else [n]
			ds = [drive(f.ports['t'], k, mode) for k in parts]
			for d in ds:
				line = d.stdout.readline().strip()
				assert line == 'done', 'driver: %r' % line
			peak = [len(p.fds()) for p in procs]
			for d in ds:
				d.stdin.close()
				assert d.wait(120) == 0
			return peak
		wave(200, 'seq')
		wave(200, 'hold')

		def settled(base):
			until(lambda: all(len(p.fds()) <= b for p, b in zip(procs, base)), 30, 'descriptors back to %s' % base, step=0.1)
		c = connect(f.ports['t'])
		ping(c)
		c.close()
		time.sleep(0.5)
		base = [len(p.fds()) for p in procs]
		rss = [rss_now(p.pid) for p in procs]
		t0 = time.monotonic()
		wave(sequential, 'seq')
		rate = sequential / (time.monotonic() - t0)
		settled(base)
		after = [rss_now(p.pid) for p in procs]
		t0 = time.monotonic()
		peak = wave(fit, 'hold')
		spent = time.monotonic() - t0
		assert peak[0] > fit and peak[1] > fit, 'not all were open at once: %s' % peak
		settled(base)
		end = [rss_now(p.pid) for p in procs]
		print('note: %d in turn at %.0f/s, %d at once in %.1f s; RSS %s -> %s -> %s MiB' % (sequential, rate, fit, spent,
			*('/'.join('%.0f' % (x / MIB) for x in v) for v in (rss, after, end))))
		if not SANITIZED:
			for p, before, x in zip(procs, rss, after):
				assert x - before < 8 * MIB, '%s grew by %.1f MiB over %d connections' % (p.name, (x - before) / MIB, sequential)
			for p, before, x in zip(procs, rss, end):
				assert x - before < 40 * MIB, '%s kept %.1f MiB after %d connections at once' % (p.name, (x - before) / MIB, fit)


@test('1,000 connections in turn and 1,000 at once: descriptors and memory back', 150, alone=True)
def connections_1000():
	connections(1000, 1000)


@test('10,000 connections in turn and 10,000 at once: descriptors and memory back', 400, long=True, alone=True)
def connections_10000():
	connections(10000, 10000)
