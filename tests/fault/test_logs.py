"""How many lines a peer can make a process log: a few for each kind and minute, and a number."""
import http.client
import re
import time

from faults import FaultWorld
from harness import World
from run import test
from services import connect, free_port

MORE = re.compile(r'… ([\d,]+) more in (\d+) s$')


def told(p, what):
	"""Lines with these words, and how many more were folded into those of them that say so."""
	lines = [x for x in p.lines if what in x]
	more = sum(int(m.group(1).replace(',', '')) for m in map(MORE.search, lines) if m)
	return len(lines), more


def refused_quickly(address, timeout=15):
	try:
		c = connect(address, timeout)
		assert c.recv(1) == b''
		c.close()
	except OSError:
		pass


@test('3,000 refused requests: a few lines and a number, their connection is closed again and again, status has the kinds', 90)
def refused_requests():
	with World() as w:
		g = w.gateway()
		api = w.api()
		n = opened = 0
		while n < 3000:
			c = http.client.HTTPSConnection('127.0.0.1', w.gw_port, context=api.tls, timeout=20)
			opened += 1
			while n < 3000:
				c.request('GET', '/no-such-path-%d' % n)
				r = c.getresponse()
				r.read()
				assert r.status == 404
				n += 1
				if r.getheader('Connection') == 'close':
					break
			c.close()
		assert opened >= 3000 // 32, '%d connections for 3,000 refusals' % opened
		refused = w.status(g)[0]['gateway']['refused']
		assert refused['http_404'] >= 3000, refused
		status, _ = api.call('StartSession', {'Target': 'i-nobody'}, secret='wrong')
		assert status == 400
		g.wait_log('reason=InvalidSignatureException')  # the answer can overtake it
		assert told(g, 'reason=InvalidSignatureException')[0] == 1, 'the first of another kind is missing'
		g.stop()
		lines, more = told(g, 'request refused')
		assert lines < 60, '%d lines' % lines
		assert more >= 3000 - 100, 'only %d of them are told' % more
		assert told(g, 'no-such-path-')[0] == 0


@test('400 connections that a service refuses: agent and forwarder log a few lines and a number', 90)
def refused_connections():
	with World() as w:
		w.gateway()
		a = w.agent()
		f = w.forwarder({'t': {'port': free_port()}})
		for _ in range(400):
			refused_quickly(f.ports['t'])
		f.stop()
		a.stop()
		lines, more = told(a, 'connection refused')
		assert 1 <= lines <= 25 and more >= 350, (lines, more)
		lines, more = told(f, 'connection reset')
		assert 1 <= lines <= 25 and more >= 350, (lines, more)
		assert sum(map(len, a.lines)) < 30000 and sum(map(len, f.lines)) < 30000


@test('a gateway that is away: failed clients and failed resumes are a few lines and a number', 90)
def gateway_away():
	with FaultWorld() as w:
		w.build(tunnel={'connect_timeout': '100ms', 'reconnect_max': '20ms'}, agent={'drain_timeout': '200ms'})
		c = connect(w.f.ports['t'], 20)
		c.sendall(b'x')
		time.sleep(0.5)
		w.g.kill9()
		t0 = time.monotonic()
		n = 0
		while time.monotonic() - t0 < 4:
			refused_quickly(w.f.ports['t'])
			n += 1
		c.close()
		w.f.stop()
		w.ag.stop()
		lines, more = told(w.f, 'connection reset')
		assert 1 <= lines <= 30, (lines, more, n)
		assert lines + more >= n, (lines, more, n)
		for p in (w.f, w.ag):
			assert len(p.lines) < 150, '%s: %d lines while the gateway was away' % (p.name, len(p.lines))
		print('note: %d clients; forwarder %d lines, agent %d' % (n, len(w.f.lines), len(w.ag.lines)))
