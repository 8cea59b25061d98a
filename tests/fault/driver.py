"""Opens many connections from a process of its own.  driver.py PORT COUNT hold|seq|echo"""
import resource
import selectors
import socket
import struct
import sys

limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
port, count, mode = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]


def echo_server():
	sel = selectors.DefaultSelector()
	listener = socket.socket()
	listener.bind(('127.0.0.1', 0))
	listener.listen(4096)
	listener.setblocking(False)
	sel.register(listener, selectors.EVENT_READ)
	sel.register(sys.stdin, selectors.EVENT_READ)
	print(listener.getsockname()[1], flush=True)
	while True:
		for key, _ in sel.select():
			s = key.fileobj
			if s is sys.stdin:
				return
			if s is listener:
				for _ in range(64):
					try:
						c, _ = listener.accept()
					except OSError:
						break
					c.setblocking(False)
					sel.register(c, selectors.EVENT_READ)
				continue
			try:
				data = s.recv(65536)
				if data:
					s.send(data)
					continue
			except BlockingIOError:
				continue
			except OSError:
				pass
			sel.unregister(s)
			s.close()


def open_one():
	s = socket.create_connection(('127.0.0.1', port), 120)
	return s


def talk(s, i):
	data = struct.pack('>Q', i)
	s.sendall(data)
	got = b''
	while len(got) < 8:
		more = s.recv(8 - len(got))
		if not more:
			raise SystemExit('end of stream on connection %d' % i)
		got += more
	if got != data:
		raise SystemExit('echo differs on connection %d' % i)


if mode == 'echo':
	echo_server()
elif mode == 'seq':
	for i in range(count):
		s = open_one()
		talk(s, i)
		s.close()
	print('done', flush=True)
	sys.stdin.read()
else:
	held, n = [], 0
	while n < count:  # in groups, so that no backlog overflows
		group = [open_one() for _ in range(min(100, count - n))]
		for s in group:
			s.sendall(struct.pack('>Q', n))
			held.append((s, n))
			n += 1
		for s, i in held[-len(group):]:
			got = b''
			while len(got) < 8:
				more = s.recv(8 - len(got))
				if not more:
					raise SystemExit('end of stream on connection %d' % i)
				got += more
			if got != struct.pack('>Q', i):
				raise SystemExit('echo differs on connection %d' % i)
	print('done', flush=True)
	sys.stdin.read()
	for s, _ in held:
		s.close()
