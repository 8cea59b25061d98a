"""In place of session-manager-plugin, under the aws command."""
import json
import os
import re
import signal
import subprocess
import time

from harness import BIN, REGION, SANITIZED, SLOW, TARGET, TOP, USER_KEY, Skip, World, clean_env, until
from peers import Terminal, aws_env, aws_start, child_of, me, run, sshd
from run import test
from services import Server, blob, connect, download, echo, free_port, ping, upload


class Session:
	"""aws ssm start-session with this program as plugin, its output read line by line."""

	def __init__(self, w, document, parameters):
		self.p = subprocess.Popen(aws_start(w, document, parameters), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
			env=aws_env(w), cwd=w.dir)
		self.text = ''

	def __enter__(self):
		return self

	def __exit__(self, *a):
		if self.p.poll() is None:
			try:
				os.kill(child_of(self.p.pid, 0.1), signal.SIGKILL)
			except (AssertionError, OSError):
				pass
			self.p.kill()
			self.p.wait()

	def line(self, pattern):
		while True:
			m = re.search(pattern, self.text)
			if m:
				return m
			raw = self.p.stdout.readline()
			if not raw:
				break
			self.text += raw.decode()
		raise AssertionError('no %r in %r' % (pattern, self.text))

	def interrupt(self):
		"""-> seconds until all is over, exit code of aws"""
		t = time.monotonic()
		os.kill(child_of(self.p.pid), signal.SIGINT)
		self.text += self.p.stdout.read().decode()
		self.p.wait(20 * SLOW)
		return time.monotonic() - t, self.p.returncode


@test('aws start-session, port and remote host: the lines scripts look for, bulk, SIGINT ends within 5 s', 90)
def ports():
	s = Server(blob)
	with World() as w:
		w.gateway()
		w.agent(allow='127.0.0.1:*, localhost:*')
		for document, more in (('AWS-StartPortForwardingSession', ''), ('AWS-StartPortForwardingSessionToRemoteHost', ',host=localhost')):
			local = free_port()
			with Session(w, document, 'portNumber=%d,localPortNumber=%d%s' % (s.port, local, more)) as a:
				sid = a.line(r'Starting session with SessionId: (\S+)')[1]
				assert int(a.line(r'Port (\d+) opened for sessionId ' + sid)[1]) == local
				a.line(r'Waiting for connections\.\.\.')
				with connect(local) as c:
					upload(c, 3000000)
				with connect(local) as c:
					download(c, 3000000)
				a.line(r'Connection accepted for session \[%s\]' % sid)
				seconds, code = a.interrupt()
				assert seconds < 5 * SLOW and code == 0, (seconds, code)
				assert 'Exiting session with sessionId: ' + sid in a.text, a.text
			assert not w.api().sessions()


@test('aws start-session: a port that nobody listens on, and TerminateSession by somebody else', 60)
def endings():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		with Session(w, 'AWS-StartPortForwardingSession', 'portNumber=%d,localPortNumber=0' % free_port()) as a:
			port = int(a.line(r'Port (\d+) opened')[1])
			a.line('Waiting')
			try:
				with connect(port) as c:
					assert c.recv(1) == b''
			except ConnectionResetError:
				pass
			a.line('Connection to destination port failed')
			assert a.interrupt()[1] == 0
		with Session(w, 'AWS-StartPortForwardingSession', 'portNumber=%d,localPortNumber=0' % e.port) as a:
			port = int(a.line(r'Port (\d+) opened')[1])
			a.line('Waiting')
			with connect(port) as c:
				ping(c)
				assert w.api().call('TerminateSession', {'SessionId': w.api().sessions()[0]['SessionId']})[0] == 200
				a.line('Exiting session with sessionId')
				assert a.p.wait(10 * SLOW) == 0


@test('aws start-session as ProxyCommand of OpenSSH', 60)
def openssh():
	with World() as w:
		port, opts = sshd(w)
		w.gateway()
		w.agent()
		env = aws_env(w)
		proxy = 'ProxyCommand=' + ' '.join(aws_start(w, 'AWS-StartSSHSession', 'portNumber=%p', '%h'))
		data = os.urandom(1000000)
		ssh = ['ssh'] + opts + ['-o', proxy, '-p', str(port), me() + '@' + TARGET]
		assert run(ssh + ['cat; exit 3'], w, env=env, input=data, ok=(3,)) == data
		until(lambda: not w.api().sessions(), 10, 'the session has ended')


@test('aws start-session: shell on a terminal, interactive and other commands', 90)
def shells():
	with World() as w:
		w.gateway()
		w.agent(shell=True, shell_user=me())
		env = aws_env(w)
		with Terminal(aws_start(w), env=env, cwd=w.dir) as t:
			t.expect('Starting session with SessionId: .*')
			t.expect(r'[#$%>] $')
			assert t.is_raw()
			t.type(b'echo A$((40+2))B; stty size\r')
			t.expect('A42B\r\n33 101')
			t.type(b'exit 3\r')
			assert t.end() == 0  # as with the stock plugin
			assert t.restored() and b'Exiting session' in t.out and b'EXIT_CODE' not in t.out, t.out
		with Terminal(aws_start(w, 'AWS-StartInteractiveCommand', 'command=echo I$((20+3))J'), env=env, cwd=w.dir) as t:
			t.expect('I23J')
			assert t.end() == 0 and t.restored()
		r = subprocess.run(aws_start(w, 'AWS-StartNonInteractiveCommand', 'command=ls -d /etc/passwd /nonexistent'), stdin=subprocess.DEVNULL,
			stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, timeout=40 * SLOW)
		assert r.returncode == 0, r  # aws takes anything else for a crash of its plugin
		assert b'\n/etc/passwd\n' in r.stdout and b'EXIT_CODE: 2\n' in r.stdout and b'/nonexistent' in r.stderr, r
		with Terminal(aws_start(w), env=env, cwd=w.dir) as t:
			t.expect(r'[#$%>] $')
			os.kill(child_of(t.p.pid), signal.SIGTERM)
			t.end()
			assert t.restored()
		until(lambda: not w.api().sessions(), 10, 'the sessions have ended')


@test('plugin: the answer from the environment, gone from there at once; --version; nonsense', 30)
def by_hand():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		env = aws_env(w)
		plugin = w.path('bin/session-manager-plugin')
		version = run([plugin, '--version'], w)
		assert re.fullmatch(rb'\d+\.\d+\.\d+\.\d+\n', version)
		for page in ('protocol.md', 'interop.md'):
			said = open(os.path.join(TOP, 'docs', page)).read()
			assert 'says %s as client' % version.decode().strip() in said, page
		assert b'installed successfully' in run([plugin], w)
		assert b'Invalid Operation' in run([plugin, '{}', REGION, 'NoSuch'], w, ok=(2,))
		assert b'Cannot perform start session' in run([plugin, '{}', REGION, 'StartSession'], w, ok=(2,))
		status, answer = w.api().start(TARGET, e.port)
		assert status == 200
		env['AWS_SSM_START_SESSION_RESPONSE'] = json.dumps(answer)
		p = subprocess.Popen([plugin, 'AWS_SSM_START_SESSION_RESPONSE', REGION, 'StartSession', '', '{"Target": "%s"}' % TARGET, w.url], env=env,
			stdout=subprocess.PIPE, cwd=w.dir)
		try:
			text = b''
			while b'Waiting for connections' not in text:
				text += p.stdout.readline()
			if os.geteuid() != 0:
				raise Skip('only root looks into its environment')
			assert answer['TokenValue'].encode() not in open('/proc/%d/environ' % p.pid, 'rb').read()
			assert SANITIZED or os.stat('/proc/%d/environ' % p.pid).st_uid == 0 and 'Max core file size        0' in open('/proc/%d/limits' % p.pid).read()
			assert USER_KEY.encode() in open('/proc/%d/environ' % p.pid, 'rb').read()  # that is how it would be seen
			with connect(int(re.search(rb'Port (\d+) opened', text)[1])) as c:
				ping(c)
			p.send_signal(signal.SIGINT)
			assert p.wait(10 * SLOW) == 0
		finally:
			p.kill()
			p.wait()
		until(lambda: not w.api().sessions(), 5, 'the session has ended')


@test('plugin: what the answer holds cannot steer the terminal', 30, short=True)
def steering():
	with World() as w:
		plugin = w.path('session-manager-plugin')
		os.symlink(BIN, plugin)

		def said(session, code):
			answer = {'SessionId': session, 'TokenValue': 'x', 'StreamUrl': 'wss://127.0.0.1:1/\x1b[2J'}
			r = subprocess.run([plugin, json.dumps(answer), REGION, 'StartSession', '', '{"Target": "i-1"}'], stdin=subprocess.DEVNULL,
				stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env(HOME=w.dir), cwd=w.dir, timeout=20 * SLOW)
			assert r.returncode == code and b'\x1b' not in r.stdout, r
			return r.stdout
		out = said('a\x1b[2Jb', 2)
		assert out.startswith(b'Cannot perform start session: ') and b'SessionId:' not in out, out
		out = said('ab', 5)
		assert b'SessionId: ab\n' in out and b'StreamUrl refused' in out, out


@test('plugin: the kind of session and the local address are the command line\'s, whatever the far end says', 60)
def own_word():
	with World() as w:
		w.gateway()
		w.agent(shell=True, shell_user=me())
		plugin = w.path('session-manager-plugin')
		os.symlink(BIN, plugin)

		def answer(document, parameters):
			status, a = w.api().call('StartSession', {'Target': TARGET, 'DocumentName': document, 'Parameters': parameters})
			assert status == 200, a
			return json.dumps(a)

		def start(a, **said):
			return subprocess.Popen([plugin, a, REGION, 'StartSession', '', json.dumps(dict({'Target': TARGET}, **said)), w.url], env=aws_env(w),
				cwd=w.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
		port = free_port()
		# A shell where a port was asked for.
		p = start(answer('AWS-StartInteractiveCommand', {'command': ['echo there']}), DocumentName='AWS-StartPortForwardingSession')
		out = p.communicate(timeout=20 * SLOW)[0]
		assert p.returncode == 5 and b'another kind of session' in out and b'there' not in out, (p.returncode, out)
		# A port that the far end would have liked to be another.
		p = start(answer('AWS-StartPortForwardingSession', {'portNumber': ['1'], 'localPortNumber': [str(port)]}),
			DocumentName='AWS-StartPortForwardingSession', Parameters={'portNumber': ['1']})
		try:
			text = b''
			while b'Waiting' not in text:
				line = p.stdout.readline()
				assert line, text
				text += line
			assert int(re.search(rb'Port (\d+) opened', text)[1]) != port, text
		finally:
			p.terminate()
			p.communicate(timeout=20 * SLOW)


class Plugin:
	"""The program under its plugin's name, with an answer of StartSession in hand."""

	def __init__(self, w, answer, profile, endpoint, env):
		self.p = subprocess.Popen([w.path('bin/session-manager-plugin'), json.dumps(answer), REGION, 'StartSession', profile,
			json.dumps({'Target': TARGET}), endpoint], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=w.dir)
		self.text = b''

	def __enter__(self):
		return self

	def __exit__(self, *a):
		self.p.kill()
		self.p.communicate()

	def port(self):
		while b'Waiting for connections' not in self.text:
			line = self.p.stdout.readline()
			assert line, self.text + self.p.stderr.read()
			self.text += line
		return int(re.search(rb'Port (\d+) opened', self.text)[1])

	def interrupt(self):
		self.p.send_signal(signal.SIGINT)
		assert self.p.wait(10 * SLOW) == 0
		return self.p.stderr.read()


@test("plugin: the answer of aws ecs execute-command; ECS's endpoint is asked for nothing; a profile that nobody has", 40)
def ecs():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		env = aws_env(w)

		def session(profile, endpoint, lower, **more):
			status, answer = w.api().start(TARGET, e.port)
			assert status == 200
			if lower:
				answer = {k[0].lower() + k[1:]: v for k, v in answer.items()}
			with Plugin(w, answer, profile, endpoint, dict(env, **more)) as p:
				with connect(p.port()) as c:
					ping(c)
				err = p.interrupt()
			until(lambda: not w.api().sessions(), 5, 'the session has ended')
			return err
		nobody = 'https://127.0.0.1:%d' % free_port()
		err = session('', nobody, True, AWS_ENDPOINT_URL_SSM=w.url)
		assert not err, err
		err = session('env', w.url, False)
		assert b'profile env is in neither' in err and b'the keys of the environment are used' in err, err
		with open(w.path('config'), 'w') as f:
			f.write('[profile other] // a note that somebody left\nregion: us-east-1\n[profile odd]\nwhat is this\n')
		err = session('', w.url, False, AWS_CONFIG_FILE=w.path('config'))
		assert b'config:4: neither KEY = VALUE nor [SECTION]' in err, err
		# Nothing to sign with: the session comes about, and what has to be signed says why it cannot be.
		status, answer = w.api().start(TARGET, e.port)
		for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'):
			del env[name]
		with Plugin(w, answer, 'nobody', w.url, env) as p:
			with connect(p.port()) as c:
				ping(c)
			assert b'a call that must be signed will fail' in p.interrupt()
		# Told not to look for keys it does not: this process would have been run for them.
		with open(w.path('config'), 'w') as f:
			f.write('[default]\ncredential_process = touch %s; exit 1\n' % w.path('was-run'))
		for skip in ('true', 'no'):
			status, answer = w.api().start(TARGET, e.port)
			with Plugin(w, answer, '', w.url, dict(env, AWS_CONFIG_FILE=w.path('config'), SSM_PLUGIN_SKIP_CLIENT_CONFIGURE=skip)) as p:
				with connect(p.port()) as c:
					ping(c)
				assert os.path.exists(w.path('was-run')) == (skip != 'true'), skip
