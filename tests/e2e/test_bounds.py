"""What a peer sends costs no more than its bytes, in the running program: hash keys that nobody can know, frames before the
token, fragments, pongs, requests that do not end."""
import os
import re
import socket
import ssl
import threading
import time
import urllib.request
import uuid

from harness import SLOW, TARGET, World, until
from run import test
from services import Server, echo, free_port
from wire import WebSocket, decode, encode


def order_of_instances(w):
	"""Those of the gateway's status stand in the order of a hash map."""
	g = w.gateway()
	names = [i['id'] for i in w.status(g)[0]['gateway']['instances']]
	g.stop()
	return names


@test('the key of the hash maps is another one in each process', 60, short=True)
def map_key():
	with World() as w:
		for i in range(60):
			name = 'i-%017x' % i
			w.keys['instances'][name] = ('AKIAINSTANCE%08d' % i, 'plantedSecretOfInstance%d' % i)
		first, second = order_of_instances(w), order_of_instances(w)
		assert sorted(first) == sorted(second) and len(first) == 61, first
		assert first != second, 'two processes have the same order, so the same key: %s' % first


def upgrade(w, **kw):
	"""Nobody has to be known for this."""
	c = WebSocket('wss://127.0.0.1:%d/v1/data-channel/nobody-%s?role=publish_subscribe' % (w.gw_port, uuid.uuid4().hex[:17]), w.path('ca.pem'), **kw)
	assert c.status == 101, c.head
	return c


@test('before its token a link may send one frame of 4 KiB, and no fragments', 60, short=True)
def before_token():
	with World() as w:
		g = w.gateway()
		c = upgrade(w)
		c.frame(1, b'', length=4097)  # the announcement is enough
		assert c.close_code() == 1009
		c = upgrade(w)
		c.frame(1, b'{', fin=False)
		assert c.close_code() == 1002
		c = upgrade(w)
		c.frame(1, b'{"MessageSchemaVersion":"1.0","TokenValue":"%s"}' % (b'x' * 4000))
		assert c.close_code() == 1008  # read, and refused for what it is
		base = g.rss()
		links = []
		for _ in range(40):
			c = upgrade(w)
			links.append(c)
			try:
				c.sock.sendall(b'\x01\x80\0\0\0\0' + b'\0\x81\0\0\0\0x' * 50000)
			except (OSError, ssl.SSLError):
				pass  # refused at the first frame
		assert g.rss() - base < 16 << 20, 'grown by %d KiB' % ((g.rss() - base) >> 10)
		for c in links:
			c.close()
		until(lambda: w.api().instances() is not None, 5, 'others are served')


@test('fragments of one byte take the memory of their bytes', 90)
def small_fragments():
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port)
		status, out = w.api().start(TARGET, s.port)
		assert status == 200, out
		c = WebSocket(out['StreamUrl'], w.path('ca.pem'))
		c.token(out['TokenValue'])
		assert c.recv()[0] == 2
		base, n = g.rss(), 200000
		for _ in range(3):
			# a message with a wrong digest: relayed, and ignored by the agent
			message = encode('input_stream_data', os.urandom(n), digest=b'\0' * 32, ptype=1)
			whole = b'\x02\x81\0\0\0\0' + message[:1]
			whole += b''.join(b'\0\x81\0\0\0\0' + message[i:i + 1] for i in range(1, len(message) - 1))
			c.sock.sendall(whole + b'\x80\x81\0\0\0\0' + message[-1:])
		c.frame(9, b'still there')
		while True:
			op, data = c.recv()
			assert op in (2, 9, 10), op
			if op == 10:
				break
			assert op == 9 or decode(data)
		assert g.rss() - base < 12 << 20, 'grown by %d KiB' % ((g.rss() - base) >> 10)
		c.close()
		w.api().call('TerminateSession', {'SessionId': out['SessionId']})


def counter(w, g, name):
	"""As the status has it; the metrics have the same."""
	n = w.status(g)[0]['gateway']['counters'][name]
	text = urllib.request.urlopen('http://127.0.0.1:%d/metrics' % w.http_port).read().decode()
	shown = re.search(r'quota_hits_total\{[^}]*kind="%s"[^}]*\} (\d+)' % name[len('limit_'):], text)
	assert shown and int(shown[1]) >= n, (name, n, shown)
	return n


def counted(w, **options):
	w.http_port = free_port()
	return w.gateway(td_http='127.0.0.1:%d' % w.http_port, **options)


def ping_flood(c, most):
	"""Pings, and nothing read; not for long, since a link without a token has 10 s."""
	end = time.monotonic() + 3
	c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
	c.sock.settimeout(1)
	record = (b'\x89\xfd\0\0\0\0' + b'x' * 125) * 125
	try:
		for _ in range(most // len(record)):
			if time.monotonic() < end:
				c.sock.sendall(record)
	except OSError:
		pass


@test('pings whose pongs nobody reads take next to no memory, before the token and after it; who reads has his', 60, short=True)
def pongs_not_read():
	s = Server(echo)
	with World() as w:
		g = counted(w)
		w.agent()
		c = upgrade(w)
		for i in range(400):
			c.frame(9, b'%d' % i)
		for i in range(400):
			assert c.recv() == (10, b'%d' % i), i
		used = lambda: w.status(g)[0]['memory']['used']
		links = [c]
		for i in range(24):
			if i % 2:
				c = upgrade(w)
			else:
				out = w.api().start(TARGET, s.port)[1]
				c = WebSocket(out['StreamUrl'], w.path('ca.pem'))
				c.token(out['TokenValue'])
			links.append(c)
		base = used()
		at_once = [threading.Thread(target=ping_flood, args=(c, 3 << 20)) for c in links]
		for t in at_once:
			t.start()
		for t in at_once:
			t.join()
		assert counter(w, g, 'limit_unread_pongs') > 0
		grown = used() - base
		assert grown < 25 * (160 << 10), 'grown by %d KiB' % (grown >> 10)
		c = links[-1]
		c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
		c.sock.settimeout(SLOW)
		try:
			while c.recv()[0]:
				pass
		except TimeoutError:
			pass
		c.frame(9, b'now')
		assert c.recv() == (10, b'now')
		for c in links:
			c.close()


@test('connections that say nothing, and those that say half a word, take no buffers', 60, short=True)
def nothing_said():
	with World() as w:
		g = w.gateway()
		used = lambda: w.status(g)[0]['memory']['used']
		links = [socket.create_connection(('127.0.0.1', w.gw_port)) for _ in range(20)]  # what rests in the process is there
		base = used()
		links += [socket.create_connection(('127.0.0.1', w.gw_port)) for _ in range(400)]
		for k in links[::2]:
			k.sendall(b'\x16\x03\x01\x02')
		assert w.api().raw('HEAD', '/', {}, timeout=4 * SLOW)[0] == 405  # those before it were taken
		assert used() - base < 400 * (24 << 10) + (1 << 20), 'grown by %d KiB' % ((used() - base) >> 10)
		for k in links:
			k.close()


@test('requests that do not end, from many addresses, make way before memory is full; others are served', 60, short=True)
def requests_without_end():
	with World() as w:
		g = counted(w, per_peer_connections=256, td_memory_limit='16M')
		whole = b'GET /no HTTP/1.1\r\nHost: x\r\n\r\n'
		head = b'GET / HTTP/1.1\r\nX: ' + b'a' * 16000
		body = b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65000\r\n\r\n' + b'b' * 64000
		tls, links = ssl.create_default_context(cafile=w.path('ca.pem')), []
		for i in range(700):
			k = socket.create_connection(('127.0.0.1', w.gw_port), 5 * SLOW, ('127.0.3.%d' % (1 + i // 200), 0))
			links.append(tls.wrap_socket(k, server_hostname='127.0.0.1'))
			try:
				links[-1].sendall((head, body, whole + head)[i % 3])
			except OSError:
				pass  # others came meanwhile
		assert w.api().raw('HEAD', '/', {}, timeout=4 * SLOW)[0] == 405
		assert w.status(g)[0]['memory']['used'] < 15 << 20
		g.wait_log('request refused peer=127.0.3.* field="request: not complete, and others need its memory"')
		assert counter(w, g, 'limit_unfinished_requests') > 0
		for k in links:
			k.close()


@test('links that send no token, from many addresses, make way before memory is full; others are served', 60, short=True)
def links_without_token():
	with World() as w:
		g = counted(w, per_peer_connections=256, td_memory_limit='16M')
		ask = ('GET /v1/data-channel/nobody-0123456789abcdef0?role=publish_subscribe HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n'
			'Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n').encode()
		tls, links = ssl.create_default_context(cafile=w.path('ca.pem')), []
		for i in range(1200):
			k = socket.create_connection(('127.0.0.1', w.gw_port), 5 * SLOW, ('127.0.3.%d' % (1 + i // 200), 0))
			k.setsockopt(socket.SOL_TCP, socket.TCP_NODELAY, 1)
			links.append(tls.wrap_socket(k, server_hostname='127.0.0.1'))
			links[-1].sendall(ask + b'\x81\xfe\x10\0\0\0\0\0' + b'x' * 4000)  # all but the end of a token frame
			links[-1].recv(500)
		assert w.api().raw('HEAD', '/', {}, timeout=4 * SLOW)[0] == 405
		assert w.status(g)[0]['memory']['used'] < 15 << 20
		g.wait_log('no token frame before others needed the memory peer=127.0.3.')
		assert counter(w, g, 'limit_unverified_links') > 0
		for k in links:
			k.close()
