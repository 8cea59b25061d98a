"""The command line, what it says and its exit codes; configuration files on disk; manual pages, units and samples."""
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile

from harness import BIN, SLOW, Skip, certificates, clean_env, need
from run import test

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROLES = ('agent', 'gateway', 'local')


def run(*argv, env=None, cwd=None, code=None, preexec=None, program=BIN):
	e = clean_env()
	e.update(env or {})
	r = subprocess.run((program,) + argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=e, cwd=cwd, timeout=20 * SLOW,
		preexec_fn=preexec)
	out, err = r.stdout.decode(), r.stderr.decode()
	assert code is None or r.returncode == code, '%s: exit %d, wanted %d\n%s%s' % (argv, r.returncode, code, out, err)
	return out, err


class Dir:
	def __enter__(self):
		self.dir = tempfile.mkdtemp(prefix='tunneld-cli-')
		return self

	def __exit__(self, *a):
		shutil.rmtree(self.dir, ignore_errors=True)

	def write(self, name, text, mode=0o600):
		path = os.path.join(self.dir, name)
		with open(path, 'w') as f:
			f.write(text)
		os.chmod(path, mode)
		return path


@test('command line: --help and --version of tunneld and of each sub-command', 30, short=True)
def help_version():
	out, err = run('--help', code=0)
	assert out.startswith('usage: tunneld') and not err
	commands = re.findall(r'^  ([a-z-]+) {2,}\S', out, re.M)
	assert out.index('--options') < out.index('Signals:')
	assert set(ROLES) | {'status'} <= set(commands), commands
	for c in commands:
		for flag in ('--help', '-h'):
			text, err = run(c, flag, code=0)
			assert text.startswith('usage: tunneld %s' % c) and not err, (c, text, err)
		assert run(c, '--version', code=0)[0] == run('--version', code=0)[0]
	assert re.fullmatch(r'tunneld \d+\.\d+\.\d+\n', run('--version', code=0)[0])
	assert run('-V', code=0)[0] == run('--version', code=0)[0]


@test('command line: what is not known ends with 2 and a hint on stderr', 30, short=True)
def usage():
	for argv in (['--nonsense'], ['-x'], ['nonsense'], ['agent', '--nonsense'], ['gateway', '-x'], ['gateway', 'extra'], ['local', '-c'], ['local', '--target'],
			['local', '--target', 'nowhere'], ['local', '--target', '127.0.0.1:70000'], ['local', '--listen', '127.0.0.1:0'], ['status', '--json=1'],
			['-t', '-c', 'a', 'agent'], ['status', '--json', '--watch'], ['status', '--wait', 'down'], ['log-level', 'loud'], ['open'], ['reload', 'nobody'], ['-t', '-c', 'a', '-c', 'b'], ['agent', '-t=1']):
		out, err = run(*argv, code=2)
		assert not out, (argv, out)
		assert err.startswith('tunneld: ') and '\ntry: tunneld ' in err, (argv, err)


@test('command line: output that cannot be written is a failure', 30, short=True)
def full():
	for argv in (['--help'], ['--options'], ['status', '--help']):
		with open('/dev/full', 'w') as f:
			r = subprocess.run([BIN] + argv, stdout=f, stderr=subprocess.PIPE, env=clean_env(), timeout=20 * SLOW)
		assert r.returncode == 1 and b'cannot write the output' in r.stderr, (argv, r)


@test('forward: a -L that is none is told as it was written', 30, short=True)
def forward_spec():
	for spec in ('80', 'x:localhost:80', '0:localhost:http', '1:2:3:4:5', '127.0.0.1::localhost:80', '0:localhost:80;'):
		out, err = run('forward', '-L', spec, 'i-0123456789abcdef0', env={'AWS_REGION': 'eu-west-1'}, code=2)
		assert not out and err == 'tunneld forward: -L %s: not [bind:]port:host:hostport or [bind:]port:/path, with numbers or LOW-HIGH for ports\n' % spec, err


@test('shell: a command that is too long is refused, and no shell takes its place', 30, short=True)
def long_command():
	for words in (['x' * 70000], ['x' * 999] * 70):
		out, err = run('shell', 'i-0123456789abcdef0', '--', *words, env={'AWS_REGION': 'eu-west-1'}, code=2)
		assert not out and err == 'tunneld shell: the command is longer than 64 KiB\n', err


@test('configuration: which file is taken, and what is said when there is none', 30)
def which_file():
	with Dir() as d:
		good = '[tunnel a]\nlisten = 127.0.0.1:0\ntarget = i-1\nport = 1\n'
		home = {'HOME': d.dir}
		out, err = run('-t', env=home)
		assert 'there is no configuration' in err or '/etc/tunneld/' in out + err
		os.makedirs(d.dir + '/.config/tunneld')
		mine = d.write('.config/tunneld/tunneld.ini', good)
		assert run('-t', env=home, code=0)[0] == mine + ': ok\n'
		other = d.write('other.ini', good)
		assert run('-t', env=dict(home, TUNNELD_CONFIG=other), code=0)[0] == other + ': ok\n'
		assert run('-t', '-c', mine, env=dict(home, TUNNELD_CONFIG=other), code=0)[0] == mine + ': ok\n'
		for name, text in (('absent.ini', 'No such file or directory'), ('.', 'is a directory')):
			out, err = run('-t', '-c', os.path.join(d.dir, name), code=2)
			assert text in err and not out, err
		# From a pipe, as the shell makes them.
		r = subprocess.run('cat %s | %s -t -c /dev/stdin' % (other, shlex.quote(BIN)), shell=True, stdout=subprocess.PIPE, env=clean_env())
		assert r.returncode == 0 and r.stdout == b'/dev/stdin: ok\n', r


@test('configuration: a file that may not be read', 30)
def unreadable():
	def nobody():
		if os.getuid() == 0:
			os.setgid(65534)
			os.setuid(65534)
	with Dir() as d:
		os.chmod(d.dir, 0o755)
		shut = d.write('shut.ini', '[tunnel a]\nlisten = 127.0.0.1:0\ntarget = i-1\nport = 1\n', 0)
		# A copy: the tree may lie where other users cannot enter, and so may $TMPDIR.
		program = shutil.copy(BIN, d.dir)
		os.chmod(program, 0o755)
		try:
			out, err = run('-t', '-c', shut, program=program, cwd='/', preexec=nobody, code=2)
		except PermissionError as e:
			raise Skip('other users cannot run a program in %s: %s' % (d.dir, e.strerror))
		except subprocess.SubprocessError as e:
			raise Skip('nothing can be run as another user here: %s' % e)
		assert err == shut + ': cannot read the configuration: Permission denied\n', err


@test('configuration: every mistake of a file is told with its line, exit 2, also for each role', 30, short=True)
def mistakes():
	with Dir() as d:
		bad = d.write('bad.ini', '[tunneld]\nlog_level = loud\n[tunnel a]\nlisten = 127.0.0.1:1\nport = 0\nprot = 5\n\n[agent]\nallow = x\n[gateway]\n'
			'listen = 127.0.0.1:1\nidle_timeout = 5\n[nonsense]\n')
		want = [2, 3, 5, 6, 8, 9, 10, 10, 11, 12, 13]
		for argv in (('-t', '-c', bad), ('agent', '-t', '-c', bad), ('gateway', '-t', '-c', bad), ('-c', bad), ('agent', '-c', bad), ('gateway', '-c', bad)):
			out, err = run(*argv, env={'STATE_DIRECTORY': d.dir + '/state'}, code=2)
			lines = [re.match(re.escape(bad) + r':(\d+): \S', line) for line in err.splitlines() if not line.startswith('warning: ')]
			assert all(lines), err
			assert [int(m.group(1)) for m in lines] == want, err
			assert 'ok' not in out
		# The section of the role must be there.
		only = d.write('only.ini', '[agent]\ninstance_id = i-1\n')
		assert run('-t', '-c', only, code=0)[0] == only + ': ok\n'
		assert 'no [gateway]' in run('gateway', '-t', '-c', only, code=2)[1]
		assert 'no [tunnel NAME]' in run('-c', only, code=2)[1]
		assert run('-t', '-c', d.write('empty.ini', ''), code=2)[1]


@test('configuration: private keys and secrets that others can read', 30, short=True)
def permissions():
	with Dir() as d:
		text = ('[gateway]\nlisten = 127.0.0.1:0\ncertificate = c.pem\nprivate_key = k.pem\n[user u]\naccess_key_id = A\nsecret_access_key = s-of-tests\n'
			'targets = *\n[instance i-1]\naccess_key_id = B\nsecret_access_key = s-of-tests\n')
		conf = d.write('g.ini', text)
		shutil.copy(os.path.join(certificates(), 'gateway.pem'), d.dir + '/c.pem')
		key = d.write('k.pem', open(os.path.join(certificates(), 'gateway.key')).read(), 0o644)
		out, err = run('gateway', '-t', '-c', conf, code=2)
		assert err.startswith(conf + ':4: private_key: others can read ' + key) and err.count('\n') == 1, err
		os.chmod(key, 0o600)
		assert run('gateway', '-t', '-c', conf, code=0) == (conf + ': ok\n', '')
		os.chmod(conf, 0o644)
		out, err = run('gateway', '-t', '-c', conf, code=0)
		assert err.startswith('warning: ') and 'others can read the secrets' in err and err.count('\n') == 1, err
		# Nor may they change anything that is relied on.
		os.chmod(conf, 0o602)
		out, err = run('gateway', '-t', '-c', conf, code=2)
		assert 'everybody can change this file' in err, err
		os.chmod(conf, 0o600)
		os.chmod(d.dir + '/c.pem', 0o646)
		out, err = run('gateway', '-t', '-c', conf, code=2)
		assert err.startswith(conf + ':3: certificate: everybody can change ' + d.dir + '/c.pem') and err.count('\n') == 1, err
		os.chmod(d.dir + '/c.pem', 0o644)
		if os.geteuid() == 0:
			os.chown(conf, 65534, 65534)
			out, err = run('gateway', '-t', '-c', conf, code=0)
			assert 'root runs on what user 65534 can change' in err and err.count('\n') == 1, err
			os.chown(conf, 0, 65534)
			os.chmod(conf, 0o660)
			out, err = run('gateway', '-t', '-c', conf, code=0)
			assert 'group 65534 can change this file' in err and err.count('\n') == 1, err
			os.chown(conf, 0, 0)
		os.chmod(conf, 0o644)
		# Without secrets nobody needs to be warned.
		assert run('-t', '-c', d.write('p.ini', '[agent]\ninstance_id = i-1\n', 0o644), code=0)[1] == ''
		# What -t lets pass with a warning keeps the role from starting.
		os.unlink(key)
		out, err = run('gateway', '-t', '-c', conf, code=0)
		assert 'warning: ' + conf + ':4: private_key: cannot read' in err
		out, err = run('gateway', '-c', conf, env={'STATE_DIRECTORY': d.dir + '/state'}, code=2)
		assert conf + ':4: private_key: cannot read' in err


@test('state directory: closed to others, locked by its process, told when it cannot be made', 30)
def state_directory():
	with Dir() as d:
		conf = d.write('a.ini', '[agent]\ninstance_id = i-1\n')
		d.write('file', '')
		out, err = run('agent', '-c', conf, env={'STATE_DIRECTORY': d.dir + '/file/x'}, code=1)
		assert 'cannot make the state directory' in err and 'state_dir' in err, err
		out, err = run('status', env={'STATE_DIRECTORY': d.dir + '/none'}, code=7)
		assert 'nothing is running' in err
		assert json.loads(run('status', '--json', env={'STATE_DIRECTORY': d.dir + '/none'}, code=7)[0]) == []


@test('completion in a bash: commands, options, names of the configuration, files', 30)
def completion():
	with Dir() as d:
		conf = d.write('c.ini', '[tunnel postgres]\nlisten = 127.0.0.1:1\ntarget = i-0aaa\nport = 2\n[alias web1]\ntarget = i-0bbb\n')
		d.write('file one', '')
		script = run('completion', 'bash', code=0)[0]
		for shell in ('zsh', 'fish'):
			assert '__complete' in run('completion', shell, code=0)[0]
		run('completion', code=2)
		run('completion', 'ksh', code=2)

		def complete(*words, **env):
			"""As bash does it: the candidates of the last word."""
			line = ' '.join("'%s'" % w for w in words)
			r = subprocess.run(['bash', '--norc', '-c', script + '\nCOMP_WORDS=(%s %s); COMP_CWORD=%d; _tunneld; printf "%%s\\n" "${COMPREPLY[@]}"' % (BIN, line, len(words))],
				stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(TUNNELD_CONFIG=conf, PATH=os.environ['PATH'], HOME=d.dir, **env), cwd=d.dir, timeout=20 * SLOW)
			assert r.returncode == 0 and not r.stderr, r.stderr
			return set(r.stdout.decode().split('\n')) - {''}

		assert {'agent', 'gateway', 'connect', 'status', 'init'} <= complete('')
		assert complete('sta') == {'status'} and complete('--opt') == {'--options'}
		assert complete('connect', '') == {'postgres', 'web1', 'i-0aaa'} and complete('connect', 'po') == {'postgres'}
		assert complete('open', '') == {'postgres'} and complete('status', 'g') == {'gateway'}
		assert {'--json', '--watch', '--wait', '--config'} <= complete('status', '--')
		assert complete('status', '--wa') == {'--watch', '--wait'}
		for word in ('agent', 'connect', 'doctor', 'exec', 'forward', 'init', 'list', 'open', 'shell', 'status', 'completion'):
			assert complete(word, '--he') == {'--help'} and complete(word, '--vers') == {'--version'}, word
		r = run('__complete', '--', 'init', '--', code=0)[0].split('\n')
		assert len(r) == len(set(r)) and {'--host', '--ca-file'} <= set(r), r  # each once
		assert complete('init', '--ca-file', 'fi') == {'file one'} and complete('log-level', 'info', 'g') == {'gateway'}
		assert complete('log-level', '') == {'error', 'warn', 'info', 'debug'}
		assert complete('status', '-c', 'fi') == {'file one'}
		assert complete('nothing', '') == set()
		assert complete('connect', '--select', 'n') == {'newest'} and complete('--options', 'log_f') == {'log_format'}
		# As bash takes words apart: the answer goes behind the last : or =.
		os.makedirs(d.dir + '/cache/tunneld')
		d.write('cache/tunneld/instances', 'i-0ccc\nname:web-1\ntag:Name=db\ntag:Name=web\n'
			# Peers choose these: nothing that a shell would run.
			'tag:Name=$(id)\ntag:Name=`id`\ntag:Name=w;id\ntag:Name=w id\ntag:Name=*\ntag:Name=w\x1b[31m\ntag:Name=w\u202ex\n')
		cached = dict(XDG_CACHE_HOME=d.dir + '/cache')
		assert complete('shell', 'i-0', **cached) == {'i-0aaa', 'i-0ccc'}
		assert complete('shell', 'tag', ':', 'Na', **cached) == {'Name=db', 'Name=web'}
		assert complete('shell', 'tag', ':', **cached) == {'Name=db', 'Name=web'}
		assert complete('shell', 'tag', ':', 'Name', '=', **cached) == {'db', 'web'}
		assert complete('shell', 'tag', ':', 'Name', '=', 'w', **cached) == {'web'}
		assert complete('shell', 'tag:Name=w', **cached) == {'tag:Name=web'}
		d.write('c.ini', '[tunnel\n')
		assert complete('connect', '') == set()  # a configuration with mistakes is no reason for noise


@test('completion in zsh and fish: the same names', 30)
def other_shells():
	with Dir() as d:
		conf = d.write('c.ini', '[tunnel postgres]\nlisten = 127.0.0.1:1\ntarget = i-0aaa\nport = 2\n')
		os.symlink(BIN, d.dir + '/tunneld')
		env = clean_env(TUNNELD_CONFIG=conf, PATH=d.dir + ':' + os.environ['PATH'], HOME=d.dir)
		fish = ["fish", "--no-config", "-c", run('completion', 'fish', code=0)[0] + "\ncomplete -C 'tunneld connect p'; complete -C 'tunneld stat'"]
		zsh = ['zsh', '-f', '-c', 'compdef() { }; _files() { print files }; compadd() { print -l -- $out }\n' + run('completion', 'zsh', code=0)[0] +
			'\nwords=(tunneld connect p); CURRENT=3; _tunneld; words=(tunneld stat); CURRENT=2; _tunneld; words=(tunneld agent -c x); CURRENT=4; _tunneld']
		asked = 0
		for argv, wanted in ((fish, ['postgres', 'status']), (zsh, ['postgres', 'status', 'files'])):
			if not shutil.which(argv[0]):
				continue
			r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=d.dir, timeout=20 * SLOW)
			assert r.stdout.decode().split() == wanted, (argv[0], r)
			asked += 1
		if asked < 2:
			raise Skip('fish or zsh is not installed (contrib/debian-packages.sh test)')


@test('make install and make uninstall: what the one puts there the other takes away', 60)
def install():
	with Dir() as d:
		argv = ['make', '-s', 'BUILD=' + os.path.dirname(BIN), 'DESTDIR=' + d.dir, 'PREFIX=/usr']
		there = lambda: sorted(os.path.relpath(os.path.join(at, f), d.dir) for at, _, files in os.walk(d.dir) for f in files)
		subprocess.run(argv + ['install'], check=True, cwd=ROOT, stdout=subprocess.DEVNULL, umask=0o077, timeout=60 * SLOW)
		files = there()
		for f in ('usr/bin/tunneld', 'usr/share/man/man8/tunneld.8', 'usr/share/doc/tunneld/LICENSE', 'usr/lib/systemd/system/tunneld.service',
				'usr/share/bash-completion/completions/tunneld', 'usr/share/doc/tunneld/examples/rules.yml'):
			assert f in files, (f, files)
		for f in files:
			mode = os.stat(os.path.join(d.dir, f)).st_mode & 0o777
			assert mode == (0o755 if f.endswith('bin/tunneld') else 0o644), (f, oct(mode))
		d.write('usr/bin/other', '')
		subprocess.run(argv + ['uninstall'], check=True, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=60 * SLOW)
		assert there() == ['usr/bin/other'], there()


@test('samples: each file in conf/ passes once its secrets are filled in, alone and for its role', 30)
def samples():
	with Dir() as d:
		for name, argv in (('forwarder', ()), ('agent', ('agent',)), ('gateway', ('gateway',))):
			sample = os.path.join(ROOT, 'conf', name + '.ini')
			out, err = run('-t', '-c', sample, code=2)
			lines = [l for l in err.splitlines() if not l.startswith('warning: ')]
			text = open(sample).read()
			assert lines and len(lines) == text.count('put-the-secret-of-') and all("is the sample's" in l for l in lines), err
			path = d.write(name + '.ini', re.sub('put-the-secret-of-\\S+', 'Zq7filled1n', text))
			assert run('-t', '-c', path, code=0)[0] == path + ': ok\n'
			assert run(*argv, '-t', '-c', path, code=0)[0] == path + ': ok\n'


def options():
	"""{(section, key): rest of its line} as the program lists them."""
	found, section = {}, None
	for line in run('--options', code=0)[0].splitlines():
		if line.startswith('['):
			section = line.strip('[]')
		elif line.strip():
			key, rest = line.split(None, 1)
			assert (section, key) not in found
			found[section, key] = rest
	assert len(found) > 70
	return found


@test('manual: tunneld.ini(5) has every key with its default, and no other', 30)
def manual_keys():
	known, told, section, key = options(), {}, None, None
	for line in open(os.path.join(ROOT, 'docs/man/tunneld.ini.5')):
		m = re.match(r'\.Ss Section (.*)$', line)
		if m:
			section = m.group(1)
		m = re.match(r'\.It Ic (\S+) = Ar (.*)$', line)
		if m:
			key = m.group(1)
			assert (section, key) not in told, (section, key)
			told[section, key] = ''
		elif section and key and (section, key) in told:
			told[section, key] += line
	assert set(known) == set(told), 'only one of program and page has %s' % sorted(set(known) ^ set(told))
	for which, rest in known.items():
		text = told[which]
		m = re.search(r'^Default: (.*)\.$', text, re.M)
		words = rest.split()
		if m:
			assert m.group(1) in words, (which, rest, text)
		elif '\nRequired.' in '\n' + text:
			assert 'required' in words, (which, rest)
		else:
			assert ' - ' in rest, (which, rest, text)


@test('manual: sections, keys and values of the examples pass; mandoc finds no fault', 30)
def manual_lint():
	page = open(os.path.join(ROOT, 'docs/man/tunneld.ini.5')).read()
	examples = re.findall(r'^\.Bd -literal[^\n]*\n(.*?)^\.Ed', page, re.M | re.S)
	assert len(examples) >= 2
	with Dir() as d:
		for text in examples:
			run('-t', '-c', d.write('example.ini', text), code=0)
	if not shutil.which('mandoc'):
		raise Skip('mandoc is not installed (contrib/debian-packages.sh test)')
	for name in ('tunneld.8', 'tunneld.ini.5'):
		r = subprocess.run(['mandoc', '-Tlint', os.path.join(ROOT, 'docs/man', name)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
		# Whether other pages are installed on this machine is not this page's fault.
		faults = [line for line in r.stdout.decode().splitlines() if 'referenced manual not found' not in line]
		assert not faults, '\n'.join(faults)


@test('manual: every sub-command and long option of --help is in tunneld(8)', 30)
def manual_commands():
	page = open(os.path.join(ROOT, 'docs/man/tunneld.8')).read()
	out = run('--help', code=0)[0]
	for c in re.findall(r'^  ([a-z-]+) {2,}\S', out, re.M):
		assert re.search(r'\.Cm (\w+ \| )*%s\b' % re.escape(c), page), 'tunneld(8) lacks the command %s' % c
		for o in re.findall(r'^ {2,}(?:-\w, )? *--([a-z-]+)', run(c, '--help', code=0)[0], re.M):
			assert re.search(r'\bFl -%s\b|, -%s\b' % (o, o), page), 'tunneld(8) lacks --%s of %s' % (o, c)


@test('systemd: the units pass systemd-analyze verify and point at the installed program', 60)
def units():
	need('systemd-analyze')
	with Dir() as d:
		program = os.path.join(d.dir, 'tunneld')
		os.symlink(BIN, program)  # its own path may have characters that a unit would have to escape
		for name in sorted(n for n in os.listdir(os.path.join(ROOT, 'contrib/systemd')) if n.endswith('.service')):
			text = open(os.path.join(ROOT, 'contrib/systemd', name)).read()
			assert 'Type=notify' in text and '/usr/local/bin/tunneld' in text and '$MAINPID' in text
			# The same options as the program's.
			for line in re.findall(r'^Exec\w+=/usr/local/bin/tunneld (.*)$', text, re.M):
				argv = line.split()
				assert argv[0] in ('-c', '-t', 'agent', 'gateway'), line
			path = d.write(name, text.replace('/usr/local/bin/tunneld', program), 0o644)
			r = subprocess.run(['systemd-analyze', 'verify', path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env())
			said = [line for line in r.stdout.decode().splitlines() if os.path.basename(path) in line]
			assert r.returncode == 0 and not said, r.stdout.decode()
