"""What is measured on one machine without a network: what each byte, round trip, connection and session costs."""
import os
import re

import subprocess
import time

from harness import BIN, clean_env
from machine import GIB, MIB, Meter, peak, process_cpu
from services import connect, echo, free_port, ping, rss_now
from ways import BenchWorld, Tunneld, client_argv, traffic

ALL_WAYS = ('tunneld', 'ssh -L', 'tcp')
WITH_DIRECT = ('tunneld', 'tunneld direct', 'ssh -L', 'tcp')


def rounds(run, w):
	"""(round, way) in alternating order, so that a noisy minute hits all alike."""
	for r in range(run.rounds):
		ways = list(w.ways.values())
		for way in ways if r % 2 == 0 else ways[::-1]:
			yield r, way


def measured(w, way, mode, **options):
	"""-> what the client says, the meter of that time"""
	with Meter(w.procs_of(way)) as m:
		got = traffic(way, mode, **options)
	w.settle()
	return got, m


def cpu_of(way, cpu):
	return sum(cpu[n] for n in way.procs())


def bulk(run):
	ways = WITH_DIRECT + (('stunnel',) if run.everything else ())
	with BenchWorld().build(ways) as w:
		run.note(w.left_out)
		for _, way in rounds(run, w):
			for mode, label in (('up', 'upload'), ('down', 'download'), ('both', 'both ways')):
				got, m = measured(w, way, mode, seconds=run.seconds(2), warm=1)
				moved = got['up'] + got['down']
				if way.procs():
					run.rows.add('CPU s a GiB, ' + label, way.name, 's', cpu_of(way, m.cpu) / (moved / GIB), None, m, more_is_better=False)
				run.rows.add(label, way.name, 'MB/s', moved / got['seconds'] / 1e6, got, m, moved)


def small(run):
	with BenchWorld().build(WITH_DIRECT) as w:
		for _, way in rounds(run, w):
			got, m = measured(w, way, 'ping', count=300 if run.quick else 2000)
			run.rows.add('64-byte round trip', way.name, 'us', got['rtt']['median'] * 1e6, got, m, more_is_better=False)


def connect_rates(run, w, label):
	"""Half a second each: the far end connects to the target from one address, which has some 14,000 ports at hand, and has them back
	after a second."""
	for _, way in rounds(run, w):
		for parallel in (1, 8, 64):
			time.sleep(1.1)
			got, m = measured(w, way, 'connect', parallel=parallel, seconds=0.5)
			run.rows.add('%s, %d at a time' % (label, parallel), way.name, '1/s', got['connections'] / got['seconds'], got, m)
			if way.procs() and got['connections']:
				run.rows.add('CPU a connection, %d at a time' % parallel, way.name, 'us', cpu_of(way, m.cpu) / got['connections'] * 1e6, None, m, more_is_better=False)
			if parallel == 1 and 'each' in got:
				run.rows.add('connect + first byte', way.name, 'us', got['each']['median'] * 1e6, got, m, more_is_better=False)


def connections(run):
	with BenchWorld().build() as w:
		connect_rates(run, w, 'connections')


def per_connection(run):
	with BenchWorld().build(('tunneld',), {'session': 'per-connection', 'max_connections': 2000}) as w:
		connect_rates(run, w, 'connections, a session each')


def together(run, w, counts, what, each=0):
	"""300 MiB in all over so many streams, or `each` bytes by each if that is more.  Each is answered before the time begins,
	and what that costs is a row of its own."""
	for _, way in rounds(run, w):
		for n in counts:
			total = max((60 if run.quick else 300) * MIB, n * each)
			for mode, label in (('up', 'upload'), ('down', 'download')):
				laps, name = [], '%d %s' % (n, what.replace('sessions', 'session').replace('streams', 'stream') if n == 1 else what)
				with Meter(w.procs_of(way)) as m:
					got = traffic(way, mode, opened=lambda: laps.append(m.lap()), streams=n, bytes=total, seconds=20.0, limit=90)
				w.settle()
				moved = got['up'] + got['down']
				run.rows.add('%s, %s' % (name, label), way.name, 'MB/s', moved / got['seconds'] / 1e6, got, m, moved)
				if way.procs() and moved:
					run.rows.add('%s, %s, CPU s a GiB' % (name, label), way.name, 's', cpu_of(way, m.cpu) / (moved / GIB), None, m, more_is_better=False)
					if n > 1:
						run.rows.add('%s, to open one, CPU' % name, way.name, 'us', cpu_of(way, laps[0]) / n * 1e6, None, m, more_is_better=False)
				if n > 1:  # do others still get through?
					got, m = measured(w, way, 'connect', parallel=8, seconds=0.5, limit=20)
					run.rows.add('connections just after %d %s, %s' % (n, what, label), way.name, '1/s', got['connections'] / got['seconds'], got, m)
				if got['failed']:
					way.restart()  # whatever is left of them is not the next one's


def streams(run):
	with BenchWorld().build(tunnel={'max_connections': 2000}) as w:
		together(run, w, (1, 100) if run.quick else (1, 500, 1000), 'streams')


def sessions(run):
	with BenchWorld().build(('tunneld',), {'session': 'per-connection', 'max_connections': 2000}) as w:
		together(run, w, (1, 20) if run.quick else (1, 100, 200), 'sessions')
		together(run, w, (1, 20) if run.quick else (1, 100, 200), 'sessions of 6 MiB each', 6 * MIB)


class WorkersWorld(BenchWorld):
	def __init__(self, workers):
		super().__init__()
		self.workers = workers

	def gateway_options(self):
		return {'workers': self.workers}

	def thread_cpu(self):
		"""ms of CPU time that each of the gateway's threads has had"""
		return {k['name']: k['cpu_ms'] for k in self.status(self.g)[0]['gateway']['workers']}


def workers(run):
	"""Eight sessions at once through gateways with one worker and with two; what that costs the gateway, and which thread."""
	total = (200 if run.quick else 1000) * MIB
	for _ in range(run.rounds):
		for n in (1, 2):
			with WorkersWorld(n).build(('tunneld',), {'session': 'per-connection'}) as w:
				way = w.ways['tunneld']
				for mode in ('up', 'down'):
					name, before = '8 sessions %s, workers = %d' % (mode, n), w.thread_cpu()
					got, m = measured(w, way, mode, streams=8, bytes=total, warm=1, seconds=20.0, limit=60)
					moved, cpu = got['up'] + got['down'], w.thread_cpu()
					run.rows.add(name, way.name, 'MB/s', moved / got['seconds'] / 1e6, got, m, moved)
					run.rows.add(name + ', a CPU s of the gateway', way.name, 'MB', moved / m.cpu['gateway'] / 1e6, None, m)
					for thread in sorted(cpu):
						run.rows.add('%s, CPU of %s' % (name, thread), way.name, 's', (cpu[thread] - before[thread]) / 1e3, None, m, more_is_better=False)


def held(run):
	"""Resident memory with so many quiet connections open through one session."""
	with BenchWorld().build(('tunneld',), {'max_connections': 65000}) as w:
		way = w.ways['tunneld']
		for n in (0, 200) if run.quick else (0, 200, 10000):
			p = subprocess.Popen(client_argv('hold', way.address, count=n), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_env())
			line = p.stdout.readline()
			assert b'"failed": 0' in line, line
			time.sleep(2.5)  # spare buffers are given back after a second of quiet
			for name, pids in way.procs().items():
				run.rows.add('%d quiet connections, %s' % (n, name), way.name, 'MiB', sum(map(rss_now, pids())) / MIB, more_is_better=False)
			p.stdin.close()
			p.wait()
			w.settle()


def first_byte(w, way, argv):
	"""Seconds from the start of a process until a byte was there and back."""
	client = subprocess.Popen(list(way.prefix) + client_argv('wait', way.address, limit=30), stdout=subprocess.PIPE, env=clean_env())
	time.sleep(0.2)
	with open(w.path('cold.stderr'), 'ab') as err:
		t0 = time.monotonic()
		p = subprocess.Popen(list(way.prefix) + argv, stdin=subprocess.DEVNULL, stdout=err, stderr=err, env=clean_env(), cwd=w.dir)
		out, _ = client.communicate()
	p.terminate()
	p.wait()
	at = re.search(rb'"at": ([0-9.]+)', out)
	assert at, out
	return float(at.group(1)) - t0


def cold_start(run, w):
	for _, way in rounds(run, w):
		way.stop()
		argv = [BIN, '-c', way.configuration()] if isinstance(way, Tunneld) else way.argv()
		for _ in range(1 if run.quick else 3):
			run.rows.add('process start to first byte', way.name, 'ms', first_byte(w, way, argv) * 1e3, more_is_better=False)
			w.settle()


def cold(run):
	with BenchWorld().build(('tunneld', 'ssh -L')) as w:
		cold_start(run, w)


def recovery(run):
	"""The path is away for 1 s; how long after it is back a byte is through."""
	from faults import FaultWorld, background
	with FaultWorld() as w:
		w.build(handler=echo)
		c = connect(w.f.ports['t'], 60)
		ping(c)
		for i in range(2 if run.quick else 8):
			side = w.both[i % 2]
			side.do('refuse')
			side.do('cut')
			time.sleep(1)
			j = background(ping, c)
			side.do('go')
			t0 = time.perf_counter()
			j(30)
			run.rows.add('first byte after a cut of 1 s', 'tunneld', 'ms', (time.perf_counter() - t0) * 1e3, more_is_better=False)
		c.close()


# name, function, whether it belongs to the default set, to --quick, seconds that a round takes about, and what does not depend on rounds
CASES = (
	('bulk', bulk, True, True, lambda s: 9 * (s + 0.3), 4),
	('ping', small, True, True, lambda s: 1.5, 3),
	('connect', connections, True, True, lambda s: 16, 3),
	('per-connection', per_connection, True, True, lambda s: 5.5, 3),
	('cold', cold, True, True, lambda s: 4, 3),
	('recovery', recovery, True, True, lambda s: 0, 14),
	('streams', streams, False, False, lambda s: 60, 5),
	('sessions', sessions, False, False, lambda s: 20, 4),
	('workers', workers, False, False, lambda s: 12, 4),
	('held', held, False, False, lambda s: 0, 20),
)
