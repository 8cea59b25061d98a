"""What several tests need of other programs: a private sshd, the aws command, a terminal of one's own."""
import fcntl
import os
import pty
import pwd
import re
import select
import shutil
import struct
import subprocess
import termios
import time

from harness import BIN, REGION, SLOW, TARGET, USER_KEY, USER_SECRET, Skip, clean_env, ini, need
from services import free_port


def run(argv, w, timeout=60, ok=(0,), **kw):
	kw.setdefault('env', clean_env())
	r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, cwd=kw.pop('cwd', w.dir), **kw)
	if r.returncode not in ok:
		raise AssertionError('%s: exit %d\n%s\n%s' % (' '.join(argv[:6]), r.returncode, r.stdout.decode('utf-8', 'replace')[-2000:],
			r.stderr.decode('utf-8', 'replace')[-2000:]))
	return r.stdout


def sshd(w, listen='127.0.0.1', prefix=()):
	"""A private sshd; -> port, ssh options."""
	need('ssh', 'sshd', 'ssh-keygen')
	os.makedirs('/run/sshd', exist_ok=True) if os.getuid() == 0 else None
	for key in ('host', 'user'):
		run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', w.path('ssh_' + key)], w)
	shutil.copy(w.path('ssh_user.pub'), w.path('authorized_keys'))
	os.chmod(w.path('authorized_keys'), 0o600)
	port = free_port()
	with open(w.path('sshd_config'), 'w') as f:
		f.write('Port %d\nListenAddress %s\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\nStrictModes no\nUsePAM no\n'
			'PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 100\nUseDNS no\n'
			'Subsystem sftp internal-sftp\n' % (port, listen, w.path('ssh_host'), w.path('authorized_keys')))
	p = w.proc('sshd', [shutil.which('sshd') or '/usr/sbin/sshd', '-D', '-e', '-f', w.path('sshd_config')], prefix=prefix)
	p.wait_log('Server listening')
	p.expect_exit = {0, 255, -15}
	opts = ['-F', 'none', '-i', w.path('ssh_user'), '-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null', '-o', 'LogLevel=ERROR',
		'-o', 'BatchMode=yes', '-o', 'IdentitiesOnly=yes', '-o', 'ConnectTimeout=20']
	return port, opts


def me():
	return pwd.getpwuid(os.getuid()).pw_name


def client_ini(w, name='client', url=None, **aws):
	"""A configuration for connect, forward and shell: [aws] and nothing else; -> path."""
	a = {'region': REGION, 'ssm_endpoint': url or w.url, 'ca_file': 'ca.pem', 'access_key_id': USER_KEY, 'secret_access_key': USER_SECRET}
	a.update(aws)
	return ini(w.path(name + '.ini'), [('tunneld', {'state_dir': w.path('state-' + name)}), ('aws', a)])


def aws_env(w, **more):
	"""For the aws command, with this program in the place of its plugin."""
	if not os.path.exists('/usr/bin/aws') and not shutil.which('aws'):
		raise Skip('the aws command is not installed')
	os.makedirs(w.path('bin'), exist_ok=True)
	link = w.path('bin/session-manager-plugin')
	if not os.path.lexists(link):
		os.symlink(BIN, link)
	return clean_env(AWS_ACCESS_KEY_ID=USER_KEY, AWS_SECRET_ACCESS_KEY=USER_SECRET, AWS_CA_BUNDLE=w.path('ca.pem'), HOME=w.dir, AWS_PAGER='',
		AWS_EC2_METADATA_DISABLED='true', TERM='xterm', PATH=w.path('bin') + ':/usr/sbin:/usr/bin:/sbin:/bin', **more)


def aws_start(w, document=None, parameters=None, target=TARGET):
	"""argv of aws ssm start-session"""
	aws = '/usr/bin/aws' if os.path.exists('/usr/bin/aws') else 'aws'
	argv = [aws, '--region', REGION, '--endpoint-url', w.url, 'ssm', 'start-session', '--target', target]
	if document:
		argv += ['--document-name', document]
	if parameters:
		argv += ['--parameters', parameters]
	return argv


def child_of(pid, timeout=15):
	"""The process that pid has started (aws starts its plugin)."""
	end = time.monotonic() + timeout * SLOW
	while time.monotonic() < end:
		for task in os.listdir('/proc/%d/task' % pid):
			got = open('/proc/%d/task/%s/children' % (pid, task)).read().split()
			if got:
				return int(got[0])
		time.sleep(0.02)
	raise AssertionError('process %d has started nothing' % pid)


class Terminal:
	"""A program on a pseudo-terminal, 33 rows of 101 columns."""

	def __init__(self, argv, env=None, cwd=None, stderr=None):
		self.master, self.slave = pty.openpty()
		self.resize(33, 101)
		self.before = termios.tcgetattr(self.slave)
		self.out = b''

		def own():
			os.setsid()
			fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
		self.p = subprocess.Popen(argv, stdin=self.slave, stdout=self.slave, stderr=stderr or self.slave, env=env or clean_env(), cwd=cwd,
			preexec_fn=own)

	def __enter__(self):
		return self

	def __exit__(self, *a):
		if self.p.poll() is None:
			self.p.kill()
			self.p.wait()
		os.close(self.master)
		os.close(self.slave)

	def resize(self, rows, columns):
		fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))

	def type(self, data):
		os.write(self.master, data)

	def read(self, timeout):
		if not select.select([self.master], [], [], timeout)[0]:
			return b''
		got = os.read(self.master, 65536)
		self.out += got
		return got

	def expect(self, pattern, timeout=15):
		"""Waits for a regular expression in the output and takes it, and what was before it, out."""
		end = time.monotonic() + timeout * SLOW
		while True:
			m = re.search(pattern.encode(), self.out)
			if m:
				self.out = self.out[m.end():]
				return m
			assert time.monotonic() < end, 'no %r in %r' % (pattern, self.out[-500:])
			if not self.read(0.1):
				assert self.p.poll() is None or self.read(0.1), 'ended with %s without %r: %r' % (self.p.returncode, pattern, self.out[-500:])

	def end(self, timeout=15):
		"""-> exit code"""
		end = time.monotonic() + timeout * SLOW
		while self.p.poll() is None:
			assert time.monotonic() < end, 'still runs: %r' % self.out[-500:]
			self.read(0.05)
		while self.read(0.02):
			pass
		return self.p.returncode

	def is_raw(self):
		return not termios.tcgetattr(self.slave)[3] & termios.ICANON

	def restored(self):
		return termios.tcgetattr(self.slave) == self.before
