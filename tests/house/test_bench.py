"""The tools of make bench and make check-instructions: wrong bytes are noticed, a link loses what it should, a count that has
grown fails."""
import os
import subprocess
import sys
import tempfile
import threading

from harness import BIN, SLOW, clean_env
from run import test
from services import Server, connect

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BENCH = os.path.join(TOP, 'tests', 'bench')
sys.path.insert(0, BENCH)

import ways  # noqa: E402
from machine import Meter, Rows  # noqa: E402


class Ends:
	"""The traffic server, and the client's way to it through a proxy of ours: spoil(bytes, place of the first one) -> what is passed on."""

	def __init__(self, spoil=lambda data, place: data):
		self.p = subprocess.Popen([ways.TRAFFIC, 'serve', '127.0.0.1:0'], stdout=subprocess.PIPE, env=clean_env())
		port = int(self.p.stdout.readline())

		def pass_on(a, b):
			place = 0
			try:
				while True:
					data = a.recv(65536)
					if not data:
						break
					b.sendall(spoil(data, place))
					place += len(data)
				b.shutdown(1)
			except OSError:
				pass

		def handler(s):
			with connect(port) as up:
				t = threading.Thread(target=pass_on, args=(up, s), daemon=True)
				t.start()
				pass_on(s, up)
				t.join()
		self.proxy = Server(handler)
		self.name, self.prefix, self.address = 'proxy', (), '127.0.0.1:%d' % self.proxy.port

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.proxy.close()
		self.p.kill()
		self.p.wait()


@test('bench: traffic moves what it says, in bytes and in time, one stream or many')
def traffic_counts():
	with Ends() as w:
		for mode, up, down in (('up', 1, 0), ('down', 0, 1), ('both', 1, 1)):
			for options in ({}, {'streams': 20, 'warm': 1}):
				got = ways.traffic(w, mode, bytes=4000000, limit=30, **options)
				assert (got['up'], got['down'], got['failed']) == (up * 4000000, down * 4000000, 0), got
			got = ways.traffic(w, mode, seconds=0.3, limit=30)
			assert abs(got['seconds'] - 0.3) < 0.05 * SLOW and bool(got['up']) == bool(up) and bool(got['down']) == bool(down) and not got['failed'], got
		got = ways.traffic(w, 'up', seconds=0.5, ping=1, settle=0.1, count=5, gap=1)
		assert got['idle']['count'] == 4 and got['busy']['count'] > 5 and got['start']['count'] > 0, got
		assert ways.traffic(w, 'ping', count=50)['rtt']['count'] == 50
		for parallel in (1, 8):
			got = ways.traffic(w, 'connect', parallel=parallel, seconds=0.3)
			assert got['connections'] > 10 and not got['failed'], got
		assert ways.traffic(w, 'wait')['failed'] == 0


@test('bench: a byte that is wrong on its way is noticed in either direction, and so is one that is missing')
def traffic_notices():
	def flip(data, place):
		at = 100000 - place
		return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:] if 0 <= at < len(data) else data

	def leave_out(data, place):
		at = 100000 - place
		return data[:at] + data[at + 1:] if 0 <= at < len(data) else data
	for spoil, options in ((flip, {'bytes': 1000000}), (leave_out, {'seconds': 0.3})):
		for mode in ('up', 'down'):
			with Ends(spoil) as w:
				try:
					got = ways.traffic(w, mode, limit=20, **options)
				except ways.WrongBytes:
					continue
				raise AssertionError('%s, %s: %s' % (mode, spoil.__name__, got))


@test('bench: a link loses what it is told to, segment by segment', 60, alone=True)
def link():
	with ways.LinkWorld(loss=2).build(('tcp',)) as w:
		got = ways.traffic(w.ways['tcp'], 'up', seconds=1.0)
		passed, lost, over, reads, carried, missed = w.do('counters')
		print('note: %.0f MB/s, %d of %d segments lost, %.1f in a read' % (got['up'] / 1e6, lost, passed, passed / reads))
		assert passed > 5000 and 0.015 < lost / passed < 0.025, (passed, lost)
		assert over == 0 and missed == 0 and carried > got['up'], (over, missed, carried, got)


@test('bench: two links in a row, each with its delay', 60, alone=True)
def links():
	with ways.LinkWorld(links=2, rtt=20).build(('tcp',)) as w:
		got = ways.traffic(w.ways['tcp'], 'ping', count=20)
		assert 0.040 < got['rtt']['min'] < 0.045 * SLOW, got
		w.do('loss', 100)
		assert ways.traffic(w.ways['tcp'], 'up', bytes=20000000)['up'] == 20000000
		passed, lost, over = w.do('stats')
		assert over == 0 and 0.005 < lost / passed < 0.015, (passed, lost, over)  # over: pieces that the kernel does not take back


@test('bench: a rate is kept, and what waits for it is bounded by a round trip', 60, alone=True)
def rate():
	with ways.LinkWorld(rtt=40, rate=2500000).build(('tcp',)) as w:
		got = ways.traffic(w.ways['tcp'], 'down', seconds=3.0, ping=1)
		assert 1.2e6 < got['down'] / 3 < 2.6e6, got
		# One that the queue itself drops comes a retransmission later, and says nothing of what waits.
		assert got['busy']['p95'] < (0.040 + 0.040 + 0.020) * SLOW, got


@test('bench: rows have medians, spread and ratios of the same round')
def rows():
	r = Rows('c')
	for ours, theirs in ((10, 20), (30, 40), (20, 100)):
		with Meter({'self': lambda: [os.getpid()]}) as m:
			pass
		r.add('m', 'tunneld', 'MB/s', ours, {'failed': 1}, m, 1 << 30)
		r.add('m', 'ssh -L', 'MB/s', theirs)
	ours, theirs = r.export()
	assert (ours['median'], ours['min'], ours['max'], ours['of_ssh'], ours['failed']) == (20, 10, 30, 0.5, 3), ours
	assert len(ours['rounds']) == 3 and 'cpu_per_gib' in ours and 0 <= ours['idle'] <= 1 and 'of_ssh' not in theirs


@test('bench: --list names what runs, an unknown name is an error')
def lists():
	def run(*args):
		r = subprocess.run([sys.executable, os.path.join(BENCH, 'bench.py'), *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
			env=clean_env(TUNNELD=BIN))
		return r.returncode, r.stdout
	code, said = run('--list')
	assert code == 0 and 'loopback:bulk' in said and 'link-50-loss1' in said and 'loopback:held' not in said, said
	code, said = run('--list', '--only', 'loopback:held,hops-50:first')
	assert code == 0 and [line.split()[0] for line in said.split('\n') if line] == ['loopback:held', 'hops-50', 'together'], said
	code, said = run('--list', '--only', 'loopback:nothing')
	assert code == 1 and 'there is no loopback:nothing' in said, (code, said)


CALLGRIND = '''events: Ir
ob=/usr/bin/x
fl=%(top)s/lib/ws.c
fn=mask
10 %(mask)d
fi=/usr/include/x.h
11 100
cfi=/usr/lib/y.c
cfn=memcpy
calls=1 0
12 9999
fe=%(top)s/lib/ws.c
+1 5

ob=/usr/lib/libcrypto.so
fl=???
fn=sha256
0 5000
fl=/elsewhere/lib/nothing_of_ours.c
fn=other
3 5000
'''


@test('bench: of a callgrind file our functions count, with what is inlined and without what they call')
def callgrind():
	import instructions
	assert instructions.own_counts(CALLGRIND % {'top': TOP, 'mask': 200}) == {'lib/ws.c': 305}


@test('bench: a count that grows by more than a tenth fails, one of another compiler is skipped')
def counts():
	import contextlib
	import io

	import instructions

	def judge(now, then):
		with contextlib.redirect_stdout(io.StringIO()) as out:
			return instructions.compare({'bulk': now}, {'bulk': then}), out.getvalue()
	old = {'lib/ws.c': 900, 'lib/tls.c': 100, 'copied': 1000}
	assert judge(dict(old, copied=1090), old)[0] == 0
	failed, said = judge(dict(old, **{'lib/ws.c': 1010}), old)
	assert failed == 1 and 'FAIL bulk' in said and 'lib/ws.c' in said and 'lib/tls.c' not in said, said
	assert judge(dict(old, copied=1200), old)[0] == 1
	assert judge({}, {})[0] == 1 and judge({}, old)[0] == 1 and judge(old, {})[0] == 2
	assert 'ARGS=--record' in judge(dict(old, **{'lib/ws.c': 500}), old)[1]
	with tempfile.TemporaryDirectory() as d:
		cc = os.path.join(d, 'cc')
		with open(cc, 'w') as f:
			f.write('#!/bin/sh\necho 99\n')
		os.chmod(cc, 0o755)
		valgrind = os.path.join(d, 'valgrind')
		os.symlink(cc, valgrind)
		r = subprocess.run([sys.executable, os.path.join(BENCH, 'instructions.py'), '/bin/false'], stdout=subprocess.PIPE, text=True,
			env=clean_env(CC=cc, PATH=d + ':' + os.environ['PATH']))
		assert r.returncode == 0 and '0 passed, 0 failed, 1 skipped' in r.stdout, r.stdout
