"""A token that is shown twice, from many places at once, for something else, or after the end of its session."""
import json
import re
import threading
import uuid

from harness import AGENT_KEY, AGENT_SECRET, REGION, TARGET, World
from run import test
from wire import WebSocket, sign


class Hand:
	"""An agent's calls and links by hand."""

	def __init__(self, w):
		self.w, self.api = w, w.api(AGENT_KEY, AGENT_SECRET)

	def create(self, kind, id):
		"""-> status, token or None."""
		body = json.dumps({'MessageSchemaVersion': '1.0', 'RequestId': str(uuid.uuid4()), 'ClientId': ''}).encode()
		path = '/v1/%s-channel/%s' % (kind, id)
		headers = sign('POST', self.w.url + path, {'Content-Type': 'application/json'}, body, AGENT_KEY, AGENT_SECRET, REGION, 'ssmmessages')
		status, _, out = self.api.raw('POST', path, headers, body)
		found = re.search(b'<TokenValue>(.*)</TokenValue>', out)
		return status, found and found.group(1).decode()

	def socket(self, kind, id):
		role = 'subscribe&stream=input' if kind == 'control' else 'publish_subscribe'
		url = '%s/v1/%s-channel/%s?role=%s' % (self.w.url, kind, id, role)
		return WebSocket(url, self.w.path('ca.pem'), sign('GET', url, {}, b'', AGENT_KEY, AGENT_SECRET, REGION, 'ssmmessages'))

	def show(self, ws, token):
		ws.text({'MessageSchemaVersion': '1.0', 'RequestId': str(uuid.uuid4()), 'TokenValue': token, 'ClientId': '', 'ClientInstanceId': TARGET,
			'AgentVersion': '3.3.987.0', 'PlatformType': 'linux'})


def race(sockets, show):
	"""All show it at once; -> the one that was let in."""
	start = threading.Barrier(len(sockets))
	def go(ws):
		start.wait()
		show(ws)
	threads = [threading.Thread(target=go, args=(ws,)) for ws in sockets]
	for t in threads:
		t.start()
	for t in threads:
		t.join()
	up = []
	for ws in sockets:
		ws.frame(9, b'there?')
		ws.sock.settimeout(10)
		op = 0
		while op not in (10, 8, None):
			op, data = ws.recv()
		if op == 10:
			up.append(ws)
		else:
			assert op == 8 and data[:2] == b'\x03\xf0', (op, data)
	assert len(up) == 1, '%d of %d were let in' % (len(up), len(sockets))
	return up[0]


@test('tokens: of eight that show one at once one is let in; none is good for another end, or after the session', 60)
def tokens():
	with World() as w:
		w.gateway()
		hand, api = Hand(w), w.api()
		status, token = hand.create('control', TARGET)
		assert status == 201
		kept = [race([hand.socket('control', TARGET) for _ in range(8)], lambda ws: hand.show(ws, token))]
		status, out = api.start(TARGET, 9)
		assert status == 200, out
		sid = out['SessionId']
		status, token = hand.create('data', sid)
		kept.append(race([hand.socket('data', sid) for _ in range(8)], lambda ws: hand.show(ws, token)))
		_, control = hand.create('control', TARGET)
		_, data = hand.create('data', sid)
		for kind, id, wrong in (('data', sid, control), ('control', TARGET, data), ('data', sid, out['TokenValue'])):
			ws = hand.socket(kind, id)
			hand.show(ws, wrong)
			assert ws.close_code() == 1008, (kind, wrong)
		client = str(uuid.uuid4())
		kept.append(race([WebSocket(out['StreamUrl'], w.path('ca.pem')) for _ in range(8)], lambda ws: ws.token(out['TokenValue'], client)))
		status, again = api.call('ResumeSession', {'SessionId': sid})
		assert status == 200 and api.call('TerminateSession', {'SessionId': sid})[0] == 200
		ws = hand.socket('data', sid)
		hand.show(ws, data)
		assert ws.close_code() == 1008
		assert hand.create('data', sid)[0] == 400
		codes = []
		for _ in range(2):  # the first hears how it ended
			ws = WebSocket(again['StreamUrl'], w.path('ca.pem'))
			ws.token(again['TokenValue'], client)
			codes.append(ws.close_code())
		assert codes == [1000, 1008], codes
		for ws in kept:
			ws.close()
