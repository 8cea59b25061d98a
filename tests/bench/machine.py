"""What the machine did while something was measured, and the rows of results."""
import os
import platform
import statistics
import subprocess
import time

MIB, GIB = 1 << 20, 1 << 30
TICK = os.sysconf('SC_CLK_TCK')


def read(path):
	try:
		with open(path) as f:
			return f.read()
	except OSError:
		return ''


def children(pid):
	"""pid and all that it started and that is alive."""
	out = [pid]
	for task in (os.listdir('/proc/%d/task' % pid) if os.path.isdir('/proc/%d/task' % pid) else []):
		for c in read('/proc/%d/task/%s/children' % (pid, task)).split():
			out += children(int(c))
	return out


def process_cpu(pid, waited=False):
	"""CPU seconds; waited: with those of its children that have ended."""
	parts = read('/proc/%d/stat' % pid).rsplit(')', 1)[-1].split()
	return sum(map(int, parts[11:15 if waited else 13])) / TICK if len(parts) > 14 else 0.0


def peak(pid):
	"""VmHWM in bytes."""
	for line in read('/proc/%d/status' % pid).split('\n'):
		if line.startswith('VmHWM:'):
			return int(line.split()[1]) * 1024
	return 0


class Meter:
	"""A stretch of time: the machine's idle share, what others than we used of it, CPU seconds and peak of memory of
	the processes in `procs` (name -> function that gives their ids)."""

	def __init__(self, procs):
		self.procs = procs

	def machine(self):
		v = [int(x) for x in read('/proc/stat').split('\n', 1)[0].split()[1:9]]
		return sum(v) / TICK, (v[3] + v[4]) / TICK, v[7] / TICK

	def ours(self):
		return sum(process_cpu(p, waited=True) for p in children(os.getpid()))

	def __enter__(self):
		for pids in self.procs.values():
			for p in pids():
				try:
					with open('/proc/%d/clear_refs' % p, 'w') as f:
						f.write('5')  # the peak begins anew
				except OSError:
					pass
		self.before = self.machine(), self.ours(), {n: sum(map(process_cpu, pids())) for n, pids in self.procs.items()}
		return self

	def lap(self):
		"""CPU seconds until now; all else is from now on."""
		self.__exit__()
		cpu = self.cpu
		self.__enter__()
		return cpu

	def __exit__(self, *_):
		(all0, idle0, steal0), ours0, cpu0 = self.before
		all1, idle1, steal1 = self.machine()
		whole = max(all1 - all0, 1e-3)
		idle = (idle1 - idle0) / whole
		self.idle, self.stolen = round(idle, 3), round((steal1 - steal0) / whole, 3)
		self.others = round(min(max(1 - idle - (self.ours() - ours0) / whole, 0), 1), 3)
		self.cpu = {n: round(sum(map(process_cpu, pids())) - cpu0[n], 3) for n, pids in self.procs.items()}
		self.peak = {n: sum(map(peak, pids())) for n, pids in self.procs.items()}


class Row:
	"""One measured thing by one way: a value for each round, and what belongs to it."""

	def __init__(self, case, measure, way, unit, more_is_better, ratio):
		self.case, self.measure, self.way, self.unit, self.more_is_better, self.ratio = case, measure, way, unit, more_is_better, ratio
		self.values, self.rounds = [], []

	def add(self, value, raw=None, meter=None, moved=0):
		self.values.append(value)
		r = {'value': value}
		if raw:
			r['raw'] = raw
		if meter:
			r.update(idle=meter.idle, others=meter.others, stolen=meter.stolen, cpu=meter.cpu, peak=meter.peak)
			if moved:
				r['cpu_per_gib'] = {n: v / (moved / GIB) for n, v in meter.cpu.items()}
		self.rounds.append(r)

	def middle(self, key):
		"""Medians over the rounds: of a number, or of each number of a dict."""
		got = [r[key] for r in self.rounds if key in r]
		if not got:
			return None
		if isinstance(got[0], dict):
			return {n: statistics.median(g[n] for g in got if n in g) for n in got[0]}
		return statistics.median(got)

	def failed(self):
		return sum(r.get('raw', {}).get('failed', 0) for r in self.rounds)

	def summary(self):
		d = {'case': self.case, 'measure': self.measure, 'way': self.way, 'unit': self.unit, 'more_is_better': self.more_is_better, 'median': statistics.median(self.values),
			'min': min(self.values), 'max': max(self.values), 'failed': self.failed()}
		for key in ('idle', 'others', 'cpu_per_gib', 'peak'):
			m = self.middle(key)
			if m is not None:
				d[key] = m
		d['rounds'] = self.rounds
		return d


class Rows:
	def __init__(self, case):
		self.case, self.rows = case, {}

	def add(self, measure, way, unit, value, raw=None, meter=None, moved=0, more_is_better=True, ratio=True):
		key = measure, way
		if key not in self.rows:
			self.rows[key] = Row(self.case, measure, way, unit, more_is_better, ratio)
		self.rows[key].add(value, raw, meter, moved)

	def export(self):
		out = []
		for (measure, way), row in self.rows.items():
			d = row.summary()
			for other, name in (('ssh -L', 'of_ssh'), ('tcp', 'of_tcp')):
				base = self.rows.get((measure, other))
				if way.startswith('tunneld') and row.ratio and base and len(base.values) == len(row.values) and all(base.values):
					d[name] = statistics.median(x / y for x, y in zip(row.values, base.values))
			out.append(d)
		return out


def describe(binary):
	cpu = [x.split(':', 1)[1].strip() for x in read('/proc/cpuinfo').split('\n') if x.startswith(('model name', 'flags'))][:2]
	t0 = time.monotonic()
	with Meter({}) as m:
		time.sleep(1)
	return {'when': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()), 'cpus': os.cpu_count(), 'kernel': platform.release(), 'cpu': cpu[0] if cpu else '',
		'cpu_flags': sorted(set(cpu[1].split()) & {'aes', 'vaes', 'sha_ni', 'avx2', 'avx512f', 'sse4_2', 'pclmulqdq', 'vpclmulqdq'}) if len(cpu) > 1 else [],
		'congestion_control': read('/proc/sys/net/ipv4/tcp_congestion_control').strip(), 'tcp_wmem': read('/proc/sys/net/ipv4/tcp_wmem').split(),
		'tcp_rmem': read('/proc/sys/net/ipv4/tcp_rmem').split(), 'load': os.getloadavg(), 'idle_before': m.idle, 'began': t0,
		'version': subprocess.run([binary, '--version'], stdout=subprocess.PIPE).stdout.decode().strip()}
