#!/usr/bin/env python3
"""Runs tests: each in a process (and process group) of its own, with a time limit.

usage: run.py [--short] [--long] [--match RE] [--list] [--verbose] [--jobs N] DIRECTORY|FILE…
--short runs only what is marked so, --long also what takes minutes.  TUNNELD names the program under test."""
import argparse
import importlib.util
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = []
PLACES = set()  # of those: name, file and line


def test(name, timeout=60, short=False, long=False, alone=False):
	"""alone: measures time or memory, so nothing else runs beside it."""
	def wrap(fn):
		place = (name, os.path.realpath(fn.__code__.co_filename), fn.__code__.co_firstlineno)
		if place not in PLACES:  # a file that another one imports is loaded twice
			PLACES.add(place)
			TESTS.append((name, fn, timeout, short, long, alone))
		return fn
	return wrap


def load(path):
	sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
	spec = importlib.util.spec_from_file_location(os.path.basename(path)[:-3], path)
	mod = importlib.util.module_from_spec(spec)
	sys.modules[spec.name] = mod
	spec.loader.exec_module(mod)


def child(fn, out):
	import harness
	os.setpgid(0, 0)
	os.dup2(out, 1)
	os.dup2(out, 2)
	code = 1
	try:
		fn()
		code = 0
	except harness.Skip as e:
		print('SKIP %s' % e)
		code = 77
	except BaseException:
		traceback.print_exc()
	sys.stdout.flush()
	sys.stderr.flush()
	os._exit(code)


class Running:
	def __init__(self, name, fn, limit, alone):
		self.name, self.limit, self.alone = name, limit, alone
		self.out = tempfile.TemporaryFile()
		self.t0 = time.monotonic()
		sys.stdout.flush()
		self.pid = os.fork()
		if self.pid == 0:
			child(fn, self.out.fileno())
		try:
			os.setpgid(self.pid, self.pid)
		except OSError:
			pass

	def poll(self):
		"""-> None, or (state, seconds, seconds of processor time, output)"""
		pid, status, used = os.wait4(self.pid, os.WNOHANG)
		spent = time.monotonic() - self.t0
		late = False
		if not pid:
			if spent < self.limit:
				return None
			late = True
			# First ask the test's own process for a traceback, then end its whole group.
			os.killpg(self.pid, signal.SIGKILL)
			used = os.wait4(self.pid, 0)[2]
			status = 1 << 8
		else:
			try:
				os.killpg(self.pid, signal.SIGKILL)  # whatever the test left behind
			except OSError:
				pass
		self.out.seek(0)
		text = self.out.read().decode('utf-8', 'replace')
		code = os.waitstatus_to_exitcode(status)
		if late:
			text += '\nTIME-OUT after %d s\n' % self.limit
		return ('PASS' if code == 0 else 'SKIP' if code == 77 else 'FAIL'), spent, used.ru_utime + used.ru_stime, text


def main():
	ap = argparse.ArgumentParser()
	ap.add_argument('--short', action='store_true')
	ap.add_argument('--long', action='store_true')
	ap.add_argument('--only-long', action='store_true')
	ap.add_argument('--match', default='')
	ap.add_argument('--list', action='store_true')
	ap.add_argument('--verbose', action='store_true')
	ap.add_argument('--jobs', type=int, default=1, help='tests at a time')
	ap.add_argument('--again', action='store_true', help='run what failed once more, by itself; one that passes then is told as UNSTEADY')
	ap.add_argument('paths', nargs='+')
	args = ap.parse_args()
	sys.path.insert(0, HERE)
	sys.modules['run'] = sys.modules['__main__']
	import harness
	for p in args.paths:
		files = [p] if os.path.isfile(p) else sorted(os.path.join(p, f) for f in os.listdir(p) if f.startswith('test_') and f.endswith('.py'))
		for f in files:
			load(f)
	chosen = [t for t in TESTS if (not args.short or t[3]) and (args.long or args.only_long or not t[4]) and (not args.only_long or t[4]) and
		re.search(args.match, t[0])]
	if args.list:
		for t in chosen:
			print(t[0])
		return 0
	if not os.access(harness.BIN, os.X_OK):
		print('%s is missing: build it first' % harness.BIN)
		return 1
	certs = tempfile.mkdtemp(prefix='tunneld-certs-')
	count = {'PASS': 0, 'FAIL': 0, 'SKIP': 0}
	# Those that run beside others first, and of them those that may take longest: none of these is left alone at the end.
	chosen.sort(key=lambda t: -t[2])
	waiting, running = [t for t in chosen if not t[5]] + [t for t in chosen if t[5]], []
	tried, times, began = set(), [], time.monotonic()
	try:
		harness.make_certificates(certs)
		os.environ['CERT_DIR'] = certs
		for name in sorted({t[1].__module__ for t in chosen}):
			getattr(sys.modules[name], 'prepare', lambda directory: None)(os.path.join(certs, name))  # what a file's tests have in common
		while waiting or running:
			while waiting and len(running) < args.jobs and not (running and (waiting[0][5] or running[0].alone)):
				name, fn, limit, _, _, alone = waiting.pop(0)
				running.append(Running(name, fn, limit * harness.SLOW, alone))
			for r in list(running):
				got = r.poll()
				if not got:
					continue
				running.remove(r)
				state, spent, used, text = got
				times.append((spent, used, r.name))
				if state == 'FAIL' and args.again and r.name not in tried:
					# Real processes on a busy machine: shown in full either way, so that the cause can be found.
					tried.add(r.name)
					waiting.append(next(t for t in chosen if t[0] == r.name)[:5] + (True,))
					print('UNSTEADY? %s (%.1f s): failed, will run once more' % (r.name, spent))
					print('\n'.join('    ' + line for line in text.rstrip().split('\n')))
					continue
				count[state] += 1
				if state == 'PASS' and r.name in tried:
					print('UNSTEADY %s: failed once, passed by itself' % r.name)
				note = ' '.join(text.split()) [5:] if state == 'SKIP' else ''
				# What a test measured is worth a line: it prints it behind "note:".
				notes = re.findall(r'^note: (.*)$', text, re.M)
				if state != 'PASS' or args.verbose or notes:
					print('%s %s (%.1f s)%s' % (state, r.name, spent, ': ' + (note or '; '.join(notes)) if note or notes else ''))
				if state == 'FAIL':
					print('\n'.join('    ' + line for line in text.rstrip().split('\n')))
				sys.stdout.flush()
			time.sleep(0.01)
	finally:
		for r in running:
			os.killpg(r.pid, signal.SIGKILL)
		shutil.rmtree(certs, ignore_errors=True)
	for spent, used, name in sorted(times, reverse=True)[:20]:
		print('took %5.1f s, %5.1f s of a processor: %s' % (spent, used, name))
	print('all took %.0f s in %.0f s, %.0f s of a processor' % (sum(t[0] for t in times), time.monotonic() - began, sum(t[1] for t in times)))
	print('%d passed, %d failed, %d skipped' % (count['PASS'], count['FAIL'], count['SKIP']))
	return 1 if count['FAIL'] else 0


if __name__ == '__main__':
	# A shell, or nohup, ignores some for what it starts in the background, and what is ignored is inherited.
	for n in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
		signal.signal(n, signal.SIG_DFL)
	signal.signal(signal.SIGINT, signal.default_int_handler)
	sys.exit(main())
