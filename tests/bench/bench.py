#!/usr/bin/env python3
"""End-to-end measurements through forwarder, gateway and agent, alternating in one run with `ssh -L`
(aes128-gcm) to the same target and with plain loopback.  Prints a table and writes JSON; what one
machine's numbers are worth are the ratios.

usage: bench.py [--out FILE] [--mib N] [--rounds N] [--quick]"""
import argparse
import json
import os
import platform
import resource
import socket
import statistics
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'e2e'))
sys.path.insert(0, os.path.join(HERE, '..', 'fault'))

MIB = 1 << 20
BLOCK = 256 * 1024


def take(sock, view, n):
	while n:
		got = sock.recv_into(view, min(n, len(view)))
		if not got:
			raise EOFError
		n -= got


def put(sock, view, n):
	while n:
		k = min(n, len(view))
		sock.sendall(view[:k])
		n -= k


def serve():
	"""The target: U n takes n bytes and answers one, D n sends n bytes, E echoes until the end."""
	import threading

	def one(s):
		view = memoryview(bytearray(BLOCK))
		s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
		try:
			while True:
				op = s.recv(1)
				if not op:
					break
				if op == b'E':
					while True:
						got = s.recv(65536)
						if not got:
							break
						s.sendall(got)
					break
				n, = struct.unpack('>Q', s.recv(8, socket.MSG_WAITALL))
				if op == b'U':
					take(s, view, n)
					s.sendall(b'.')
				else:
					put(s, view, n)
		except (OSError, EOFError):
			pass
		s.close()

	listener = socket.create_server(('127.0.0.1', 0), backlog=1024)
	print(listener.getsockname()[1], flush=True)
	while True:
		s, _ = listener.accept()
		threading.Thread(target=one, args=(s,), daemon=True).start()


def hold():
	"""A target for thousands of connections: one thread, echoes."""
	import selectors
	sel, listener = selectors.DefaultSelector(), socket.create_server(('127.0.0.1', 0), backlog=4096)
	listener.setblocking(False)
	sel.register(listener, selectors.EVENT_READ)
	print(listener.getsockname()[1], flush=True)
	while True:
		for key, _ in sel.select():
			s = key.fileobj
			try:
				if s is listener:
					s, _ = listener.accept()
					s.setblocking(False)
					sel.register(s, selectors.EVENT_READ)
					continue
				got = s.recv(65536)
				s.send(got)
			except BlockingIOError:
				continue
			except OSError:
				got = b''
			if not got:
				sel.unregister(s)
				s.close()


if len(sys.argv) > 1 and sys.argv[1] == '--serve':
	serve()
if len(sys.argv) > 1 and sys.argv[1] == '--hold':
	resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
	hold()

from faults import QUICK, FaultWorld, background  # noqa: E402
from harness import BIN, Skip, World, clean_env  # noqa: E402
from services import connect, cpu_seconds, ping, read_exact, rss_now, rss_peak  # noqa: E402

VIEW = memoryview(os.urandom(BLOCK))
SINK = memoryview(bytearray(BLOCK))


def bulk(port, op, n):
	"""-> bytes a second on one connection, after a warm-up of 2 MiB."""
	with connect(port, 300) as s:
		def once(k):
			s.sendall(op + struct.pack('>Q', k))
			if op == b'U':
				put(s, VIEW, k)
				read_exact(s, 1)
			else:
				take(s, SINK, k)
		once(2 * MIB)
		t0 = time.perf_counter()
		once(n)
		return n / (time.perf_counter() - t0)


def round_trip(port, count):
	with connect(port, 60) as s:
		s.sendall(b'E')
		for _ in range(20):
			ping(s)
		return statistics.median(ping(s) for _ in range(count))


def first_byte(port, count):
	def once():
		t0 = time.perf_counter()
		with connect(port, 60) as s:
			s.sendall(b'Ex')
			read_exact(s, 1)
			return time.perf_counter() - t0
	for _ in range(5):
		once()
	return statistics.median(once() for _ in range(count))


def per_second(port, seconds):
	n, t0 = 0, time.perf_counter()
	while time.perf_counter() - t0 < seconds:
		with connect(port, 60) as s:
			s.sendall(b'Ex')
			read_exact(s, 1)
		n += 1
	return n / (time.perf_counter() - t0)


class Cpu:
	"""CPU seconds of processes over a stretch."""

	def __init__(self, procs):
		self.procs = procs
		self.sums = {k: 0.0 for k in procs}
		self.bytes = 0

	def __enter__(self):
		self.before = {k: sum(cpu_seconds(p) for p in pids()) for k, pids in self.procs.items()}
		return self

	def __exit__(self, *a):
		for k, pids in self.procs.items():
			self.sums[k] += sum(cpu_seconds(p) for p in pids()) - self.before[k]

	def per_gib(self):
		return {k: v / (self.bytes / (1 << 30)) for k, v in self.sums.items()} if self.bytes else {}


def children(pid):
	out = [pid]
	try:
		for t in os.listdir('/proc/%d/task' % pid):
			with open('/proc/%d/task/%s/children' % (pid, t)) as f:
				for c in f.read().split():
					out += children(int(c))
	except OSError:
		pass
	return out


def ssh_forward(w, target):
	"""A private sshd and `ssh -L`; -> port or None, sshd process, ssh process."""
	import test_programs
	try:
		port, opts = test_programs.sshd(w)
	except Skip as e:
		print('ssh -L is left out: %s' % e)
		return None, None, None
	from services import free_port
	local = free_port()
	client = w.proc('ssh', ['ssh'] + opts + ['-c', 'aes128-gcm@openssh.com', '-N', '-o', 'ExitOnForwardFailure=yes', '-v', '-L',
		'127.0.0.1:%d:127.0.0.1:%d' % (local, target), '-p', str(port), test_programs.me() + '@127.0.0.1'])
	client.expect_exit = {0, 255, -15}
	client.wait_log('Entering interactive session|pledge: ', 20)
	return local, w.procs[-2], client


def stunnel_pair(w, target):
	"""Two stunnels, TLS between them: one hop less than ours and no reliability above TCP. -> port or None"""
	import shutil
	from harness import until
	from services import free_port
	if not shutil.which('stunnel'):
		print('stunnel is left out: not installed')
		return None
	port, mid = free_port(), free_port()
	with open(w.path('stunnel.ini'), 'w') as f:
		f.write('foreground = yes\npid =\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\nciphersuites = TLS_AES_128_GCM_SHA256\n'
			'[in]\nclient = yes\naccept = 127.0.0.1:%d\nconnect = 127.0.0.1:%d\n' % (port, mid)
			+ '[out]\naccept = 127.0.0.1:%d\nconnect = 127.0.0.1:%d\ncert = %s\nkey = %s\n' % (mid, target, w.path('gateway.pem'), w.path('gateway.key')))
	p = subprocess.Popen([shutil.which('stunnel'), w.path('stunnel.ini')], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
	w.closers.append(p.kill)

	def up():
		try:
			round_trip(port, 1)
			return True
		except (OSError, EOFError):
			return False
	try:
		until(up, 5, 'stunnel')
	except AssertionError:
		print('stunnel is left out: it does not start')
		return None
	return port


def through(args, out):
	mib, rounds = args.mib, args.rounds
	target = subprocess.Popen([sys.executable, os.path.abspath(__file__), '--serve'], stdout=subprocess.PIPE, env=clean_env())
	port = int(target.stdout.readline())
	with World() as w:
		w.closers.append(target.kill)
		g, a, f = w.standard(port)
		ssh_port, sshd, ssh = ssh_forward(w, port)
		ways = {'tunneld': f.ports['t'], 'loopback': port}
		if ssh_port:
			ways['ssh -L'] = ssh_port
		st_port = stunnel_pair(w, port)
		if st_port:
			ways['stunnel'] = st_port
		procs = {'forwarder': lambda: [f.pid], 'gateway': lambda: [g.pid], 'agent': lambda: [a.pid]}
		if ssh:
			procs.update({'ssh': lambda: [ssh.pid], 'sshd': lambda: children(sshd.pid)})
		samples = {}

		def sample(what, way, value):
			samples.setdefault(what, {}).setdefault(way, []).append(value)

		cpu = {'upload': Cpu(procs), 'download': Cpu(procs)}
		for r in range(rounds):
			for way, p in ways.items():  # alternating, so that a noisy minute hits all alike
				for what, op in (('upload', b'U'), ('download', b'D')):
					n = (mib * (3 if way == 'loopback' else 1)) * MIB
					if way in ('loopback', 'stunnel'):
						sample(what, way, bulk(p, op, n))
					else:
						with cpu[what]:
							sample(what, way, bulk(p, op, n))
						cpu[what].bytes += n / (2 if ssh else 1)  # each program moves its own half
				sample('round_trip', way, round_trip(p, 300 if args.quick else 1000))
				sample('first_byte', way, first_byte(p, 50 if args.quick else 150))
				sample('connections', way, per_second(p, 0.5 if args.quick else 1))
		for what, by_way in samples.items():
			best = {way: statistics.median(v) for way, v in by_way.items()}
			entry = {'unit': {'upload': 'bytes/s', 'download': 'bytes/s', 'connections': '1/s'}.get(what, 's'), 'median': best, 'samples': by_way}
			if 'ssh -L' in by_way:
				pairs = list(zip(by_way['tunneld'], by_way['ssh -L']))
				entry['ratio_to_ssh'] = statistics.median(x / y for x, y in pairs)
			entry['ratio_to_loopback'] = statistics.median(x / y for x, y in zip(by_way['tunneld'], by_way['loopback']))
			out[what] = entry
		out['cpu_seconds_per_gib'] = {k: v.per_gib() for k, v in cpu.items()}
		out['rss'] = {k: {'now': sum(rss_now(p) for p in pids()), 'peak': sum(rss_peak(p) for p in pids())} for k, pids in procs.items()}


def cut_recovery(out, rounds):
	"""The path is away for 1 s; how long after it is back a byte is through."""
	from services import echo
	spent = []
	with FaultWorld() as w:
		w.build(handler=echo)
		c = connect(w.f.ports['t'], 60)
		ping(c)
		for i in range(rounds * 2):
			side = w.both[i % 2]
			side.do('refuse')
			side.do('cut')
			time.sleep(1)
			j = background(ping, c)
			side.do('go')
			t0 = time.perf_counter()
			j(30)
			spent.append(time.perf_counter() - t0)
		c.close()
	out['recovery_after_1s_cut'] = {'unit': 's', 'median': statistics.median(spent), 'max': max(spent), 'reconnect_max': QUICK['reconnect_max']}


def loss_rate(out):
	"""50 ms round trip with and without 1 % loss."""
	import test_link
	from services import download, upload
	res = {}
	for loss, n in ((0, 8 * MIB), (1, 2 * MIB), (5, MIB // 2)):
		with test_link.LinkWorld() as w:
			w.build(rtt=50, loss=loss)
			c = w.connect(200)
			upload(c, 1000)
			res['%d %% loss' % loss] = {'upload': n / upload(c, n), 'download': n / download(c, n)}
			c.close()
	out['link_50ms'] = dict(res, unit='bytes/s')


def beside(out, mbit, way):
	"""A 64-byte ping on one connection, alone and beside a bulk transfer on another; 50 ms round trip."""
	import test_link
	from services import blob, download, echo, upload

	def handler(s):
		(blob if s.recv(1, socket.MSG_PEEK) in (b'U', b'D') else echo)(s)
	with test_link.LinkWorld() as w:
		w.build(handler=handler, rtt=50, rate=mbit * 125000, queue=mbit * 25000)
		p, c, stop = w.connect(), w.connect(120), []
		data = b'p' * 64
		idle = sorted(ping(p, data) for _ in range(30))[3:]
		j = background(lambda: [(upload if way == 'upload' else download)(c, mbit * 62500) for _ in iter(lambda: not stop, False)])
		time.sleep(2)  # let it find its rate
		end, busy = time.monotonic() + 4, []
		while time.monotonic() < end:
			busy.append(ping(p, data))
			time.sleep(0.01)
		stop.append(1)
		j(60)
		busy.sort()
		out['beside_%d_%s' % (mbit, way)] = {'unit': 's', 'idle': statistics.median(idle), 'median': statistics.median(busy), 'p95': busy[int(len(busy) * 0.95)]}
		p.close(), c.close()


def held(out, counts):
	"""Resident memory with so many quiet connections open."""
	target = subprocess.Popen([sys.executable, os.path.abspath(__file__), '--hold'], stdout=subprocess.PIPE, env=clean_env())
	res, conns = {}, []
	with World() as w:
		w.closers.append(target.kill)
		limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200
		g, a, f = w.standard(int(target.stdout.readline()), agent={'max_streams': '65000'}, max_connections='65000')
		for n in counts:
			n = min(n, limit)
			while len(conns) < n:
				batch = [connect(f.ports['t'], 60) for _ in range(min(100, n - len(conns)))]
				for s in batch:
					s.sendall(b'x' * 64)
				for s in batch:
					read_exact(s, 64)
				conns += batch
			time.sleep(2.5)  # spare buffers are given back after a second of quiet
			res[str(n)] = {k: rss_now(p.pid) for k, p in (('forwarder', f), ('gateway', g), ('agent', a))}
		for s in conns:
			s.close()
	out['held'] = res


def isolated(fn, out, *args):
	"""In a process of its own: entering a network namespace cannot be undone."""
	r, wr = os.pipe()
	pid = os.fork()
	if pid == 0:
		box = {}
		try:
			fn(box, *args)
		except Skip as e:
			box['skipped'] = {fn.__name__: str(e)}
		except BaseException as e:
			box['failed'] = {fn.__name__: repr(e)}
		os.write(wr, json.dumps(box).encode())
		os._exit(0)
	os.close(wr)
	with os.fdopen(r, 'rb') as f:
		got = json.loads(f.read() or b'{}')
	os.waitpid(pid, 0)
	for k in ('skipped', 'failed'):
		out.setdefault(k, {}).update(got.pop(k, {}))
	out.update(got)


def table(out):
	ways = [x for x in ('tunneld', 'ssh -L', 'stunnel', 'loopback') if x in out['upload']['median']]
	print('%-28s' % '' + ''.join('%14s' % x for x in ways) + '%12s' % 'ratio to ssh' + '%14s' % 'to loopback')
	rows = (('upload', 'upload, MB/s', 1e-6, '%.0f'), ('download', 'download, MB/s', 1e-6, '%.0f'), ('round_trip', '64-byte round trip, us', 1e6, '%.0f'),
		('first_byte', 'connect + first byte, us', 1e6, '%.0f'), ('connections', 'connections a second', 1, '%.0f'))
	for key, label, scale, form in rows:
		e = out[key]
		print('%-28s' % label + ''.join('%14s' % (form % (e['median'][x] * scale)) for x in ways) + '%12s' % ('%.2f' % e['ratio_to_ssh'] if 'ratio_to_ssh' in e
			else '-') + '%14s' % ('%.2f' % e['ratio_to_loopback']))
	names = list(out['rss'])
	print('\n%-28s' % 'per process' + ''.join('%12s' % n for n in names))
	for way in ('upload', 'download'):
		print('%-28s' % ('CPU s per GiB, ' + way) + ''.join('%12.2f' % out['cpu_seconds_per_gib'][way].get(n, 0) for n in names))
	print('%-28s' % 'resident MiB, peak' + ''.join('%12.1f' % (out['rss'][n]['peak'] / MIB) for n in names))
	if 'recovery_after_1s_cut' in out:
		r = out['recovery_after_1s_cut']
		print('\nafter a cut of 1 s: %.0f ms (worst %.0f ms) until bytes flow again' % (r['median'] * 1000, r['max'] * 1000))
	for k, v in sorted(out.get('link_50ms', {}).items()):
		if k != 'unit':
			print('50 ms round trip, %s: up %.2f MB/s, down %.2f MB/s' % (k, v['upload'] / 1e6, v['download'] / 1e6))
	for k in sorted(k for k in out if k.startswith('beside_')):
		_, mbit, way = k.split('_')
		e = out[k]
		print('50 ms, %s Mbit/s, ping beside %s: idle %.1f ms, median +%.1f, 95 %% +%.1f' % (mbit, way, e['idle'] * 1e3, (e['median'] - e['idle']) * 1e3,
			(e['p95'] - e['idle']) * 1e3))
	for n, e in out.get('held', {}).items():
		print('%s quiet connections, resident MiB: %s' % (n, ', '.join('%s %.1f' % (k, v / MIB) for k, v in e.items())))
	for k in ('skipped', 'failed'):
		for name, why in out.get(k, {}).items():
			print('%s: %s: %s' % (k, name, why))


def main():
	ap = argparse.ArgumentParser()
	ap.add_argument('--out', default=os.path.join(os.path.dirname(BIN), 'bench.json'))
	ap.add_argument('--mib', type=int, default=256)
	ap.add_argument('--rounds', type=int, default=5)
	ap.add_argument('--quick', action='store_true')
	args = ap.parse_args()
	if args.quick:
		args.mib, args.rounds = min(args.mib, 64), min(args.rounds, 2)
	if not os.access(BIN, os.X_OK):
		print('%s is missing: build it first' % BIN)
		return 1
	limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
	resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
	out = {'when': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()), 'cpus': os.cpu_count(), 'kernel': platform.release(),
		'version': subprocess.run([BIN, '--version'], stdout=subprocess.PIPE).stdout.decode().strip(), 'mib': args.mib, 'rounds': args.rounds}
	isolated(lambda box: through(args, box), out)
	isolated(cut_recovery, out, 1 if args.quick else 4)
	isolated(loss_rate, out)
	for mbit in (20,) if args.quick else (20, 100):
		for way in ('upload', 'download'):
			isolated(beside, out, mbit, way)
	isolated(held, out, (0, 200) if args.quick else (0, 200, 10000))
	previous = {}
	try:
		with open(args.out) as f:
			previous = json.load(f)
	except (OSError, ValueError):
		pass
	previous['end_to_end'] = out
	with open(args.out, 'w') as f:
		json.dump(previous, f, indent=1)
	if 'upload' in out:
		table(out)
	else:
		print(json.dumps(out, indent=1))
	print('written to %s' % os.path.relpath(args.out))
	return 1 if out.get('failed') else 0


if __name__ == '__main__':
	sys.exit(main())
