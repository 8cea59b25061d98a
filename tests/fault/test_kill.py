"""kill -9 of each process in mid-transfer: the others recover, nothing leaks, no zombie session stays."""
import time

from faults import QUICK, FaultWorld, background
from harness import SLOW, until
from run import test
from services import MIB, Server, blob, connect, download, echo, ping, upload, wait_reset


def ends_badly(join):
	try:
		join(30)
	except (OSError, EOFError):
		return
	raise AssertionError('the transfer ended well although its end died')


def in_the_middle(w, work, c):
	"""Starts a transfer of 12 MiB that takes a third of a second at the least, whatever number of links carries it; returns its join when 2 MiB
	have passed."""
	for p in w.both:
		p.do('rate', 8e6, 0)  # of each connection, and a session may have four
	moved = w.c.stats()[0]
	join = background(work, c, 12 * MIB)
	until(lambda: w.c.stats()[0] > moved + 2 * MIB, 20, 'the transfer is under way', step=0.01)
	return join


@test('kill -9 of the gateway in mid-transfer, started again: hashes match, same session', 120, short=True)
def kill_gateway():
	with FaultWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 90)
		upload(c, 1000)
		sid = w.api().sessions()[0]['SessionId']
		for work in (upload, download):
			j = in_the_middle(w, work, c)
			assert j.running(), 'too fast to be killed in the middle'
			w.g.kill9()
			w.regateway()
			j(60)
		assert [s['SessionId'] for s in w.api().sessions()] == [sid], w.api().sessions()
		c.close()


@test('gateway down for 4 s in mid-transfer: everything waits, then goes on', 120)
def gateway_down():
	with FaultWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 90)
		upload(c, 1000)
		j = in_the_middle(w, upload, c)
		w.g.kill9()
		time.sleep(4)
		assert j.running()
		d = connect(w.f.ports['t'], 60)  # accepted, waits
		w.regateway()
		j(60)
		upload(d, 1000)
		c.close(), d.close()


@test('kill -9 of the agent in mid-transfer: streams are reset, new connections work once it is back', 120, short=True)
def kill_agent():
	with FaultWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 90)
		upload(c, 1000)
		j = in_the_middle(w, upload, c)
		w.ag.kill9()
		w.ag = w.agent(port=w.a.port, **QUICK)
		t0 = time.monotonic()
		ends_badly(j)
		print('note: reset %.1f s after the agent was back' % (time.monotonic() - t0))
		t0 = time.monotonic()
		while True:
			d = connect(w.f.ports['t'], 40)
			try:
				upload(d, 1000)
				break
			except (OSError, EOFError):
				assert time.monotonic() - t0 < 20 * SLOW, 'no connection works %g s after the agent is back' % (time.monotonic() - t0)
				time.sleep(0.1)
		d.close()
		until(lambda: len(w.api().sessions()) <= 1, 10, 'no zombie session: %s' % w.api().sessions())


@test('agent killed and gone: the session waits, until the idle timeout ends it and its streams', 60)
def agent_gone():
	with FaultWorld() as w:
		w.build(gateway={'idle_timeout': '3s'}, tunnel={'idle_timeout': '1s'})
		c = connect(w.f.ports['t'], 140)
		upload(c, 1000)
		w.ag.kill9()
		t0 = time.monotonic()
		assert wait_reset(c, 20 * SLOW)
		spent = time.monotonic() - t0
		assert spent > 2, 'reset after %.1f s already: an agent may come back' % spent
		assert not w.api().sessions(), 'the session is still there'


@test('kill -9 of the forwarder in mid-transfer: the target is told, the next start ends the zombie', 120, short=True)
def kill_forwarder():
	with FaultWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 90)
		upload(c, 1000)
		j = in_the_middle(w, upload, c)
		w.f.kill9()
		ends_badly(j)
		assert len(w.api().sessions()) == 1
		w.f = w.forwarder({'t': dict({'port': w.server.port}, **QUICK)}, port=w.c.port)
		until(lambda: not w.api().sessions(), 15, 'the session of the killed forwarder is terminated at the next start')
		assert w.server.wait_open(0, 15 * SLOW), 'the target still has the connection'
		d = connect(w.f.ports['t'], 40)
		upload(d, 100000)
		d.close()


@test('each process killed five times in turn: afterwards descriptors are where they were', 200, long=True)
def kill_all():
	with FaultWorld() as w:
		w.build()

		def works():
			d = connect(w.f.ports['t'], 40)
			try:
				upload(d, 100000)
				return True
			except (OSError, EOFError):
				return False
			finally:
				d.close()
		until(works, 20, step=0.2)
		base = len(w.g.fds()), len(w.ag.fds()), len(w.f.fds())
		for i in range(5):
			w.g.kill9()
			w.regateway()
			until(works, 20, 'after the gateway', step=0.2)
			w.ag.kill9()
			w.ag = w.agent(port=w.a.port, **QUICK)
			until(works, 30, 'after the agent', step=0.2)
			w.f.kill9()
			w.f = w.forwarder({'t': dict({'port': w.server.port}, **QUICK)}, port=w.c.port)
			until(works, 20, 'after the forwarder', step=0.2)
		until(lambda: len(w.api().sessions()) <= 1, 90, 'one session at most: %s' % w.api().sessions(), step=0.5)
		until(lambda: all(len(p.fds()) <= b + 2 for p, b in zip((w.g, w.ag, w.f), base)), 15, 'descriptors at about %s' % (base,))


@test('20 gateway kills while 4 connections move data', 200, long=True)
def kill_gateway_often():
	with FaultWorld() as w:
		w.build()
		conns = [connect(w.f.ports['t'], 150) for _ in range(4)]
		stop = []

		def work(c, seed):
			n = 0
			while not stop:
				upload(c, 3 * MIB, seed + n)
				download(c, 3 * MIB, seed + n + 1)
				n += 2
			return n
		joins = [background(work, c, i * 1000) for i, c in enumerate(conns)]
		for i in range(20):
			time.sleep(0.5)
			w.g.kill9()
			w.regateway()
		stop.append(1)
		moved = sum(j(60) for j in joins)
		print('note: %d transfers of 3 MiB' % moved)
		assert len(w.api().sessions()) == 1
		for c in conns:
			c.close()
