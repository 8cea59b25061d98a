"""Links that break, stall, lie and vanish between real processes: every byte arrives, once and in order."""
import threading
import time

from faults import FaultWorld, background
from harness import SLOW, until
from run import test
from services import MIB, both_ways, connect, download, echo, ping, upload, wait_reset


@test('cut every 400 KB on the client side, 6 MiB each way', 120, short=True)
def cut_client():
	with FaultWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 90)
		upload(c, 1000)
		w.c.do('cutevery', 400000)
		upload(c, 6 * MIB)
		download(c, 6 * MIB)
		w.c.do('cutevery', 0)
		cuts = w.c.stats()[1]
		assert cuts >= 10, 'only %d cuts' % cuts
		assert len(w.api().sessions()) == 1, 'a session was replaced instead of resumed'
		print('note: %d cuts' % cuts)
		c.close()


@test('cut every 400 KB on the agent side, 6 MiB each way', 120)
def cut_agent():
	with FaultWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 90)
		upload(c, 1000)
		w.a.do('cutevery', 400000)
		upload(c, 6 * MIB)
		download(c, 6 * MIB)
		w.a.do('cutevery', 0)
		cuts = w.a.stats()[1]
		assert cuts >= 10, 'only %d cuts' % cuts
		assert len(w.api().sessions()) == 1
		c.close()


@test('cut on both sides at once while data flows both ways', 120)
def cut_both():
	with FaultWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 90)
		upload(c, 1000)
		w.c.do('cutevery', 700000)
		w.a.do('cutevery', 500000)
		both_ways(c, 6 * MIB)
		assert w.c.stats()[1] >= 5 and w.a.stats()[1] >= 5
		c.close()


@test('cut every 3,000 bytes: not even the handshake of TLS gets far, then it heals', 90)
def cut_tiny():
	with FaultWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 60)
		upload(c, 1000)
		w.c.do('cutevery', 3000)
		w.c.do('cut')
		j = background(upload, c, 2 * MIB)
		until(lambda: w.c.stats()[1] >= 10, 30, 'ten cuts')
		w.c.do('cutevery', 0)
		j()
		c.close()


@test('50 cuts by RST and by FIN beside 20 connections', 150)
def cut_many():
	with FaultWorld() as w:
		w.build()
		conns = [connect(w.f.ports['t'], 120) for _ in range(20)]
		joins = []
		for i, c in enumerate(conns):
			def work(c=c, i=i):
				for k in range(6):
					upload(c, 150000, i * 10 + k)
					download(c, 150000, i * 10 + k + 500)
			joins.append(background(work))
		for i in range(25):
			for p in w.both:
				p.do('cut' if i % 2 else 'close')
			time.sleep(0.05)
		for j in joins:
			j(100)
		assert len(w.api().sessions()) == 1
		for c in conns:
			c.close()
		assert w.server.wait_open(0)


@test('stall for 2 s on each side: nothing breaks that need not, all arrives', 90)
def stall():
	with FaultWorld() as w:
		w.build(tunnel={'ping_interval': '30s', 'pong_timeout': '10s'}, agent={'ping_interval': '30s', 'pong_timeout': '10s'},
			gateway={'ping_interval': '30s', 'pong_timeout': '10s'})
		c = connect(w.f.ports['t'], 60)
		upload(c, 1000)
		for p in w.both:
			j = background(both_ways, c, 20 * MIB)
			p.do('stall')
			time.sleep(2)
			assert j.running()
			p.do('go')
			j()
		assert len(w.api().sessions()) == 1
		c.close()


@test('one-byte writes on both sides', 120)
def one_byte_writes():
	with FaultWorld() as w:
		w.build(tunnel={'ping_interval': '20s'}, agent={'ping_interval': '20s'}, gateway={'ping_interval': '20s'})
		for p in w.both:
			p.do('chunk', 1)
		c = connect(w.f.ports['t'], 100)
		upload(c, 40000)
		download(c, 40000)
		c.close()


@test('bit flips under TLS: the record is refused, the link replaced, the bytes are right', 120, short=True)
def flips():
	with FaultWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 90)
		upload(c, 1000)
		for p in w.both:
			p.do('flip', 900007)
		upload(c, 4 * MIB)
		download(c, 4 * MIB)
		assert len(w.api().sessions()) == 1
		c.close()


@test('black hole without FIN: recovered within ping and pong', 90, short=True, alone=True)
def black_hole():
	with FaultWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 60)
		for side in w.both:
			upload(c, 100000)
			old = len(w.f.lines)
			j = background(upload, c, 3 * MIB)
			side.do('hole')
			time.sleep(0.3)
			side.do('stall')  # the old connections stay dead, silently
			side.do('go')
			t0 = time.monotonic()
			j(30)
			spent = time.monotonic() - t0
			# ping every 0.5 s, pong within 0.5 s, back-off up to 0.5 s, and the transfer itself
			assert spent < 4 * SLOW, 'recovery took %.1f s' % spent
		assert len(w.api().sessions()) == 1
		c.close()


@test('black hole of 5 s: the path comes back, so does the session', 90)
def black_hole_long():
	with FaultWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 80)
		for side in w.both:
			upload(c, 100000)
			j = background(upload, c, 3 * MIB)
			side.do('hole')
			time.sleep(5)
			side.do('cut')
			side.do('go')
			t0 = time.monotonic()
			j(40)
			assert time.monotonic() - t0 < 12 * SLOW, 'recovery took %.1f s' % (time.monotonic() - t0)
		assert len(w.api().sessions()) == 1
		c.close()


@test('connecting refused for 3 s: connections wait, nothing is reset', 60)
def refused_while():
	with FaultWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 60)
		upload(c, 100000)
		w.c.do('refuse')
		w.c.do('cut')
		j = background(upload, c, MIB)
		d = connect(w.f.ports['t'], 60)  # accepted meanwhile: waits
		k = background(upload, d, 1000)
		time.sleep(3)
		assert j.running() and k.running()
		w.c.do('go')
		j(30), k(30)
		c.close(), d.close()


@test('recovery time after a cut of 1 s', 60, alone=True)
def cut_one_second():
	with FaultWorld() as w:
		w.build(handler=echo)
		c = connect(w.f.ports['t'], 60)
		ping(c)
		spent = []
		for side in w.both * 2:
			side.do('refuse')
			side.do('cut')
			time.sleep(1)
			j = background(ping, c)
			side.do('go')
			t0 = time.monotonic()
			j(30)
			spent.append(time.monotonic() - t0)
			ping(c)
		print('note: back %s ms after the path was' % ', '.join('%.0f' % (x * 1000) for x in spent))
		assert max(spent) < 3 * SLOW, spent
		c.close()


@test('session over while resuming: streams are reset, the listener stays, a new session serves', 90)
def session_over():
	with FaultWorld() as w:
		w.build(handler=echo)
		c = connect(w.f.ports['t'], 40)
		ping(c)
		sid = w.api().sessions()[0]['SessionId']
		w.c.do('refuse')
		w.c.do('cut')
		assert w.api().call('TerminateSession', {'SessionId': sid})[0] == 200
		w.c.do('go')
		assert wait_reset(c, 20 * SLOW), 'the stream of an ended session was closed in order'
		w.f.wait_log('(?i)session ends|over|ended')
		d = connect(w.f.ports['t'], 40)
		ping(d)
		assert w.api().sessions()[0]['SessionId'] != sid
		d.close()


@test('TerminateSession from outside: streams are reset, the next connection gets a new session', 60, short=True)
def terminated():
	with FaultWorld() as w:
		w.build(handler=echo)
		c = connect(w.f.ports['t'], 40)
		ping(c)
		sid = w.api().sessions()[0]['SessionId']
		assert w.api().call('TerminateSession', {'SessionId': sid})[0] == 200
		assert wait_reset(c, 10 * SLOW)
		assert w.server.wait_open(0)
		d = connect(w.f.ports['t'], 40)
		ping(d)
		d.close()


@test('close code 1000 from a gateway is a normal resume, not an error', 90)
def close_1000():
	"""The gateway drains on SIGTERM: it closes its WebSockets in order; another takes over its port and store."""
	with FaultWorld() as w:
		w.build()
		c = connect(w.f.ports['t'], 60)
		upload(c, 100000)
		mark = w.f.mark()
		w.g.stop()
		w.regateway()
		upload(c, MIB)
		w.f.wait_log('session resumed', since=mark)
		assert not w.f.count(r'\berror\b(?!=)', since=mark), [x for x in w.f.lines[mark:] if 'error' in x]
		c.close()


@test('links that are cut as soon as they have moved bytes: the back-off does not grow', 90)
def useful_links():
	with FaultWorld() as w:
		w.build(handler=echo, tunnel={'reconnect_min': '100ms', 'reconnect_max': '10s'}, agent={'reconnect_min': '100ms', 'reconnect_max': '10s'})
		with connect(w.f.ports['t'], 60) as c:
			began = time.monotonic()
			for i in range(10):
				ping(c)
				for p in w.both:
					p.do('cut')
			ping(c)
			took = time.monotonic() - began
		assert took < 10 * SLOW, took  # 0.2 s at most for each; growing to 10 s it would be half a minute


@test('a ResumeSession that is refused for its rate is tried again: the session and its connections go on', 60)
def throttled_resume():
	with FaultWorld() as w:
		w.build(handler=echo)
		with connect(w.f.ports['t'], 60) as c:
			ping(c)
			sid = w.api().sessions()[0]['SessionId']
			over = threading.Event()

			def flood(api):
				while not over.is_set():  # whoever has the keys takes all that there is, and what comes again
					api.call('ResumeSession', {'SessionId': sid})
			calls = background(flood, w.api())
			until(lambda: w.g.count('call refused op=ResumeSession'), 20, 'a call is refused')
			cuts = 0

			def cut():  # and again where the session got what came again
				nonlocal cuts
				if w.f.count('session resumed') == cuts:
					w.c.do('cut')
					cuts += 1
				return w.f.count('ResumeSession failed, trying again .*ThrottlingException')
			until(cut, 30, 'the session is refused')
			over.set()
			calls()
			ping(c)
			until(lambda: w.f.count('session resumed') == cuts, 20, 'it is back')
		assert [s['SessionId'] for s in w.api().sessions()] == [sid]
