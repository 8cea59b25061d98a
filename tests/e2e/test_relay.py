"""A gateway that lies: what it relays of an encrypted session it repeats, swaps, passes off as something else, or it names a
key of its own.  It stands in the way of the agent, with the gateway's certificate, and digests of its own fit."""
import os
import socket
import ssl
import struct
import threading

from harness import TARGET, World, until
from run import test
from services import Server, connect, refused
from test_kms import KEY_ID, gateway_options
from wire import decode, encode, tls_socket


class LyingRelay:
	"""TLS server; to the agent it passes on what `lie(messages)` makes of the client's Output messages that came together.
	`lie` gets each as a dict and gives back a list; it may keep some for later."""

	def __init__(self, w, lie):
		self.w, self.lie = w, lie
		context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
		context.load_cert_chain(w.path('gateway.pem'), w.path('gateway.key'))
		self.context = context
		self.listener = socket.create_server(('127.0.0.1', 0))
		self.port = self.listener.getsockname()[1]
		w.closers.append(self.listener.close)
		threading.Thread(target=self.run, daemon=True).start()

	def run(self):
		while True:
			try:
				s, _ = self.listener.accept()
			except OSError:
				return
			threading.Thread(target=self.serve, args=(s,), daemon=True).start()

	def serve(self, raw):
		try:
			agent = self.context.wrap_socket(raw, server_side=True)
			gateway = tls_socket('127.0.0.1', self.w.gw_port, self.w.path('ca.pem'), None)
		except OSError:
			raw.close()
			return
		threading.Thread(target=self.pump, args=(agent, gateway), daemon=True).start()
		self.pump(gateway, agent, self.lie)

	def pump(self, src, dst, lie=None):
		buf, upgraded = b'', False
		try:
			while True:
				got = src.recv(65536)
				if not got:
					break
				buf += got
				if lie and not upgraded and b'\r\n\r\n' in buf:
					head, rest = buf.split(b'\r\n\r\n', 1)
					upgraded = head.startswith(b'HTTP/1.1 101')
					if upgraded:
						dst.sendall(head + b'\r\n\r\n')
						buf = rest
				if not upgraded:
					dst.sendall(buf)
					buf = b''
					continue
				out, buf = self.frames(buf, lie)
				dst.sendall(out)
		except OSError:
			pass
		for s in (src, dst):
			try:
				s.close()
			except OSError:
				pass

	def frames(self, buf, lie):
		out = b''
		while len(buf) >= 2:
			n, at = buf[1] & 127, 2
			if n >= 126:
				size = 2 if n == 126 else 8
				if len(buf) < 2 + size:
					break
				n, at = int.from_bytes(buf[2:2 + size], 'big'), 2 + size
			if len(buf) < at + n:
				break
			frame, body, buf = buf[:at + n], buf[at:at + n], buf[at + n:]
			m = decode(body) if frame[0] & 15 == 2 and n >= 120 else {}
			if m.get('type') != 'input_stream_data' or m['ptype'] not in (1, 3, 10):
				out += frame
				continue
			for x in lie(m):
				b = encode('input_stream_data', x['payload'], seq=x['seq'], ptype=x['ptype'])
				out += b'\x82' + (bytes([len(b)]) if len(b) < 126 else b'\x7e' + struct.pack('>H', len(b))) + b
		return out, buf


def lied_to(lie, why):
	"""A stream of numbered lines through an agent that is lied to: a true beginning of it arrives, then nothing."""
	got = []

	def collect(sock):
		while True:
			data = sock.recv(65536)
			if not data:
				return
			got.append(data)

	with World() as w:
		s = Server(collect)
		w.gateway(**gateway_options(w))
		relay = LyingRelay(w, lie)
		a = w.agent(url='https://127.0.0.1:%d' % relay.port, kms_endpoint=w.url, require_encryption=True)
		f = w.forwarder({'t': {'port': s.port, 'require_encryption': True}}, aws={'kms_endpoint': w.url})
		sent = b''
		c = connect(f.ports['t'])
		try:
			for i in range(2000):
				line = b'%08d\n' % i
				sent += line
				c.sendall(line)
				if a.find(why):
					break
				threading.Event().wait(0.002)  # so that the lines travel one by one
		except OSError:
			pass
		a.wait_log(why)
		a.wait_log('session ended status=Failed')
		c.close()
		assert sent.startswith(b''.join(got)), 'other bytes than were sent came through'


def after(n, fn):
	"""The first n messages pass as they are."""
	seen = [0]

	def lie(m):
		seen[0] += 1
		return [m] if seen[0] <= n else fn(m)
	return lie


@test('encryption: a relay that repeats a message under the next number ends the session', 60)
def repeats():
	lied_to(after(5, lambda m: [m, dict(m, seq=m['seq'] + 1)]), 'repeated, left out or moved')


@test('encryption: a relay that swaps two messages, or leaves one out, ends the session', 60)
def swaps():
	kept = []

	def swap(m):
		kept.append(m)
		if len(kept) != 2:
			return [] if len(kept) < 2 else [m]
		return [dict(kept[1], seq=kept[0]['seq']), dict(kept[0], seq=kept[1]['seq'])]
	lied_to(after(5, swap), 'repeated, left out or moved')
	dropped = []

	def drop(m):
		dropped.append(m['seq'])
		return [] if len(dropped) == 1 else [dict(m, seq=m['seq'] - 1)]
	lied_to(after(5, drop), 'repeated, left out or moved')


@test('encryption: a relay that passes data off as another kind, or under a higher number, ends the session', 60)
def passes_off():
	lied_to(after(5, lambda m: [dict(m, ptype=3)]), 'does not verify')
	lied_to(after(5, lambda m: [dict(m, ptype=99, payload=b''), dict(m, seq=m['seq'] + 1)]), 'does not verify')


@test('encryption: kms_key_id refuses a gateway that names another key, at the client and at the agent', 60)
def pinned():
	other = KEY_ID[:-1] + 'f'
	with World() as w:
		s = Server(lambda sock: sock.recv(1))
		w.gateway(**gateway_options(w))
		a = w.agent(kms_endpoint=w.url, kms_key_id=other)
		f = w.forwarder({'t': {'port': s.port}, 'pinned': {'port': s.port, 'kms_key_id': other}, 'good': {'port': s.port, 'kms_key_id': KEY_ID}},
			aws={'kms_endpoint': w.url})
		refused(f.ports['t'])
		a.wait_log('session refused .*%s' % KEY_ID)
		assert s.accepted == 0
		a.stop()
		a = w.agent(name='agent-2', kms_endpoint=w.url, kms_key_id=KEY_ID)
		refused(f.ports['pinned'])
		f.wait_log('encrypted with the key %s, not with kms_key_id' % KEY_ID)
		assert s.accepted == 0
		with connect(f.ports['good']) as c:
			c.sendall(b'x')
			until(lambda: s.accepted == 1, 10, 'a connection through the key that is pinned')
