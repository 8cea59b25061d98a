"""tunneld connect under OpenSSH, and tunneld forward."""
import hashlib
import os
import random
import re
import shlex
import shutil
import signal
import subprocess

from harness import BIN, REGION, SLOW, TARGET, USER_KEY, USER_SECRET, Skip, World, clean_env, ini, need, until
from peers import client_ini, me, run, sshd
from run import test
from services import Server, blob, connect, download, echo, free_port, ping, upload


def through(w, **agent):
	"""Gateway, agent, sshd; -> its port, argv of ssh through connect, a configuration file for ssh's friends."""
	port, opts = sshd(w)
	w.gateway()
	w.agent(**agent)
	proxy = 'ProxyCommand=%s connect -c %s %%h %%p' % (shlex.quote(BIN).replace('%', '%%'), client_ini(w))
	ssh = ['ssh'] + opts + ['-o', proxy, '-p', str(port)]
	conf = w.path('ssh_config')
	words = [o for o in opts[4:] + ['-o', proxy, '-o', 'Port=%d' % port, '-o', 'IdentityFile=' + w.path('ssh_user'), '-o', 'User=' + me()] if o != '-o']
	with open(conf, 'w') as f:
		f.write('Host *\n' + ''.join('  %s %s\n' % tuple(o.split('=', 1)) for o in words))
	return port, ssh, conf


@test('connect under OpenSSH: ssh with its exit code, scp, sftp, rsync, git', 120)
def friends():
	with World() as w:
		port, ssh, conf = through(w)
		host = me() + '@' + TARGET
		assert run(ssh + [host, 'echo hello; exit 7'], w, ok=(7,)).strip() == b'hello'
		data = random.Random(9).randbytes(4000000)
		open(w.path('src'), 'wb').write(data)
		assert run(ssh + [host, 'cat'], w, input=data) == data
		run(['scp', '-F', conf, w.path('src'), host + ':' + w.path('scp_up')], w)
		run(['scp', '-F', conf, host + ':' + w.path('src'), w.path('scp_down')], w)
		run(['sftp', '-F', conf, '-b', '-', host], w, input=('put %s %s\nget %s %s\n' % (w.path('src'), w.path('sftp_up'), w.path('src'),
			w.path('sftp_down'))).encode())
		for name in ('scp_up', 'scp_down', 'sftp_up', 'sftp_down'):
			assert open(w.path(name), 'rb').read() == data, name
		if shutil.which('rsync'):
			run(['rsync', '-a', '-e', 'ssh -F ' + conf, w.path('src'), host + ':' + w.path('rsync_up')], w)
			assert open(w.path('rsync_up'), 'rb').read() == data
		if shutil.which('git'):
			env = clean_env(GIT_SSH_COMMAND='ssh -F ' + conf, GIT_CONFIG_NOSYSTEM='1', HOME=w.dir)
			git = ['git', '-c', 'user.name=t', '-c', 'user.email=t@example.com']
			run(['git', 'init', '-q', 'repo'], w, env=env)
			shutil.copy(w.path('src'), w.path('repo/f'))
			run(git + ['add', 'f'], w, env=env, cwd=w.path('repo'))
			run(git + ['commit', '-q', '-m', 'x'], w, env=env, cwd=w.path('repo'))
			run(['git', 'clone', '-q', 'ssh://%s%s' % (host, w.path('repo')), 'cloned'], w, env=env)
			assert open(w.path('cloned/f'), 'rb').read() == data
		until(lambda: not w.api().sessions(), 10, 'every session ended with its ssh')


@test('connect under OpenSSH: ControlMaster, ten commands over one session', 60)
def master():
	with World() as w:
		port, ssh, conf = through(w)
		m = ssh + ['-o', 'ControlPath=' + w.path('cm')]
		host = me() + '@' + TARGET
		first = subprocess.Popen(m + ['-o', 'ControlMaster=yes', '-N', host], stdin=subprocess.DEVNULL, env=clean_env())
		try:
			until(lambda: os.path.exists(w.path('cm')), 15, 'control socket')
			ps = [subprocess.Popen(m + [host, 'echo n%d; sha256sum' % i], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_env()) for i in range(10)]
			data = random.Random(4).randbytes(300000)
			for i, p in enumerate(ps):
				out, _ = p.communicate(data, timeout=30 * SLOW)
				assert p.returncode == 0 and out.split()[:2] == [b'n%d' % i, hashlib.sha256(data).hexdigest().encode()], out
			assert len(w.api().sessions()) == 1
			run(m + ['-O', 'exit', host], w)
			first.wait(10 * SLOW)
		finally:
			first.kill()
			first.wait()
		until(lambda: not w.api().sessions(), 10, 'the session ended with its ssh')


@test('connect under OpenSSH: the gateway is killed twice under a running ssh, which notices nothing', 90)
def resumes():
	with World() as w:
		port, ssh, conf = through(w)
		g = w.procs[1]
		assert g.name == 'gateway', g.name
		p = subprocess.Popen(ssh + [me() + '@' + TARGET, 'while read a; do echo "got $a"; done; exit 9'], stdin=subprocess.PIPE,
			stdout=subprocess.PIPE, env=clean_env())
		try:
			for turn in range(3):
				for i in range(20):
					p.stdin.write(b'%d-%d\n' % (turn, i))
					p.stdin.flush()
					assert p.stdout.readline() == b'got %d-%d\n' % (turn, i)
				if turn < 2:
					g.kill9()
					p.stdin.write(b'in between\n')
					p.stdin.flush()
					g = w.gateway()
					assert p.stdout.readline() == b'got in between\n'
			p.stdin.close()
			assert p.wait(20 * SLOW) == 9
		finally:
			p.kill()
			p.wait()


def ended(w, argv, code, text, env=None, **kw):
	r = subprocess.run([BIN] + argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(**(env or {})), cwd=w.dir,
		timeout=40 * SLOW, **kw)
	err = r.stderr.decode()
	assert r.returncode == code and not r.stdout and re.search(text, err), (argv, r.returncode, r.stdout, err)


@test('connect: an agent that refuses the session says why', 30)
def refused_session():
	s = Server(echo)
	with World() as w:
		w.gateway()
		w.agent(max_sessions='1')
		argv = ['connect', '-c', client_ini(w), TARGET, str(s.port)]
		p = subprocess.Popen([BIN] + argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_env(), cwd=w.dir)
		try:
			p.stdin.write(b'hello')
			p.stdin.flush()
			assert os.read(p.stdout.fileno(), 5) == b'hello'
			for _ in range(5):
				ended(w, argv, 5, 'the agent has as many sessions as max_sessions allows')
			p.stdin.close()
			assert p.wait(20 * SLOW) == 0
		finally:
			p.kill()
			p.wait()


@test('connect: exit codes 2 to 6, each with one reason on stderr and nothing on stdout', 90)
def exit_codes():
	s = Server(echo)
	with World() as w:
		g = w.gateway()
		a = w.agent(deny='127.0.0.1/32:*')
		good = client_ini(w)
		ended(w, ['connect'], 2, 'HOST is missing')
		ended(w, ['connect', '-c', good, TARGET, '70000'], 2, 'not a number from 1 to 65535')
		ended(w, ['connect', '-c', good, 'nobody'], 2, 'neither an instance id')
		bad = client_ini(w, 'bad', secret_access_key='wrong')
		ended(w, ['connect', '-c', bad, TARGET, '22'], 3, '[Ss]ignature')
		bare = client_ini(w, 'bare', access_key_id=None, secret_access_key=None)
		for name, odd in (('AWS_ACCESS_KEY_ID', USER_KEY + '\n'), ('AWS_SECRET_ACCESS_KEY', USER_SECRET + ' '), ('AWS_SESSION_TOKEN', 'x\n')):
			env = {'AWS_ACCESS_KEY_ID': USER_KEY, 'AWS_SECRET_ACCESS_KEY': USER_SECRET, name: odd}
			ended(w, ['connect', '-c', bare, TARGET, '22'], 3, name + ' has a .* at its end', env=env)
		ended(w, ['connect', '-c', good, 'i-00000000000000bad', '22'], 4, 'TargetNotConnected|not connected')
		ended(w, ['connect', '-c', good, TARGET, str(s.port)], 5, 'refused')
		a.stop()
		a = w.agent(name='agent-2')
		ended(w, ['connect', '-c', good, TARGET, str(free_port())], 5, 'refused')
		p = subprocess.Popen([BIN, 'connect', '-c', good, TARGET, str(s.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
			env=clean_env(), cwd=w.dir)
		try:
			p.stdin.write(b'hello')
			p.stdin.flush()
			assert os.read(p.stdout.fileno(), 5) == b'hello'
			a.kill9()
			w.agent(name='agent-3')  # which tells the gateway what its predecessor has lost
			assert p.wait(30 * SLOW) == 6, p.returncode
			assert b'session lost' in p.stderr.read()
		finally:
			p.kill()
			p.wait()


@test('connect: the end of input goes through, what comes back afterwards too; SIGTERM ends its session', 40)
def ends():
	def digest(sock):
		h = hashlib.sha256()
		while True:
			got = sock.recv(65536)
			if not got:
				break
			h.update(got)
		sock.sendall(h.hexdigest().encode())
	s, e = Server(digest), Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		conf = client_ini(w)
		data = random.Random(2).randbytes(3000000)
		assert run([BIN, 'connect', '-c', conf, TARGET, str(s.port)], w, input=data).decode() == hashlib.sha256(data).hexdigest()
		p = subprocess.Popen([BIN, 'connect', '-c', conf, TARGET, str(e.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_env(), cwd=w.dir)
		p.stdin.write(b'x')
		p.stdin.flush()
		assert os.read(p.stdout.fileno(), 1) == b'x'
		p.send_signal(signal.SIGTERM)
		p.wait(10 * SLOW)
		until(lambda: not w.api().sessions(), 5, 'its session ended')
		assert e.wait_open(0)


@test('forward -L: several tunnels without a file, one to a remote host by name', 40)
def forward():
	s, e = Server(blob), Server(echo)
	with World() as w:
		w.gateway()
		w.agent(allow='127.0.0.1:*, localhost:*')
		f = w.proc('forwarder', [BIN, 'forward', '-c', client_ini(w), '-L', '0:localhost:%d' % s.port, '-L', '127.0.0.1:0:127.0.0.1:%d' % e.port,
			'-L', '%s:localhost:%d' % (w.path('sock'), e.port), TARGET])
		until(lambda: len(w.ports(f)) == 3, 10, 'three listeners')
		ports = w.ports(f)
		with connect(ports['forward-1']) as c:
			upload(c, 3000000)
		with connect(ports['forward-1']) as c:
			download(c, 3000000)
		for name in ('forward-2', 'forward-3'):
			with connect(ports[name]) as c:
				ping(c)
		assert f.stop() == 0
		until(lambda: not w.api().sessions(), 5, 'its sessions ended')
		# Who cannot get there is told at once, not with the first connection.
		ended(w, ['forward', '-c', client_ini(w, 'bad', secret_access_key='wrong'), '-L', '0:localhost:1', TARGET], 3, '[Ss]ignature')
		ended(w, ['forward', '-c', client_ini(w), '-L', '0:localhost:1', 'i-00000000000000bad'], 4, 'TargetNotConnected|not connected')
		ended(w, ['forward', '-c', client_ini(w), '-L', '%d:localhost:1' % s.port, TARGET], 1, 'in use')
		ended(w, ['forward', '-c', client_ini(w), '-L', 'nonsense', TARGET], 2, 'not \\[bind:\\]port:host:hostport')


@test('zombies: a forwarder killed -9 leaves a session, its next start ends it', 60)
def zombies():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		tunnels = {'a': {'port': e.port}, 'b': {'port': e.port, 'session': 'per-connection'}}
		f = w.forwarder(tunnels)
		open_ = [connect(f.ports[n]) for n in ('a', 'b')]
		for c in open_:
			ping(c)
		left = {s['SessionId'] for s in w.api().sessions()}
		assert len(left) == 2, left
		f.kill9()
		assert {s['SessionId'] for s in w.api().sessions()} == left
		f = w.forwarder(tunnels)
		until(lambda: not w.api().sessions(), 10, 'what was left is ended')
		assert e.wait_open(0)
		with connect(f.ports['a']) as c:
			ping(c)
		assert not left & {s['SessionId'] for s in w.api().sessions()}


def quiet_session(w, word, keepalive):
	"""argv of connect or shell by an alias whose far end has an idle time-out of 1 s"""
	url = {'region': REGION, 'ssm_endpoint': w.url, 'ca_file': 'ca.pem', 'access_key_id': USER_KEY, 'secret_access_key': USER_SECRET}
	conf = ini(w.path('alias-%s.ini' % keepalive), [('tunneld', {'state_dir': w.path('state-alias')}), ('aws', url),
		('alias a', {'target': TARGET, 'port': w.echo.port, 'idle_timeout': '1s', 'keepalive': keepalive})])
	return [BIN, word, '-c', conf, 'a'] + ([] if word == 'connect' else ['--', 'sleep 4; echo still here'])


@test('keepalive: an SSH session and a command that are quiet longer than idle_timeout go on; not without it', 60)
def kept_alive():
	with World() as w:
		w.echo = Server(echo)
		w.gateway(idle_timeout='1s')
		w.agent(shell=True, shell_user=me())
		for keepalive in (True, False):
			ps = [subprocess.Popen(quiet_session(w, word, keepalive), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
				env=clean_env(), cwd=w.dir) for word in ('connect', 'shell')]
			try:
				ps[0].stdin.write(b'one')
				ps[0].stdin.flush()
				assert os.read(ps[0].stdout.fileno(), 3) == b'one'
				out = ps[1].stdout.read()
				assert (out == b'still here\n') == keepalive, (keepalive, out)
				if keepalive:
					ps[0].stdin.write(b'two')
					ps[0].stdin.flush()
					assert os.read(ps[0].stdout.fileno(), 3) == b'two'
				else:
					assert ps[0].wait(20 * SLOW) == 6
			finally:
				for p in ps:
					p.kill()
					p.communicate()


def keepalive_timers(port):
	"""How many established sockets with this port at one end have a keep-alive timer."""
	out = subprocess.run(['ss', '-tnoH', 'state', 'established', '( sport = :%d or dport = :%d )' % (port, port)], stdout=subprocess.PIPE).stdout.decode()
	return out.count('timer:(keepalive')


@test('tcp_keepalive: on sockets of local programs and of dialed services, by default and not with 0', 30)
def tcp_keepalive():
	need('ss')
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		f = w.forwarder({'on': {'port': e.port}, 'off': {'port': e.port, 'tcp_keepalive': '0'}})
		with connect(f.ports['on']) as c, connect(f.ports['off']) as d:
			ping(c)
			ping(d)
			assert keepalive_timers(f.ports['on']) == 1 and keepalive_timers(f.ports['off']) == 0
			assert keepalive_timers(e.port) == 2
		w.procs[1].stop()
		w.agent(name='agent-2', tcp_keepalive='0')
		with connect(f.ports['on']) as c:
			ping(c)
			assert keepalive_timers(e.port) == 0
