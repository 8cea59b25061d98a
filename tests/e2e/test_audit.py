"""The audit logs of gateway and agent: who, what, when, how it ended; nothing secret, nothing forged, rotated by SIGHUP."""
import json
import os
import signal
import socket
import time

from harness import AGENT_KEY, AGENT_SECRET, TARGET, USER_KEY, USER_SECRET, Skip, World, until
from run import test
from services import MIB, Server, blob, both_ways, connect, echo, ping, refused, upload


def lines(path):
	"""Each line is an object; a line that is being written does not count."""
	if not os.path.exists(path):
		return []
	with open(path) as f:
		text = f.read()
	out = [json.loads(line) for line in text.split('\n')[:-1]]
	for o in out:
		assert {'time', 'role', 'event'} <= set(o), o
	return out


def wait_event(path, event, **fields):
	def found():
		for o in lines(path):
			if o['event'] == event and all(str(v) in str(o.get(k, '')) for k, v in fields.items()):
				return o
		return None
	return until(found, 10, 'audit line %s %s in %s' % (event, fields, path))


@test('audit log: a session from its start to its end, at the gateway and at the agent; refusals; rotation', 90, short=True)
def audit():
	with World() as w:
		s = Server(echo)
		gw, ag = w.path('gateway.audit'), w.path('agent.audit')
		g, a, f = w.standard(s.port, gateway={'audit_log': 'gateway.audit'}, agent={'audit_log': 'agent.audit', 'allow': '127.0.0.1:%d' % s.port})
		wait_event(gw, 'link-open', channel='control', instance=TARGET, key=AGENT_KEY, peer='127.0.0.1:')
		c = connect(f.ports['t'])
		ping(c, b'p' * 1000)
		start = wait_event(gw, 'session-start', user='ops', key=USER_KEY, target=TARGET, document='AWS-StartPortForwardingSession', port=s.port, peer='127.0.0.1')
		wait_event(gw, 'link-open', channel='data', session=start['session'], user='ops', key=USER_KEY)
		wait_event(ag, 'session-start', session=start['session'], user='ops', port=s.port)
		wait_event(ag, 'connection', session=start['session'], address='127.0.0.1:%d' % s.port, host='localhost')
		c.close()
		over = wait_event(ag, 'connection-end', session=start['session'], text='')
		assert over['bytes_in'] >= 1000 and over['bytes_out'] >= 1000, over
		# refusals: a signature, a target, a text that would forge a line
		w.api(secret='plantedWrongSecret77777').call('DescribeSessions', {'State': 'Active'})
		wait_event(gw, 'refused', key=USER_KEY, reason='InvalidSignatureException', peer='127.0.0.1')
		w.api(key='AKIDSTRANGER00000001').call('DescribeSessions', {'State': 'Active'})
		wait_event(gw, 'refused', key='AKIDSTRANGER00000001', reason='UnrecognizedClientException')
		g.wait_log('request refused .*key="?AKIDSTRANGER00000001')
		w.api().start('web-1', s.port)
		wait_event(gw, 'refused', op='StartSession', user='ops', key=USER_KEY, target='web-1', reason='AccessDeniedException')
		g.wait_log('call refused op=StartSession .*key=%s user=ops' % USER_KEY)
		forged = '"}\n{"event":"forged","time":"x","role":"y"}\n'
		status, out = w.api().call('StartSession', {'Target': TARGET, 'Reason': forged, 'DocumentName': 'AWS-StartPortForwardingSession',
			'Parameters': {'portNumber': ['9']}})
		assert status == 200, out
		wait_event(gw, 'session-start', session=out['SessionId'], reason=forged)
		g.wait_log('session started owner=ops .*host=- port=9 reason=')
		assert not [o for o in lines(gw) if o['event'] == 'forged']
		w.api().call('TerminateSession', {'SessionId': out['SessionId']})
		wait_event(gw, 'session-terminate', session=out['SessionId'], user='ops')
		wait_event(gw, 'session-end', session=out['SessionId'], status='Terminated', port=9)
		# rotated
		for p, path in ((g, gw), (a, ag)):
			os.rename(path, path + '.1')
			p.notified.clear()
			p.signal(signal.SIGHUP)
			p.wait_note('READY=1')
			until(lambda: os.path.exists(path), 5, 'the file is opened again')
			assert os.stat(path).st_mode & 0o777 == 0o600
		f.stop()
		end = wait_event(gw, 'session-end', session=start['session'], user='ops')
		assert end['bytes_to_target'] > 1000 and end['bytes_to_client'] > 1000, end
		wait_event(ag, 'session-end', session=start['session'])
		wait_event(gw, 'link-end', session=start['session'])
		a.stop(), g.stop()
		for path in (gw, gw + '.1', ag, ag + '.1'):
			with open(path) as log:
				text = log.read()
			for secret in (USER_SECRET, AGENT_SECRET, 'planted', 'Signature=', 'TokenValue', out['TokenValue']):
				assert secret not in text, '%s is in %s' % (secret, path)


@test('audit log: a connection that the agent refuses is in its log, with the reason', 60)
def refused_connection():
	with World() as w:
		ag = w.path('agent.audit')
		w.standard(9, agent={'audit_log': 'agent.audit', 'allow': '127.0.0.1:10'})
		f = w.procs[-1]
		try:
			refused(f.ports['t'])
		except ConnectionResetError:
			pass
		wait_event(ag, 'connection-refused', user='ops', host='localhost', port=9, text='allow list')


@test('audit log: each of several links of a session has its own bytes, which add up to the session\'s', 60)
def several_links():
	with World() as w:
		s, gw = Server(blob), w.path('gateway.audit')
		w.standard(s.port, gateway={'audit_log': 'gateway.audit'}, links=3)
		g, _, f = w.procs
		with connect(f.ports['t']) as c:
			upload(c, 1000)
			until(lambda: w.status(g)[0]['gateway']['sessions'][0]['client']['links'] == 3, 10, 'three links')
			both_ways(c, 8 * MIB)
		f.stop()
		end = wait_event(gw, 'session-end', user='ops')
		until(lambda: len([o for o in lines(gw) if o['event'] == 'link-end' and o['channel'] == 'data']) == 6, 10, 'six links ended')
		links = [o for o in lines(gw) if o['event'] == 'link-end' and o['channel'] == 'data']
		assert len([o for o in lines(gw) if o['event'] == 'link-open' and o['channel'] == 'data']) == 6
		for key, who in (('bytes_to_client', USER_KEY), ('bytes_to_target', AGENT_KEY)):
			sent = [o['bytes_sent'] for o in links if o['key'] == who]
			# The farewells go after the session's end.
			assert len(sent) == 3 and end[key] <= sum(sent) < end[key] + 10000 and end[key] > 8 * MIB, (key, end, sent)


@test('audit log: syslog', 60)
def to_syslog():
	if os.path.exists('/dev/log') or os.getuid() != 0:
		raise Skip('/dev/log belongs to somebody else')
	sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
	sock.bind('/dev/log')
	sock.settimeout(10)
	try:
		with World() as w:
			w.gateway(audit_log='syslog')
			w.api(key='AKIDSTRANGER00000001').call('DescribeSessions', {'State': 'Active'})
			got = sock.recv(65536).decode()
			assert 'tunneld[' in got, got
			o = json.loads(got[got.index('{'):].rstrip('\0\n'))
			assert o['event'] == 'refused' and o['key'] == 'AKIDSTRANGER00000001', o
	finally:
		os.unlink('/dev/log')
		sock.close()


@test('two agents with one id: the first hears from whom its place was taken; a key of another instance says whose it is', 60, short=True)
def twins():
	with World() as w:
		other = 'i-0fedcba9876543210'
		w.keys['instances'][other] = ('AKIATESTAGENT0000009', 'plantedOtherAgentT5r1')
		g = w.gateway()
		a = w.agent()
		b = w.agent(name='agent-b', wait=False)
		a.wait_log('control channel lost.*another agent connected with this instance_id')
		b.stop()
		w.write_agent(instance=other, name='agent-c', access_key_id=AGENT_KEY, secret_access_key=AGENT_SECRET)
		from harness import BIN
		c = w.proc('agent-c', [BIN, 'agent', '-c', w.path('agent-c.ini')])
		c.wait_log('the key is that of instance %s, not of instance %s' % (TARGET, other))
		g.wait_log('channel refused .*key=%s instance=%s' % (AGENT_KEY, TARGET))


@test('audit log: connections that the agent refuses write no lines at the rate of who asks for them, and all are counted', 60)
def refused_many():
	with World() as w:
		path = w.path('agent.audit')
		_, a, f = w.standard(9, agent={'audit_log': 'agent.audit', 'allow': '127.0.0.1:10'})
		began = time.monotonic()
		for _ in range(400):
			try:
				refused(f.ports['t'])
			except ConnectionResetError:
				pass
		seconds = time.monotonic() - began
		until(lambda: w.status(a)[0]['agent']['counters']['denied'] == 400, 10, 'all were refused')
		f.stop()
		wait_event(path, 'session-end', user='ops')
		told = sum(o['event'] == 'connection-refused' for o in lines(path))
		more = sum(o['connections'] for o in lines(path) if o['event'] == 'connection-refused-more')
		assert 20 <= told <= 20 * (seconds + 2) and told + more == 400, (told, more, seconds)
		assert seconds < 10, seconds  # else nothing was shown
