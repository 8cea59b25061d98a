"""Several links of one session between real processes: one of them is cut or stands still, and the streams do not notice."""
import threading
import time

from faults import FaultWorld, background
from harness import SLOW, World, until
from run import test
from services import MIB, Server, blob, both_ways, connect, download, request, rst_close, upload

CALM = {'ping_interval': '30s', 'pong_timeout': '20s'}


def links(w):
	"""How many each end has, as the gateway counts them."""
	s = w.status(w.g)[0]['gateway']['sessions']
	return (s[0]['client']['links'], s[0]['agent']['links']) if s else (0, 0)


def build(w, number, **tunnel):
	w.build(tunnel={'links': number, **CALM, **tunnel}, agent=CALM, gateway=CALM)
	for side in w.both:
		side.do('rate', 4000000, 0.005)
	c = connect(w.f.ports['t'], 90)
	upload(c, 1000)
	return c


def no_event(w):
	f, a = w.status(w.f)[0]['forwarder'], w.status(w.ag)[0]['agent']
	resumes = [s['resumes'] for s in f['tunnels'][0]['sessions']]
	assert resumes == [0], 'the forwarder resumed: %s' % resumes
	assert a['sessions'][0]['resumes'] == 0, 'the agent resumed'
	assert len(w.api().sessions()) == 1


def cut_some(w, job, times):
	cuts = 0
	while cuts < times and job.running():
		for side in w.both:
			if links(w) == (4, 4):
				side.do('count')
				time.sleep(0.15)
				side.do('cutone')
				cuts += 1
				time.sleep(0.3)
	return cuts


@test('one of four links is cut, again and again, on either side: no byte lost, nothing resumes', 120, short=True)
def cut_one_of_four():
	with FaultWorld() as w:
		c = build(w, 4)
		until(lambda: links(w) == (4, 4), 10, 'four links at both ends')
		for work in (upload, download, both_ways):
			j = background(work, c, 40 * MIB)
			cuts = cut_some(w, j, 4)
			j(60)
			assert cuts >= 2, 'only %d cuts' % cuts
		no_event(w)
		c.close()


@test('a further link that is refused for its rate is tried again, and none is given up', 120)
def throttled_links():
	with FaultWorld() as w:
		w.build(tunnel={'links': 4}, forwarder={'log_level': 'debug'})
		c = connect(w.f.ports['t'], 90)
		upload(c, 1000)
		until(lambda: links(w) == (4, 4), 10, 'four links at both ends')
		sid, over = w.api().sessions()[0]['SessionId'], threading.Event()

		def flood(api):
			while not over.is_set():  # whoever has the keys takes all that there is
				api.call('OpenSessionLink', {'SessionId': sid, 'Link': 7})
		joins = [background(flood, w.api()) for _ in range(3)]

		def cut():
			if links(w)[0] == 4:
				w.c.do('cut')
			return w.f.count('further link=. could not be opened, trying again .*Rate exceeded') >= 2
		until(cut, 60, 'further links are refused')
		over.set()
		for j in joins:
			j()
		upload(c, 100000, 1)
		until(lambda: links(w) == (4, 4), 40, 'they are back')
		assert not w.f.count('further links are refused')
		assert len(w.api().sessions()) == 1
		c.close()


@test('a link stands still with bytes on it: the others go on', 90)
def stall_one_of_four():
	with FaultWorld() as w:
		c = build(w, 4)
		until(lambda: links(w) == (4, 4), 10, 'four links at both ends')
		for side, work in ((w.c, upload), (w.a, download)):
			j = background(work, c, 40 * MIB)
			side.do('count')
			time.sleep(0.5)
			side.do('stallone')
			j(20)  # with the link still dead: its ping is not due for half a minute
			side.do('go')
			upload(c, 1000)
		no_event(w)
		c.close()


@test('links = auto: one link, more while there is bulk, one again; links = 1: never', 90)
def automatic():
	with FaultWorld() as w:
		c = build(w, 'auto')
		assert links(w) == (1, 1)
		j = background(upload, c, 40 * MIB)
		until(lambda: links(w) == (4, 4), 10, 'four links while there is bulk')
		j(60)
		until(lambda: links(w) == (1, 1), 20, 'one link when it is quiet')
		upload(c, 100000)
		no_event(w)
		c.close()
	with FaultWorld() as w:
		c = build(w, 1)
		upload(c, 24 * MIB)
		assert links(w) == (1, 1)
		no_event(w)
		c.close()


@test('links = auto with bulk in 24 sessions at once: they share what a few would have', 60)
def crowd():
	def all_links(w):
		return sum(s['client']['links'] for s in w.status(w.g)[0]['gateway']['sessions'])

	def bulk(c, rest):
		while rest():
			upload(c, MIB)
		upload(c, 4 * MIB)
	with FaultWorld() as w:
		w.build(tunnel={'session': 'per-connection', **CALM}, agent=CALM, gateway=CALM)
		for side in w.both:
			side.do('rate', 2000000, 0.005)
		seen, conns = [0], [connect(w.f.ports['t'], 90) for _ in range(24)]
		jobs = [background(bulk, c, lambda: max(seen) <= 24) for c in conns]
		while any(j.running() for j in jobs):
			seen.append(all_links(w))
			time.sleep(0.05)
		for j in jobs:
			j(60)
		assert 24 < max(seen) <= 24 + 56, max(seen)  # four each would be 96, eight 192
		for c in conns:
			c.close()


@test('links = auto where a round trip takes next to nothing: one link, however much bulk there is', 30)
def short_path():
	with World() as w:
		w.g, _, f = w.standard(Server(blob).port, bandwidth='16M')
		c = connect(f.ports['t'])
		upload(c, 24 * MIB)
		assert links(w) == (1, 1), links(w)
		c.close()


def feed(sock):
	try:
		sock.sendall(bytes(8 * MIB))
	except OSError:
		pass


def most_links(w):
	sessions = w.status(w.g)[0]['gateway']['sessions']
	return {end: max(s[end]['links'] for s in sessions) for end in ('client', 'agent')}


@test('links = 4 where less than half of the memory of an end is free: it opens no further ones until there is', 90)
def short_of_memory():
	for short, other in (('agent', 'client'), ('client', 'agent')):
		with World() as w:
			gate = threading.Event()
			w.closers.append(gate.set)
			s, deaf = Server(blob), Server(lambda sock: (gate.wait(80), blob(sock)))
			w.g = w.gateway()
			a = w.agent(**({'td_memory_limit': '8M'} if short == 'agent' else {}))
			each = {'session': 'per-connection', 'links': 1}
			f = w.forwarder({'deaf': {'port': deaf.port, **each}, 'slow': {'port': s.port, **each}, 't': {'port': s.port, 'links': 4}},
				**({'memory_limit': '8M'} if short == 'client' else {}))
			hogs = [connect(f.ports['deaf' if short == 'agent' else 'slow'], 60) for _ in range(5)]
			for x in hogs:
				x.sendall(request(b'U' if short == 'agent' else b'D', 8 * MIB, 5))
				if short == 'agent':
					threading.Thread(target=feed, args=(x,), daemon=True).start()
			p = a if short == 'agent' else f
			until(lambda: w.status(p)[0]['memory']['used'] > 9 * MIB // 2, 30, 'more than half of the memory in use')
			c = connect(f.ports['t'], 60)
			upload(c, MIB)
			until(lambda: most_links(w)[other] == 4, 20, 'four links at the other end')
			download(c, MIB)
			assert most_links(w)[short] == 1, most_links(w)
			gate.set()
			for x in hogs:
				rst_close(x)
			until(lambda: most_links(w) == {'client': 4, 'agent': 4}, 20, 'four links at both ends')
			c.close()
