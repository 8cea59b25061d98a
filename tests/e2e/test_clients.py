"""Clients that nobody here wrote, and one made by hand that does what a widely used JavaScript client does."""
import hashlib
import json
import os
import shlex
import struct
import subprocess
import sys
import time
import uuid

from harness import BIN, REGION, SLOW, TARGET, USER_KEY, USER_SECRET, Skip, World, clean_env, need, until
from peers import client_ini, me, run, sshd
from run import test
from services import Server, echo
from wire import WebSocket, decode, swap


def odd_message(mtype, payload, seq, flags, ptype):
	"""As that client writes it: the name padded in front, half of the digest's hexadecimal text in its place."""
	return (struct.pack('>I', 116) + mtype.encode().rjust(32, b'\0') + struct.pack('>IQqQ', 1, int(time.time() * 1000), seq, flags) +
		swap(uuid.uuid4()) + hashlib.sha256(payload).hexdigest()[:32].encode() + struct.pack('>II', ptype, len(payload)) + payload)


class OddClient:
	"""A shell session without ClientId and ClientVersion."""

	def __init__(self, w):
		status, answer = w.api().call('StartSession', {'Target': TARGET})
		assert status == 200, answer
		self.ws = WebSocket(answer['StreamUrl'], w.path('ca.pem'), timeout=20 * SLOW)
		assert self.ws.status == 101
		self.ws.text({'MessageSchemaVersion': '1.0', 'RequestId': str(uuid.uuid4()), 'TokenValue': answer['TokenValue']})
		self.seq, self.text, self.acked = 0, b'', set()

	def input(self, payload, ptype=1):
		self.ws.frame(2, odd_message('input_stream_data', payload, self.seq, 1 if self.seq == 0 else 0, ptype))
		self.seq += 1

	def step(self):
		op, data = self.ws.recv()
		assert op is not None, (self.text, self.acked)
		if op != 2:
			return
		m = decode(data)
		if m['type'] == 'acknowledge':
			self.acked.add(json.loads(m['payload'])['AcknowledgedMessageSequenceNumber'])
		elif m['type'] == 'output_stream_data':
			self.text += m['payload']
			ack = {'AcknowledgedMessageType': m['type'], 'AcknowledgedMessageId': m['id'], 'AcknowledgedMessageSequenceNumber': m['seq'],
				'IsSequentialMessage': True}
			self.ws.frame(2, odd_message('acknowledge', json.dumps(ack).encode(), 0, 3, 0))

	def expect(self, text):
		while text not in self.text:
			self.step()


@test('a client that pads types in front and writes no digests has its shell; the agent notes it once', 40)
def padded_in_front():
	with World() as w:
		w.gateway()
		a = w.agent(shell=True, shell_user=me())
		c = OddClient(w)
		c.input(b'{"cols":120,"rows":34}', 3)
		c.input(b'echo A$((40+2))B; stty size; read x; echo "got $x"\r')
		c.expect(b'A42B\r\n34 120\r\n')
		c.input(b'a b c\r')
		c.expect(b'got a b c')
		while len(c.acked) < 3:
			c.step()
		assert a.count('field=PayloadDigest') == 1, a.lines
		c.input(b'exit\r')
		until(lambda: not w.api().sessions(), 10, 'the session has ended')
		c.ws.close()


def python_with(module):
	"""The Python that has a package of Debian's."""
	for python in ('/usr/bin/python3', sys.executable):
		r = subprocess.run([python, '-c', 'import ' + module], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_env())
		if r.returncode == 0:
			return python
	raise Skip('python3-%s is not installed (contrib/debian-packages.sh test)' % module)


BOTO3 = '''
import boto3, botocore, sys
url, ca, target, port = sys.argv[1:]
ssm = boto3.client('ssm', region_name=%r, endpoint_url=url, verify=ca, aws_access_key_id=%r, aws_secret_access_key=%r)
found = ssm.describe_instance_information(Filters=[{'Key': 'InstanceIds', 'Values': [target]}])['InstanceInformationList']
assert [i['PingStatus'] for i in found] == ['Online'], found
assert ssm.get_connection_status(Target=target)['Status'] == 'connected'
assert ssm.get_connection_status(Target='i-0000000000000dead')['Status'] == 'notconnected'
s = ssm.start_session(Target=target, DocumentName='AWS-StartPortForwardingSession', Parameters={'portNumber': [port], 'localPortNumber': ['0']},
	Reason='because')
assert s['StreamUrl'].startswith('wss://') and s['TokenValue']
again = ssm.resume_session(SessionId=s['SessionId'])
assert again['SessionId'] == s['SessionId'] and again['TokenValue'] != s['TokenValue']
mine = [x['SessionId'] for page in ssm.get_paginator('describe_sessions').paginate(State='Active') for x in page['Sessions']]
assert mine == [s['SessionId']], mine
assert ssm.terminate_session(SessionId=s['SessionId'])['SessionId'] == s['SessionId']
for call, code in ((lambda: ssm.start_session(Target='i-0000000000000dead'), 'TargetNotConnected'),
		(lambda: ssm.start_session(Target=target, DocumentName='Nothing'), 'InvalidDocument'),
		(lambda: ssm.resume_session(SessionId='nobody-0123'), 'DoesNotExistException')):
	try:
		call()
		assert False, code
	except botocore.exceptions.ClientError as e:
		assert e.response['Error']['Code'] == code, e
print('all right')
''' % (REGION, USER_KEY, USER_SECRET)


@test('boto3: describe, connection status, start, resume, terminate, and the errors by name', 60)
def boto3():
	python = python_with('boto3')
	s = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		out = run([python, '-c', BOTO3, w.url, w.path('ca.pem'), TARGET, str(s.port)], w, env=clean_env(HOME=w.dir))
		assert out.strip() == b'all right', out
		assert not w.api().sessions()


def proxied(w):
	"""sshd behind an agent; -> its port, the command that a client starts to get there."""
	port, _ = sshd(w)
	w.gateway()
	w.agent()
	return port, '%s connect -c %s %s %d' % (shlex.quote(BIN), client_ini(w), TARGET, port)


SCRIPT = 'cat; exit 7'


@test("PuTTY's plink over connect: bytes both ways, the exit code", 60)
def plink():
	need('plink', 'puttygen', 'ssh-keygen')
	with World() as w:
		port, proxy = proxied(w)
		env = clean_env(HOME=w.dir)
		run(['puttygen', w.path('ssh_user'), '-O', 'private', '-o', w.path('user.ppk')], w, env=env)
		key = run(['ssh-keygen', '-l', '-f', w.path('ssh_host.pub')], w).split()[1].decode()
		data = os.urandom(2000000)
		out = run(['plink', '-batch', '-ssh', '-proxycmd', proxy, '-hostkey', key, '-i', w.path('user.ppk'), '-P', str(port), me() + '@' + TARGET,
			SCRIPT], w, env=env, input=data, ok=(7,))
		assert out == data
		until(lambda: not w.api().sessions(), 10, 'the session has ended')


@test("dropbear's dbclient over connect: bytes both ways, the exit code", 60)
def dbclient():
	need('dbclient', 'dropbearconvert')
	with World() as w:
		port, proxy = proxied(w)
		run(['dropbearconvert', 'openssh', 'dropbear', w.path('ssh_user'), w.path('user.db')], w)
		data = os.urandom(2000000)
		out = run(['dbclient', '-y', '-y', '-T', '-J', proxy, '-i', w.path('user.db'), me() + '@' + TARGET, SCRIPT], w, env=clean_env(HOME=w.dir), input=data,
			ok=(7,))
		assert out == data
		until(lambda: not w.api().sessions(), 10, 'the session has ended')


PARAMIKO = '''
import hashlib, os, paramiko, sys
proxy, key, user, home = sys.argv[1:]
c = paramiko.SSHClient()
c.set_missing_host_key_policy(paramiko.AutoAddPolicy())
c.connect('anything', username=user, pkey=paramiko.Ed25519Key.from_private_key_file(key), sock=paramiko.ProxyCommand(proxy), allow_agent=False,
	look_for_keys=False)
data = os.urandom(1000000)
i, o, e = c.exec_command('cat; exit 7')
i.write(data[:1000])
i.channel.shutdown_write()
assert o.read() == data[:1000] and o.channel.recv_exit_status() == 7
f = c.open_sftp()
with f.open(home + '/up', 'wb') as g:
	g.write(data)
with f.open(home + '/up', 'rb') as g:
	g.prefetch()
	assert g.read() == data
c.close()
print('all right')
'''


@test('paramiko over connect: a command with its exit code, SFTP both ways', 60)
def paramiko():
	python = python_with('paramiko')
	with World() as w:
		port, proxy = proxied(w)
		out = run([python, '-W', 'ignore', '-c', PARAMIKO, proxy, w.path('ssh_user'), me(), w.dir], w, env=clean_env(HOME=w.dir))
		assert out.strip() == b'all right', out
		until(lambda: not w.api().sessions(), 10, 'the session has ended')


# As its own example does it.
JAVASCRIPT = r"""
const WebSocket = require('ws'), { ssm } = require('ssm-session'), fs = require('fs');
const answer = JSON.parse(process.argv[2]), size = { rows: 34, cols: 120 };
const ws = new WebSocket(answer.StreamUrl, { ca: fs.readFileSync(process.argv[3]) });
const text = s => ssm.sendText(ws, new TextEncoder().encode(s));
let out = '', step = 0;
const steps = [[/[#$%>] $/, "stty size; echo A$((40+2))B\r"], [/34 120\r\n[^]*A42B\r\n/, 'read x; echo "got $x"\r'], [/got \$x[^]*\n/, 'a b\r'],
	[/got a b\r\n/, 'exit\r']];
ws.onopen = () => ssm.init(ws, { token: answer.TokenValue, termOptions: size });
ws.onerror = e => { console.log(e.message); process.exit(1); };
ws.onclose = () => process.exit(step == steps.length ? 0 : 1);
ws.onmessage = e => {
	const m = ssm.decode(e.data);
	ssm.sendACK(ws, m);
	if (m.payloadType === 17)
		ssm.sendInitMessage(ws, size);
	if (m.payloadType !== 1)
		return;
	const got = new TextDecoder().decode(m.payload);
	process.stdout.write(got);
	out += got;
	if (step < steps.length && steps[step][0].test(out)) {
		out = '';
		text(steps[step++][1]);
	}
};
"""


@test('ssm-session, a JavaScript client from the npm registry: a shell from prompt to exit', 120, long=True)
def javascript():
	need('node', 'npm')
	with World() as w:
		env = clean_env(HOME=w.dir, npm_config_cache=w.path('npm'))
		r = subprocess.run(['npm', 'install', '--no-audit', '--no-fund', '--ignore-scripts', 'ssm-session@1.0.6', 'ws@8'], cwd=w.dir, env=env,
			stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=90)
		if r.returncode:
			raise Skip('npm cannot install the client: %s' % r.stdout.decode()[-200:])
		w.gateway()
		a = w.agent(shell=True, shell_user=me())
		status, answer = w.api().call('StartSession', {'Target': TARGET})
		assert status == 200
		with open(w.path('client.js'), 'w') as f:
			f.write(JAVASCRIPT)
		out = run(['node', 'client.js', json.dumps(answer), w.path('ca.pem')], w, env=env, timeout=60)
		assert b'got a b' in out
		assert a.count('field=PayloadDigest') == 1, a.lines
		until(lambda: not w.api().sessions(), 10, 'the session has ended')
