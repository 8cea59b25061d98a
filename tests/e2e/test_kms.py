"""Sessions that are encrypted with a key of the gateway's, and ends that insist."""
import os
import subprocess

from harness import BIN, SLOW, TARGET, World, clean_env
from peers import Terminal, client_ini, me, run
from run import test
from services import Server, blob, connect, download, echo, ping, refused, upload

KEY_ID = 'arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555'


def gateway_options(w, **more):
	with open(w.path('kms.key'), 'wb') as f:
		os.fchmod(f.fileno(), 0o600)
		f.write(bytes(range(32)))
	return dict({'kms_key_file': 'kms.key', 'kms_key_id': KEY_ID, 'encrypt_shells': True, 'encrypt_ports': True}, **more)


def world(w, gateway=None, **agent):
	w.gateway(**(gateway_options(w) if gateway is None else gateway))
	return w.agent(kms_endpoint=w.url, **agent)


@test('encryption: port sessions of our own ends, bulk both ways, resuming under a killed gateway', 60)
def ports():
	s = Server(blob)
	with World() as w:
		world(w, require_encryption=True)
		f = w.forwarder({'t': {'port': s.port, 'require_encryption': True}}, aws={'kms_endpoint': w.url})
		for turn in range(2):
			with connect(f.ports['t']) as c:
				upload(c, 8000000)
			with connect(f.ports['t']) as c:
				download(c, 8000000)
			if turn == 0:
				w.procs[0].kill9()
				w.gateway(**gateway_options(w))
		f.wait_log('session ready .*encrypted=1')
		assert not f.find('encrypted=0') and len(w.api().sessions()) == 1


@test('encryption: shell, command with exit code and connect', 60)
def shells():
	s = Server(echo)
	with World() as w:
		a = world(w, shell=True, shell_user=me(), require_encryption=True)
		argv = [BIN, 'shell', '-c', client_ini(w, kms_endpoint=w.url), TARGET]
		with Terminal(argv, cwd=w.dir) as t:
			t.expect(r'[#$%>] $')
			t.type(b'echo K$((40+3))L; exit\r')
			t.expect('K43L')
			assert t.end() == 0 and t.restored()
		a.wait_log('session ready .*encrypted=1')
		assert run(argv + ['--', 'echo out; exit 9'], w, ok=(9,), stdin=subprocess.DEVNULL) == b'out\n'
		data = os.urandom(200000)
		p = subprocess.Popen([BIN, 'connect', '-c', w.path('client.ini'), TARGET, str(s.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
			env=clean_env(), cwd=w.dir)
		out, _ = p.communicate(data, timeout=20 * SLOW)
		assert out == data and p.returncode == 0
		assert not a.find('encrypted=0')


@test('encryption: require_encryption refuses a plain session, at the client and at the agent', 60)
def refusals():
	s = Server(echo)
	with World() as w:
		a = world(w, gateway={})
		f = w.forwarder({'t': {'port': s.port, 'require_encryption': True}})
		refused(f.ports['t'])
		f.wait_log('not encrypted and require_encryption is set')
		assert s.accepted == 0
		a.stop()
		a = w.agent(name='agent-2', require_encryption=True)
		f2 = w.forwarder({'t': {'port': s.port}}, name='forwarder-2')
		refused(f2.ports['t'])
		a.wait_log('encrypt')
		assert s.accepted == 0


@test('encryption: an agent whose key call is refused, and one without a key service, fail with a reason', 60)
def key_service():
	s = Server(echo)
	with World() as w:
		w.gateway(**gateway_options(w))
		a = w.agent(kms_endpoint='https://127.0.0.1:1')  # nobody there
		f = w.forwarder({'t': {'port': s.port}}, aws={'kms_endpoint': w.url})
		refused(f.ports['t'], timeout=40)
		assert s.accepted == 0
		a.stop()
		a = w.agent(name='agent-2', kms_endpoint=w.url)
		with connect(f.ports['t']) as c:
			ping(c)
