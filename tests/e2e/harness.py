"""Processes of the product in a directory of their own: certificates, INI files, start, readiness by
events (sd_notify, log lines), stop by process id, and what must be true of every process at its end:
exit code 0 after SIGTERM, no sanitizer report, no secret in a log."""
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from services import drop_clients, fds, free_port, rss_now, rss_peak
from wire import Api

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.abspath(os.environ.get('TUNNELD', os.path.join(TOP, 'build', 'tunneld')))
SANITIZED = '/san/' in BIN or '/tsan/' in BIN
SLOW = float(os.environ.get('SLOW', '4' if SANITIZED else '1'))  # stretches time limits, never work
TARGET = 'i-0123456789abcdef0'
REGION = 'eu-west-1'
USER_KEY, USER_SECRET = 'AKIATESTUSER00000001', 'plantedUserSecretZ7qWk2'
AGENT_KEY, AGENT_SECRET = 'AKIATESTAGENT0000001', 'plantedAgentSecretX9vBn4'
SANITIZER = re.compile(r'ERROR: \w+Sanitizer|runtime error:|SUMMARY: \w+Sanitizer')


class Skip(Exception):
	pass


def plain_directory():
	"""Where the tests' directories are made: $TMPDIR, unless a Unix socket's address has no room for it (107 bytes with the names below it) or other
	programs' configuration files would take it apart."""
	for d in (tempfile.gettempdir(), '/tmp', '/var/tmp'):
		if len(d) <= 48 and re.fullmatch(r'[\w./+-]+', d) and os.access(d, os.W_OK):
			return d
	return tempfile.gettempdir()


tempfile.tempdir = plain_directory()


def clean_env(**more):
	"""The environment without anything that would lead a client elsewhere."""
	drop = ('AWS_', 'SSL_CERT', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'TUNNELD', 'NOTIFY', 'PGHOST', 'PGPORT', 'XDG_', 'STATE_DIRECTORY',
		'SSH_', 'REQUESTS_CA', 'CURL_CA', 'GIT_SSL')
	env = {k: v for k, v in os.environ.items() if not k.upper().startswith(drop)}
	env.update(more)
	env.setdefault('ASAN_OPTIONS', 'detect_leaks=1:abort_on_error=0:exitcode=99')
	env.setdefault('UBSAN_OPTIONS', 'print_stacktrace=1')
	env.setdefault('TSAN_OPTIONS', 'exitcode=99:suppressions=' + os.path.join(TOP, 'tests', 'tsan.supp'))
	return env


def readable(stream, ms=None):
	p = select.poll()
	p.register(stream.fileno(), select.POLLIN)
	return p.poll(ms)


class Proc:
	"""A child whose stderr is read line by line; its lines can be waited for."""

	def __init__(self, name, argv, directory, env=None, cwd=None, stdin=subprocess.DEVNULL, stdout=None, preexec=None, prefix=(), pass_fds=()):
		self.name, self.argv = name, list(argv)
		self._lines, self.cond = [], threading.Condition()
		self.notified = []
		self.expect_exit = {0}
		self.expect_refused = set()
		self.killed = False
		n = 0
		while os.path.exists(os.path.join(directory, '%s.%d.log' % (name, n))):
			n += 1
		self.log_path = os.path.join(directory, '%s.%d.log' % (name, n))
		self.log_file = open(self.log_path, 'w', buffering=1, errors='replace')
		note = os.path.join(directory, '%s.%d.notify' % (name, n))
		self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		self.notify.bind(note)
		os.chmod(note, 0o666)  # as systemd's, for a process of another user
		self.env = clean_env(**dict(env or {}))
		self.env['NOTIFY_SOCKET'] = note
		self.p = subprocess.Popen(list(prefix) + self.argv, stdin=stdin, stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE,
			env=self.env, cwd=cwd or directory, preexec_fn=preexec, pass_fds=pass_fds)
		self.pid = self.p.pid
		# What is read of, with the start of its next line.
		self.pipes = {x: b'' for x in ((self.p.stderr,) if stdout else (self.p.stderr, self.p.stdout))}
		self.threads = [threading.Thread(target=self._read, args=(x,), daemon=True) for x in self.pipes]
		self.threads.append(threading.Thread(target=self._notes, daemon=True))
		for t in self.threads:
			t.start()

	@property
	def lines(self):
		"""What the process has written until now: who has seen it do a thing finds the line that it wrote before."""
		with self.cond:
			for x in list(self.pipes):
				self._take(x)
			return self._lines

	def _take(self, pipe):
		"""Takes all lines that are in the pipe; false at its end.  The lock is held."""
		if pipe in self.pipes and readable(pipe, 0):
			got = os.read(pipe.fileno(), 1 << 20)  # more than a pipe holds
			*whole, rest = (self.pipes[pipe] + got).split(b'\n')
			if got:
				self.pipes[pipe] = rest
			else:
				del self.pipes[pipe]
				whole = [rest] if rest else []
			for raw in whole:
				line = raw.decode('utf-8', 'replace')
				self._lines.append(line)
				self.log_file.write(line + '\n')
			self.cond.notify_all()
		return pipe in self.pipes

	def _read(self, pipe):
		going = True
		while going:
			readable(pipe)
			with self.cond:
				going = self._take(pipe)

	def _notes(self):
		while True:
			try:
				got = self.notify.recv(4096).decode('utf-8', 'replace')
			except OSError:
				return
			with self.cond:
				self.notified.extend(got.split('\n'))
				self.cond.notify_all()

	def mark(self):
		with self.cond:
			return len(self.lines)

	def find(self, pattern, since=0):
		rx = re.compile(pattern)
		for line in self.lines[since:]:
			m = rx.search(line)
			if m:
				return m
		return None

	def count(self, pattern, since=0):
		rx = re.compile(pattern)
		with self.cond:
			return sum(1 for line in self.lines[since:] if rx.search(line))

	def wait_log(self, pattern, timeout=10, since=0):
		return self._wait(lambda: self.find(pattern, since), timeout, 'log line /%s/' % pattern)

	def wait_note(self, text, timeout=10):
		return self._wait(lambda: text in self.notified, timeout, 'notification %s' % text)

	def _wait(self, fn, timeout, what):
		end = time.monotonic() + timeout * SLOW
		with self.cond:
			while True:
				got = fn()
				if got:
					return got
				left = end - time.monotonic()
				if self.p.poll() is not None and self.p.stderr not in self.pipes:
					raise AssertionError('%s ended with %s before: %s' % (self.name, self.p.returncode, what))
				if left <= 0:
					raise AssertionError('%s: no %s within %g s' % (self.name, what, timeout * SLOW))
				self.cond.wait(min(left, 0.2))

	def alive(self):
		return self.p.poll() is None

	def signal(self, sig):
		self.p.send_signal(sig)

	def kill9(self):
		self.killed = True
		self.p.kill()
		self.p.wait()

	def wait(self, timeout=20):
		try:
			self.p.wait(timeout * SLOW)
		except subprocess.TimeoutExpired:
			raise AssertionError('%s (pid %d) still runs after %g s' % (self.name, self.pid, timeout * SLOW))
		for t in self.threads[:-1]:
			t.join(5)
		return self.p.returncode

	def fds(self):
		return fds(self.pid)

	def rss_peak(self):
		return rss_peak(self.pid)

	def rss(self):
		return rss_now(self.pid)

	def stop(self, timeout=20):
		if self.alive():
			self.signal(signal.SIGTERM)
		return self.wait(timeout)


def ini(path, sections):
	"""sections: list of (header, dict); a value may be a list (joined by commas), None leaves the key out.  Who reads it meanwhile
	reads the whole of the old one or of the new one."""
	with open(path + '.new', 'w') as f:
		os.fchmod(f.fileno(), 0o600)
		for header, keys in sections:
			f.write('[%s]\n' % header)
			for k, v in keys.items():
				if v is None:
					continue
				if isinstance(v, bool):
					v = 'yes' if v else 'no'
				f.write('%s = %s\n' % (k, ', '.join(map(str, v)) if isinstance(v, (list, tuple)) else v))
			f.write('\n')
	os.replace(path + '.new', path)
	return path


def make_certificates(directory, names='DNS:localhost,IP:127.0.0.1,IP:::1,IP:10.77.0.1,IP:10.77.0.2'):
	"""A CA and a server certificate, by openssl(1)."""
	if not shutil.which('openssl'):
		raise Skip('openssl(1) is not installed (contrib/debian-packages.sh test)')
	p = lambda n: os.path.join(directory, n)

	def run(*argv):
		subprocess.run(('openssl',) + argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=clean_env())

	with open(p('ca.cnf'), 'w') as f:
		f.write('[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n'
			'subjectKeyIdentifier=hash\n[server]\nbasicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n'
			'subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName=' + names + '\n')
	for key in ('ca.key', 'gateway.key'):
		run('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', p(key))
		os.chmod(p(key), 0o600)
	run('req', '-x509', '-new', '-key', p('ca.key'), '-subj', '/CN=tunneld test CA', '-days', '30', '-config', p('ca.cnf'), '-extensions', 'ca',
		'-out', p('ca.pem'))
	run('req', '-new', '-key', p('gateway.key'), '-subj', '/CN=gateway', '-config', p('ca.cnf'), '-out', p('gateway.csr'))
	run('x509', '-req', '-in', p('gateway.csr'), '-CA', p('ca.pem'), '-CAkey', p('ca.key'), '-CAcreateserial', '-days', '30', '-extfile', p('ca.cnf'),
		'-extensions', 'server', '-out', p('gateway.pem'))


_certs = None


def certificates():
	"""One set for the whole run: the runner makes it and hands it down in CERT_DIR."""
	global _certs
	if not _certs:
		_certs = os.environ.get('CERT_DIR')
	if not _certs:
		_certs = tempfile.mkdtemp(prefix='tunneld-certs-')
		make_certificates(_certs)
	return _certs


class World:
	"""A directory and the processes in it.  Use as a context manager."""

	def __init__(self, log_level='info', log_format='text'):
		self.dir = tempfile.mkdtemp(prefix='tunneld-e2e-')
		os.chmod(self.dir, 0o755)
		for n in ('ca.pem', 'gateway.pem', 'gateway.key'):
			shutil.copy(os.path.join(certificates(), n), self.dir)
		self.log_level, self.log_format = log_level, log_format
		self.procs, self.closers = [], []
		self.gw_port = 0
		self.checks = True
		self.tags = {}  # of instances, by id
		self.rights = {}  # further keys of users
		self.keys = {'users': {'ops': (USER_KEY, USER_SECRET, 'i-*')}, 'instances': {TARGET: (AGENT_KEY, AGENT_SECRET)}}

	def __enter__(self):
		return self

	def __exit__(self, kind, value, tb):
		faults = []
		try:
			faults += self.shutdown(check=kind is None)
			for c in reversed(self.closers):  # afterwards: what the processes need to end well (proxies, links)
				try:
					c()
				except Exception as e:
					faults.append('closing: %s' % e)
		finally:
			if kind is not None and not issubclass(kind, Skip) or faults:
				self.dump()
			if not os.environ.get('KEEP'):
				shutil.rmtree(self.dir, ignore_errors=True)
			else:
				print('kept: %s' % self.dir)
		if kind is None and faults:
			raise AssertionError('; '.join(faults))
		return False

	def path(self, name):
		return os.path.join(self.dir, name)

	def proc(self, name, argv, **kw):
		p = Proc(name, argv, self.dir, **kw)
		self.procs.append(p)
		return p

	def shutdown(self, check=True):
		faults = []
		drop_clients()
		order = {'forwarder': 0, 'agent': 1, 'gateway': 2}
		for p in sorted(self.procs, key=lambda p: order.get(p.name.split('-')[0], 3)):
			was_alive = p.alive()
			try:
				if was_alive:
					p.signal(signal.SIGTERM)
				if was_alive and not check:  # the test has failed: whatever is open is of no interest
					time.sleep(0.2)
					if p.alive():
						p.signal(signal.SIGTERM)
				code = p.wait(15 if check else 2)
			except AssertionError as e:
				faults.append(str(e))
				p.kill9()
				continue
			if check and not p.killed and p.argv[0] == BIN and code not in p.expect_exit:
				faults.append('%s exited with %s' % (p.name, code))
		for p in self.procs:
			text = '\n'.join(p.lines)
			if SANITIZER.search(text):
				faults.append('%s: sanitizer report' % p.name)
			refused = set(re.findall(r'refused by seccomp call=(\S+)', text))
			if refused - p.expect_refused:
				faults.append('%s: system calls that its seccomp filter lacks: %s' % (p.name, ', '.join(sorted(refused))))
			for secret in (USER_SECRET, AGENT_SECRET):
				if secret in text:
					faults.append('%s: a secret is in its log' % p.name)
		return faults

	def dump(self):
		for p in self.procs:
			print('---- %s (pid %d, exit %s): %s' % (p.name, p.pid, p.p.returncode, ' '.join(p.argv)))
			lines = p.lines
			if len(lines) > 120:
				print('... %d lines left out; the last 120:' % (len(lines) - 120))
			for line in lines[-120:]:
				print('  ' + line)

	# ---- the three roles ---------------------------------------------------------------

	def head(self, role, **more):
		keys = {'log_level': self.log_level, 'log_format': self.log_format, 'state_dir': self.path('state-' + role)}
		keys.update(more)
		return ('tunneld', keys)

	def write_gateway(self, public_port=None, name='gateway', **options):
		if not self.gw_port:
			self.gw_port = free_port()
		g = {'listen': '127.0.0.1:%d' % self.gw_port, 'certificate': 'gateway.pem', 'private_key': 'gateway.key', 'per_peer_connections': 20000}
		if public_port:
			g['public_url'] = 'https://127.0.0.1:%d' % public_port
		g.update(options)
		top = {k[3:]: g.pop(k) for k in list(g) if k.startswith('td_')}
		sections = [self.head(name, **top), ('gateway', g)]
		sections += [('user ' + n, {'access_key_id': k, 'secret_access_key': s, 'targets': t, **self.rights.get(n, {})}) for n, (k, s, t) in self.keys['users'].items()]
		sections += [('instance ' + n, {'access_key_id': k, 'secret_access_key': s, 'tags': self.tags.get(n)}) for n, (k, s) in self.keys['instances'].items()]
		return ini(self.path(name + '.ini'), sections)

	def gateway(self, wait=True, prefix=(), **options):
		conf = self.write_gateway(**options)
		p = self.proc('gateway', [BIN, 'gateway', '-c', conf], prefix=prefix)
		if wait:
			p.wait_note('READY=1')
		return p

	@property
	def url(self):
		return 'https://127.0.0.1:%d' % self.gw_port

	def api(self, key=USER_KEY, secret=USER_SECRET):
		return Api(self.url, self.path('ca.pem'), key, secret, REGION)

	def write_agent(self, instance=TARGET, port=None, url=None, name='agent', **options):
		key, secret = self.keys['instances'][instance]
		a = {'instance_id': instance, 'region': REGION, 'ssmmessages_endpoint': url or 'https://127.0.0.1:%d' % (port or self.gw_port),
			'ca_file': 'ca.pem', 'access_key_id': key, 'secret_access_key': secret}
		a.update(options)
		top = {k[3:]: a.pop(k) for k in list(a) if k.startswith('td_')}
		return ini(self.path(name + '.ini'), [self.head(name, **top), ('agent', a)])

	def agent(self, wait=True, name='agent', instance=TARGET, prefix=(), **options):
		conf = self.write_agent(name=name, instance=instance, **options)
		p = self.proc(name, [BIN, 'agent', '-c', conf], prefix=prefix)
		if wait:
			self.wait_online(instance)
		return p

	def wait_online(self, instance=TARGET, timeout=20):
		api = self.api()
		end = time.monotonic() + timeout * SLOW
		while time.monotonic() < end:
			if api.instances().get(instance, {}).get('PingStatus') == 'Online':
				return
			time.sleep(0.02)
		raise AssertionError('agent %s is not online within %g s' % (instance, timeout * SLOW))

	def write_forwarder(self, tunnels, name='forwarder', port=None, url=None, aws=None, **top):
		a = {'region': REGION, 'ssm_endpoint': url or 'https://127.0.0.1:%d' % (port or self.gw_port), 'ca_file': 'ca.pem', 'access_key_id': USER_KEY,
			'secret_access_key': USER_SECRET}
		a.update(aws or {})
		sections = [self.head(name, **top), ('aws', a)]
		for n, keys in tunnels.items():
			t = {'listen': '127.0.0.1:0', 'target': TARGET}
			t.update(keys)
			sections.append(('tunnel ' + n, t))
		return ini(self.path(name + '.ini'), sections)

	def forwarder(self, tunnels, wait=True, name='forwarder', env=None, prefix=(), **kw):
		conf = self.write_forwarder(tunnels, name=name, **kw)
		p = self.proc(name, [BIN, '-c', conf], env=env, prefix=prefix)
		p.ports = {}
		if wait:
			p.wait_note('READY=1')
			# The notification can overtake the log.
			p._wait(lambda: {n for n, t in tunnels.items() if t.get('type') != 'reverse'} <= set(self.ports(p)), 5, 'listening line of every tunnel')
			p.ports = self.ports(p)
		return p

	def ports(self, p, since=0):
		"""Listening addresses by tunnel, from the log: a port, ('::1', port) or a path; the first of each."""
		out = {}
		with p.cond:
			for line in p.lines[since:]:
				if line.startswith('{"time"'):
					it = json.loads(line)
					line = '%s tunnel=%s address=%s' % (it['message'], it.get('tunnel'), it.get('address'))
				m = re.search(r'listening .*?tunnel=(\S+) address=(\S+)', line)
				if not m:
					continue
				where = m.group(2).strip('"')
				if where.startswith('unix:'):
					where = where[5:]
				elif where.startswith('['):
					where = (where[1:where.index(']')], int(where.rsplit(':', 1)[1]))
				else:
					where = int(where.rsplit(':', 1)[1])
				out.setdefault(m.group(1), where)
		return out

	def status(self, p):
		"""tunneld status --json of a running process, parsed."""
		argv = [BIN, 'status', '--json', '-c', p.argv[p.argv.index('-c') + 1]]
		r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), timeout=20 * SLOW, cwd=self.dir)
		assert r.returncode in (0, 1), (r.returncode, r.stdout, r.stderr)  # 1: something is not well
		return json.loads(r.stdout)

	def standard(self, service_port, agent=None, gateway=None, **tunnel):
		"""Gateway, agent and a forwarder with one tunnel `t` to service_port; -> (gateway, agent, forwarder)."""
		g = self.gateway(**(gateway or {}))
		a = self.agent(**(agent or {}))
		keys = {'port': service_port}
		keys.update(tunnel)
		f = self.forwarder({'t': keys})
		return g, a, f


def until(fn, timeout=10, what='condition', step=0.02):
	"""Polls what has no event (the state of another process)."""
	end = time.monotonic() + timeout * SLOW
	while True:
		got = fn()
		if got:
			return got
		if time.monotonic() > end:
			raise AssertionError('not within %g s: %s' % (timeout * SLOW, what))
		time.sleep(step)


def need(*programs):
	for p in programs:
		if not shutil.which(p):
			raise Skip('%s is not installed' % p)
