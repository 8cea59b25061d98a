"""Ranges of ports: each leads to its own, has sessions of its own, and a name."""
import socket

from harness import World, until
from run import test
from services import Server, connect, read_exact


def three_in_a_row():
	"""Listeners on ports that follow one another, and the first of these."""
	def named(sock):
		sock.sendall(b'%05d' % sock.getsockname()[1])

	for _ in range(50):
		first = Server(named)
		try:
			more = [Server(named, port=first.port + i) for i in (1, 2)]
			return [first] + more
		except OSError:
			first.close()
	raise AssertionError('no three free ports in a row')


def free_row(n):
	for _ in range(100):
		socks = [socket.socket() for _ in range(n)]
		try:
			socks[0].bind(('127.0.0.1', 0))
			first = socks[0].getsockname()[1]
			for i in range(1, n):
				socks[i].bind(('127.0.0.1', first + i))
			return first
		except OSError:
			pass
		finally:
			for s in socks:
				s.close()
	raise AssertionError('no free ports in a row')


@test('a range of ports: each leads to its own, with a session when it is needed, and can be closed by its name', 60)
def ranges():
	with World() as w:
		servers = three_in_a_row()
		remote, local = servers[0].port, free_row(3)
		w.gateway()
		w.agent()
		keys = {'listen': '127.0.0.1:%d-%d' % (local, local + 2), 'port': '%d-%d' % (remote, remote + 2)}
		f = w.forwarder({'web': keys}, wait=False)
		f.wait_note('READY=1')
		for i in (2, 0):
			with connect(local + i) as c:
				assert read_exact(c, 5) == b'%05d' % (remote + i)
		tunnels = {t['name']: t for t in w.status(f)[0]['forwarder']['tunnels']}
		assert sorted(tunnels) == ['web:%d' % (remote + i) for i in range(3)], tunnels
		assert [len(tunnels['web:%d' % (remote + i)]['sessions']) for i in range(3)] == [1, 0, 1]
		w.write_forwarder({'web': dict(keys, listen='127.0.0.1:%d-%d' % (local, local + 1), port='%d-%d' % (remote, remote + 1))})
		f.signal(1)
		until(lambda: len(w.status(f)[0]['forwarder']['tunnels']) == 2, 10, 'the range is shorter')
		with connect(local + 1) as c:
			assert read_exact(c, 5) == b'%05d' % (remote + 1)
