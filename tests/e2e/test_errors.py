"""Refusals: what cannot work ends the local connection with RST at once, and the log says why."""
import os
import re
import signal
import socket
import struct
import subprocess
import time

from harness import BIN, SLOW, TARGET, World, clean_env, ini, until
from run import test
from services import Server, connect, echo, free_port, ping, refused


@test('refused target: RST, and a log line that names it', 60, short=True)
def refused_target():
	with World() as w:
		port = free_port()
		_, a, f = w.standard(port)
		t0 = time.monotonic()
		assert refused(f.ports['t'], b'x'), 'orderly end instead of a reset'
		assert time.monotonic() - t0 < 5 * SLOW, 'took %.1f s' % (time.monotonic() - t0)
		f.wait_log(r'reset .*port=%d .*reason="could not connect: 127\.0\.0\.1:%d: [Cc]onnection refused' % (port, port))
		a.wait_log(r'127\.0\.0\.1:%d|port=%d' % (port, port))
		assert len(w.api().sessions()) == 1, 'the session did not survive it'
		assert refused(f.ports['t'])


@test('a refused connection leaves the others of its session alone', 60)
def refused_beside():
	with World() as w:
		s = Server(echo)
		w.gateway()
		w.agent()
		f = w.forwarder({'good': {'port': s.port}})
		good = connect(f.ports['good'])
		ping(good)
		s.close()
		until(lambda: not can_connect(s.port), what='listener closed')
		assert refused(f.ports['good'])
		ping(good)
		good.close()


def can_connect(port):
	try:
		socket.create_connection(('127.0.0.1', port), 1).close()
		return True
	except OSError:
		return False


@test('unknown instance: RST soon, log names target and error', 60, short=True)
def unknown_instance():
	with World() as w:
		w.gateway()  # has just started, so it waits for the instance, 3 s at most
		f = w.forwarder({'t': {'target': 'i-00000000000000bad', 'port': 80}})
		t0 = time.monotonic()
		assert refused(f.ports['t']), 'orderly end instead of a reset'
		assert time.monotonic() - t0 < 5 * SLOW, 'took %.1f s' % (time.monotonic() - t0)
		f.wait_log(r'i-00000000000000bad')
		f.wait_log(r'TargetNotConnected: \S+ is not connected; does the agent of the target run')


@test('agent not there: RST with TargetNotConnected; works as soon as it is', 60)
def agent_missing():
	with World() as w:
		s = Server(echo)
		w.gateway()
		f = w.forwarder({'t': {'port': s.port}})
		assert refused(f.ports['t'])
		f.wait_log('TargetNotConnected')
		w.agent()
		c = connect(f.ports['t'])
		ping(c)  # failures are not cached
		c.close()


@test('target not among the user\'s: refused like an unknown one', 60)
def not_allowed():
	with World() as w:
		w.keys['users']['ops'] = w.keys['users']['ops'][:2] + ('i-ffff*',)
		w.gateway()
		w.agent(wait=False).wait_note('READY=1')
		f = w.forwarder({'t': {'port': 9}})
		assert refused(f.ports['t'])
		f.wait_log('AccessDenied|TargetNotConnected')


@test('gateway unreachable: RST at once, log says where', 60, short=True)
def gateway_unreachable():
	with World() as w:
		port = free_port()
		f = w.forwarder({'t': {'port': 80}}, port=port)
		t0 = time.monotonic()
		assert refused(f.ports['t'], b'', 20), 'orderly end instead of a reset'
		spent = time.monotonic() - t0
		assert spent < 10 * SLOW, 'took %.1f s' % spent
		f.wait_log(r'127\.0\.0\.1:%d' % port)
		t0 = time.monotonic()
		assert f.stop() == 0
		assert time.monotonic() - t0 < 3 * SLOW, 'SIGTERM with nothing to drain took %.1f s' % (time.monotonic() - t0)


@test('wrong secret: RST, log names the credentials and shows no secret', 60)
def wrong_secret():
	with World() as w:
		w.gateway()
		f = w.forwarder({'t': {'port': 80}}, aws={'secret_access_key': 'plantedWrongSecret55555'})
		assert refused(f.ports['t'])
		f.wait_log(r'InvalidSignature|SignatureDoesNotMatch|credential|secret')
		assert not f.count('plantedWrongSecret')


@test('wrong secret of the agent: its log names cause and cure, in words and not in XML', 60)
def wrong_agent_secret():
	with World() as w:
		g = w.gateway()
		g.wait_log(r'gateway listening address=127\.0\.0\.1:%d' % w.gw_port)
		a = w.agent(wait=False, secret_access_key='plantedWrongSecret66666')
		a.wait_log(r'control channel could not be opened.*check the secret access key')
		a.wait_log(r'UpdateInstanceInformation failed error="?InvalidSignature')
		assert not a.count('<Message>') and not a.count('plantedWrongSecret')


@test('two agents with one instance_id: the gateway says so', 60)
def twins():
	with World() as w:
		g = w.gateway()
		w.agent()
		w.agent(wait=False, name='agent2', allow='127.0.0.1:1')
		g.wait_log('has another agent the same instance_id')


@test('untrusted certificate: RST, log says so, nothing is sent', 60)
def untrusted():
	with World() as w:
		w.gateway()
		os.mkdir(w.path('other'))
		from harness import make_certificates
		make_certificates(w.path('other'))
		f = w.forwarder({'t': {'port': 80}}, aws={'ca_file': 'other/ca.pem'})
		assert refused(f.ports['t'])
		f.wait_log('(?i)certificate')


@test('agent policy: default is loopback only, metadata addresses are denied', 60)
def agent_policy():
	with World() as w:
		w.gateway()
		a = w.agent(allow='*:*')
		f = w.forwarder({'meta': {'port': 80, 'host': '169.254.169.254'}, 'zero': {'port': 80, 'host': '0.0.0.0'},
			'mapped': {'port': 80, 'host': '::ffff:169.254.169.254'}})
		for t in ('meta', 'zero', 'mapped'):
			mark = a.mark()
			assert refused(f.ports[t]), t
			a.wait_log('(?i)den(y|ied)|not allowed|allow list', since=mark)


@test('agent policy: no allow means loopback only', 60)
def agent_default():
	with World() as w:
		w.gateway()
		a = w.agent()
		f = w.forwarder({'t': {'port': 80, 'host': '192.0.2.1'}})
		assert refused(f.ports['t'])
		a.wait_log('(?i)den(y|ied)|not allowed|allow list')


@test('tunneld -t: every mistake with file and line, exit 2', 30, short=True)
def config_mistakes():
	with World() as w:
		path = w.path('bad.ini')
		with open(path, 'w') as f:
			f.write('[tunneld]\nlog_level = loud\nno_such_key = 1\n[nosuch]\n[aws]\nregion = eu-west-1\n'
				'[tunnel a]\nlisten = 127.0.0.1:99999\ntarget = i-1\nport = 0\nconnect_timeout = 5 parsecs\n')
		r = subprocess.run([BIN, '-t', '-c', path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env(), timeout=20)
		text = r.stdout.decode()
		assert r.returncode == 2, (r.returncode, text)
		for line in (2, 3, 4, 8, 10, 11):
			assert re.search(r'bad\.ini:%d: ' % line, text), 'line %d is not named in:\n%s' % (line, text)
		good = w.write_forwarder({'t': {'port': 80}}, port=1)
		r = subprocess.run([BIN, '-t', '-c', good], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env(), timeout=20)
		assert r.returncode == 0, r.stdout


@test('exit codes: a file that is missing or wrong is 2, an address in use that is required is 1', 30)
def exit_codes():
	with World() as w:
		run = lambda *a: subprocess.run([BIN] + list(a), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env(HOME=w.dir), timeout=20)
		assert run('-c', w.path('missing.ini')).returncode == 2
		assert run('--no-such-option').returncode == 2
		assert run('--version').returncode == 0 and run('--help').returncode == 0
		for sub in ('agent', 'gateway', 'local', 'connect', 'forward', 'shell', 'status'):
			r = run(sub, '--help')
			assert r.returncode == 0 and r.stdout, (sub, r.returncode, r.stdout)
		taken = socket.create_server(('127.0.0.1', 0))
		conf = w.write_forwarder({'t': {'port': 80, 'required': 'yes', 'listen': '127.0.0.1:%d' % taken.getsockname()[1]}}, port=1)
		r = run('-c', conf)
		assert r.returncode == 1, (r.returncode, r.stdout)
		assert str(taken.getsockname()[1]).encode() in r.stdout, r.stdout


@test('an address in use keeps only its tunnel down; it comes up when the address is free', 60, short=True)
def address_in_use():
	s, taken = Server(echo), socket.create_server(('127.0.0.1', 0))
	with World() as w:
		w.gateway()
		w.agent()
		f = w.forwarder({'a': {'port': s.port}, 'b': {'port': s.port, 'listen': '127.0.0.1:%d' % taken.getsockname()[1]}}, wait=False)
		f.wait_note('READY=1')
		a, b = w.status(f)[0]['forwarder']['tunnels']
		assert a['state'] != 'failed' and a['listen'], a
		assert b['state'] == 'failed' and not b['listen'] and 'in use' in b['last_error'], b
		taken.close()
		f.wait_log('listening tunnel=b', timeout=30)
		b = w.status(f)[0]['forwarder']['tunnels'][1]
		assert b['state'] != 'failed' and len(b['listen']) == 1 and 'last_error' not in b, b
		with socket.create_connection(tuple(b['listen'][0].split(':')), timeout=10) as c:
			c.sendall(b'there')
			assert c.recv(5) == b'there'


@test('which end reset a connection is told at both ends', 60)
def reset_ends():
	def reset(sock):
		sock.recv(1)
		sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
		sock.close()

	with World() as w:
		s, quiet = Server(reset), Server(echo)
		w.gateway()
		a = w.agent()
		f = w.forwarder({'t': {'port': s.port}, 'q': {'port': quiet.port}})
		assert refused(f.ports['t'], b'x')
		f.wait_log(r'connection reset tunnel=t .*reason="connection reset at the other end"')
		a.wait_log(r'connection reset .*port=%d .*reason="connection reset at this end"' % s.port)
		with connect(f.ports['q']) as c:
			ping(c)
			c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
		f.wait_log(r'connection reset tunnel=q .*reason="connection reset at this end"')
		a.wait_log(r'connection reset .*port=%d .*reason="connection reset at the other end"' % quiet.port)
