"""contrib/debian-packages.sh with programs of ours in place of apt-get, dpkg-query and sudo: nothing is installed."""
import os
import shutil
import subprocess
import tempfile

from run import test

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NOBODY = 65534
LINE = 'apt-get update && apt-get install -y --no-install-recommends'


class Box:
	"""A folder with the script and a PATH of its own."""

	def __init__(self, missing=('libev-dev', 'cppcheck'), sudo=False, apt='exit 0'):
		self.dir = tempfile.mkdtemp(prefix='tunneld-packages-')
		os.chmod(self.dir, 0o755)
		self.calls = os.path.join(self.dir, 'calls')
		open(self.calls, 'w').close()
		os.chmod(self.calls, 0o666)
		os.mkdir(self.dir + '/bin')
		for program in ('sh', 'env', 'grep', 'id', 'tr'):
			os.symlink(shutil.which(program), self.dir + '/bin/' + program)
		lacks = ' '.join('[ "$3" != %s ] || exit 1;' % p for p in missing)
		self.program('dpkg-query', lacks + ' echo installed')
		if apt:
			self.program('apt-get', 'echo "apt-get $*" >>%s; %s' % (self.calls, apt))
		if sudo:
			self.program('sudo', 'echo sudo >>%s; exec "$@"' % self.calls)
		shutil.copy(os.path.join(TOP, 'contrib', 'debian-packages.sh'), self.dir)

	def program(self, name, text):
		path = os.path.join(self.dir, 'bin', name)
		with open(path, 'w') as f:
			f.write('#!/bin/sh\n%s\n' % text)
		os.chmod(path, 0o755)

	def run(self, *args, root=False):
		"""-> (code, stdout, stderr, calls of apt-get and sudo)"""
		def nobody():
			if not root and os.getuid() == 0:
				os.setgroups([])
				os.setgid(NOBODY)
				os.setuid(NOBODY)
		r = subprocess.run([self.dir + '/bin/sh', self.dir + '/debian-packages.sh', *args], preexec_fn=nobody, text=True,
			stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={'PATH': self.dir + '/bin'}, cwd='/')
		with open(self.calls) as f:
			return r.returncode, r.stdout, r.stderr, f.read()

	def __enter__(self):
		return self

	def __exit__(self, *_):
		shutil.rmtree(self.dir)


@test('packages: without root and sudo the line to type is told')
def no_sudo():
	with Box() as b:
		code, out, err, calls = b.run('lint')
		assert code == 1 and not out and not calls, (code, out, calls)
		assert 'as root: %s libev-dev cppcheck\n' % LINE in err, err
		assert 'not found' not in err, err


@test('packages: nothing is missing, nothing is said')
def complete():
	with Box(missing=()) as b:
		assert b.run('lint') == (0, '', '', '')


@test('packages: an ordinary user installs through sudo')
def with_sudo():
	with Box(sudo=True) as b:
		code, out, err, calls = b.run('build')
		assert code == 0 and 'installing: libev-dev\n' == out and not err, (code, out, err)
		assert calls == 'sudo\napt-get -q install -y --no-install-recommends libev-dev\n', calls


@test('packages: root needs no sudo; what cannot be installed is told with the line to type')
def as_root():
	if os.getuid() != 0:
		import harness
		raise harness.Skip('not root')
	with Box() as b:
		code, out, err, calls = b.run('lint', root=True)
		assert code == 0 and not err and calls == 'apt-get -q install -y --no-install-recommends libev-dev cppcheck\n', (err, calls)
	with Box(apt='exit 100') as b:
		code, out, err, calls = b.run('lint', root=True)
		assert code == 1 and 'could not install: libev-dev cppcheck\nas root: %s libev-dev cppcheck\n' % LINE in err, err
		assert calls.count('apt-get') == 2 and 'apt-get -q update' in calls, calls


@test('packages: where there is no apt-get the names are told')
def no_apt():
	with Box(apt=None) as b:
		code, out, err, calls = b.run('lint')
		assert code == 1 and 'missing packages: libev-dev cppcheck' in err and not calls, err
