"""connect, exec and forward on the session of a daemon that runs with the same configuration."""
import hashlib
import json
import os
import random
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time

from harness import BIN, REGION, SLOW, TARGET, USER_KEY, USER_SECRET, World, clean_env, ini, until
from peers import Terminal, me, run, sshd
from run import test
from services import Server, connect, echo, fds, free_port, ping

SERVED = 'served by the daemon'


def write(w, port, name='one', tunnels=None, aliases=None, aws=None, **top):
	a = {'region': REGION, 'ssm_endpoint': w.url, 'ca_file': 'ca.pem', 'access_key_id': USER_KEY, 'secret_access_key': USER_SECRET}
	a.update(aws or {})
	keys = {'state_dir': w.path('state-' + name), 'log_level': 'debug'}
	keys.update(top)
	sections = [('tunneld', keys), ('aws', a)]
	for n, more in (tunnels if tunnels is not None else {'db': {}}).items():
		t = {'listen': '127.0.0.1:0', 'target': TARGET, 'port': port}
		t.update(more)
		sections.append(('tunnel ' + n, t))
	for n, more in (aliases if aliases is not None else {'far': {}}).items():
		t = {'target': TARGET, 'port': port}
		t.update(more)
		sections.append(('alias ' + n, t))
	return ini(w.path(name + '.ini'), sections)


def daemon(w, conf, name='forwarder', **kw):
	f = w.proc(name, [BIN, '-c', conf], **kw)
	f.wait_note('READY=1')
	return f


class Connect:
	"""A running connect with pipes; `served`: did the daemon take it?"""

	def __init__(self, w, conf, words, word='connect', env=None):
		self.err = open(w.path('err-%d' % random.getrandbits(40)), 'a+b')
		self.p = subprocess.Popen([BIN, word, '-v', '-c', conf] + words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.err,
			env=clean_env(**(env or {})), cwd=w.dir)

	def __enter__(self):
		return self

	def __exit__(self, *a):
		self.p.kill()
		self.p.wait()
		for f in (self.p.stdin, self.p.stdout, self.err):
			try:
				f.close()
			except BrokenPipeError:
				pass

	def ping(self, data=b'hello'):
		self.p.stdin.write(data)
		self.p.stdin.flush()
		got = b''
		while len(got) < len(data):
			part = os.read(self.p.stdout.fileno(), len(data) - len(got))
			assert part, self.said()
			got += part
		assert got == data

	def said(self):
		self.err.seek(0)
		return self.err.read().decode()

	def served(self):
		"""Its word on that may come later than the first bytes."""
		until(lambda: re.search('by the daemon|does not serve|session ready', self.said()), 10, 'a word on who serves')
		return SERVED in self.said()

	def end(self, timeout=20):
		self.p.stdin.close()
		return self.p.wait(timeout * SLOW)


def ended(w, conf, words, code, text, served=True, word='connect', **kw):
	r = subprocess.run([BIN, word, '-v', '-c', conf] + words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=w.dir,
		env=clean_env(**kw), timeout=40 * SLOW)
	err = r.stderr.decode()
	assert r.returncode == code and re.search(text, err) and (SERVED in err) == served, (words, r.returncode, r.stdout, err)


@test('one-shot: connect on the daemon\'s session by tunnel and alias: one session for all, every byte and both ends, nothing left', 90)
def connects():
	def digest(sock):
		h = hashlib.sha256()
		while True:
			got = sock.recv(65536)
			if not got:
				break
			h.update(got)
		sock.sendall(h.hexdigest().encode())
	e, d = Server(echo), Server(digest)
	with World() as w:
		g = w.gateway()
		w.agent()
		conf = write(w, e.port, aliases={'far': {}, 'sum': {'port': d.port}})
		f = daemon(w, conf)
		for name in ('db', 'far'):
			cs = [Connect(w, conf, [name]) for _ in range(5)]
			for c in cs:
				c.ping()
				assert c.served(), c.said()
			assert len(w.api().sessions()) == 1  # db and far are alike
			for c in cs:
				assert c.end() == 0
				c.__exit__()
		before = fds(f.pid)
		data = random.Random(2).randbytes(3000000)
		for _ in range(3):
			assert run([BIN, 'connect', '-c', conf, 'sum'], w, input=data).decode() == hashlib.sha256(data).hexdigest()
		assert len(w.api().sessions()) == 2
		with Connect(w, conf, ['far']) as c:  # a link that breaks is the daemon's affair
			c.ping()
			g.kill9()
			g = w.gateway()
			c.ping(b'again')
			c.p.send_signal(signal.SIGTERM)
			assert c.p.wait(10 * SLOW) == 0
		with Connect(w, conf, ['far']) as c:
			c.ping()
			c.p.kill()  # with no word
		assert e.wait_open(0)
		until(lambda: len(fds(f.pid)) <= len(before) + 1, 10, 'descriptors given back')  # one more link: the session of sum
		t = {x['name']: x for x in w.status(f)[0]['forwarder']['tunnels']}
		assert t['sum']['one_shot'] and not t['sum']['listen'] and t['sum']['connections'] == 0, t
		assert re.search(r'^sum +for commands ', subprocess.run([BIN, 'status', '-c', conf], stdout=subprocess.PIPE, env=clean_env()).stdout.decode(), re.M)
		assert f.stop() == 0
		until(lambda: not w.api().sessions(), 10, 'sessions ended')


@test('one-shot: ten ssh through an alias of the daemon on one session; a terminal and a socket as input; flags given back', 90)
def ssh():
	with World() as w:
		port, opts = sshd(w)
		w.gateway()
		w.agent()
		e = Server(echo)
		conf = write(w, e.port, aliases={'web': {'port': port}})
		daemon(w, conf)
		proxy = 'ProxyCommand=%s connect -c %s web %%p' % (shlex.quote(BIN).replace('%', '%%'), conf)
		argv = ['ssh'] + opts + ['-o', proxy, '-p', str(port), me() + '@web']
		data = os.urandom(500000)
		ps = [subprocess.Popen(argv + ['cat; exit 7'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_env(), cwd=w.dir) for _ in range(10)]
		for p in ps:
			out, _ = p.communicate(data, timeout=40 * SLOW)
			assert out == data and p.returncode == 7
		assert len(w.api().sessions()) == 1
		# A terminal: echoed back, blocking again afterwards.
		with Terminal([BIN, 'connect', '-v', '-c', conf, 'db'], cwd=w.dir) as t:
			t.expect('served by the daemon')
			t.type(b'one\r')
			t.expect(r'one\r\n[^\0]*one\r\n')
			t.type(b'\x04')
			assert t.end() == 0
			assert os.get_blocking(t.slave)
		# A socket, as some programs have it: its end shows at the other end.
		a, b = socket.socketpair()
		p = subprocess.Popen([BIN, 'connect', '-c', conf, 'db'], stdin=b, stdout=b, env=clean_env(), cwd=w.dir)
		b.close()
		a.sendall(b'x' * 100000)
		a.shutdown(socket.SHUT_WR)
		got = b''
		while True:
			part = a.recv(65536)
			if not part:
				break
			got += part
		assert got == b'x' * 100000 and p.wait(10 * SLOW) == 0
		a.close()


@test('one-shot: failures have the exit codes and words that they have without a daemon; one that is killed ends with 6', 90)
def codes():
	e = Server(echo)
	with World() as w:
		w.gateway()
		a = w.agent(allow='127.0.0.1:%d' % e.port)
		dead = free_port()
		conf = write(w, e.port, aliases={'far': {}, 'bad': {'secret_access_key': 'wrong-one', 'access_key_id': USER_KEY}, 'gone': {'target': 'i-00000000000000bad'},
			'denied': {'port': 1}, 'dead': {'port': dead}})
		f = daemon(w, conf)
		ended(w, conf, ['bad'], 3, '[Ss]ignature')
		ended(w, conf, ['gone'], 4, 'tunneld connect: i-00000000000000bad: .*TargetNotConnected|not connected')
		ended(w, conf, ['denied'], 5, 'tunneld connect: %s: connection to port 1 refused: ' % TARGET)
		with Connect(w, conf, ['far']) as c:
			c.ping()
			c.p.stdout.close()
			c.p.stdin.write(b'more')
			c.p.stdin.flush()
			assert c.p.wait(20 * SLOW) == 1 and 'closed by its reader' in c.said(), c.said()
		with Connect(w, conf, ['far']) as c:
			c.ping()
			a.kill9()
			a = w.agent(name='agent-2', allow='127.0.0.1:*')
			assert c.p.wait(30 * SLOW) == 6 and 'session lost: ' in c.said(), c.said()
		ended(w, conf, ['dead'], 5, 'refused')
		with Connect(w, conf, ['far']) as c:
			c.ping()
			f.kill9()
			assert c.p.wait(20 * SLOW) == 6 and 'session lost: the daemon that served it has ended' in c.said(), c.said()
		with Connect(w, conf, ['far']) as c:  # its socket is still there
			c.ping()
			assert not c.served()


@test('one-shot: who is not served does all of it by itself: one_shot = no, other keys, a changed file, a closed tunnel, a drain', 90)
def not_served():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()

		def own(conf, words, env=None, why=''):
			with Connect(w, conf, words, env=env) as c:
				c.ping()
				assert not c.served() and (not why or re.search('the daemon does not serve this: .*' + why, c.said())), c.said()
				assert c.end() == 0
		conf = write(w, e.port, tunnels={'db': {}, 'no': {'one_shot': 'no'}, 'two': {'max_connections': 1}})
		f = daemon(w, conf)
		own(conf, ['no'])
		own(conf, ['db', str(Server(echo).port)], why='leads elsewhere')
		run([BIN, 'close', '-c', conf, 'db'], w)
		own(conf, ['db'], why='closed')
		with Connect(w, conf, ['two']) as c:
			c.ping()
			own(conf, ['two'], why='max_connections')
			other = Server(echo)
			write(w, other.port, tunnels={'db': {}, 'no': {}, 'two': {'max_connections': 1}, 'new': {}})
			own(conf, ['new'], why='no such tunnel')
			own(conf, ['far'], why='leads elsewhere')
			run([BIN, 'reload', '-c', conf], w)
			with Connect(w, conf, ['far']) as d:
				d.ping()
				assert d.served() and other.wait_open(1), d.said()
			f.signal(signal.SIGTERM)
			f.wait_log('draining')
			own(conf, ['far'], why='draining')
			c.ping()
		assert f.wait() == 0
		env = {'AWS_ACCESS_KEY_ID': USER_KEY, 'AWS_SECRET_ACCESS_KEY': USER_SECRET}
		keyless = write(w, e.port, 'keyless', aws={'access_key_id': None, 'secret_access_key': None})
		f = daemon(w, keyless, env=env)
		with Connect(w, keyless, ['far'], env=env) as c:
			c.ping()
			assert c.served()
		own(keyless, ['far'], env=dict(env, AWS_DEFAULT_REGION='eu-west-2'), why='variables differ')


@test('one-shot: a daemon of another version is asked, and not needed', 40)
def skew():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		conf = write(w, e.port)
		f = daemon(w, conf)
		path = w.status(f)[0]['state_dir']
		assert f.stop() == 0
		for answer in (b'{"error":"unknown request"}\n', b'', b'garbage\n', b'{"taken":false}\n', None):
			s = socket.socket(socket.AF_UNIX)
			s.bind(os.path.join(path, 'control.sock'))
			s.listen(5)
			with Connect(w, conf, ['far']) as c:
				peer = s.accept()[0]
				assert peer.recv(2000).startswith(b'one-shot {')
				if answer is not None:  # None: it hangs
					peer.sendall(answer)
					peer.close()
				c.ping()
				assert not c.served() and c.end() == 0
				peer.close()
			s.close()
			os.unlink(os.path.join(path, 'control.sock'))


@test('one-shot: descriptors that are too many, too few or of no use are refused and closed, and the daemon goes on', 40)
def odd_descriptors():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		conf = write(w, e.port)
		f = daemon(w, conf)
		path = os.path.join(w.status(f)[0]['state_dir'], 'control.sock')
		null, folder, mere, queue = os.open('/dev/null', os.O_RDWR), os.open(w.dir, os.O_RDONLY), os.open(w.dir, os.O_PATH), select.epoll()
		base = len(f.fds())

		def ask(kind, fds):
			with socket.socket(socket.AF_UNIX) as s:
				s.settimeout(20 * SLOW)
				s.connect(path)
				words = json.dumps({'v': 1, 'kind': kind, 'name': 'db', 'target': TARGET, 'host': None, 'port': e.port, 'flags': [0, 1], 'env': ''})
				socket.send_fds(s, [b'one-shot %s\n' % words.encode()], fds)
				return json.loads(s.recv(2000))
		for kind, fds in [('connect', [f_, f_]) for f_ in (folder, mere, queue.fileno())] + [('connect', []), ('connect', [null]), ('use', [null, null]),
				('listen', []), ('listen', [null, null])]:
			got = ask(kind, fds)
			assert 'descriptors that came with it' in got['error'], (kind, fds, got)
		until(lambda: len(f.fds()) <= base, 5, 'descriptors back to %d: %s' % (base, f.fds()))
		with Connect(w, conf, ['db']) as c:
			c.ping()
			assert c.served() and c.end() == 0
		for fd in (null, folder, mere):
			os.close(fd)


@test('one-shot: exec and forward on the daemon\'s session: own address and -P, exit codes, the daemon\'s death, nothing left', 90)
def others():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		port = free_port()
		conf = write(w, e.port, tunnels={'db': {'listen': '127.0.0.1:%d' % port, 'links': 1}}, aliases={'far': {'links': 1}, 'gone': {'target': 'i-00000000000000bad'}})
		f = daemon(w, conf)
		speak = ['--', sys.executable, '-c', 'import socket,sys; s=socket.create_connection((sys.argv[1], int(sys.argv[2]))); '
			's.sendall(b"x"*200000); s.shutdown(1); n=len(s.makefile("rb").read()); print(sys.argv[2], n); sys.exit(n != 200000)', '{host}', '{port}']
		def speaks(words):
			r = subprocess.run([BIN, 'exec', '-v', '-c', conf] + words + speak, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), cwd=w.dir,
				timeout=30 * SLOW)
			assert r.returncode == 0 and SERVED in r.stderr.decode(), (words, r)
			where, n = r.stdout.split()
			assert n == b'200000'
			return int(where)
		before = fds(f.pid)
		assert speaks(['db']) == port
		assert speaks(['-P', 'db']) != port and speaks(['far']) != port
		assert len(w.api().sessions()) == 1
		ended(w, conf, ['gone', '--', 'touch', w.path('ran')], 4, 'tunneld exec: i-00000000000000bad: .*TargetNotConnected|not connected', word='exec')
		assert not os.path.exists(w.path('ran'))
		ended(w, conf, ['far', '--', 'sh', '-c', 'kill -9 $$'], 137, '', word='exec')
		p = subprocess.Popen([BIN, 'forward', '-v', '-c', conf, '-L', '0:localhost:%d' % e.port, '-L', '%s:localhost:%d' % (w.path('sock'), e.port), 'far'],
			stderr=subprocess.PIPE, env=clean_env(), cwd=w.dir)
		try:
			said, at = b'', []
			while len(at) < 2:
				said += os.read(p.stderr.fileno(), 4096)
				at = re.findall(rb'listening tunnel=forward-\d address="?(?:127.0.0.1:(\d+)|unix:(\S+?))"? ', said)
			assert SERVED.encode() in said, said
			for tcp, path in at:
				with connect(int(tcp) if tcp else path.decode()) as c:
					ping(c)
			assert len(w.api().sessions()) == 1
			with connect(int(at[0][0])) as c:
				ping(c)
				p.send_signal(signal.SIGTERM)
				ping(c)  # what is there may finish
			assert p.wait(20 * SLOW) == 0
			assert not os.path.exists(w.path('sock'))
		finally:
			p.kill()
			p.wait()
		until(lambda: len(fds(f.pid)) <= len(before) + 2, 10, 'descriptors given back')  # the session's link, and the call's
		# Its death while a program runs: the program's own code; before it, 6.
		with Connect(w, conf, ['far', '--', 'sh', '-c', 'read a; exit 9'], word='exec') as c:
			until(lambda: c.served(), 10, 'served')
			until(lambda: subprocess.run(['pgrep', '-P', str(c.p.pid)], stdout=subprocess.PIPE).stdout, 10, 'the program runs')
			f.kill9()
			until(lambda: 'the daemon that served it has ended' in c.said(), 10, 'its word')
			assert c.end() == 9


@test('one-shot: a hidden tunnel keeps its session for the next one up to idle_timeout', 40)
def lingers():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		conf = write(w, e.port, aliases={'far': {'idle_timeout': '2s', 'keepalive': 'yes'}})
		daemon(w, conf)
		with Connect(w, conf, ['far']) as c:
			c.ping()
			first = [s['SessionId'] for s in w.api().sessions()]
			time.sleep(2.5)  # longer than idle_timeout: with a connection it stays
			c.ping()
			assert c.end() == 0
		with Connect(w, conf, ['far']) as c:
			c.ping()
			assert [s['SessionId'] for s in w.api().sessions()] == first
			assert c.end() == 0
		until(lambda: not w.api().sessions(), 10, 'its session ended after a while')


@test('one-shot: 200 at a time on one session of the daemon, and each has what is its own', 120)
def many():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		conf = write(w, e.port, log_level='info')
		f = daemon(w, conf)
		before = len(fds(f.pid))
		ps = []
		for i in range(200):
			p = subprocess.Popen([BIN, 'connect', '-v', '-c', conf, 'far'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(),
				cwd=w.dir)
			p.stdin.write(b'%d ' % i * 1000)
			p.stdin.flush()
			ps.append(p)
		until(lambda: e.accepted >= 200, 60, 'all are connected')
		assert len(w.api().sessions()) == 1
		for i, p in enumerate(ps):
			out, err = p.communicate(timeout=60 * SLOW)
			assert p.returncode == 0 and out == b'%d ' % i * 1000 and SERVED.encode() in err, (i, p.returncode, len(out), err)
		until(lambda: len(fds(f.pid)) <= before + 2, 20, 'descriptors given back')


@test('one-shot: another user, who may not ask the daemon, is served by nobody and does it alone; a drain lets a connection finish, or cuts it', 90)
def others_and_drain():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		conf = write(w, e.port, drain_timeout='2s')
		f = daemon(w, conf)
		if os.geteuid() == 0:
			os.chmod(conf, 0o644)
			r = subprocess.run([BIN, 'connect', '-v', '-c', conf, 'far'], input=b'alone', stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd='/', user='nobody',
				env=clean_env(HOME='/nonexistent'), timeout=40 * SLOW)
			assert r.returncode == 0 and r.stdout == b'alone' and SERVED.encode() not in r.stderr, r
		with Connect(w, conf, ['far']) as c, Connect(w, conf, ['far']) as d:
			c.ping(), d.ping()
			assert c.served() and d.served()
			f.signal(signal.SIGTERM)
			f.wait_log('draining')
			c.ping(b'goes on')
			assert c.end() == 0
			assert d.p.wait(20 * SLOW) == 6 and 'session lost: the daemon that served it is shutting down' in d.said(), (d.p.returncode, d.said())
		assert f.wait() == 0
