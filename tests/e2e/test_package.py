"""The Debian package in a root of its own, what it says of what is linked, and manual pages and samples against the program."""
import glob
import json
import os
import re
import shutil
import subprocess
import tempfile

from harness import BIN, SANITIZED, SLOW, Skip, World, clean_env, need
from run import test
from services import Server, connect, echo, ping

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.dirname(BIN)


def run(*argv, code=0, **kw):
	r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env(PATH=os.environ['PATH'], **kw.pop('env', {})), timeout=120 * SLOW, **kw)
	out = r.stdout.decode()
	assert r.returncode == code, (argv, r.returncode, out)
	return out


def commands():
	return re.findall(r'^  ([a-z-]+) {2,}\S', run(BIN, '--help'), re.M)


def make_deb(version):
	return run('make', '-s', 'BUILD=' + BUILD, 'DEB_VERSION=' + version, 'deb', cwd=ROOT).strip().splitlines()[-1]


def tree(root):
	"""Everything but dpkg's own records."""
	found = {}
	for at, folders, files in os.walk(root):
		if at == root:
			folders[:] = [f for f in folders if f != 'var']
		for n in folders + files:
			p = os.path.join(at, n)
			found[os.path.relpath(p, root)] = open(p, 'rb').read() if os.path.isfile(p) else None
	return found


class Scratch:
	"""A root with nothing in it but a root user; maintainer scripts run from outside, with DPKG_ROOT."""

	def __init__(self, folder):
		self.root = os.path.join(folder, 'root')
		for d in ('etc', 'var/lib/dpkg/info', 'var/lib/dpkg/updates', 'var/log', 'usr', 'lib'):
			os.makedirs(os.path.join(self.root, d))
		for name, text in (('etc/passwd', 'root:x:0:0::/root:/bin/sh\n'), ('etc/group', 'root:x:0:\n'), ('etc/shadow', 'root:*:1::::::\n'), ('etc/gshadow', 'root:*::\n'), ('var/lib/dpkg/status', '')):
			with open(os.path.join(self.root, name), 'w') as f:
				f.write(text)

	def path(self, name):
		return os.path.join(self.root, name)

	def dpkg(self, *argv):
		return run('dpkg', '--root=' + self.root, '--force-script-chrootless', '--force-depends', *argv)


@test('package: lintian finds no error; installed, upgraded under a daemon that runs, removed and purged without a trace', 300)
def package():
	if SANITIZED or os.geteuid() != 0:
		raise Skip('of the plain build, as root')
	need('dpkg-deb', 'lintian', 'systemd-sysusers', 'userdel')
	with tempfile.TemporaryDirectory() as d:
		debs = [shutil.copy(make_deb(v), d) for v in ('0.1.0', '0.1.1')]
		said = run('lintian', '--allow-root', '--fail-on', 'error', debs[0])
		assert 'E: ' not in said, said
		control = run('dpkg-deb', '-I', debs[0])
		assert re.search(r'Depends: .*\blibev4 \(>= ', control) and re.search(r'Depends: .*\blibc6 \(>= ', control), control
		r = Scratch(d)
		before = tree(r.root)
		r.dpkg('-i', debs[0])
		passwd = open(r.path('etc/passwd')).read()
		assert re.search(r'^tunneld:.*:/usr/sbin/nologin$', passwd, re.M), passwd
		st = os.stat(r.path('etc/tunneld'))
		assert st.st_mode & 0o777 == 0o750 and st.st_gid == int(re.search(r'^tunneld:x:(\d+)', open(r.path('etc/group')).read(), re.M)[1])
		for f in ('usr/bin/tunneld', 'lib/systemd/system/tunneld.service', 'usr/share/man/man8/tunneld-connect.8.gz', 'usr/share/doc/tunneld/copyright',
				'usr/share/doc/tunneld/changelog.gz', 'usr/share/doc/tunneld/tunneld.spdx', 'usr/share/bash-completion/completions/tunneld'):
			assert os.path.exists(r.path(f)), f
		assert 'ExecStart=/usr/bin/tunneld' in open(r.path('lib/systemd/system/tunneld.service')).read()
		run('md5sum', '--quiet', '-c', r.path('var/lib/dpkg/info/tunneld.md5sums'), cwd=r.root)
		# An upgrade under a daemon with a connection.
		program, s = r.path('usr/bin/tunneld'), Server(echo)
		with World() as w:
			w.closers.append(s.close)
			w.gateway()
			w.agent()
			conf = w.write_forwarder({'t': {'port': s.port}})
			f = w.proc('forwarder', [program, '-c', conf])
			f.wait_note('READY=1')
			f.wait_log('listening tunnel=t')
			c = connect(w.ports(f)['t'])
			ping(c)
			inode = os.stat(program).st_ino
			r.dpkg('-i', debs[1])
			assert os.stat(program).st_ino != inode and '0.1.1' in run('dpkg-query', '--admindir=' + r.path('var/lib/dpkg'), '-W', 'tunneld')
			ping(c)
			assert json.loads(run(program, 'status', '--json', '-c', conf))[0]['pid'] == f.pid
			c.close()
			assert f.stop() == 0
		with open(r.path('etc/tunneld/agent.ini'), 'w') as f:
			f.write('[agent]\n')
		os.makedirs(r.path('var/lib/tunneld-agent/state'))
		r.dpkg('-r', 'tunneld')
		assert not os.path.exists(program) and os.path.exists(r.path('etc/tunneld/agent.ini'))
		r.dpkg('-P', 'tunneld')
		after = tree(r.root)
		left = {k for k in set(before) | set(after) if before.get(k) != after.get(k) and not k.endswith('-') and k != 'etc/.pwd.lock'}
		assert not left and os.listdir(r.path('var/lib')) == ['dpkg'], (left, os.listdir(r.path('var/lib')))


@test('package: the list of what is linked names a package for each library, and is what SPDX wants', 90)
def sbom():
	need('dpkg-query', 'readelf', 'ldd')
	text = run('sh', os.path.join(ROOT, 'contrib/sbom.sh'), BIN, '1.2.3')
	head, *packages = text.split('\nPackageName: ')
	for line in ('SPDXVersion: SPDX-2.3', 'DataLicense: CC0-1.0', 'SPDXID: SPDXRef-DOCUMENT', 'DocumentNamespace: https://', 'Creator: Tool: '):
		assert line in head, line
	names = [p.split('\n')[0] for p in packages]
	assert names[0] == 'tunneld' and len(set(names)) == len(names), names
	for name in ('libc6', 'libev4', 'libc-ares2', 'libsqlite3-0', 'libseccomp2', 'libcjson1'):
		assert name in names, (name, names)
	for p in packages:
		for tag in ('SPDXID: SPDXRef-', 'PackageVersion: ', 'PackageDownloadLocation: ', 'FilesAnalyzed: false', 'PackageLicenseConcluded: ', 'PackageCopyrightText: '):
			assert '\n' + tag in p, (tag, p)
		assert re.search(r'\nSPDXID: SPDXRef-[A-Za-z0-9.-]+\n', p) and re.search(r'\nRelationship: SPDXRef-\S+ [A-Z_]+ SPDXRef-\S+', p), p
	linked = set(re.findall(r'^\t(\S+) => /', run('ldd', BIN), re.M))
	told = {line.split()[3] for line in run('sh', os.path.join(ROOT, 'contrib/linked.sh'), BIN).splitlines()}
	assert linked == told, linked ^ told


@test('manual: a page for each sub-command and each file, made of its help or by hand', 60)
def pages():
	with tempfile.TemporaryDirectory() as d:
		run('sh', os.path.join(ROOT, 'contrib/manpages.sh'), BIN, d)
		assert sorted(os.listdir(d)) == sorted('tunneld-%s.8' % c for c in commands()), os.listdir(d)
		by_hand = {os.path.basename(p) for p in glob.glob(os.path.join(ROOT, 'docs/man/*'))}
		assert {'tunneld.8', 'tunneld.ini.5'} <= by_hand
		assert by_hand - {'tunneld.8', 'tunneld.ini.5'} <= {'tunneld-%s.8' % c for c in commands()}, by_hand
		for name in sorted(os.listdir(d)):
			page = open(os.path.join(d, name)).read()
			help_text = run(BIN, name[len('tunneld-'):-2], '--help')
			for option in re.findall(r'^ +(?:-\w, )?(--[a-z-]+)', help_text, re.M):
				assert option.lstrip('-') in page, (name, option)
			if shutil.which('mandoc'):
				said = subprocess.run(['mandoc', '-Tlint', '-Wwarning', os.path.join(d, name)], stdout=subprocess.PIPE).stdout.decode()
				faults = [line for line in said.splitlines() if 'new sentence' not in line]
				assert not faults, faults


@test('help: the exit codes of a sub-command are those that it can end with', 30, short=True)
def exit_codes():
	told = lambda *words: run(BIN, *words, '--help').partition('Exit code')[2]
	for name in ('agent', 'gateway', 'completion', 'reload', 'open', 'status'):
		assert '2 usage' in told(name) and '6 session lost' not in told(name), (name, told(name))
	for name in ('status', 'reload', 'drain', 'open', 'close', 'log-level'):
		assert '7 nothing runs' in told(name), (name, told(name))
	assert 'a node without its store' in ' '.join(told('status').split()) and '5 names, connections, TLS' in told('doctor')
	for name in ('connect', 'exec', 'forward', 'shell', 'list'):
		assert '4 target not connected' in told(name), (name, told(name))


@test('samples: what stands in comments passes as well, and every key is in the manual', 60)
def samples_in_full():
	page = open(os.path.join(ROOT, 'docs/man/tunneld.ini.5')).read()
	known = set(re.findall(r'^\.It Ic (\S+) = ', page, re.M))
	with tempfile.TemporaryDirectory() as d:
		for path in glob.glob(os.path.join(ROOT, 'conf/*.ini')):
			lines = [re.sub(r'^;(?=[a-z_0-9]+ = |\[)', '', line) for line in open(path)]
			text = re.sub('put-the-secret-of-\\S+', 'Zq7filled1n', ''.join(lines))
			keys = set(re.findall(r'^([a-z_0-9]+) = ', text, re.M))
			assert keys and keys <= known, keys - known
			copy = os.path.join(d, os.path.basename(path))
			with open(copy, 'w') as f:
				os.fchmod(f.fileno(), 0o600)
				f.write(text)
			run(BIN, '-t', '-c', copy)


@test('container: its file installs what there is, builds with a target that there is, and runs as the user that the package makes', 30, short=True)
def containerfile():
	text = open(os.path.join(ROOT, 'contrib', 'Containerfile')).read().replace('\\\n', ' ')
	steps = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith('#')]
	did = lambda word: [rest for verb, rest in steps if verb == word]
	built, installed = did('RUN')
	assert did('FROM')[0].split()[0] == did('FROM')[1], 'what is built runs on the same system'
	assert 'contrib/debian-packages.sh build' in built and re.search(r'\bmake\b.*\bdeb\b', built), built
	assert re.search(r'^deb:', open(os.path.join(ROOT, 'Makefile')).read(), re.M)
	assert [r.split()[0] for r in did('COPY')] == ['.', '--from=build'] and '/src/build/deb/*.deb' in did('COPY')[1], did('COPY')
	user = did('USER')[0]
	assert re.search(r'^u %s\b' % user, open(os.path.join(ROOT, 'contrib', 'systemd', 'tunneld.sysusers')).read(), re.M), user
	state = did('VOLUME')[0]
	assert did('ENV') == ['STATE_DIRECTORY=' + state] and '-o %s -g %s %s' % (user, user, state) in installed, installed
	# What the package needs comes with it: no systemd runs there.
	depends = open(os.path.join(ROOT, 'contrib', 'deb.sh')).read()
	assert 'systemd-standalone-sysusers |' in depends and 'systemd-standalone-tmpfiles |' in depends
	assert did('STOPSIGNAL') == ['SIGTERM'] and json.loads(did('ENTRYPOINT')[0]) == ['/usr/bin/tunneld'] and json.loads(did('CMD')[0])[0] == '-c'
