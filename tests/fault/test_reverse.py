"""Reverse tunnels over links that break: nothing is lost, the listener stays, and whoever connects meanwhile waits."""
import socket

from faults import QUICK, FaultWorld, background
from harness import until
from run import test
from services import MIB, Server, blob, both_ways, connect, download, upload
from test_direct import DirectWorld


class Reverse:
	def listen(self, **tunnel):
		self.rights = {'ops': {'reverse': True}}
		s = Server(blob)
		self.build(server=s, agent={'reverse': '127.0.0.1:*'}, tunnel={'listen': None, 'port': None, 'type': 'reverse', 'bind': '127.0.0.1:0',
			'connect': '127.0.0.1:%d' % s.port, **tunnel})
		return self

	def listener(self):
		t = self.status(self.f)[0]['forwarder']['tunnels'][0]
		return int(t['bound'].rsplit(':', 1)[1]) if t.get('bound') else None

	def paused(self):
		return self.status(self.ag)[0]['agent']['sessions'][0]['listeners'][0]['paused']


class ReverseFaults(Reverse, FaultWorld):
	pass


class ReverseDirect(Reverse, DirectWorld):
	pass


@test('reverse: both links cut again and again in mid-transfer, in both directions: hashes match', 120, short=True)
def cuts():
	with ReverseFaults() as w:
		w.listen()
		port = until(w.listener, 20, 'the agent listens')
		for work in (upload, download, both_ways):
			c = connect(port, 90)
			upload(c, 1000)
			for p in w.both:
				p.do('rate', 1e6, 0)  # not over before the last cut
			j = background(work, c, 12 * MIB)
			for p in (w.c, w.a, w.c):
				moved = p.stats()[0]
				until(lambda: p.stats()[0] > moved + MIB // 4, 20, 'it is under way', step=0.01)
				p.do('cut')
			for p in w.both:
				p.do('rate', 0, 0)
			j(60)
			c.close()
		assert w.listener() == port


@test('reverse: while the client is away the listener stays, and who connects then is served when it is back', 120)
def away():
	with ReverseFaults() as w:
		w.listen()
		port = until(w.listener, 20, 'the agent listens')
		sid = w.api().sessions()[0]['SessionId']
		w.c.do('refuse')
		w.c.do('cut')
		until(w.paused, 20, 'the listener is paused')
		c = connect(port, 60)
		j = background(upload, c, MIB)
		w.c.do('go')
		j(60)
		assert not w.paused()
		assert [s['SessionId'] for s in w.api().sessions()] == [sid]
		w.g.kill9()  # and without a gateway for a moment
		until(w.paused, 20, 'the listener is paused')
		d = connect(port, 60)
		j = background(upload, d, MIB)
		w.regateway()
		j(60)
		upload(c, MIB)
		c.close(), d.close()


@test('reverse: over a direct link the listener goes on while the gateway is away', 90)
def direct():
	with ReverseDirect() as w:
		w.listen()
		port = until(w.listener, 20, 'the agent listens')
		w.up()
		c = connect(port, 60)
		upload(c, 3 * MIB)
		w.g.kill9()
		d = connect(port, 60)
		both_ways(d, 3 * MIB)
		assert not w.paused()
		w.regateway()
		w.up()
		upload(c, MIB), download(d, MIB)
		c.close(), d.close()
