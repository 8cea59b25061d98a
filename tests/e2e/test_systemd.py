"""What systemd expects of a service, and what the units in contrib/ ask of systemd; without a systemd that runs."""
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

from harness import BIN, SANITIZED, Skip, World, clean_env, need
from run import test
from services import Server, connect, echo, free_port, ping

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UNITS = os.path.join(ROOT, 'contrib', 'systemd')


def services():
	return sorted(n for n in os.listdir(UNITS) if n.endswith('.service'))


def analyze(*argv):
	r = subprocess.run(('systemd-analyze',) + argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env())
	return r.returncode, r.stdout.decode()


@test('systemd: sockets that it opened are listened on, by name, over a reload, and stay after the end', 60)
def activation():
	with World() as w:
		s = Server(echo)
		w.closers.append(s.close)
		w.gateway()
		w.agent()
		conf = w.write_forwarder({'t': {'port': s.port, 'listen': 'fd:web, fd:db:2'}, 'u': {'port': s.port, 'listen': 'fd:db'}})
		listeners = [socket.socket() for _ in range(3)]
		for x in listeners:
			x.bind(('127.0.0.1', 0))
			x.listen()
		ports = [x.getsockname()[1] for x in listeners]
		high = [os.dup2(x.fileno(), 200 + i, inheritable=True) for i, x in enumerate(listeners)]
		script = 'exec 3<&200 4<&201 5<&202 200<&- 201<&- 202<&-; LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES=db:web:db exec "$@"'
		f = w.proc('forwarder', [BIN, '-c', conf], prefix=['bash', '-c', script, 'sh'], pass_fds=high)
		for fd in high:
			os.close(fd)
		f.wait_note('READY=1')
		for port, name in zip(ports, 'utt'):
			f.wait_log(r'listening tunnel=%s address=127.0.0.1:%d' % (name, port))
			with connect(port) as c:
				ping(c)
		w.write_forwarder({'t': {'port': s.port, 'listen': 'fd:web'}, 'u': {'port': s.port, 'listen': 'fd:db'}})
		at = f.mark()
		f.signal(1)
		f.wait_log('reloaded', since=at)
		for port in ports[:2]:
			with connect(port) as c:
				ping(c)
		f.stop()
		socket.create_connection(('127.0.0.1', ports[0])).close()  # it waits in our backlog
		for x in listeners:
			x.close()
		# One that is not there.
		conf = w.write_forwarder({'t': {'port': s.port, 'listen': 'fd:nothing'}}, name='none')
		p = w.proc('none', [BIN, '-c', conf])
		p.wait_log(r'cannot listen on fd:nothing:1: .*FileDescriptorName')


@test('systemd: a gateway on a socket of systemd-socket-activate', 60)
def activated_gateway():
	need('systemd-socket-activate')
	with World() as w:
		w.gw_port = free_port()
		conf = w.write_gateway(listen='fd:door', public_url='https://127.0.0.1:%d' % w.gw_port)
		g = w.proc('gateway', ['systemd-socket-activate', '-l', '127.0.0.1:%d' % w.gw_port, '--fdname=door', '-E', 'NOTIFY_SOCKET', BIN, 'gateway', '-c', conf])
		g.wait_log('Listening on')
		s = Server(echo)
		w.closers.append(s.close)
		a = w.agent(wait=False)  # its first connection starts the gateway
		g.wait_log('listening address=127.0.0.1:%d' % w.gw_port)
		a.wait_log('control channel up')
		f = w.forwarder({'t': {'port': s.port}})
		with connect(f.ports['t']) as c:
			ping(c)


@test('systemd: WATCHDOG=1 comes twice in the time that systemd waits, also during a drain', 60)
def watchdog():
	with World() as w:
		s = Server(echo)
		w.closers.append(s.close)
		w.gateway()
		w.agent()
		f = w.forwarder({'t': {'port': s.port}}, env={'WATCHDOG_USEC': '400000'})

		def beats(n):
			had = f.notified.count('WATCHDOG=1')
			f._wait(lambda: f.notified.count('WATCHDOG=1') >= had + n, 10, '%d times WATCHDOG=1' % n)
		beats(3)
		with connect(f.ports['t']) as c:
			ping(c)
			f.signal(15)
			f.wait_note('STOPPING=1')
			beats(3)
			ping(c)
		other = w.forwarder({'t': {'port': s.port}}, name='other', env={'WATCHDOG_USEC': '400000', 'WATCHDOG_PID': '1'})
		quiet = w.agent(name='agent-quiet', wait=False)
		quiet.wait_note('READY=1')
		beats_of = [p.notified.count('WATCHDOG=1') for p in (other, quiet)]
		assert beats_of == [0, 0], beats_of


@test('systemd: each unit passes verify, its exposure is below 2.0, and the files beside them are what systemd reads', 90)
def units():
	need('systemd-analyze', 'systemd-sysusers', 'systemd-tmpfiles')
	with tempfile.TemporaryDirectory() as d:
		program = os.path.join(d, 'tunneld')
		os.symlink(BIN, program)
		for name in services():
			text = open(os.path.join(UNITS, name)).read()
			for key in ('StartLimitBurst=', 'WatchdogSec=', 'EnvironmentFile=-', 'KillMode=mixed', 'LimitCORE=0', 'NoNewPrivileges=yes'):
				assert '\n' + key in text, (name, key)
			assert name == 'tunneld-gateway.service' or '\nLoadCredential=tunneld-aws-credentials\n' in text, name
			path = os.path.join(d, name)
			with open(path, 'w') as f:
				f.write(text.replace('/usr/local/bin/tunneld', program))
			code, said = analyze('security', '--offline=true', '--threshold=20', path)
			level = re.search(r'exposure level for \S+: ([\d.]+)', said)
			assert code == 0 and level and float(level[1]) < 2.0, (name, said)
		# The drop-in for shells: known keys, and the unit is still one.
		os.mkdir(os.path.join(d, 'tunneld-agent.service.d'))
		shutil.copy(os.path.join(UNITS, 'tunneld-agent-shells.conf'), os.path.join(d, 'tunneld-agent.service.d'))
		code, said = analyze('verify', os.path.join(d, 'tunneld-agent.service'))
		assert code == 0 and 'shells.conf' not in said, said
		# In a tree of their own.
		for folder in ('etc', 'usr/lib/sysusers.d', 'usr/lib/tmpfiles.d'):
			os.makedirs(os.path.join(d, 'root', folder))
		root = os.path.join(d, 'root')
		shutil.copy(os.path.join(UNITS, 'tunneld.sysusers'), os.path.join(root, 'usr/lib/sysusers.d/tunneld.conf'))
		shutil.copy(os.path.join(UNITS, 'tunneld.tmpfiles'), os.path.join(root, 'usr/lib/tmpfiles.d/tunneld.conf'))
		if os.geteuid() != 0:
			raise Skip('the rest requires root')
		for argv in (['systemd-sysusers', '--root=' + root], ['systemd-tmpfiles', '--root=' + root, '--create']):
			r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env())
			assert r.returncode == 0, (argv, r.stdout)
		entry = re.search(r'^tunneld:.*$', open(os.path.join(root, 'etc/passwd')).read(), re.M)[0].split(':')
		assert entry[6] == '/usr/sbin/nologin', entry
		st = os.stat(os.path.join(root, 'etc/tunneld'))
		assert st.st_mode & 0o7777 == 0o750 and st.st_uid == 0 and st.st_gid == int(entry[3]), st


@test('systemd: an agent with the capabilities of the drop-in starts shells of another user, and keeps none of them', 60)
def shells_by_capabilities():
	need('setpriv')
	if os.geteuid() != 0:
		raise Skip('requires root')
	from test_privileges import add_user, facts, gone, remove_user, start_shell, test_user
	text = open(os.path.join(UNITS, 'tunneld-agent-shells.conf')).read()
	caps = ['+' + c[4:].lower() for c in re.search(r'^AmbientCapabilities=(.*)$', text, re.M)[1].split()]
	with World() as w:
		add_user('/bin/sh')
		w.closers.append(remove_user)
		w.gateway()
		os.mkdir(w.path('state'))
		os.chown(w.path('state'), 65534, 65534)
		conf = w.write_agent(shell=True, shell_user=test_user(), td_state_dir=w.path('state'))
		os.chown(conf, 65534, 65534)
		a = w.proc('agent', [BIN, 'agent', '-c', conf], prefix=['env', 'HOME=' + w.dir, 'setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all,' + ','.join(caps),
			'--ambient-caps=-all,' + ','.join(caps), '--bounding-set=-all,' + ','.join(caps)])
		w.wait_online()
		here = facts(a.pid)
		assert int(here['CapPrm'], 16) == int(here['CapEff'], 16) == int(here['CapAmb'], 16) == 0, here
		if not SANITIZED:
			assert here['Seccomp'] == '2', here
		p, pids = start_shell(w, "trap '' HUP; echo pids $$; while :; do sleep 0.1; done")
		shell = facts(pids[0])
		assert shell['Uid'].split()[0] not in ('0', '65534') and int(shell['CapEff'], 16) == int(shell['CapPrm'], 16) == int(shell['CapAmb'], 16) == 0, shell
		began = time.monotonic()
		p.terminate()
		gone(pids, began, 6)
		p.wait(10)
		p.stdout.close()
		assert not a.find('cannot end a process')
