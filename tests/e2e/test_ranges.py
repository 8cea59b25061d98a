"""Ranges of ports: each leads to its own, has sessions of its own, and a name; limits and commands are those of all of them."""
import socket
import subprocess
import time

from harness import BIN, SLOW, TARGET, World, clean_env, until
from run import test
from services import Server, blob, connect, download, echo, free_port, ping, read_exact
from test_http import get


def named(sock):
	sock.sendall(b'%05d' % sock.getsockname()[1])


def three_in_a_row(named=named):
	"""Listeners on ports that follow one another, and the first of these."""
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


class Ranges(World):
	def build(self, service, agent=None, **keys):
		self.servers = three_in_a_row(service)
		self.remote, self.local = self.servers[0].port, free_row(3)
		self.http = free_port()
		self.gateway()
		self.agent()
		self.conf = self.write_forwarder({'web': {'listen': '127.0.0.1:%d-%d' % (self.local, self.local + 2), 'port': '%d-%d' % (self.remote, self.remote + 2),
			**keys}}, http='127.0.0.1:%d' % self.http)
		self.f = self.proc('forwarder', [BIN, '-c', self.conf])
		self.f.wait_note('READY=1')
		return self

	def tool(self, *argv, **kw):
		r = subprocess.run([BIN, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), timeout=60 * SLOW, cwd=self.dir, **kw)
		return r.returncode, r.stdout.decode(), r.stderr.decode()


@test('ranges: max_connections is that of all ports: at the limit none accepts, and each does when there is room', 60)
def together():
	with Ranges() as w:
		w.build(echo, max_connections=3)
		socks = [connect(w.local + i) for i in (0, 0, 1)]
		for c in socks:
			ping(c)
		waiting = [connect(w.local + i) for i in range(3)]
		for c in waiting:
			c.sendall(b'waits')
		w.f.wait_log('listener paused')
		ping(socks[0])
		assert sum(s.accepted for s in w.servers) == 3, [s.accepted for s in w.servers]
		for c in socks:  # room on one port is room on the others
			c.close()
		for c in waiting:
			c.settimeout(20)
			assert c.recv(5) == b'waits'
		w.write_forwarder({'web': {'listen': '127.0.0.1:%d-%d' % (w.local, w.local + 1), 'port': '%d-%d' % (w.remote, w.remote + 1), 'max_connections': 3}},
			http='127.0.0.1:%d' % w.http)
		w.f.signal(1)  # shorter: the port that goes has one of the three until that ends
		w.f.wait_log('reloaded')
		with connect(w.local) as late:
			late.sendall(b'later')
			ping(waiting[2])
			assert sum(s.accepted for s in w.servers) == 6, [s.accepted for s in w.servers]
			waiting[2].close()
			late.settimeout(20)
			assert late.recv(5) == b'later'


@test('ranges: bandwidth is shared by all ports', 60)
def bandwidth():
	with Ranges() as w:
		w.build(blob, bandwidth='1M')
		from test_bandwidth import BURST, RATE, together as at_once
		socks = [connect(w.local + i, 60) for i in range(3)]
		t0 = time.monotonic()
		at_once(*[lambda c=c: download(c, 1000000) for c in socks])
		assert (time.monotonic() - t0) * RATE >= 3000000 - BURST


@test('ranges: open, close, status, readyz, doctor and completion know the name as all of its ports; connect and exec say which there are', 90, short=True)
def commands():
	with Ranges() as w:
		w.build(named)
		first, last = 'web:%d' % w.remote, 'web:%d' % (w.remote + 2)
		code, out, err = w.tool('open', '-c', w.conf, 'web')
		assert code == 0, (out, err)
		tunnels = {t['name']: t for t in w.status(w.f)[0]['forwarder']['tunnels']}
		assert [(t['state'], t['range']) for t in tunnels.values()] == [('up', 'web')] * 3, tunnels
		code, out, err = w.tool('status', '-c', w.conf, 'web')
		assert code == 0 and all('web:%d' % (w.remote + i) in out for i in range(3)), out
		assert get(w.http, '/readyz/web')[0] == 200 and get(w.http, '/readyz/we')[0] == 404
		assert w.tool('close', '-c', w.conf, first)[0] == 0
		assert get(w.http, '/readyz/web')[0] == 503 and get(w.http, '/readyz/' + last)[0] == 200
		assert refused_at(w.local) and not refused_at(w.local + 1)
		assert w.tool('open', '-c', w.conf, 'web')[0] == 0
		assert w.tool('close', '-c', w.conf, 'web')[0] == 0
		assert all(refused_at(w.local + i) for i in range(3))
		assert w.tool('open', '-c', w.conf, 'web')[0] == 0
		for i in range(3):
			with connect(w.local + i) as c:
				assert read_exact(c, 5) == b'%05d' % (w.remote + i)
		for words in (('connect', '-c', w.conf, 'web'), ('exec', '-c', w.conf, 'web', '--', 'true')):
			code, out, err = w.tool(*words)
			assert code == 2 and 'web is a range of ports: say which one, %s to %s' % (first, last) in err, err
		for words in (('web', str(w.remote + 1)), ('web:%d' % (w.remote + 1),)):
			code, out, err = w.tool('connect', '-c', w.conf, *words, stdin=subprocess.DEVNULL)
			assert (code, out) == (0, '%05d' % (w.remote + 1)), (code, out, err)
		w.f.wait_log('serves connect tunnel=web:%d' % (w.remote + 1))
		offered = w.tool('__complete', '--', 'close', '-c', w.conf, 'w')[1].split()
		assert offered == ['web', first, 'web:%d' % (w.remote + 1), last], offered
		code, out, err = w.tool('doctor', '-c', w.conf, '--json', 'web')
		assert out.count('"dial"') == 3, out


def refused_at(port):
	with socket.socket() as s:
		return s.connect_ex(('127.0.0.1', port)) != 0


@test('forward: -L with ranges of as many ports, by itself and by a daemon; ranges that do not fit are told', 60)
def forward():
	with Ranges() as w:
		w.build(named)
		local = free_row(3)
		spec = '%d-%d:localhost:%d-%d' % (local, local + 2, w.remote, w.remote + 2)
		for target in (TARGET, 'web:%d' % w.remote):
			p = w.proc('forward', [BIN, 'forward', '-c', w.conf, '-v', '-L', spec, target])
			for i in range(3):
				p.wait_log('address=127.0.0.1:%d ' % (local + i))
				with connect(local + i) as c:
					assert read_exact(c, 5) == b'%05d' % (w.remote + i)
			assert p.stop() == 0
		w.f.wait_log('serves listen tunnel=web:%d' % w.remote)
		for spec in ('8000-8002:localhost:9000-9001', '8000:localhost:9000-9001', '8000-8001:localhost:80', '8000-8001:/run/x.sock'):
			code, out, err = w.tool('forward', '-L', spec, '-c', w.conf, TARGET)
			assert code == 2 and err == 'tunneld forward: -L %s: there are not as many ports here as there\n' % spec, err
		code, out, err = w.tool('forward', '-L', '1000-2000:localhost:3000-4000', '-c', w.conf, TARGET)
		assert code == 2 and 'a range has at most 256 ports' in err, err
