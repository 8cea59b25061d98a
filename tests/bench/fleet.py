#!/usr/bin/env python3
"""What many agents and sessions cost a gateway: memory for each, CPU at rest, StartSession a second, and how long until all
are back after it was killed.  Prints a line a figure, and all of them as JSON with --out.

  make bench-fleet ARGS='--agents 10000 --sessions 1000'
"""
import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', 'e2e'), HERE]

from harness import BIN, clean_env, make_certificates  # noqa: E402
from machine import process_cpu, read  # noqa: E402
from services import free_port  # noqa: E402

FLEET = os.path.join(os.path.dirname(BIN), 'tests', 'bench', 'bench_fleet')
REST = 10  # seconds of rest that are looked at
IN_ONE = 9000  # agents of one process: the limit on descriptors is often 20,000, and a call needs one besides


def resident(pid):
	for line in read('/proc/%d/status' % pid).split('\n'):
		if line.startswith('VmRSS:'):
			return int(line.split()[1]) * 1024
	return 0


class Gateway:
	def __init__(self, d, agents, port, store=None):
		self.d, self.port = d, port
		with open(os.path.join(d, 'gateway.ini'), 'w') as f:
			f.write('[tunneld]\nmemory_limit = 2G\n[gateway]\nlisten = 127.0.0.1:%d\ncertificate = gateway.pem\nprivate_key = gateway.key\nper_peer_connections = 60000\n'
				'max_sessions = 100000\n%s[user fleet]\naccess_key_id = AKIAFLEETUSER\n'
				'secret_access_key = fleet-secret-of-the-user\ntargets = i-*\n' % (port, 'store = %s\nnode = fleet\n' % store if store else ''))
			for k in range(agents):
				f.write('[instance i-%017d]\naccess_key_id = AKIAFLEET%011d\nsecret_access_key = fleet-secret-of-%011d\n' % (k, k, k))
		os.chmod(f.name, 0o600)
		self.p = None

	def start(self):
		self.log = open(os.path.join(self.d, 'gateway.log'), 'ab')
		self.p = subprocess.Popen([BIN, 'gateway', '-c', 'gateway.ini'], cwd=self.d, stderr=self.log, stdin=subprocess.DEVNULL,
			env=clean_env(XDG_STATE_HOME=self.d))

	def kill(self):
		self.p.kill()
		self.p.wait()


class Fleet:
	"""Some agents in a process of their own."""

	def __init__(self, d, port, first, count, spread):
		url = 'https://127.0.0.1:%d' % port
		self.count = count
		self.p = subprocess.Popen([FLEET, url, url, os.path.join(d, 'ca.pem'), str(first), str(count), str(spread)], stdin=subprocess.PIPE,
			stdout=subprocess.PIPE, env=clean_env())

	def say(self, line):
		self.p.stdin.write(line.encode() + b'\n')
		self.p.stdin.flush()

	def hear(self):
		line = self.p.stdout.readline()
		if not line:
			raise RuntimeError('the fleet has ended')
		return json.loads(line)

	def ask(self, line):
		self.say(line)
		return self.hear()


def all_up(fleets, limit):
	"""-> how many are, in what time, and the most that one of them was refused"""
	for f in fleets:
		f.say('wait %d' % limit)
	got = [f.hear() for f in fleets]
	if sum(g['up'] for g in got) < sum(f.count for f in fleets):
		raise RuntimeError('not all are up after %d s: %s' % (limit, got))
	return max(g['seconds'] for g in got), max(g['most_refused'] for g in got), sum(g['refused'] for g in got)


class Redis:
	"""A server of the measurement's own, in memory."""

	def __init__(self, d):
		port = free_port()
		self.url = 'redis://127.0.0.1:%d' % port
		self.p = subprocess.Popen(['redis-server', '--port', str(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', d],
			stdout=subprocess.DEVNULL)

	def end(self):
		if self.p.poll() is None:
			self.p.terminate()
		self.p.wait()


def measure(args, d, out, store=None):
	def row(name, value, unit):
		out[name] = value
		print('%-60s %10.6g %s' % (name, value, unit), flush=True)

	g = Gateway(d, args.agents, free_port(), store and store.url)
	g.start()
	time.sleep(1)
	if g.p.poll() is not None:
		raise RuntimeError(read(os.path.join(d, 'gateway.log')) or 'the gateway does not start')
	empty = resident(g.p.pid)
	row('resident with nobody there', empty / 1024, 'KiB')
	sizes = [min(IN_ONE, args.agents - k) for k in range(0, args.agents, IN_ONE)]
	fleets = [Fleet(d, g.port, IN_ONE * i, n, args.spread * 1000) for i, n in enumerate(sizes)]
	took, _, _ = all_up(fleets, 120)
	row('all agents are up after', took, 's')
	time.sleep(8)  # what is kept for a few seconds has gone
	full = resident(g.p.pid)
	row('resident for each idle agent', (full - empty) / 1024 / args.agents, 'KiB')
	before = process_cpu(g.p.pid)
	time.sleep(REST)
	row('CPU at rest', (process_cpu(g.p.pid) - before) / REST, 's a second')
	if store:
		row('resident of Redis', resident(store.p.pid) / 1024, 'KiB')
	for callers in (1, 4):
		rates = []
		for _ in range(args.rounds):
			r = fleets[0].ask('start %d %d' % (args.starts, callers))
			rates.append(r['started'] / r['seconds'])
		row('StartSession and TerminateSession a second, %d at a time' % callers, sorted(rates)[len(rates) // 2], '(of %d rounds)' % args.rounds)
	if args.sessions:
		before = resident(g.p.pid)
		r = fleets[0].ask('hold %d' % args.sessions)
		row('data channels held', r['channels'], '')
		time.sleep(8)
		row('resident for each idle session', (resident(g.p.pid) - before) / 1024 / args.sessions, 'KiB')
	for f in fleets:
		f.say('again')
	g.kill()
	g.start()
	time.sleep(0.2)
	took, most, refused = all_up(fleets, 120)
	row('all agents are back after a kill -9 after', took, 's')
	row('most refusals of one agent meanwhile', most, '')
	row('refusals in all', refused, '')
	for f in fleets:
		f.say('quit')
		f.p.wait()
	g.p.terminate()
	g.p.wait()


def main():
	ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
	ap.add_argument('--agents', type=int, default=10000)
	ap.add_argument('--sessions', type=int, default=1000)
	ap.add_argument('--starts', type=int, default=3000, help='calls of StartSession in a round')
	ap.add_argument('--spread', type=float, default=10, help='seconds over which the agents come')
	ap.add_argument('--rounds', type=int, default=5)
	ap.add_argument('--redis', action='store_true', help='with a shared store')
	ap.add_argument('--out')
	args = ap.parse_args()
	limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
	resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
	d, out = tempfile.mkdtemp(prefix='tunneld-fleet-'), {}
	store = Redis(d) if args.redis else None
	try:
		make_certificates(d)
		measure(args, d, out, store)
	finally:
		if store:
			store.end()
		shutil.rmtree(d)
	if args.out:
		with open(args.out, 'w') as f:
			json.dump(out, f, indent=1)


if __name__ == '__main__':
	main()
