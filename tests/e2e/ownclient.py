"""A client that says what tunneld's own says in the handshake, and then whatever a test wants: frames of smux, one by one or thousands
in a message.  Written apart from the product."""
import json
import struct
import threading

from harness import SLOW, TARGET
from wire import WebSocket, acknowledge, decode, encode

SYN, FIN, PSH, NOP, UPD, RST, OPEN = range(7)
OUTPUT, REQUEST, RESPONSE, COMPLETE, FLAG, REVERSE = 1, 5, 6, 7, 10, 0x746e0001
TOLD, ECHO, UDP = 1, 2, 3
CAPS = {'Version': 1, 'MaxPayload': 32768, 'Smux': 2, 'HalfClose': True, 'Digest': True, 'Encrypt': False, 'Opens': True, 'ResetWords': True, 'LinkQueue': True,
	'Udp': True, 'Links': 8}


def frame(cmd, stream, data=b''):
	return struct.pack('<BBHI', 2, cmd, len(data), stream) + data


def opens(streams, kind=None):
	"""The frames that open them; kind: of OPEN."""
	return b''.join(frame(SYN, i) if kind is None else frame(OPEN, i, struct.pack('<I', kind)) for i in streams)


def resets(streams):
	return b''.join(frame(RST, i, b'\0\0\0\0') for i in streams)


class OwnClient:
	def __init__(self, w, port, host=None, api=None, caps=None):
		status, out = (api or w.api()).start(TARGET, port, host=host)
		assert status == 200, out
		self.session, self.caps = out['SessionId'], dict(CAPS, **(caps or {}))
		self.ws = WebSocket(out['StreamUrl'], w.path('ca.pem'), headers={'User-Agent': 'tunneld/test'}, timeout=None)
		self.ws.token(out['TokenValue'])
		self.writing, self.cond = threading.Lock(), threading.Condition()
		self.seq, self.expected, self.early, self.stream = 0, 0, {}, b''
		self.acked, self.frames, self.words, self.ready, self.over = set(), [], [], False, None
		threading.Thread(target=self.read, daemon=True).start()
		self.wait(lambda: self.ready)

	def wait(self, fn, timeout=20):
		with self.cond:
			done = self.cond.wait_for(lambda: fn() or self.over, timeout * SLOW)
			assert fn(), self.over or 'not within %g s' % (timeout * SLOW) if not done else self.over

	def write(self, op, data):
		with self.writing:
			self.ws.frame(op, data)

	def send(self, payload, ptype=OUTPUT):
		"""-> the message's number"""
		with self.cond:
			number = self.seq
			self.seq += 1
			self.write(2, encode('input_stream_data', payload, number, 0, ptype))
		return number

	def tell(self, payload, ptype=OUTPUT):
		"""Sends it, and comes back when the agent has taken it."""
		number = self.send(payload, ptype)
		self.wait(lambda: number in self.acked)

	def resets(self):
		"""What was said with each RST, by stream."""
		with self.cond:
			return {i: data[4:].decode() for cmd, i, data in self.frames if cmd == RST}

	def read(self):
		try:
			for m in self.messages():
				with self.cond:
					self.take(m)
					self.cond.notify_all()
		except Exception as e:
			self.over = self.over or repr(e)
		with self.cond:
			self.over = self.over or 'closed'
			self.cond.notify_all()

	def messages(self):
		while True:
			op, data = self.ws.recv()
			if op is None or op == 8:
				return
			if op == 9:
				self.write(10, data)
			elif op == 2:
				yield decode(data)

	def take(self, m):
		if m['type'] == 'acknowledge':
			self.acked.add(json.loads(m['payload'])['AcknowledgedMessageSequenceNumber'])
		elif m['type'] == 'channel_closed':
			self.over = json.loads(m['payload'])['Output']
		elif m['type'] == 'output_stream_data':
			self.write(2, acknowledge(m))
			if m['seq'] >= self.expected:
				self.early[m['seq']] = m
			while self.expected in self.early:
				self.in_order(self.early.pop(self.expected))
				self.expected += 1

	def in_order(self, m):
		if m['ptype'] == REQUEST:
			answers = [{'ActionType': a['ActionType'], 'ActionStatus': 1, 'ActionResult': self.caps if a['ActionType'] == 'TunneldCapabilities' else None,
				'Error': ''} for a in json.loads(m['payload'])['RequestedClientActions']]
			self.send(json.dumps({'ClientVersion': '1.2.764.0', 'ProcessedClientActions': answers, 'Errors': None}).encode(), RESPONSE)
		elif m['ptype'] == COMPLETE:
			self.ready = True
		elif m['ptype'] == REVERSE:
			self.words.append(json.loads(m['payload']))
		elif m['ptype'] == OUTPUT:
			self.stream += m['payload']
			while len(self.stream) >= 8:
				_, cmd, n, stream = struct.unpack('<BBHI', self.stream[:8])
				if len(self.stream) < 8 + n:
					break
				self.frames.append((cmd, stream, self.stream[8:8 + n]))
				self.stream = self.stream[8 + n:]
