"""Clients that open, ask for and give up more than anybody needs: what it costs the agent is bounded, and others are served."""
import json
import os
import random
import socket
import struct
import subprocess
import threading
import time

from harness import Skip, World, until
from ownclient import FLAG, PSH, REVERSE, UDP, OwnClient, frame, opens, resets
from run import test
from services import Server, echo, free_port
from test_audit import lines, wait_event

LINKS = 0x746e0200


class NameServer:
	"""Answers nobody, until it says to all and for good that there is no such name."""

	def __init__(self, w):
		if os.geteuid() or subprocess.run(['unshare', '-m', 'true'], stderr=subprocess.DEVNULL).returncode:
			raise Skip('a resolv.conf of its own takes root and a mount namespace')
		self.s, self.asked, self.answers, self.lock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), [], False, threading.Lock()
		self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
		address = '127.%d.%d.%d' % (random.randrange(1, 255), random.randrange(256), random.randrange(1, 255))
		try:
			self.s.bind((address, 53))
		except OSError as e:
			raise Skip('port 53 of %s: %s' % (address, e))
		with open(w.path('resolv.conf'), 'w') as f:
			f.write('nameserver %s\nsearch .\noptions ndots:0\n' % address)
		self.prefix = ('unshare', '-m', 'sh', '-c', 'mount --bind %s /etc/resolv.conf && exec "$@"' % w.path('resolv.conf'), 'sh')
		threading.Thread(target=self.run, daemon=True).start()

	def run(self):
		while True:
			question = self.s.recvfrom(2000)
			with self.lock:
				self.asked.append(question)
				if self.answers:
					self.answer(*question)

	def answer(self, data, who):
		self.s.sendto(data[:2] + b'\x81\x83' + data[4:], who)

	def answer_all(self):
		with self.lock:
			self.answers = True
			for i, question in enumerate(self.asked):
				self.answer(*question)
				if i % 50 == 0:
					time.sleep(0.002)  # its buffer is small


def some(first, n):
	return range(first, first + 2 * n, 2)


TOO_MANY = 'cannot resolve slow.test: as many names as may be are waited for'


@test('names that nobody answers: a user has so many questions, those that he gave up included; others and addresses are served', 60)
def names():
	s = Server(echo)
	with World() as w:
		w.closers.append(s.close)
		names = NameServer(w)
		w.keys['users']['other'] = ('AKIATESTUSER00000002', 'plantedSecondSecretQ1w2', 'i-*')
		w.gateway()
		a = w.agent(prefix=names.prefix, allow='*:*', max_streams=4000)
		c = OwnClient(w, s.port, host='slow.test')
		c.tell(opens(some(3, 1500)))
		c.wait(lambda: len(c.resets()) == 1500 - 1024)
		assert set(c.resets().values()) == {TOO_MANY}, c.resets()
		c.tell(resets(some(3, 1500)))
		# Another session of the same user; what was given up still waits for its answers.
		again = OwnClient(w, s.port, host='slow.test')
		again.tell(opens(some(3, 100)))
		again.wait(lambda: len(again.resets()) == 100)
		assert w.status(a)[0]['agent']['counters']['names_refused'] == 1500 - 1024 + 100
		# Somebody else has half of what is left, and nobody needs any for an address.
		other = OwnClient(w, s.port, host='slow.test', api=w.api('AKIATESTUSER00000002', 'plantedSecondSecretQ1w2'))
		other.tell(opens(some(3, 600)))
		other.wait(lambda: len(other.resets()) == 600 - 512)
		near = OwnClient(w, s.port, host='127.0.0.1')
		near.send(opens([3]) + frame(PSH, 3, b'hello'))
		near.wait(lambda: (PSH, 3, b'hello') in near.frames)
		# With the answers there are places again.
		names.answer_all()
		other.wait(lambda: len(other.resets()) == 600)
		at = len(names.asked)
		again.tell(opens(some(203, 10)))
		again.wait(lambda: len(again.resets()) == 110)
		assert len(names.asked) > at and TOO_MANY not in [again.resets()[i] for i in some(203, 10)], again.resets()


@test('the last descriptors are not for flows of datagrams, nor for further links of sessions', 60)
def descriptors():
	s = Server(echo)
	with World() as w:
		w.closers.append(s.close)
		w.gateway()
		a = w.agent(prefix=('sh', '-c', 'ulimit -n 512; exec "$@"', 'sh'), allow='udp:127.0.0.1:*, 127.0.0.1:*')
		few = [OwnClient(w, s.port) for _ in range(5)]
		few[0].tell(opens(some(3, 600), UDP))
		few[0].wait(lambda: few[0].resets())
		assert set(few[0].resets().values()) == {'the agent has few descriptors left'}, few[0].resets()
		assert 440 <= len(a.fds()) <= 450, len(a.fds())
		for c in few[1:]:
			c.tell(struct.pack('>I', LINKS | 8), FLAG)
		for c in few[1:]:
			c.tell(opens([3]))
			c.wait(lambda: 3 in c.resets())
		assert 440 <= len(a.fds()) <= 450, len(a.fds())
		assert w.status(a)[0]['agent']['counters']['short_of_descriptors'] > 4
		few[0].tell(resets(some(3, 600)))
		until(lambda: len(a.fds()) < 200, what='what was given up is closed')


@test('listeners that a client asks for over and over: few are begun in a second, and what is refused is a number in the audit log', 60, short=True)
def listeners():
	with World() as w:
		w.rights = {'ops': {'reverse': True}}
		w.gateway()
		port, path = free_port(), w.path('agent.audit')
		a = w.agent(reverse='127.0.0.1:%d' % port, audit_log=path)
		c = OwnClient(w, 9, caps={'Reverse': True})

		def word(do, to):
			return json.dumps({'Do': do, 'Id': 1, 'Bind': '127.0.0.1:%d' % to, 'Most': 1, 'Client': 'x'}).encode()
		began = time.monotonic()
		for i in range(20):
			for _ in range(30):
				c.send(word('listen', 1), REVERSE)
				c.send(word('listen', port), REVERSE)
				c.send(word('unlisten', port), REVERSE)
			c.wait(lambda: len(c.words) == 60 * (i + 1))
		seconds = time.monotonic() - began
		kinds = [x['Do'] for x in c.words]
		w.api().call('TerminateSession', {'SessionId': c.session})
		wait_event(path, 'session-end')
		count = lambda event: sum(o['event'] == event for o in lines(path))
		assert count('listen') == count('listen-end') == kinds.count('listening') <= 20 * (seconds + 2), (kinds.count('listening'), seconds)
		more = sum(o['listeners'] for o in lines(path) if o['event'] == 'listen-refused-more')
		assert count('listen-refused') + more == kinds.count('refused') == w.status(a)[0]['agent']['counters']['reverse_refused']
		assert 20 <= count('listen-refused') <= 20 * (seconds + 2), (count('listen-refused'), seconds)
