"""What no well-behaved peer sends to the gateway: the right status or close code, a line in the log, no
descriptor left, and the sessions of others undisturbed."""
import contextlib
import datetime
import json
import socket
import ssl
import struct
import time
import uuid

from harness import AGENT_KEY, AGENT_SECRET, REGION, SLOW, TARGET, World, until
from run import test
from services import Server, connect, echo, ping
from wire import WebSocket, acknowledge, decode, encode, read_head, sign, status_of, tls_socket


@contextlib.contextmanager
def gateway_under_fire(**gateway):
	"""A gateway with a live tunnel through it; afterwards that tunnel still works and no descriptor is left."""
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port, gateway=gateway)
		c = connect(f.ports['t'])
		ping(c)
		w.api().instances()
		base = len(g.fds())
		yield w, g
		ping(c)
		assert len(w.api().sessions()) >= 1
		until(lambda: len(g.fds()) <= base, 15, 'descriptors of the gateway back to %d, are %s' % (base, g.fds()))
		c.close()


def kind(out):
	return out.get('__type', '').split('#')[-1]


@test('API: unsigned, badly signed, unknown key, wrong clock, wrong region', 60, short=True)
def api_signatures():
	with gateway_under_fire(region=REGION) as (w, g):
		api = w.api()
		body = b'{}'
		plain = {'Content-Type': 'application/x-amz-json-1.1', 'X-Amz-Target': 'AmazonSSM.DescribeSessions'}

		def post(headers, data=body):
			status, _, out = api.raw('POST', '/', headers, data)
			return status, kind(json.loads(out))

		mark = g.mark()
		status, t = post(plain)
		assert 400 <= status < 404 and t == 'MissingAuthenticationTokenException', (status, t)
		g.wait_log('peer=', since=mark)
		good = api.headers('DescribeInstanceInformation', body)
		assert api.raw('POST', '/', good, body)[0] == 200
		bad = dict(good)
		bad['Authorization'] = bad['Authorization'][:-1] + ('0' if bad['Authorization'][-1] != '0' else '1')
		status, t = post(bad)
		assert 400 <= status < 404 and t == 'InvalidSignatureException', (status, t)
		status, t = post(good, b'{ }')  # another body than the signed one
		assert 400 <= status < 404 and t == 'InvalidSignatureException', (status, t)
		status, t = post(dict(good, **{'X-Amz-Extra': 'x'}))  # an x-amz header that the signature does not cover
		assert 400 <= status < 404, (status, t)
		status, t = post(dict(good, Authorization='AWS4-HMAC-SHA256 garbage'))
		assert 400 <= status < 404 and t == 'IncompleteSignatureException', (status, t)
		status, t = post(api.headers('DescribeInstanceInformation', body, key_id='AKIANOBODY0000000000'))
		assert 400 <= status < 404 and t in ('UnrecognizedClientException', 'InvalidSignatureException'), (status, t)
		status, t = post(api.headers('DescribeInstanceInformation', body, region='us-west-2'))
		assert 400 <= status < 404 and t in ('InvalidSignatureException', 'UnrecognizedClientException'), (status, t)
		now = datetime.datetime.now(datetime.timezone.utc)
		for minutes, fits in ((-16, False), (16, False), (-14, True), (14, True)):
			status, t = post(api.headers('DescribeInstanceInformation', body, when=now + datetime.timedelta(minutes=minutes)))
			assert (status == 200) == fits, (minutes, status, t)
			assert fits or t in ('InvalidSignatureException', 'RequestExpired'), t


@test('API: broken JSON, unknown operation, wrong method, path and types', 60)
def api_bodies():
	with gateway_under_fire() as (w, g):
		api = w.api()
		for body, kinds in ((b'{', 'SerializationException'), (b'[]', 'SerializationException ValidationException'), (b'\xff\xfe', 'SerializationException'),
				(b'{"Target":5}', 'SerializationException ValidationException'), (b'[' * 5000, 'SerializationException'),
				(b'{"Target":"i-0123456789abcdef0","Parameters":{"portNumber":"80"}}', 'SerializationException ValidationException InvalidParameters'),
				(b'{"Target":"i-0123456789abcdef0","DocumentName":"AWS-StartPortForwardingSession","Parameters":{"portNumber":["70000"]}}', 'InvalidParameters')):
			status, _, out = api.raw('POST', '/', api.headers('StartSession', body), body)
			assert status == 400 and kind(json.loads(out)) in kinds.split(), (body[:60], status, out)
		status, out = api.call('NoSuchOperation', {})
		assert status in (400, 404) and kind(out) == 'UnknownOperationException', (status, out)
		for op in ('ResumeSession', 'TerminateSession'):
			status, out = api.call(op, {'SessionId': 'nobody-00000000000000000'})
			assert status == 400 and kind(out) == 'DoesNotExistException', (op, status, out)
		for method, path, codes in (('GET', '/', (400, 403, 404, 405)), ('DELETE', '/', (400, 403, 404, 405)), ('POST', '/nothing/here', (400, 403, 404))):
			status = api.raw(method, path, {})[0]
			assert status in codes, (method, path, status)


@test('API: instances cannot act as users nor users as instances; sessions belong to their owner', 60)
def api_owners():
	with World() as w:
		w.keys['users']['other'] = ('AKIATESTUSER00000003', 'plantedThirdSecretR5t6', 'i-*')
		w.gateway()
		w.agent()
		api, other, agent = w.api(), w.api('AKIATESTUSER00000003', 'plantedThirdSecretR5t6'), w.api(AGENT_KEY, AGENT_SECRET)
		status, mine = api.start(TARGET, 80)
		assert status == 200, mine
		sid = mine['SessionId']
		unknown = other.call('ResumeSession', {'SessionId': 'nobody-00000000000000000'})
		for op in ('ResumeSession', 'TerminateSession'):
			status, out = other.call(op, {'SessionId': sid})
			assert (status, kind(out)) == (unknown[0], kind(unknown[1])), 'forbidden and unknown differ: %s %s' % (status, out)
		assert [s['SessionId'] for s in other.sessions()] == []
		assert agent.start(TARGET, 80)[0] != 200
		body = json.dumps({'MessageSchemaVersion': '1.0', 'RequestId': str(uuid.uuid4()), 'ClientId': ''}).encode()

		def create(key, secret, path):
			h = sign('POST', w.url + path, {'Content-Type': 'application/json'}, body, key, secret, REGION, 'ssmmessages')
			return api.raw('POST', path, h, body)[0]
		assert create(api.key_id, api.secret, '/v1/control-channel/' + TARGET) == 403
		assert create(AGENT_KEY, AGENT_SECRET, '/v1/control-channel/i-00000000000000bad') == 403
		assert create(api.key_id, api.secret, '/v1/data-channel/' + sid) == 403
		assert api.call('TerminateSession', {'SessionId': sid})[0] == 200


def raw_request(w, data, timeout=12):
	s = tls_socket('127.0.0.1', w.gw_port, w.path('ca.pem'), timeout * SLOW)
	try:
		s.sendall(data)
	except (ConnectionError, ssl.SSLError):
		pass
	head, _ = read_head(s)
	s.close()
	return status_of(head)


@test('HTTP: heads over 16 KiB, bodies over 64 KiB, smuggling shapes', 90, short=True)
def http_heads():
	with gateway_under_fire() as (w, g):
		line = b'POST / HTTP/1.1\r\nHost: x\r\n'
		mark = g.mark()
		assert raw_request(w, line + b'X-Long: ' + b'a' * 17 * 1024 + b'\r\n\r\n') == 431
		g.wait_log('peer=.*431|431.*peer=', since=mark)
		assert raw_request(w, line + b''.join(b'X-%d: y\r\n' % i for i in range(3000)) + b'\r\n') == 431
		assert raw_request(w, line + b'Content-Length: 70000\r\n\r\n') == 413
		assert raw_request(w, line + b'\r\n') in (400, 411)
		assert raw_request(w, line + b'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n') in (400, 411, 501)
		for bad in (b'Content-Length: 1\r\nContent-Length: 2\r\n\r\nx', b'Content-Length : 5\r\n\r\nhello', b'Content-Length: +5\r\n\r\nhello',
				b'Host: y\r\nContent-Length: 0\r\n\r\n', b'X: a\r\n b\r\nContent-Length: 0\r\n\r\n', b'X: a\nContent-Length: 0\r\n\r\n',
				b'X: a\x00b\r\nContent-Length: 0\r\n\r\n', b'X-Amz-Date: 1\r\nX-Amz-Date: 2\r\nContent-Length: 0\r\n\r\n',
				b'Authorization: a\r\nAuthorization: b\r\nContent-Length: 0\r\n\r\n'):
			assert raw_request(w, line + bad) == 400, bad
		for bad in (b'POST http://x/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n', b'CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n', b'\x16\x03\x01garbage\r\n\r\n',
				b'POST / HTTP/3.7\r\nHost: x\r\nContent-Length: 0\r\n\r\n'):
			assert raw_request(w, bad) in (400, 405, 501, 505), bad
		# No TLS at all: the peer is dropped.
		s = socket.create_connection(('127.0.0.1', w.gw_port), 10)
		s.sendall(line + b'\r\n')
		try:
			while s.recv(4096):
				pass
		except ConnectionError:
			pass
		s.close()


@test('HTTP: a head that never ends is cut after 10 s, others are served meanwhile', 60)
def slow_head():
	with gateway_under_fire() as (w, g):
		t0 = time.monotonic()
		s = tls_socket('127.0.0.1', w.gw_port, w.path('ca.pem'), 40)
		s.sendall(b'POST / HTTP/1.1\r\nHost')
		assert w.api().instances()
		while True:
			try:
				if not s.recv(4096):
					break
			except (ConnectionError, ssl.SSLError):
				break
		spent = time.monotonic() - t0
		s.close()
		assert 8 < spent < 14 * SLOW, 'closed after %.1f s' % spent


@test('connections of one peer are limited, without an answer to the surplus', 60)
def per_peer():
	with World() as w:
		g = w.gateway(per_peer_connections=8)
		held = []
		for _ in range(8):
			held.append(tls_socket('127.0.0.1', w.gw_port, w.path('ca.pem')))
			held[-1].sendall(b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}')  # refused, but it has said something
			assert status_of(read_head(held[-1])[0]) == 400
		mark = g.mark()
		try:
			s = socket.create_connection(('127.0.0.1', w.gw_port), 5)
			s.settimeout(5)
			s.sendall(b'x')
			refused = s.recv(1) == b''
		except ConnectionError:
			refused = True
		assert refused, 'a ninth connection was served'
		g.wait_log('127\\.0\\.0\\.1', since=mark)
		for s in held:
			s.close()
		until(lambda: works(w), 5, 'served again')


@test('connections that say nothing do not keep others of the same address out', 60)
def silent_peers():
	with World() as w:
		w.gateway(per_peer_connections=8)
		held = [tls_socket('127.0.0.1', w.gw_port, w.path('ca.pem')) for _ in range(8)]
		for _ in range(3):
			held.append(socket.create_connection(('127.0.0.1', w.gw_port), 5))
		assert w.api().instances() is not None
		assert w.api().instances() is not None
		for s in held:
			s.close()


def works(w):
	try:
		return w.api().instances() is not None
	except (OSError, ssl.SSLError):
		return False


def client_channel(w, port=80):
	status, out = w.api().start(TARGET, port)
	assert status == 200, out
	return out


def ws(w, out, **kw):
	return WebSocket(out['StreamUrl'], w.path('ca.pem'), **kw)


@test('WebSocket: wrong, used and expired tokens, unknown sessions, wrong first frames', 90, short=True)
def ws_tokens():
	with gateway_under_fire(token_ttl='1s') as (w, g):
		api = w.api()
		out = client_channel(w)
		a = ws(w, out)
		assert a.status == 101, a.head
		cid = str(uuid.uuid4())
		a.token(out['TokenValue'], cid)
		assert a.recv()[0] == 2  # the agent's handshake
		mark = g.mark()
		b = ws(w, out)
		b.token(out['TokenValue'], cid)  # used
		assert b.close_code() == 1008
		g.wait_log('channel refused', since=mark)
		assert a.recv()[0] in (2, 9, 10), 'the link that was there lost its place to a used token'
		c = ws(w, out)
		c.token('x' * 43 + '=')
		assert c.close_code() == 1008
		status, again = api.call('ResumeSession', {'SessionId': out['SessionId']})
		assert status == 200
		d = WebSocket(again.get('StreamUrl') or out['StreamUrl'], w.path('ca.pem'))
		d.token(again['TokenValue'], str(uuid.uuid4()))  # another ClientId
		assert d.close_code() == 1008
		status, again = api.call('ResumeSession', {'SessionId': out['SessionId']})
		time.sleep(1.3)  # the token's life is what is tested
		e = WebSocket(again.get('StreamUrl') or out['StreamUrl'], w.path('ca.pem'))
		e.token(again['TokenValue'], cid)
		assert e.close_code() == 1008
		for text in ('{', '[]', '{"TokenValue":5}', '', '{"TokenValue":"' + 'y' * 5000 + '"}'):
			f = ws(w, out)
			f.frame(1, text.encode())
			assert f.close_code() == (1009 if len(text) > 4096 else 1008), text
			f.close()
		f = ws(w, out)
		f.frame(2, encode('input_stream_data', b'early'))
		assert f.close_code() in (1003, 1008)
		unknown = dict(out, StreamUrl=out['StreamUrl'].replace(out['SessionId'], 'nobody-00000000000000000'))
		h = ws(w, unknown)
		if h.status == 101:
			h.token(out['TokenValue'])
			assert h.close_code() == 1008
		else:
			assert h.status in (400, 403, 404), h.status
		signed = sign('GET', out['StreamUrl'].replace('wss:', 'https:'), {}, b'', api.key_id, 'wrong', REGION, 'ssmmessages')
		k = ws(w, out, headers=signed)
		assert k.status == 403 or k.status == 400, 'a bad signature on the upgrade was let through: %d' % k.status
		for x in (a, b, c, d, e, f, h, k):
			x.close()
		api.call('TerminateSession', {'SessionId': out['SessionId']})


@test('WebSocket: unmasked, reserved bits, oversized, fragments, bad control frames', 90, short=True)
def ws_frames():
	with gateway_under_fire() as (w, g):
		def fresh():
			out = client_channel(w)
			c = ws(w, out)
			c.token(out['TokenValue'])
			assert c.recv()[0] == 2
			c.sid = out['SessionId']
			return c

		def over(c, codes):
			got = c.close_code()
			assert got in codes, got
			c.close()
			w.api().call('TerminateSession', {'SessionId': c.sid})

		mark = g.mark()
		c = fresh()
		c.frame(2, b'x' * 130, mask=False)
		over(c, (1002,))
		g.wait_log('peer=', since=mark)
		c = fresh()
		c.frame(2, b'x' * 130, rsv=4)
		over(c, (1002,))
		c = fresh()
		c.frame(3, b'')
		over(c, (1002,))
		c = fresh()
		c.frame(2, b'', length=(256 << 10) + 1)  # only the announcement
		over(c, (1009,))
		c = fresh()
		c.frame(2, b'', length=(1 << 63) - 1)
		over(c, (1009, 1002))
		c = fresh()
		for _ in range(5):
			try:
				c.frame(2 if _ == 0 else 0, b'y' * 65000, fin=False)
			except (OSError, ssl.SSLError):
				break
		over(c, (1009,))
		c = fresh()
		c.frame(9, b'p' * 126)
		over(c, (1002,))
		c = fresh()
		c.frame(9, b'', fin=False)
		over(c, (1002,))
		c = fresh()
		c.frame(0, b'no start')
		over(c, (1002,))
		c = fresh()
		c.frame(1, b'{}')
		over(c, (1003, 1008))
		c = fresh()  # a ping is answered, fragments of a good message pass
		c.frame(9, b'keepalive')
		while True:
			op, data = c.recv()
			assert op is not None
			if op == 10:
				assert data == b'keepalive'
				break
		c.close()
		w.api().call('TerminateSession', {'SessionId': c.sid})


@test('messages: wrong digest, lengths, versions and types end no process and no session', 90, short=True)
def messages():
	with gateway_under_fire() as (w, g):
		s = Server(echo)
		out = client_channel(w, s.port)
		c = ws(w, out)
		c.token(out['TokenValue'])
		m = decode(c.recv()[1])
		if m['type'] == 'start_publication':  # when the agent was there first
			m = decode(c.recv()[1])
		assert m['type'] == 'output_stream_data' and m['ptype'] == 5, m
		for bad in (b'', b'x', b'x' * 119, encode('input_stream_data', b'zz', digest=b'\0' * 32, ptype=6), encode('input_stream_data', b'zz', length=3, ptype=6),
				encode('input_stream_data', b'zz', length=0xffffffff, ptype=6), encode('input_stream_data', b'zz', header_length=0xfffffff0, ptype=6),
				encode('input_stream_data', b'zz', header_length=0, ptype=6), encode('input_stream_data', b'zz', schema=77, ptype=6),
				encode('input_stream_data', b'zz', created=0, ptype=6), encode('input_stream_data', b'zz', seq=-1, ptype=6),
				encode('input_stream_data', b'zz', seq=1 << 62, ptype=6), encode('no_such_type', b'zz'), encode('acknowledge', b'{'), encode('acknowledge', b''),
				encode('acknowledge', b'{"AcknowledgedMessageSequenceNumber":1e308}'), encode('channel_closed', b'{}'), encode('start_publication', b'?', digest=b'\1' * 32),
				encode('pause_publication', b'', length=99), encode('agent_session_state', b'[]')):
			c.frame(2, bad)
		# Now the handshake as it should be: the session is still there.
		c.frame(2, acknowledge(m))
		actions = [x['ActionType'] for x in json.loads(m['payload'])['RequestedClientActions']]
		answer = {'ClientVersion': '1.2.764.0', 'Errors': None, 'ProcessedClientActions': [
			{'ActionType': t, 'ActionStatus': 1 if t == 'SessionType' else 3, 'ActionResult': None, 'Error': ''} for t in actions]}
		c.frame(2, encode('input_stream_data', json.dumps(answer).encode(), seq=0, ptype=6))
		c.sock.settimeout(15 * SLOW)
		seen = set()
		while not {7} <= seen:
			op, data = c.recv()
			assert op is not None, 'the channel was closed, seen %s' % seen
			if op == 2:
				m = decode(data)
				if m['type'] == 'output_stream_data':
					seen.add(m['ptype'])
					c.frame(2, acknowledge(m))
		# smux version 1: SYN and PSH on stream 3, echoed
		c.frame(2, encode('input_stream_data', b'\x01\0\0\0\x03\0\0\0' + b'\x01\x02\x05\0\x03\0\0\0hello', seq=1, ptype=1))
		got = b''
		while not got.endswith(b'hello'):
			op, data = c.recv()
			assert op is not None
			if op == 2 and decode(data)['type'] == 'output_stream_data':
				m = decode(data)
				c.frame(2, acknowledge(m))
				got += m['payload'] if m['ptype'] == 1 else b''
		# Rubbish where smux is expected ends that session at most.
		c.frame(2, encode('input_stream_data', b'\xff' * 500, seq=2, ptype=1))
		c.close()
		w.api().call('TerminateSession', {'SessionId': out['SessionId']})


@test('200 connections that only say half a hello are dropped without a trace', 90)
def half_tls():
	with gateway_under_fire() as (w, g):
		socks = []
		for i in range(200):
			s = socket.create_connection(('127.0.0.1', w.gw_port), 10)
			s.sendall(b'\x16\x03\x01\x02\x00\x01'[:i % 7])
			socks.append(s)
		assert w.api().instances()
		for s in socks:
			s.close()
