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
SETTLED = 11  # seconds after which an agent that is connected begins its back-off anew
IN_ONE = 9000  # agents of one process: the limit on descriptors is often 20,000, and a call needs one besides


def resident(pid):
	for line in read('/proc/%d/status' % pid).split('\n'):
		if line.startswith('VmRSS:'):
			return int(line.split()[1]) * 1024
	return 0


class Gateway:
	def __init__(self, d, agents, port, store=None, node='fleet'):
		self.d, self.port, self.name = d, port, node
		with open(os.path.join(d, node + '.ini'), 'w') as f:
			f.write('[tunneld]\nmemory_limit = 2G\n[gateway]\nlisten = 127.0.0.1:%d\ncertificate = gateway.pem\nprivate_key = gateway.key\nper_peer_connections = 60000\n'
				'max_sessions = 100000\n%s[user fleet]\naccess_key_id = AKIAFLEETUSER\n'
				'secret_access_key = fleet-secret-of-the-user\ntargets = i-*\n' % (port, 'store = %s\nnode = %s\n' % (store, node) if store else ''))
			for k in range(agents):
				f.write('[instance i-%017d]\naccess_key_id = AKIAFLEET%011d\nsecret_access_key = fleet-secret-of-%011d\n' % (k, k, k))
		os.chmod(f.name, 0o600)
		self.p = None

	def start(self):
		self.log = os.path.join(self.d, self.name + '.log')
		with open(self.log, 'ab') as log:
			self.p = subprocess.Popen([BIN, 'gateway', '-c', self.name + '.ini'], cwd=self.d, stderr=log, stdin=subprocess.DEVNULL,
				env=clean_env(XDG_STATE_HOME=os.path.join(self.d, self.name)))

	def kill(self):
		self.p.kill()
		self.p.wait()


class Fleet:
	"""Some agents in a process of their own."""

	def __init__(self, d, ports, first, count, spread):
		urls = ['https://127.0.0.1:%d' % port for port in ports]
		self.count = count
		self.p = subprocess.Popen([FLEET, ','.join(urls), urls[0], os.path.join(d, 'ca.pem'), str(first), str(count), str(spread)], stdin=subprocess.PIPE,
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

	def end(self):
		self.p.kill()
		self.p.wait()


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


def start_gateways(args, d, store):
	nodes = [Gateway(d, args.agents, free_port(), store and store.url, 'n%d' % (i + 1)) for i in range(args.nodes)]
	for g in nodes:
		g.start()
	time.sleep(1)
	for g in nodes:
		if g.p.poll() is not None:
			raise RuntimeError(read(g.log) or 'the gateway does not start')
	return nodes


def resident_of(nodes):
	return sum(resident(g.p.pid) for g in nodes)


def start_fleets(args, nodes):
	n = max(2, -(-args.agents // IN_ONE))  # processes with as many agents each: one alone would be what is waited for
	first = [args.agents * i // n for i in range(n + 1)]
	return [Fleet(nodes[0].d, [g.port for g in nodes], first[i], first[i + 1] - first[i], args.spread * 1000) for i in range(n)]


def measure_return(args, row, nodes, fleets, cpu):
	"""The last node is killed: all of its agents come back, to it when it is the only one, else to the others."""
	times = []
	for k in range(args.rounds):
		if k and len(nodes) > 1:  # each agent is at its own node again
			for f in fleets:
				f.end()
			nodes[-1].start()
			time.sleep(12)  # the node's old name has gone, and the others know
			fleets[:] = start_fleets(args, nodes)
			all_up(fleets, 120)
		time.sleep(SETTLED)
		for f in fleets:
			f.say('again')
		nodes[-1].kill()
		if len(nodes) == 1:
			nodes[0].start()
		before = cpu()
		time.sleep(0.2)
		times.append(all_up(fleets, 120) + (cpu() - before,))
	took = sorted(t[0] for t in times)
	row('all agents are back after a kill -9 after', took[len(took) // 2], 's (%.1f to %.1f in %d rounds)' % (took[0], took[-1], len(took)))
	row('CPU for each agent that comes back', sorted(t[3] for t in times)[len(times) // 2] * 1000 * len(nodes) / args.agents, 'ms')
	row('most refusals of one agent meanwhile', max(t[1] for t in times), '')
	row('refusals in all, in a round', sorted(t[2] for t in times)[len(times) // 2], '')


def measure(args, out, nodes, fleets, store):
	def row(name, value, unit):
		out[name] = value
		print('%-60s %10.6g %s' % (name, value, unit), flush=True)

	def cpu():
		return sum(process_cpu(g.p.pid) for g in nodes if g.p.poll() is None)

	empty = resident_of(nodes)
	row('resident with nobody there', empty / 1024 / len(nodes), 'KiB a node')
	fleets += start_fleets(args, nodes)
	took, _, _ = all_up(fleets, 120)
	row('all agents are up after', took, 's')
	time.sleep(8)  # what is kept for a few seconds has gone
	row('resident for each idle agent', (resident_of(nodes) - empty) / 1024 / args.agents, 'KiB')
	before = cpu()
	time.sleep(REST)
	row('CPU at rest', (cpu() - before) / REST, 's a second')
	if store:
		row('resident of Redis', resident(store.p.pid) / 1024, 'KiB')
	for callers in () if args.only_back else (1, 4):
		rates = []
		for _ in range(args.rounds):
			r = fleets[0].ask('start %d %d' % (args.starts, callers))
			rates.append(r['started'] / r['seconds'])
		row('StartSession and TerminateSession a second, %d at a time' % callers, sorted(rates)[len(rates) // 2],
			'(%.0f to %.0f in %d rounds)' % (min(rates), max(rates), args.rounds))
	if args.sessions and not args.only_back:
		before = resident_of(nodes)
		r = fleets[0].ask('hold %d' % args.sessions)
		row('data channels held', r['channels'], '')
		time.sleep(8)
		row('resident for each idle session', (resident_of(nodes) - before) / 1024 / args.sessions, 'KiB')
	measure_return(args, row, nodes, fleets, cpu)


def main():
	ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
	ap.add_argument('--agents', type=int, default=10000)
	ap.add_argument('--sessions', type=int, default=1000)
	ap.add_argument('--starts', type=int, default=3000, help='calls of StartSession in a round')
	ap.add_argument('--spread', type=float, default=10, help='seconds over which the agents come')
	ap.add_argument('--rounds', type=int, default=5)
	ap.add_argument('--redis', action='store_true', help='with a shared store')
	ap.add_argument('--nodes', type=int, default=1, help='gateways, with a shared store if there are several; one of them is killed')
	ap.add_argument('--only-back', action='store_true', help='neither StartSession nor sessions')
	ap.add_argument('--out')
	args = ap.parse_args()
	limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
	resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
	d, out, nodes, fleets = tempfile.mkdtemp(prefix='tunneld-fleet-'), {}, [], []
	store = Redis(d) if args.redis or args.nodes > 1 else None
	try:
		make_certificates(d)
		nodes = start_gateways(args, d, store)
		measure(args, out, nodes, fleets, store)
	finally:
		for p in [f.p for f in fleets] + [g.p for g in nodes if g.p]:
			p.kill()
			p.wait()
		if store:
			store.end()
		shutil.rmtree(d)
	if args.out:
		with open(args.out, 'w') as f:
			json.dump(out, f, indent=1)


if __name__ == '__main__':
	main()
