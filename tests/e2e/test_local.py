"""tunneld local: three roles in one process with keys of their own; signals, locks and the control socket of any role."""
import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import time

from harness import AGENT_KEY, AGENT_SECRET, BIN, REGION, SLOW, TARGET, TOP, USER_KEY, USER_SECRET, World, clean_env, free_port, ini, need, until
from peers import Terminal
from run import test
from services import Server, blob, connect, download, echo, ping, upload, wait_reset


def start(w, *argv, env=None, name='local'):
	e = {'STATE_DIRECTORY': w.path('state')}
	e.update(env or {})
	p = w.proc(name, [BIN, 'local'] + list(argv), env=e)
	p.wait_log('^Ctrl-C ends it', 20)
	p.wait_note('READY=1')
	p.ports = {}
	for line in p.lines:
		m = re.match(r'  tunnel   (\S+):(\d+) -> \S+ \((\S+)\)', line)
		if m:
			p.ports[m.group(3)] = int(m.group(2))
	m = p.find('^  gateway  (.*)')
	p.gateway = m.group(1) if m else None
	return p


def ask(w, *argv, code=0):
	r = subprocess.run([BIN, 'status', '--json'] + list(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20 * SLOW,
		env=clean_env(STATE_DIRECTORY=w.path('state')))
	assert r.returncode == code, (r.returncode, r.stdout, r.stderr)
	return json.loads(r.stdout)


@test('local: one option makes a tunnel; hashes, status, files closed to others, exit 0', 60, short=True)
def one_option():
	with World() as w:
		s = Server(blob)
		p = start(w, '--target', '127.0.0.1:%d' % s.port)
		c = connect(p.ports['local'])
		upload(c, 3 << 20)
		c.close()
		c = connect(p.ports['local'])
		download(c, 3 << 20)
		c.close()
		st, = ask(w)
		assert st['role'] == 'local' and st['local']['ready'] is True and st['local']['endpoint'] == p.gateway
		assert st['local']['tunnels'] == [{'name': 'local', 'listen': ['127.0.0.1:%d' % p.ports['local']], 'to': '127.0.0.1:%d' % s.port}]
		assert st['memory']['limit'] == 96 << 20 and {'forwarder', 'agent', 'gateway'} <= set(st)
		assert [x['role'] for x in ask(w, 'local')] == ['local'] and ask(w, 'agent', code=7) == []
		for top, _, files in os.walk(w.path('state')):
			assert stat.S_IMODE(os.stat(top).st_mode) == 0o700, top
			for f in files:
				assert stat.S_IMODE(os.lstat(os.path.join(top, f)).st_mode) == 0o600, (top, f)
		t0 = time.monotonic()
		assert p.stop() == 0
		assert time.monotonic() - t0 < 2.5 * SLOW
		assert not os.path.exists(w.path('state/local/control.sock'))
		assert ask(w, code=7) == []


@test('local: certificates, keys and port are used again; made anew when they are gone or old', 60)
def again():
	with World() as w:
		s = Server(echo)
		seen = []
		for i in range(4):
			if i == 2:
				with open(w.path('state/local/valid-until'), 'w') as f:
					f.write('%d\n' % (time.time() + 86400))
			if i == 3:
				os.unlink(w.path('state/local/keys'))
			p = start(w, '--target', '127.0.0.1:%d' % s.port)
			c = connect(p.ports['local'])
			ping(c)
			c.close()
			assert p.stop() == 0
			read = lambda n: open(w.path('state/local/' + n)).read()
			seen.append((p.gateway, read('ca.pem'), read('keys')))
		assert seen[0] == seen[1], 'the second run made what was there'
		assert seen[2][1] != seen[1][1] and seen[2][2] == seen[1][2], 'certificates near their end are made anew'
		assert seen[3][1] == seen[2][1] and seen[3][2] != seen[2][2]


def reach(p, quoted):
	said = '\n'.join(p.lines)
	export, = re.findall(r'^  export (.*)$', said, re.M)
	assert ("'" in export) == quoted
	env = dict(kv.split('=', 1) for kv in shlex.split(export))
	assert set(env) == {'AWS_SHARED_CREDENTIALS_FILE', 'AWS_CONFIG_FILE'}
	line = shlex.split(re.search(r'^  (aws .*)$', said, re.M).group(1))
	assert 'There is no tunnel yet' in said
	r = subprocess.run(line[:5] + ['ssm', 'describe-instance-information', '--output', 'json'], env=clean_env(**env), stdout=subprocess.PIPE,
		stderr=subprocess.PIPE, timeout=50 * SLOW)
	assert r.returncode == 0, r.stderr
	listed = json.loads(r.stdout)['InstanceInformationList']
	assert [i['PingStatus'] for i in listed] == ['Online'] and p.find(listed[0]['InstanceId'])


@test('local: the aws command reaches its gateway as it says', 60)
def aws():
	need('aws')
	with World() as w:
		for name, quoted in (('plain', False), ("it's a place", True)):
			p = start(w, env={'STATE_DIRECTORY': w.path(name)}, name='local-' + name[:2])
			reach(p, quoted)
			assert p.stop() == 0


@test('local: the tunnels of a file, led to the local agent; SIGHUP adds one, a bad file changes nothing', 60)
def with_file():
	with World() as w:
		s = Server(echo)
		conf = w.path('t.ini')

		def write(*names, extra=()):
			return ini(conf, [('aws', {'region': 'us-east-1', 'profile': 'nobody'})] + [('tunnel ' + n, {'listen': '127.0.0.1:0',
				'target': 'i-00000000000000abc', 'port': s.port}) for n in names] + list(extra))
		p = start(w, '-c', write('a', 'b'), '--log-level', 'info')
		kept = connect(p.ports['a'])
		ping(kept)
		c = connect(p.ports['b'])
		ping(c)
		c.close()
		mark = p.mark()
		write('a', 'c')
		p.notified.clear()
		p.signal(signal.SIGHUP)
		p.wait_note('READY=1')
		port = int(p.wait_log(r'listening tunnel=c address=127\.0\.0\.1:(\d+)', since=mark).group(1))
		c = connect(port)
		ping(c)
		ping(kept)
		mark = p.mark()
		write('a', 'c', extra=[('tunnel d', {'listen': 'nowhere'})])
		p.signal(signal.SIGHUP)
		p.wait_log('reload refused', since=mark)
		assert p.find(r't\.ini:\d+: listen = nowhere', mark) and p.find(r't\.ini:\d+: \[tunnel d\] requires target', mark)
		ping(kept)
		ping(c)


@test('local: a file with all three roles runs as it stands', 60)
def own_roles():
	with World() as w:
		s = Server(echo)
		port = free_port()
		url = 'https://127.0.0.1:%d' % port
		conf = ini(w.path('all.ini'), [('aws', {'region': REGION, 'ssm_endpoint': url, 'ssmmessages_endpoint': url, 'ca_file': 'ca.pem',
			'access_key_id': USER_KEY, 'secret_access_key': USER_SECRET}),
			('tunnel t', {'listen': '127.0.0.1:0', 'target': TARGET, 'port': s.port}),
			('agent', {'instance_id': TARGET, 'access_key_id': AGENT_KEY, 'secret_access_key': AGENT_SECRET}),
			('gateway', {'listen': '127.0.0.1:%d' % port, 'certificate': 'gateway.pem', 'private_key': 'gateway.key'}),
			('user ops', {'access_key_id': USER_KEY, 'secret_access_key': USER_SECRET, 'targets': 'i-*'}),
			('instance ' + TARGET, {'access_key_id': AGENT_KEY, 'secret_access_key': AGENT_SECRET})])
		p = start(w, '-c', conf)
		c = connect(p.ports['t'])
		ping(c)
		c.close()
		assert p.find('aws --endpoint-url') is None
		assert not os.path.exists(w.path('state/local/ca.pem'))


@test('local: a mistake in the file, or in an option, ends with 2; a taken address with 1', 30)
def refused():
	with World() as w:
		busy = socket.socket()
		busy.bind(('127.0.0.1', 0))
		busy.listen(1)
		taken = '127.0.0.1:%d' % busy.getsockname()[1]
		env = clean_env(STATE_DIRECTORY=w.path('state'))
		half = ini(w.path('half.ini'), [('tunnel t', {'listen': '127.0.0.1:0', 'target': 'i-1', 'port': 1}), ('agent', {'instance_id': 'i-1'})])
		bad = ini(w.path('bad.ini'), [('tunnel t', {'listen': '127.0.0.1:0'})])
		for argv, code, said in ((['-c', half], 2, 'has [agent] but no [gateway]'), (['-c', bad], 2, 'requires target'), (['-c', w.path('none.ini')], 2, 'cannot read'),
				(['--target', 'x:1', '--listen', 'nowhere'], 2, 'listen = nowhere'), (['--target', 'x:1', '--listen', taken], 1, taken)):
			r = subprocess.run([BIN, 'local'] + argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20 * SLOW)
			assert r.returncode == code and said in r.stderr.decode(), (argv, r.returncode, r.stderr)


@test('state: a second process with the same role and configuration is refused; the lock goes with its holder', 60, short=True)
def locked():
	with World() as w:
		g = w.gateway()
		r = subprocess.run(g.argv, env=clean_env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20 * SLOW)
		assert r.returncode == 1 and ('process %d' % g.pid) in r.stderr.decode() and 'in use by another tunneld' in r.stderr.decode(), r.stderr
		assert w.status(g)[0]['pid'] == g.pid, 'the control socket of the first was taken away'
		g.kill9()
		g = w.gateway()
		assert w.status(g)[0]['pid'] == g.pid, 'a stale control socket stands in the way'


@test('control socket: 0600, below a path of any length, bounded patience with whoever says nothing', 60)
def control():
	with World() as w:
		deep = w.path('/'.join(['d' * 40] * 4))
		g = w.gateway(td_state_dir=deep)
		sub = [n for n in os.listdir(deep) if n.startswith('gateway-')]
		sock = os.path.join(deep, sub[0], 'control.sock')
		assert stat.S_IMODE(os.stat(sock).st_mode) == 0o600
		assert w.status(g)[0]['role'] == 'gateway'

		def dial():
			c = socket.socket(socket.AF_UNIX)
			d = os.open(os.path.dirname(sock), os.O_RDONLY)
			c.connect('/proc/self/fd/%d/control.sock' % d)
			os.close(d)
			c.settimeout(20 * SLOW)
			return c
		before = len(g.fds())
		idle = [dial() for _ in range(8)]
		late = dial()
		assert late.recv(1) == b'', 'a ninth asker is kept'
		late.close()
		for c in idle[:4]:
			c.close()
		until(lambda: len(g.fds()) <= before + 4, 10, 'descriptors of those who left')
		c = dial()
		c.sendall(b'nonsense\n')
		assert b'unknown request' in c.recv(1000)
		c.close()
		c = dial()
		c.sendall(b'x' * 1000)
		try:
			assert c.recv(100) == b''
		except ConnectionResetError:
			pass
		c.close()
		for c in idle[4:]:
			assert c.recv(1) == b'', 'somebody who says nothing is kept'
			c.close()
		until(lambda: len(g.fds()) <= before, 10, 'descriptors back')


@test('signals: agent and forwarder end within 2 s also when the gateway is not there', 60, short=True)
def unreachable():
	with World() as w:
		w.gw_port = free_port()
		a = w.agent(wait=False)
		a.wait_note('READY=1')
		f = w.forwarder({'t': {'port': 9, 'open': 'start'}})
		try:
			c = connect(f.ports['t'])
			assert wait_reset(c), 'a connection is held though nobody is there'
		except ConnectionError:
			pass
		for p in (a, f):
			t0 = time.monotonic()
			assert p.stop() == 0
			assert time.monotonic() - t0 < 2.5 * SLOW, '%s took %.1f s' % (p.name, time.monotonic() - t0)


@test('make run: the demonstration shows a tunnel, leaves nothing behind and exits 0', 120)
def demo():
	need('curl', 'python3', 'sha256sum')
	with World() as w:
		s = Server(echo)
		for target in ('', '127.0.0.1:%d' % s.port):
			env = clean_env(BUILD=os.path.dirname(BIN), ONCE='1', TARGET=target, TMPDIR=w.dir)
			r = subprocess.run(['sh', 'contrib/demo.sh'], cwd=TOP, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
				timeout=100 * SLOW)
			out = r.stdout.decode()
			assert r.returncode == 0, (out, r.stderr)
			assert re.search(r'^tunnel +127\.0\.0\.1:\d+', out, re.M), out
			assert target or len(re.findall(r'load +64 MiB in .* MiB/s, SHA-256 .* equal', out)) == 2, out
			assert not [n for n in os.listdir(w.dir) if n.startswith('tunneld-demo')]


@test('make run on a terminal: a transfer that takes longer than a second shows that it goes on, and the line is gone afterwards', 60)
def demo_progress():
	need('curl', 'python3', 'sha256sum')
	with World() as w:
		os.makedirs(w.path('bin'))
		with open(w.path('bin/curl'), 'w') as f:
			f.write('#!/bin/sh\ncase "$*" in *time_total*) sleep 2.5;; esac\nexec %s "$@"\n' % shutil.which('curl'))
		os.chmod(w.path('bin/curl'), 0o755)
		env = clean_env(BUILD=os.path.dirname(BIN), ONCE='1', TARGET='', TMPDIR=w.dir, TERM='xterm', PATH=w.path('bin') + ':' + os.environ['PATH'])
		with Terminal(['sh', 'contrib/demo.sh'], env=env, cwd=TOP) as t:
			for name in ('upload', 'download'):
				t.expect('\r\033\\[K%s … 2 s(\r\033\\[K%s … \\d+ s)*\r\033\\[K%s +64 MiB in ' % (name, name, name))
			assert t.end() == 0 and ' … ' not in t.out.decode(), t.out
