"""A gateway that relays on several threads: sessions spread over them, and whatever happens to some of them, the bytes of the others
are right and nothing is left behind."""
import os
import signal
import socket
import time

from faults import QUICK, FaultWorld, background
from harness import SLOW, TARGET, until
from run import test
from services import MIB, both_ways, connect, download, upload

GUEST = ('AKIDGUEST00000000001', 'plantedGuestOfWorkersK2')
CALM = {'ping_interval': '30s', 'pong_timeout': '20s'}


def gateway_of(w):
	return w.status(w.g)[0]['gateway']


def threads(p):
	"""name → CPU clock ticks of each thread"""
	out = {}
	for t in os.listdir('/proc/%d/task' % p.p.pid):
		with open('/proc/%d/task/%s/stat' % (p.p.pid, t)) as f:
			name, rest = f.read().split('(', 1)[1].rsplit(')', 1)
		out[name] = sum(map(int, rest.split()[11:13]))
	return out


def all_gone(w):
	g = gateway_of(w)
	return not g['sessions'] and not any(k['links'] for k in g['workers'][1:]) and not any(u['kept'] for u in g['user_shares'])


def transfers(port, seed, times, n, enough=(1,)):
	"""So many, and until it is enough."""
	c = connect(port, 150 * SLOW)
	i = 0
	while i < times or not enough:
		(upload, download, both_ways)[(seed + i) % 3](c, n, seed * 1000 + i)
		i += 1
	c.close()


def outlive(port, stop):
	"""Connections that somebody ends again and again: a transfer is right, or its connection breaks."""
	broke = seed = 0
	while not stop:
		try:
			seed += 1
			c = connect(port, 150 * SLOW)
			both_ways(c, MIB // 4, seed)
			c.close()
		except (OSError, EOFError):
			broke += 1
	return broke


def end_some(w, stop):
	n = 0
	while not stop:
		for s in gateway_of(w)['sessions']:
			if s['owner'] == 'guest' and n % 3 == 0:
				w.api(*GUEST).call('TerminateSession', {'SessionId': s['id']})
			n += 1
		time.sleep(0.05)
	return n


@test('workers: 40 sessions on four threads; links are cut, sessions end, a user goes, the status is read: every other hash is right, nothing is left', 170)
def storm():
	with FaultWorld() as w:
		w.keys['users']['guest'] = GUEST + (TARGET,)
		own = {'session': 'per-connection'}
		w.build(gateway={'workers': 4, 'audit_log': w.path('audit.log')}, tunnel=own)
		other = w.forwarder({'t': {'port': w.server.port, **own, **QUICK}}, name='guest', port=w.c.port,
			aws={'access_key_id': GUEST[0], 'secret_access_key': GUEST[1]})
		stop = []
		enough = []
		jobs = [background(transfers, w.f.ports['t'], i, 4, MIB, enough) for i in range(32)]
		doomed = [background(outlive, other.ports['t'], stop) for i in range(8)]
		ender = background(end_some, w, stop)
		cuts, until_t = 0, time.monotonic() + 60 * SLOW
		while any(j.running() for j in jobs) and time.monotonic() < until_t:
			time.sleep(0.7)
			if cuts < 6:
				w.both[cuts % 2].do('cut')
			cuts += 1
			w.g.signal(signal.SIGHUP)
			if cuts == 4:
				workers = gateway_of(w)['workers']
				names = threads(w.g)
			if cuts == 6:
				enough.append(1)
		for j in jobs:
			j(120)
		del w.keys['users']['guest']
		w.write_gateway(public_port=w.c.port, **{'workers': 4, 'ping_interval': '500ms', 'pong_timeout': '500ms', 'audit_log': w.path('audit.log')})
		w.g.notified.clear()
		w.g.signal(signal.SIGHUP)
		w.g.wait_note('READY=1')
		until(lambda: not any(s['owner'] == 'guest' for s in gateway_of(w)['sessions']), 20, 'sessions of the user who has gone')
		stop.append(1)
		other.stop()
		assert [k['name'] for k in workers] == ['main', 'relay-1', 'relay-2', 'relay-3', 'relay-4'], workers
		assert all(k['links'] and k['relayed_bytes'] for k in workers[1:]) and not workers[0]['relayed_bytes'], workers
		assert all(names.get('relay-%d' % i) for i in (1, 2, 3, 4)), names
		for j in doomed:
			j(60)
		ender(20)
		until(lambda: all_gone(w), 20, 'nothing is left')
		w.g.signal(signal.SIGTERM)
		assert w.g.wait(15) == 0


@test('workers: a gateway that drains and comes again under 12 transfers on three threads, four links each: no byte is lost', 120)
def drains():
	with FaultWorld() as w:
		options = {'workers': 3, **CALM}
		w.build(gateway=options, agent=CALM, tunnel={'session': 'per-connection', 'links': 4, **CALM})
		jobs = [background(transfers, w.f.ports['t'], i, 8, MIB) for i in range(12)]
		for _ in range(3):
			until(lambda: len(gateway_of(w)['sessions']) >= 6 or not any(j.running() for j in jobs), 20, 'sessions')
			time.sleep(0.5)
			w.g.signal(signal.SIGTERM)
			assert w.g.wait(15) == 0
			w.regateway(**options)
		for j in jobs:
			j(90)
		until(lambda: all_gone(w), 20, 'nothing is left')


def stands_still(w):
	def came():
		return sum(s['client']['relayed_bytes'] for s in gateway_of(w)['sessions'])
	before = came()
	time.sleep(0.3)
	return before > MIB and came() == before


@test('workers: one is no thread; a reader that stands still on one thread holds up nobody on another', 90)
def one_and_still():
	with FaultWorld() as w:
		w.build(gateway={'workers': 1}, tunnel={'session': 'per-connection'})
		transfers(w.f.ports['t'], 1, 3, MIB)
		assert not any(n.startswith('relay') for n in threads(w.g)), threads(w.g)
		assert [k['name'] for k in gateway_of(w)['workers']] == ['main']
	with FaultWorld() as w:
		w.build(gateway={'workers': 2, 'relay_memory': '256K'}, tunnel={'session': 'per-connection'})
		still = connect(w.f.ports['t'], 60 * SLOW)
		still.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
		still.sendall(b'D' + (64 * MIB).to_bytes(8, 'big') + (5).to_bytes(8, 'big'))
		until(lambda: stands_still(w), 30, 'a reader that stands still')
		for i in range(4):
			transfers(w.f.ports['t'], i, 3, MIB)
		still.close()
		until(lambda: all_gone(w), 20, 'nothing is left')
