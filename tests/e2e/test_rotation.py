"""Keys that change while connections are open: at the gateway, at the forwarder, at the agent."""
import os
import signal

from harness import AGENT_KEY, AGENT_SECRET, TARGET, USER_KEY, USER_SECRET, World, until
from run import test
from services import Server, connect, echo, ping, wait_reset

NEW_USER, NEW_AGENT = 'plantedRotatedUserH3k8', 'plantedRotatedAgentJ6m2'


def hup(p):
	p.notified.clear()
	mark = p.mark()
	p.signal(signal.SIGHUP)
	p.wait_note('READY=1')
	return mark


def restart(w, g):
	"""Every link breaks, the session records stay."""
	g.kill9()
	return w.gateway()


@test('rotation: new secrets at gateway, forwarder and agent; an open connection outlives the next break of its links', 90, short=True)
def secrets():
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port)
		c = connect(f.ports['t'])
		ping(c)
		session = list(w.api().sessions())
		w.keys = {'users': {'ops': (USER_KEY, NEW_USER, 'i-*')}, 'instances': {TARGET: (AGENT_KEY, NEW_AGENT)}}
		w.write_gateway()
		w.write_agent()
		w.write_forwarder({'t': {'port': s.port}}, aws={'secret_access_key': NEW_USER})
		hup(g), hup(a)
		mark = hup(f)
		ping(c)
		g = restart(w, g)
		ping(c)
		d = connect(f.ports['t'])
		ping(d)
		assert not f.count('listening', mark) and not f.count('tunnel closed', mark), 'a listener was touched'
		assert list(w.api(secret=NEW_USER).sessions()) == session
		c.close(), d.close()
		for p in (g, a, f):
			assert not p.count('planted'), 'a secret is in a log'


@test('rotation: a secret changed in the credentials file alone is found without a reload', 60)
def credentials_file():
	with World() as w:
		s = Server(echo)
		g = w.gateway()
		w.agent()
		path = w.path('credentials')

		def write(secret):
			with open(path, 'w') as out:
				out.write('[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' % (USER_KEY, secret))
		write(USER_SECRET)
		f = w.forwarder({'t': {'port': s.port}}, aws={'access_key_id': None, 'secret_access_key': None}, env={'AWS_SHARED_CREDENTIALS_FILE': path})
		c = connect(f.ports['t'])
		ping(c)
		w.keys['users']['ops'] = (USER_KEY, NEW_USER, 'i-*')
		write(NEW_USER)
		w.write_gateway()
		restart(w, g)
		ping(c)
		c.close()


@test('rotation: an agent that waits out its back-off tries at once when it is reloaded with the right key', 60)
def agent_waits():
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port, agent={'reconnect_min': '50s', 'reconnect_max': '100s'})
		c = connect(f.ports['t'])
		ping(c)
		w.keys['instances'][TARGET] = (AGENT_KEY, NEW_AGENT)
		w.write_gateway()
		restart(w, g)
		w.write_agent(reconnect_min='100ms', reconnect_max='1s')
		hup(a)
		ping(c)  # 10 s at most, the back-off would have been a minute
		c.close()
		assert AGENT_SECRET != NEW_AGENT
		until(lambda: w.api().instances().get(TARGET, {}).get('PingStatus') == 'Online', 5, 'the control channel is back')


SECOND_USER, SECOND_AGENT = 'AKIATESTUSER00000002', 'AKIATESTAGENT0000002'


def gateway_keys(w, first=True, second=True, user='ops'):
	"""The gateway's file with the old keys, the new ones (in files of their own), or both."""
	keys, w.keys = w.keys, {'users': {}, 'instances': {}}
	path = w.write_gateway()
	w.keys = keys
	with open(path, 'a') as f:
		for section, what, old, new in (('user ' + user, 'targets = i-*', (USER_KEY, USER_SECRET), (SECOND_USER, NEW_USER)),
				('instance ' + TARGET, '', (AGENT_KEY, AGENT_SECRET), (SECOND_AGENT, NEW_AGENT))):
			f.write('[%s]\n%s\n' % (section, what))
			if first:
				f.write('access_key_id = %s\nsecret_access_key = %s\n' % old)
			if second:
				name = new[0] + '.secret'
				with open(w.path(name), 'w') as out:
					os.fchmod(out.fileno(), 0o600)
					out.write(new[1] + '\n')
				f.write('access_key_id%s = %s\nsecret_access_key_file%s = %s\n' % (('_2', new[0], '_2', name) if first else ('', new[0], '', name)))
			f.write('\n')


@test('rotation: two keys at a time; a key that goes takes its links and tokens with it, the session goes on with the other', 90, short=True)
def two_keys():
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port)
		c = connect(f.ports['t'])
		ping(c)
		gateway_keys(w)
		mark = hup(g)
		ping(c)
		with open(w.path('forwarder.ini')) as old:  # what a thief has
			stolen = old.read()
		status, out = w.api().start(TARGET, s.port)
		assert status == 200, out
		w.write_forwarder({'t': {'port': s.port}}, aws={'access_key_id': SECOND_USER, 'secret_access_key': None,
			'secret_access_key_file': SECOND_USER + '.secret'})
		hup(f)
		w.write_agent(access_key_id=SECOND_AGENT, secret_access_key=NEW_AGENT)
		hup(a)
		ping(c)
		assert not g.count('access key was taken away', mark), 'a link was closed while its key was good'
		gateway_keys(w, first=False)
		hup(g)
		for channel in (TARGET, 'ops-'):
			g.wait_log('link closed: its access key was taken away .*channel=%s.*key=' % channel, since=mark)
		ping(c)
		assert w.api(SECOND_USER, NEW_USER).call('DescribeSessions', {'State': 'Active'})[0] == 200
		assert w.api().call('DescribeSessions', {'State': 'Active'})[0] == 400
		assert open_channel(w, out) == 1008, 'a token of a key that has gone was taken'
		g.wait_log('channel refused.*field="?token', since=mark)
		d = connect(f.ports['t'])
		ping(d)
		mark = g.mark()
		gateway_keys(w, first=False, user='other')
		hup(g)
		assert wait_reset(c) in (True, False)
		g.wait_log('session ended', since=mark)
		c.close(), d.close()
		assert stolen


def open_channel(w, grant):
	"""Spends the token of a StartSession by hand; -> the code that the link is closed with."""
	import json
	import ssl
	import struct
	import socket as sockets
	context = ssl.create_default_context(cafile=w.path('ca.pem'))
	raw = sockets.create_connection(('127.0.0.1', w.gw_port), 10)
	with context.wrap_socket(raw, server_hostname='127.0.0.1') as s:
		s.settimeout(10)
		path = grant['StreamUrl'].split('/', 3)[3]
		s.sendall(('GET /%s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n'
			'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n' % path).encode())
		head = b''
		while b'\r\n\r\n' not in head:
			head += s.recv(4096)
		assert b' 101 ' in head, head
		text = json.dumps({'MessageSchemaVersion': '1.0', 'RequestId': '0', 'TokenValue': grant['TokenValue'], 'ClientId': 'x',
			'ClientVersion': '1.2.0.0'}).encode()
		s.sendall(struct.pack('>BBH4s', 0x81, 0x80 | 126, len(text), bytes(4)) + text)
		got = head.split(b'\r\n\r\n', 1)[1]
		while len(got) < 4:
			more = s.recv(4096)
			assert more, got
			got += more
		assert got[0] == 0x88, got
		return struct.unpack('>H', got[2:4])[0]
