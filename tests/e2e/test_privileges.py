"""What a process keeps and what it gives up: users, capabilities, system calls; and that nothing of a session is left
when it is over."""
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from harness import BIN, SANITIZED, SLOW, TARGET, Skip, World, clean_env, until
from peers import Terminal, client_ini, me
from run import test
from services import Server, connect, echo, ping

NOBODY = 65534


def test_user():
	return 'td-test-%d' % os.getpid()  # each test is a process of its own


def need_root():
	if os.geteuid() != 0:
		raise Skip('requires root')


def add_user(shell):
	# Another test may have the lock of the user database.
	until(lambda: subprocess.run(['useradd', '-M', '-s', shell, test_user()], stderr=subprocess.DEVNULL).returncode == 0, 10, 'a new user')


def remove_user():
	until(lambda: subprocess.run(['userdel', '-f', test_user()], stderr=subprocess.DEVNULL).returncode in (0, 6), 10, 'the user is removed')


def is_there(pid):
	try:
		os.kill(pid, 0)
	except ProcessLookupError:
		return False
	return True


def facts(pid):
	with open('/proc/%d/status' % pid) as f:
		return dict(line.rstrip('\n').split(':\t', 1) for line in f if ':\t' in line)


def start_shell(w, script):
	"""A terminal session that runs the script; the numbers that it prints after `pids`."""
	p = subprocess.Popen([BIN, 'shell', '-c', client_ini(w), TARGET, '--', script], cwd=w.dir, env=clean_env(), stdin=subprocess.DEVNULL,
		stdout=subprocess.PIPE)
	words = p.stdout.readline().split()
	assert words[:1] == [b'pids'], words
	return p, [int(x) for x in words[1:]]


# One that is deaf for SIGHUP, one that has left session, group and parent behind as well.
STUBBORN = ("(setsid sh -c 'trap \"\" HUP TERM INT; echo $$ > %s; while :; do sleep 0.1; done' > /dev/null 2>&1 &); trap '' HUP; "
	"while [ ! -s %s ]; do sleep 0.05; done; echo pids $$ $(cat %s); while :; do sleep 0.1; done")


def stubborn(w, **agent):
	w.gateway()
	a = w.agent(**agent)
	mark = os.path.join(w.dir, 'mark-%d' % time.monotonic_ns())
	open(mark, 'w').close()
	os.chmod(mark, 0o666)
	return a, start_shell(w, STUBBORN % (mark, mark, mark))


def gone(pids, began, limit=5):
	until(lambda: not any(is_there(p) for p in pids), limit, 'the processes %s are gone' % pids)
	assert time.monotonic() - began < limit * SLOW


@test('privileges: 5 s after its end nothing of a session runs, deaf for SIGHUP or in a session of its own', 60)
def leftovers():
	with World() as w:
		a, (p, pids) = stubborn(w, shell=True, shell_user=me())
		assert all(is_there(x) for x in pids)
		began = time.monotonic()
		assert w.api().call('TerminateSession', {'SessionId': w.api().sessions()[0]['SessionId']})[0] == 200
		gone(pids, began)
		p.wait(10)
		p.stdout.close()
		# The end of the agent, however it comes, is the end of all its sessions.
		p, pids = start_shell(w, "trap '' HUP; echo pids $$; while :; do sleep 0.1; done")
		began = time.monotonic()
		a.kill9()
		gone(pids, began)
		p.kill()
		p.wait()
		p.stdout.close()


@test('privileges: an agent of root becomes `user`, its shells are another user\'s, and are ended as well', 90)
def agent_user():
	need_root()
	with World() as w:
		add_user('/bin/sh')
		w.closers.append(remove_user)
		os.mkdir(w.path('state'))
		os.chown(w.path('state'), NOBODY, NOBODY)
		a, (p, pids) = stubborn(w, shell=True, shell_user=test_user(), td_user='nobody', td_state_dir=w.path('state'))
		here = facts(a.pid)
		assert here['Uid'].split() == ['65534'] * 4 and here['Gid'].split() == ['65534'] * 4, here
		assert int(here['CapPrm'], 16) == int(here['CapEff'], 16) == int(here['CapAmb'], 16) == 0, here
		if not SANITIZED:
			assert here['Seccomp'] == '2' and here['NoNewPrivs'] == '1', here
			assert os.stat('/proc/%d/mem' % a.pid).st_uid == 0  # nobody's process, but not nobody's to look into
		for pid in pids:
			shell = facts(pid)
			assert shell['Uid'].split() == [str(os.stat('/proc/%d' % pid).st_uid)] * 4 and shell['Uid'].split()[0] not in ('0', '65534'), shell
			assert int(shell['CapEff'], 16) == int(shell['CapAmb'], 16) == 0 and shell['Seccomp'] == '0' and shell['NoNewPrivs'] == '0', shell
		began = time.monotonic()
		p.send_signal(signal.SIGTERM)
		gone(pids, began, 6)
		p.wait(10)
		p.stdout.close()
		# The terminal is the user's, who can open it by its name.
		with Terminal([BIN, 'shell', '-c', client_ini(w), TARGET, '--', 'echo U$(id -un)U > $(tty)'], cwd=w.dir) as t:
			t.expect('U%sU' % test_user())
			assert t.end() == 0
		# Another user than the one that was given up for is not to be had.
		w.write_agent(shell=True, shell_user='root', td_user='nobody', td_state_dir=w.path('state'))
		at = a.mark()
		shutil.chown(w.path('agent.ini'), 'nobody')
		a.signal(signal.SIGHUP)
		a.wait_log('shell_user = root requires a restart', since=at)
		r = subprocess.run([BIN, 'shell', '-c', client_ini(w), TARGET, '--', 'id -u'], cwd=w.dir, env=clean_env(), stdin=subprocess.DEVNULL,
			stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
		assert r.returncode != 0 and not r.stdout and b'require a restart' in r.stderr, r


@test('privileges: gateway and forwarder of root bind low ports, then have no privileges; a reload works', 60)
def low_ports():
	need_root()
	with World() as w:
		s = Server(echo)
		w.closers.append(s.close)
		for name in ('state-gateway', 'state-forwarder'):
			os.mkdir(w.path(name))
			os.chown(w.path(name), NOBODY, NOBODY)
		low = [p for p in range(700, 1000) if is_free(p)]
		w.gw_port = low[0]
		shutil.chown(w.path('gateway.key'), 'nobody')
		g = w.gateway(td_user='nobody')
		w.agent()
		f = w.forwarder({'t': {'port': s.port, 'listen': '127.0.0.1:%d' % low[1]}}, user='nobody')
		for p in (g, f):
			here = facts(p.pid)
			assert here['Uid'].split() == ['65534'] * 4 and here['Groups'].split() == ['65534'], here
			assert int(here['CapPrm'], 16) == int(here['CapEff'], 16) == 0, here
			if not SANITIZED:
				assert here['Seccomp'] == '2', here
				for task in os.listdir('/proc/%d/task' % p.pid):
					assert 'Seccomp:\t2' in open('/proc/%d/task/%s/status' % (p.pid, task)).read(), task
			limits = open('/proc/%d/limits' % p.pid).read()
			assert re.search(r'Max core file size\s+0\s', limits), limits
		assert set(os.stat(os.path.join(d, n)).st_uid for d, _, names in os.walk(w.path('state-gateway')) for n in names) == {NOBODY}
		with connect(low[1]) as c:
			ping(c)
			f.wait_log('user nobody cannot read .*forwarder.ini: a reload will fail')
			shutil.chown(w.path('forwarder.ini'), 'nobody')
			at = f.mark()
			f.signal(signal.SIGHUP)
			f.wait_log('reloaded', since=at)
			ping(c)
		assert w.status(f)[0]['role'] == 'forwarder'


def is_free(port):
	with socket.socket() as s:
		try:
			s.bind(('127.0.0.1', port))
		except OSError:
			return False
	return True


@test('privileges: seccomp = no is heard, and user = somebody who is not there is not', 60)
def keys():
	with World() as w:
		g = w.gateway(td_seccomp=False)
		assert facts(g.pid)['Seccomp'] == '0'
		p = w.agent(wait=False, td_user='no-such-user')
		p.wait_log('cannot start: there is no user no-such-user here')
		p.expect_exit = {1}
		assert p.wait(10) == 1


@test('privileges: accounts that are closed run neither shells nor commands', 60)
def closed():
	need_root()
	with World() as w:
		w.gateway()
		for shell, login in (('/usr/sbin/nologin', False), ('/bin/false', False), ('/usr/bin/id', True)):
			add_user(shell)
			try:
				a = w.agent(shell=True, shell_user=test_user())
				argv = [BIN, 'shell', '-c', client_ini(w), TARGET]
				r = subprocess.run(argv + ['--', 'id'], cwd=w.dir, env=clean_env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
					stderr=subprocess.PIPE, timeout=30)
				assert r.returncode == 6 and not r.stdout, (shell, r)
				assert b'the account of %s runs no commands: its shell is %s' % (test_user().encode(), shell.encode()) in r.stderr, r
				with Terminal(argv, cwd=w.dir) as t:
					if login:  # what such a shell does is its own business
						t.expect('uid=')
						assert t.end() == 0
					else:
						assert t.end() in (5, 6)
				a.stop()
			finally:
				remove_user()


# Never the same process for longer than a moment, in sessions and parents of their own.
RUNNER = ("import os, sys\n"
	"os.setsid()\n"
	"while True:\n"
	"	open(sys.argv[1], 'w').write(str(os.getpid()))\n"
	"	if os.fork():\n"
	"		os._exit(0)\n")


def delegated(w):
	"""A control group like those that systemd delegates."""
	need_root()
	for top in ('/sys/fs/cgroup', '/sys/fs/cgroup/unified'):
		if os.path.exists(top + '/cgroup.controllers'):
			path = top + '/tunneld-test-%d' % os.getpid()
			try:
				os.mkdir(path)
				w.closers.append(lambda: os.rmdir(path))
				os.setxattr(path, 'user.delegate', b'1')
			except OSError as e:
				raise Skip('no control group can be had here: %s' % e)
			if os.path.exists(path + '/cgroup.kill'):
				return path
	raise Skip('there are no control groups of the second version with cgroup.kill')


@test('privileges: in a delegated control group each session has one, and what keeps forking is ended with it', 60)
def control_groups():
	with World() as w:
		group = delegated(w)
		w.gateway()
		a = w.agent(shell=True, shell_user=me(), prefix=['sh', '-c', 'echo 0 > %s/cgroup.procs; exec "$@"' % group, 'sh'])
		with open(w.path('runner.py'), 'w') as f:
			f.write(RUNNER)
		mark = w.path('mark')
		p, pids = start_shell(w, 'python3 %s %s & while [ ! -s %s ]; do sleep 0.05; done; echo pids $$; sleep 1000' % (w.path('runner.py'), mark, mark))
		inner = [n for n in os.listdir(group) if n.startswith('tunneld-')]
		assert len(inner) == 1, inner
		own = os.path.basename(group) + '/' + inner[0]
		assert own in open('/proc/%d/cgroup' % pids[0]).read()
		assert own not in open('/proc/%d/cgroup' % a.pid).read()
		before = open(mark).read()
		until(lambda: open(mark).read() not in ('', before), 5, 'it runs')
		p.terminate()
		until(lambda: not os.path.exists(os.path.join(group, inner[0])), 6, 'its control group is gone')
		last = open(mark).read()
		time.sleep(0.3)
		assert open(mark).read() == last
		p.wait(10)
		p.stdout.close()
