"""An agent as stock ones are, as far as port sessions need it: no capabilities, smux version 1, a FIN ends both
directions.  Written apart from the product; each stream is echoed, in this process."""
import json
import re
import ssl
import struct
import threading
import urllib.parse
import uuid

from harness import AGENT_KEY, AGENT_SECRET, REGION, TARGET
from wire import Api, WebSocket, acknowledge, decode, encode, sign

SYN, FIN, PSH = 0, 1, 2
OUTPUT, REQUEST, RESPONSE, COMPLETE = 1, 5, 6, 7


class StockAgent:
	def __init__(self, w):
		self.w, self.api = w, Api(w.url, w.path('ca.pem'), AGENT_KEY, AGENT_SECRET, REGION)
		self.sessions, self.acking, self.lock = [], True, threading.Lock()
		self.taken = 0  # bytes of data
		self.control = self.channel('control-channel', TARGET, '?role=subscribe&stream=input', AgentVersion='3.3.0.0', PlatformType='Linux')
		threading.Thread(target=self.listen, daemon=True).start()

	def channel(self, kind, name, query, **more):
		path = '/v1/%s/%s' % (kind, urllib.parse.quote(name, safe=''))
		body = {'MessageSchemaVersion': '1.0', 'RequestId': str(uuid.uuid4())}
		if kind == 'data-channel':
			body['ClientId'] = ''
		text = json.dumps(body).encode()
		status, _, out = self.api.raw('POST', path, sign('POST', self.w.url + path, {'Content-Type': 'application/json'}, text, AGENT_KEY, AGENT_SECRET,
			REGION, 'ssmmessages'), text)
		assert status == 201, (status, out)
		url = self.w.url.replace('https:', 'wss:') + path + query
		h = sign('GET', url.replace('wss:', 'https:'), {}, b'', AGENT_KEY, AGENT_SECRET, REGION, 'ssmmessages')
		h.pop('Host')
		ws = WebSocket(url, self.w.path('ca.pem'), headers=h, timeout=None)
		assert ws.status == 101, ws.head
		ws.text(dict(body, TokenValue=re.search(rb'<TokenValue>([^<]+)<', out)[1].decode(), **more))
		return ws

	def messages(self, ws):
		while True:
			op, data = ws.recv()
			if op is None or op == 8:
				return
			if op == 9:
				ws.frame(10, data)
			elif op == 2:
				yield decode(data)

	def listen(self):
		for m in self.messages(self.control):
			if m['type'] == 'interactive_shell':
				s = StockSession(self, json.loads(json.loads(m['payload'])['Content'])['SessionId'])
				self.sessions.append(s)
				s.open()

	def back(self):
		"""After the gateway has been away."""
		self.control = self.channel('control-channel', TARGET, '?role=subscribe&stream=input', AgentVersion='3.3.0.0', PlatformType='Linux')
		threading.Thread(target=self.listen, daemon=True).start()
		for s in self.sessions:
			s.open()


class StockSession:
	def __init__(self, agent, sid):
		self.agent, self.sid, self.expected, self.seq, self.stream = agent, sid, 0, 0, b''
		self.early, self.unacked, self.shaken = {}, {}, False

	def open(self):
		self.ws = self.agent.channel('data-channel', self.sid, '?role=publish_subscribe', ClientInstanceId=TARGET, ClientId='')
		threading.Thread(target=self.serve, args=(self.ws,), daemon=True).start()

	def send(self, payload, ptype=OUTPUT):
		frame = encode('output_stream_data', payload, self.seq, 1 if self.seq == 0 else 0, ptype)
		self.unacked[self.seq] = frame
		self.seq += 1
		self.write(frame)

	def write(self, frame):
		try:
			self.ws.frame(2, frame)
		except (OSError, ssl.SSLError):
			pass

	def serve(self, ws):
		if not self.shaken and self.seq == 0:
			self.send(json.dumps({'AgentVersion': '3.3.0.0', 'RequestedClientActions': [{'ActionType': 'SessionType', 'ActionParameters':
				{'SessionType': 'Port', 'Properties': {'portNumber': '1', 'type': 'LocalPortForwarding', 'localPortNumber': '0'}}}]}).encode(), REQUEST)
		for seq in sorted(self.unacked):
			self.write(self.unacked[seq])
		for m in self.agent.messages(ws):
			if m['type'] == 'acknowledge':
				self.unacked.pop(json.loads(m['payload'])['AcknowledgedMessageSequenceNumber'], None)
			elif m['type'] == 'input_stream_data' and self.agent.acking:
				self.write(acknowledge(m))
				self.early.setdefault(m['seq'], m)
				while self.expected in self.early:
					self.take(self.early.pop(self.expected))
					self.expected += 1
				self.early = {k: v for k, v in self.early.items() if k > self.expected}

	def take(self, m):
		if m['ptype'] == RESPONSE:
			self.shaken = True
			self.send(json.dumps({'HandshakeTimeToComplete': 1000, 'CustomerMessage': ''}).encode(), COMPLETE)
		elif m['ptype'] == OUTPUT:
			self.stream += m['payload']
			while len(self.stream) >= 8:
				version, cmd, n, sid = struct.unpack('<BBHI', self.stream[:8])
				if len(self.stream) < 8 + n:
					return
				self.frame(cmd, sid, self.stream[8:8 + n])
				self.stream = self.stream[8 + n:]

	def frame(self, cmd, sid, data):
		if cmd == PSH:
			self.agent.taken += len(data)
			for at in range(0, len(data), 1000):
				part = data[at:at + 1000]
				self.send(struct.pack('<BBHI', 1, PSH, len(part), sid) + part)
		elif cmd == FIN:
			self.send(struct.pack('<BBHI', 1, FIN, 0, sid))
