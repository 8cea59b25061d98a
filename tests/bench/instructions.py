#!/usr/bin/env python3
"""Counts the instructions that lib/ spends on one message's way from end to end, over a relay, and on its ack's way back
(bench_message), for a message of 32 KiB and one of 64 bytes.  Fails when a count is more than 10 % above what is recorded.

Counted by callgrind, as the difference between a run with COUNT messages and one without: so the count is that of the
path alone, and the same each time.  Only functions whose source lies in lib/ count, with what was inlined into them:
BoringSSL and libc choose their code by the processor, and valgrind shows them another one than the machine has.  What libc
copies for lib/ is counted in bytes instead ("copied").
Another compiler makes other code: the record names the one it is of, and with any other the check is skipped.

usage: instructions.py PROGRAM [--record] [--no-copies]      CC and OPT: what PROGRAM was built with
--no-copies: BoringSSL is in PROGRAM and its copies are counted as well, so they are not compared"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

UNCOUNTED = {'lib/crc32c.c'}  # chosen by the processor as well
HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
RECORD = os.path.join(HERE, 'instructions.txt')
KINDS = {'bulk': 32768 - 8, 'small': 64}  # 8: the stream's header, so that the whole is what was agreed
COUNT, TOLERANCE = 100, 0.10


def own_counts(text):
	"""A callgrind file -> {lib/x.c: instructions of its functions themselves}"""
	counts, source, skip = {}, '', False
	for line in text.split('\n'):
		if line.startswith('fl='):
			source = line[3:]
		elif line.startswith('calls='):
			skip = True  # the next line is what the callee spent
		elif re.match(r'[+-]?\d|\*', line):
			m = re.search(r'(?:^|/)(lib/\w+\.[ch])$', source)
			if not skip and m and m.group(1) not in UNCOUNTED and os.path.exists(os.path.join(TOP, m.group(1))):
				counts[m.group(1)] = counts.get(m.group(1), 0) + int(line.split()[1])
			skip = False
	return counts


def run(program, payload, count):
	with tempfile.TemporaryDirectory() as d:
		out = os.path.join(d, 'out')
		r = subprocess.run(['valgrind', '--tool=callgrind', '--callgrind-out-file=' + out, '--compress-strings=no', '--compress-pos=no', program,
			str(payload), str(count)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
		if r.returncode or not os.path.exists(out):
			sys.exit('instructions: %s\n0 passed, 1 failed' % r.stdout.decode(errors='replace'))
		with open(out) as f:
			counts = own_counts(f.read())
		counts['copied'] = int(re.search(rb'(\d+) bytes copied', r.stdout).group(1))
		return counts


def measure(program):
	"""-> {kind: {file: instructions of one message}}"""
	found = {}
	for kind, payload in KINDS.items():
		without, having = run(program, payload, 0), run(program, payload, COUNT)
		each = {f: (n - without.get(f, 0)) / COUNT for f, n in having.items()}
		found[kind] = {f: round(n) for f, n in sorted(each.items()) if round(n) and not (f == 'copied' and '--no-copies' in sys.argv)}
	return found


def compiler():
	cc = (os.environ.get('CC') or 'gcc').split()
	ask = lambda what: subprocess.run(cc + [what], stdout=subprocess.PIPE, text=True).stdout.strip()
	return ' '.join([os.path.basename(cc[0]), ask('-dumpversion').split('.')[0], ask('-dumpmachine')] + (os.environ.get('OPT') or '-O2 -g').split())


def recorded():
	"""-> compiler, {kind: {file: instructions}}"""
	of, found = '', {}
	with open(RECORD) as f:
		for line in f:
			words = line.split()
			if words[:1] == ['compiler']:
				of = ' '.join(words[1:])
			elif words and not line.startswith('#'):
				found.setdefault(words[0], {})[words[1]] = int(words[2])
	return of, found


def totals(files):
	"""-> (instructions of all files, bytes copied)"""
	return sum(n for f, n in files.items() if f != 'copied'), files.get('copied', 0)


def record(found):
	with open(RECORD, 'w') as f:
		f.write('# Instructions of lib/ for one message and its ack, end to end over a relay, and bytes that libc copies for it.\n'
			'# Written by: make check-instructions ARGS=--record\ncompiler %s\n' % compiler())
		for kind, files in found.items():
			f.write(''.join('%s %s %d\n' % (kind, name, n) for name, n in files.items()))
	for kind, files in found.items():
		print('recorded: %s, %d instructions, %d bytes copied' % ((kind,) + totals(files)))


def compare(found, known):
	failed = 0
	for kind, files in found.items():
		old = known.get(kind, {})
		for what, now, then in list(zip(('instructions', 'bytes copied'), totals(files), totals(old)))[:2 if 'copied' in files else 1]:
			change = now / then - 1 if then else 1.0
			bad = change > TOLERANCE or not now  # nothing counted: not our functions' names any more
			failed += bad
			print('%s %-5s %7d %s, recorded %d: %+.1f %%' % ('FAIL' if bad else 'pass', kind, now, what, then, change * 100))
			if change < -TOLERANCE:
				print('       it has become less: make check-instructions ARGS=--record keeps it so')
			for name in sorted(set(files) | set(old) - {'copied'}):
				if bad and what == 'instructions' and files.get(name, 0) != old.get(name, 0):
					print('       %-28s %7d, recorded %7d' % (name, files.get(name, 0), old.get(name, 0)))
	return failed


def main():
	program = sys.argv[1]
	if not shutil.which('valgrind'):
		print('SKIP instructions: valgrind is not installed (contrib/debian-packages.sh test)\n0 passed, 0 failed, 1 skipped')
		return 0
	if '--record' in sys.argv:
		record(measure(program))
		return 0
	of, known = recorded()
	if of != compiler():
		print('SKIP instructions: recorded with %s, this is %s\n0 passed, 0 failed, 1 skipped' % (of, compiler()))
		return 0
	found = measure(program)
	failed = compare(found, known)
	print('instructions: %d passed, %d failed' % (sum(1 + ('copied' in files) for files in found.values()) - failed, failed))
	return 1 if failed else 0


if __name__ == '__main__':
	sys.exit(main())
