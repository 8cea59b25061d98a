"""The wire seen from outside, written apart from the product: SigV4, a raw WebSocket and the 120-byte
message, so that tests can also say what no well-behaved client says."""
import base64
import datetime
import hashlib
import hmac
import http.client
import json
import os
import socket
import ssl
import struct
import time
import urllib.parse
import uuid


def _hmac(key, text):
	return hmac.new(key, text.encode(), hashlib.sha256).digest()


def sign(method, url, headers, body, key_id, secret, region, service, when=None, token=None):
	"""Adds X-Amz-Date and Authorization to headers (a dict) and returns it."""
	u = urllib.parse.urlsplit(url)
	when = when or datetime.datetime.now(datetime.timezone.utc)
	stamp = when.strftime('%Y%m%dT%H%M%SZ')
	h = {k: v for k, v in headers.items()}
	h['Host'] = u.netloc
	h['X-Amz-Date'] = stamp
	if token:
		h['X-Amz-Security-Token'] = token
	names = sorted(k.lower() for k in h)
	low = {k.lower(): ' '.join(v.split()) for k, v in h.items()}
	path = urllib.parse.quote(u.path or '/', safe='/-_.~%' if service == 's3' else '/-_.~')
	query = '&'.join(sorted('%s=%s' % (urllib.parse.quote(k, safe='-_.~'), urllib.parse.quote(v, safe='-_.~'))
		for k, v in urllib.parse.parse_qsl(u.query, keep_blank_values=True)))
	canon = '\n'.join([method, path, query] + ['%s:%s' % (k, low[k]) for k in names] +
		['', ';'.join(names), hashlib.sha256(body).hexdigest()])
	scope = '%s/%s/%s/aws4_request' % (stamp[:8], region, service)
	text = '\n'.join(['AWS4-HMAC-SHA256', stamp, scope, hashlib.sha256(canon.encode()).hexdigest()])
	k = _hmac(_hmac(_hmac(_hmac(('AWS4' + secret).encode(), stamp[:8]), region), service), 'aws4_request')
	h['Authorization'] = 'AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s' % (
		key_id, scope, ';'.join(names), hmac.new(k, text.encode(), hashlib.sha256).hexdigest())
	return h


class Api:
	"""The control API as a signed client."""

	def __init__(self, url, ca, key_id, secret, region='eu-west-1'):
		self.url, self.region, self.key_id, self.secret = url, region, key_id, secret
		self.tls = ssl.create_default_context(cafile=ca)
		self.last_close = False

	def raw(self, method, path, headers, body=b'', timeout=10):
		"""-> status, headers, body.  Nothing is added but Host and Content-Length."""
		u = urllib.parse.urlsplit(self.url)
		c = http.client.HTTPSConnection(u.hostname, u.port, context=self.tls, timeout=timeout)
		try:
			c.request(method, path, body or None, headers)
			r = c.getresponse()
			return r.status, r.headers, r.read()
		finally:
			c.close()

	def headers(self, op, body, service='ssm', prefix='AmazonSSM.', **kw):
		return sign('POST', self.url + '/', {'Content-Type': 'application/x-amz-json-1.1', 'X-Amz-Target': prefix + op}, body,
			kw.get('key_id', self.key_id), kw.get('secret', self.secret), kw.get('region', self.region), service,
			kw.get('when'), kw.get('token'))

	def call(self, op, args, **kw):
		"""-> status, parsed body."""
		body = json.dumps(args).encode()
		status, _, out = self.raw('POST', '/', self.headers(op, body, **kw), body)
		try:
			return status, json.loads(out or b'{}')
		except ValueError:
			return status, {'text': out.decode('latin1')}

	def start(self, target, port, host=None, document=None):
		p = {'portNumber': [str(port)], 'localPortNumber': ['0']}
		if host:
			p['host'] = [host]
		document = document or ('AWS-StartPortForwardingSession' + ('ToRemoteHost' if host else ''))
		return self.call('StartSession', {'Target': target, 'DocumentName': document, 'Parameters': p})

	def instances(self):
		status, out = self.call('DescribeInstanceInformation', {})
		return {i['InstanceId']: i for i in out.get('InstanceInformationList', [])} if status == 200 else {}

	def sessions(self, state='Active'):
		status, out = self.call('DescribeSessions', {'State': state})
		assert status == 200, (status, out)
		return out.get('Sessions', [])


def tls_socket(host, port, ca, timeout=10):
	s = socket.create_connection((host, port), timeout)
	s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
	return ssl.create_default_context(cafile=ca).wrap_socket(s, server_hostname=host)


def read_head(sock):
	"""The answer's head and what came behind it; b'' when the peer just closed."""
	data = b''
	while b'\r\n\r\n' not in data:
		try:
			got = sock.recv(65536)
		except (ConnectionError, ssl.SSLError):
			got = b''
		if not got:
			return data, b''
		data += got
	head, rest = data.split(b'\r\n\r\n', 1)
	return head, rest


def status_of(head):
	try:
		return int(head.split(b' ', 2)[1])
	except (IndexError, ValueError):
		return 0


class WebSocket:
	"""Client end, with the mistakes that one can ask it to make."""

	def __init__(self, url, ca, headers=None, timeout=10):
		u = urllib.parse.urlsplit(url)
		self.sock = tls_socket(u.hostname, u.port or 443, ca, timeout)
		path = u.path + ('?' + u.query if u.query else '')
		h = {'Host': u.netloc, 'Connection': 'Upgrade', 'Upgrade': 'websocket', 'Sec-WebSocket-Version': '13',
			'Sec-WebSocket-Key': base64.b64encode(os.urandom(16)).decode()}
		h.update(headers or {})
		self.sock.sendall(('GET %s HTTP/1.1\r\n' % path + ''.join('%s: %s\r\n' % kv for kv in h.items()) + '\r\n').encode())
		self.head, self.buf = read_head(self.sock)
		self.status = status_of(self.head)

	def frame(self, op, data, mask=True, fin=True, rsv=0, length=None):
		n = len(data) if length is None else length
		head = bytes([(0x80 if fin else 0) | rsv << 4 | op])
		m = 0x80 if mask else 0
		head += bytes([m | n]) if n < 126 else bytes([m | 126]) + struct.pack('>H', n) if n < 65536 else bytes([m | 127]) + struct.pack('>Q', n)
		if mask:
			key = os.urandom(4)
			k = (key * (len(data) // 4 + 1))[:len(data)]
			data = (int.from_bytes(data, 'big') ^ int.from_bytes(k, 'big')).to_bytes(len(data), 'big') if data else b''
			head += key
		self.sock.sendall(head + data)

	def text(self, obj):
		self.frame(1, json.dumps(obj).encode())

	def token(self, token, client_id=None):
		self.text({'MessageSchemaVersion': '1.0', 'RequestId': str(uuid.uuid4()), 'TokenValue': token,
			'ClientId': client_id or str(uuid.uuid4()), 'ClientVersion': '1.2.764.0'})

	def _more(self):
		got = self.sock.recv(65536)
		if not got:
			raise EOFError
		self.buf += got

	def _take(self, n):
		while len(self.buf) < n:
			self._more()
		out, self.buf = self.buf[:n], self.buf[n:]
		return out

	def recv(self):
		"""-> op, payload (one frame); op None when the connection is gone."""
		try:
			a, b = self._take(2)
			n = b & 127
			if n == 126:
				n, = struct.unpack('>H', self._take(2))
			elif n == 127:
				n, = struct.unpack('>Q', self._take(8))
			return a & 15, self._take(n)
		except (EOFError, ConnectionError, ssl.SSLError):
			return None, b''

	def close_code(self, timeout=10):
		"""Reads until the end; the close code, 1006 when there was none."""
		self.sock.settimeout(timeout)
		while True:
			op, data = self.recv()
			if op is None:
				return 1006
			if op == 8:
				return struct.unpack('>H', data[:2])[0] if len(data) >= 2 else 1005

	def close(self):
		self.sock.close()


def swap(u):
	return u.bytes[8:] + u.bytes[:8]


def encode(mtype, payload, seq=0, flags=0, ptype=0, mid=None, digest=None, header_length=116, schema=1, length=None, created=None):
	mid = mid or uuid.uuid4()
	return (struct.pack('>I', header_length) + mtype.encode().ljust(32) +
		struct.pack('>IQqQ', schema, int(time.time() * 1000) if created is None else created, seq, flags) + swap(mid) +
		(hashlib.sha256(payload).digest() if digest is None else digest) +
		struct.pack('>II', ptype, len(payload) if length is None else length) + payload)


def decode(b):
	mtype = b[4:36].decode('latin1').rstrip(' \0')
	schema, created, seq, flags = struct.unpack_from('>IQqQ', b, 36)
	ptype, n = struct.unpack_from('>II', b, 112)
	return {'type': mtype, 'schema': schema, 'created': created, 'seq': seq, 'flags': flags, 'id': str(uuid.UUID(bytes=b[72:80] + b[64:72])),
		'ptype': ptype, 'payload': b[120:120 + n]}


def acknowledge(m):
	return encode('acknowledge', json.dumps({'AcknowledgedMessageType': m['type'], 'AcknowledgedMessageId': m['id'],
		'AcknowledgedMessageSequenceNumber': m['seq'], 'IsSequentialMessage': True}).encode(), flags=3)
