#!/usr/bin/env python3
"""Measures the way through forwarder, gateway and agent beside `ssh -L` (aes128-gcm) and TCP itself, in alternating rounds of one
run: on loopback, and over emulated long and lossy links.  Prints a table a case, writes JSON with every round.  What one machine's
numbers are worth are the ratios.

  bench.py                    the default set, some 25 minutes
  bench.py --quick            one short round of a few cases, about a minute
  bench.py --all              everything, hours
  bench.py --only A,B         only these, as --list names them: loopback:ping, link-50 (all its measures), link-50:one, …"""
import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from ways import BIN, EMU, TRAFFIC, Skip, WrongBytes, make_certificates  # noqa: E402 (makes the harness importable)
import cases_link  # noqa: E402
import cases_loopback  # noqa: E402
import table  # noqa: E402
from machine import Rows, describe  # noqa: E402

LINK_MEASURES = tuple(cases_link.MEASURES) + ('cold',)


class Run:
	"""What a case is given: how much to do, and where results go."""

	def __init__(self, args, case):
		self.rounds, self.quick, self.everything = args.rounds, args.quick, args.all
		self.asked, self.rows, self.notes = args.seconds, Rows(case), {}

	def seconds(self, usual):
		return float(self.asked or (1 if self.quick else usual))

	def note(self, d):
		self.notes.update(d)


def plan(args):
	"""-> list of (case, function, seconds that it takes about); of a link all that was chosen is one case"""
	chosen = []
	wanted = [x for x in args.only.split(',') if x] if args.only else None
	known = set()

	def chooses(case, measure, default, quick):
		full = '%s:%s' % (case, measure)
		known.update((case, full))
		if wanted is not None:
			return case in wanted or full in wanted
		return args.all or (quick if args.quick else default)
	for name, fn, default, quick, each, once in cases_loopback.CASES:
		if chooses('loopback', name, default, quick):
			chosen.append(('loopback:' + name, fn, each(args.seconds or (1 if args.quick else 2)) * args.rounds + once))
	for link in cases_link.LINKS:
		measures = [m for m in LINK_MEASURES if chooses(link, m, (link, m) in cases_link.DEFAULT, (link, m) in cases_link.QUICK)]
		if measures:
			s = args.seconds or (1 if args.quick else 4)
			path = cases_link.LINKS[link]
			took = sum(3 * cases_link.SECONDS[m](s, path['rtt'] * path.get('links', 1)) for m in measures) * args.rounds + 4
			chosen.append((link, lambda run, link=link, measures=measures: cases_link.link_case(run, link, measures), took))
	if chooses('link-limits', 'all', False, False):
		chosen.append(('link-limits', cases_link.limits, 3 * (7 * args.rounds + 2)))
	for x in wanted or ():
		if x not in known:
			sys.exit('bench: there is no %s; --list names what there is' % x)
	return chosen


def isolated(fn, run):
	"""In a process of its own: entering a network namespace cannot be undone."""
	r, wr = os.pipe()
	sys.stdout.flush()
	pid = os.fork()
	if pid == 0:
		box = {}
		try:
			fn(run)
		except Skip as e:
			box['skipped'] = str(e)
		except WrongBytes as e:
			box['failed'] = 'WRONG BYTES: %s' % e
		except BaseException as e:
			box['failed'] = repr(e)
		box.update(rows=run.rows.export(), notes=run.notes)
		sys.stdout.flush()
		with os.fdopen(wr, 'w') as f:
			json.dump(box, f)
		os._exit(0)
	os.close(wr)
	with os.fdopen(r) as f:
		got = json.loads(f.read() or '{"failed": "no result", "rows": []}')
	os.waitpid(pid, 0)
	return got


def parse():
	ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
	ap.add_argument('--out', default=os.path.join(os.path.dirname(BIN), 'bench.json'))
	ap.add_argument('--rounds', type=int, help='default 5, --quick 1')
	ap.add_argument('--seconds', type=float, help='of one transfer; default 2 on loopback, 4 on links, --quick 1')
	ap.add_argument('--only', help='names, separated by commas')
	ap.add_argument('--quick', action='store_true')
	ap.add_argument('--all', action='store_true')
	ap.add_argument('--list', action='store_true', help='names what would run, and about how long')
	args = ap.parse_args()
	args.rounds = args.rounds or (1 if args.quick else 5)
	return args


def main():
	args = parse()
	chosen = plan(args)
	if args.list:
		for case, _, took in chosen:
			print('%-28s %5.0f s' % (case, took))
		print('%-28s %5.0f min' % ('together', sum(t for _, _, t in chosen) / 60))
		return 0
	for path in (BIN, TRAFFIC, EMU):
		if not os.access(path, os.X_OK):
			print('%s is missing: build it first' % path)
			return 1
	limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
	resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
	out = {'machine': describe(BIN), 'arguments': sys.argv[1:], 'rounds': args.rounds, 'cases': {}}
	table.head(out, sum(t for _, _, t in chosen))
	certificates = tempfile.mkdtemp(prefix='tunneld-bench-')
	try:
		make_certificates(certificates)
		os.environ['CERT_DIR'] = certificates  # one set for all cases
		bad = measure(args, chosen, out)
	finally:
		shutil.rmtree(certificates)
	print('\n%s in %.0f s; every round is in %s' % ('%d of %d cases FAILED' % (bad, len(chosen)) if bad else 'done',
		time.monotonic() - out['machine']['began'], os.path.relpath(args.out)))
	return 1 if bad else 0


def measure(args, chosen, out):
	"""-> how many cases failed"""
	bad = 0
	for case, fn, _ in chosen:
		t0 = time.monotonic()
		got = isolated(fn, Run(args, case))
		got['seconds'] = round(time.monotonic() - t0, 1)
		out['cases'][case] = got
		bad += 'failed' in got
		table.case(case, got)
		with open(args.out, 'w') as f:  # as far as it is: an interrupted run is not lost
			json.dump(out, f, indent=1)
	return bad


if __name__ == '__main__':
	sys.exit(main())
