"""What is measured over long and lossy links: tests/tools/linkemu between the client's machine and the server's, where gateway, agent
and target are; or a link on each side of the gateway.  Beside it TCP from the client to the target, and `ssh -L`, over the same path."""
import subprocess

from cases_loopback import cold_start, measured, rounds
from harness import clean_env
from ways import LinkWorld, client_argv

MBIT = 125000
# name -> what LinkWorld takes
LINKS = {
	'link-50': {'rtt': 50},
	'link-50-100mbit': {'rtt': 50, 'rate': 100 * MBIT},
	'link-50-1gbit': {'rtt': 50, 'rate': 1000 * MBIT},
	'link-50-loss1': {'rtt': 50, 'loss': 1},
	'link-50-loss5': {'rtt': 50, 'loss': 5},
	'link-200': {'rtt': 200},
	'hops-50': {'rtt': 50, 'links': 2},
	'hops-50-loss1': {'rtt': 50, 'links': 2, 'loss': 1},
}


BOTH = (('up', 'upload'), ('down', 'download'))
DOWN = (('down', 'download alone'),)


def both_ways(run, w, way, name, value, unit, more_is_better=True, modes=BOTH, **options):
	"""Up, then down, on connections that were made for it; or as `modes` says."""
	way.restart()
	w.settle()
	for mode, label in modes:
		got, m = measured(w, way, mode, **options)
		moved = got['up'] + got['down']
		run.rows.add('%s, %s' % (name, label), way.name, unit, value(got, moved), got, m, moved, more_is_better)
		yield label, got, m


def rate(got, moved):
	return moved / got['seconds'] / 1e6


def one(run, w, way, modes=BOTH):
	for _ in both_ways(run, w, way, '1 stream', rate, 'MB/s', modes=modes, seconds=run.seconds(4)):
		pass


def many(run, w, way):
	for _ in both_ways(run, w, way, '8 streams', rate, 'MB/s', seconds=run.seconds(4), streams=8):
		pass


def pool(run, w, way):
	"""One stream beside connections that wait, as a pool of them does."""
	way.restart()
	w.settle()
	p = subprocess.Popen(list(way.prefix) + client_argv('hold', way.address, count=50), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_env())
	p.stdout.readline()
	for mode, label in BOTH:
		got, m = measured(w, way, mode, seconds=run.seconds(4))
		moved = got['up'] + got['down']
		run.rows.add('1 stream beside 50 quiet ones, %s' % label, way.name, 'MB/s', rate(got, moved), got, m, moved)
	p.stdin.close()
	p.wait()


def first(run, w, way):
	"""As soon as the connection has its answer, 10 MB."""
	for _ in both_ways(run, w, way, 'first 10 MB', lambda got, moved: got['seconds'], 's', False, bytes=10000000, seconds=60.0, limit=90):
		pass


def beside(run, w, way, modes=BOTH):
	"""A ping every few milliseconds beside one stream; the first 1.5 s are a row of their own."""
	seconds = run.seconds(4) + 1.5
	for label, got, m in both_ways(run, w, way, '1 stream with a ping', rate, 'MB/s', modes=modes, seconds=seconds, ping=1, settle=1.5, count=15):
		idle = got['idle']['median']
		run.rows.add('ping alone', way.name, 'ms', idle * 1e3, got, more_is_better=False)
		for part, key, text in (('start', 'max', 'first 1.5 s, most'), ('busy', 'median', 'median'), ('busy', 'p95', '95 %')):
			if part in got:
				run.rows.add('ping beside it (%s) above idle, %s' % (label, text), way.name, 'ms', (got[part][key] - idle) * 1e3, got, m, more_is_better=False, ratio=False)


def down(run, w, way):
	"""A download and one with a ping, each without an upload before it that has brought links already."""
	one(run, w, way, DOWN)
	beside(run, w, way, DOWN)


MEASURES = {'one': one, 'many': many, 'pool': pool, 'first': first, 'ping': beside, 'down': down}
# About how long a round of one way takes, by the seconds of a transfer and the round trip of the whole path in ms.
SECONDS = {'one': lambda s, rtt: 2 * s + 1.2 + rtt / 70, 'many': lambda s, rtt: 2 * s + 1.2 + rtt / 70, 'pool': lambda s, rtt: 2 * s + 1.4 + rtt / 70, 'first': lambda s, rtt: 3 + rtt / 25,
	'ping': lambda s, rtt: 2 * s + 4.5 + rtt / 25, 'down': lambda s, rtt: 2 * s + 5 + rtt / 25, 'cold': lambda s, rtt: 2 + rtt / 20}
DEFAULT = {(link, 'one') for link in LINKS if link not in ('hops-50-loss1', 'link-50-1gbit')} | {('link-50-100mbit', 'ping')}
QUICK = {('link-50-100mbit', 'ping'), ('hops-50', 'one')}


def link_case(run, name, measures):
	with LinkWorld(**LINKS[name]).build(start=False) as w:
		run.note(w.left_out)
		for _, way in rounds(run, w):
			for m in measures:
				if m != 'cold':
					MEASURES[m](run, w, way)
		if 'cold' in measures:
			del w.ways['tcp']
			cold_start(run, w)
		passed, lost, over, _, _, missed = w.do('counters')
		run.note({'packets': '%d, lost %d, overflowed %d, missed %d' % (passed, lost, over, missed)})


def limits(run):
	"""What the emulated link itself carries: plain TCP, without delay and with."""
	for name, rules in (('no delay', {}), ('50 ms', {'rtt': 50}), ('no delay, 1 % loss', {'loss': 1})):
		with LinkWorld(**rules).build(('tcp',)) as w:
			for _, way in rounds(run, w):
				for mode, streams in (('up', 1), ('down', 1), ('up', 8)):
					before = w.do('counters')
					got, m = measured(w, way, mode, seconds=run.seconds(2), streams=streams)
					after = w.do('counters')
					moved = got['up'] + got['down']
					label = '%s, %d stream%s %s' % (name, streams, 's' if streams > 1 else '', mode)
					run.rows.add(label, way.name, 'MB/s', rate(got, moved), got, m, moved)
					run.rows.add(label + ', segments', way.name, '1000/s', (after[0] - before[0]) / got['seconds'] / 1e3, got, m)
				if name == 'no delay':
					got, m = measured(w, way, 'ping', count=1000)
					run.rows.add(name + ', 64-byte round trip', way.name, 'us', got['rtt']['median'] * 1e6, got, m, more_is_better=False)
					got, m = measured(w, way, 'connect', parallel=64, seconds=1.0)
					run.rows.add(name + ', connections', way.name, '1/s', got['connections'] / got['seconds'], got, m)
