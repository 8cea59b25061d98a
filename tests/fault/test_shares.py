"""What one peer can use up: descriptors.  Others are served, and what keeps a process reachable comes back."""
import socket
import time

from faults import FaultWorld
from harness import until
from run import test
from services import connect, echo, ping


def limited(n):
	return ('prlimit', '--nofile=%d:%d' % (n, n))


def hold(port, n):
	"""Up to n connections through the tunnel that answer; those that were turned away are closed."""
	good = []
	for _ in range(n):
		try:
			c = connect(port, 20)
			ping(c)
			good.append(c)
		except (OSError, EOFError):
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
		for p in w.both:
			p.do('cut')
		ping(c)
		w.wait_online()
		for s in silent + [c]:
			s.close()
