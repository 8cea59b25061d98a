"""contrib/check-fresh.sh with a debootstrap of ours: what it says and what it leaves behind (nothing)."""
import os
import shutil
import signal
import subprocess
import tempfile
import time

from harness import Skip
from run import test

SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), 'contrib', 'check-fresh.sh')
NOBODY = 65534


class Box:
	def __init__(self, debootstrap):
		self.dir = tempfile.mkdtemp(prefix='tunneld-box-')
		os.chmod(self.dir, 0o755)
		os.mkdir(self.dir + '/bin')
		os.mkdir(self.dir + '/tmp')
		self.program('debootstrap', debootstrap)
		self.program('dpkg-query', 'echo installed')

	def program(self, name, text):
		path = os.path.join(self.dir, 'bin', name)
		with open(path, 'w') as f:
			f.write('#!/bin/sh\n%s\n' % text)
		os.chmod(path, 0o755)

	def start(self, preexec=None, script=SCRIPT, **env):
		return subprocess.Popen(['sh', script], text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
			preexec_fn=preexec or (lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)),
			env=dict(os.environ, PATH=self.dir + '/bin:' + os.environ['PATH'], TMPDIR=self.dir + '/tmp', **env))

	def left(self):
		return os.listdir(self.dir + '/tmp')

	def __enter__(self):
		return self

	def __exit__(self, *_):
		shutil.rmtree(self.dir)


def require_namespaces():
	if subprocess.run(['unshare', '--mount', '--pid', '--fork', 'true'], stderr=subprocess.DEVNULL).returncode:
		raise Skip('mount and process namespaces are not to be had here')


@test('check-fresh: says that it needs root, and what it does not know')
def refused():
	def nobody():
		if os.getuid() == 0:
			os.setgid(NOBODY)
			os.setuid(NOBODY)
	with Box('exit 0') as b:
		p = b.start(preexec=nobody, script=shutil.copy(SCRIPT, b.dir))
		said = p.communicate()[0]
		assert p.returncode == 1 and 'requires to be root' in said, said
		p = b.start(FRESH='everything')
		said = p.communicate()[0]
		assert p.returncode == 1 and 'FRESH=run or FRESH=check, not everything' in said, said


@test('check-fresh: a debootstrap that fails is shown, and nothing is left')
def failing():
	require_namespaces()
	with Box('mkdir -p "$4"; echo "no such mirror"; exit 1') as b:
		p = b.start()
		said = p.communicate()[0]
		assert p.returncode == 1 and 'no such mirror\n' in said and 'debootstrap failed' in said, said
		assert b.left() == []


@test('check-fresh: a signal ends what runs in its namespaces, unmounts and removes everything')
def cut():
	require_namespaces()
	# In the root something is mounted and a process of its own goes on.
	with Box('mkdir -p "$4/mnt"; mount -t tmpfs none "$4/mnt"; echo x >"$4/mnt/x"; sleep 600 & echo ready >&2; wait') as b:
		for sig, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
			p = b.start()
			deadline = time.monotonic() + 20
			log = lambda: [f for d in b.left() for f in os.listdir(os.path.join(b.dir, 'tmp', d)) if f == 'root.log' and
				os.path.getsize(os.path.join(b.dir, 'tmp', d, f))]
			while not log():
				assert time.monotonic() < deadline and p.poll() is None
				time.sleep(0.02)
			p.send_signal(sig)
			p.communicate(timeout=20)
			assert p.returncode == code, p.returncode
			assert b.left() == []
			with open('/proc/self/mounts') as f:
				assert b.dir not in f.read()
