"""type = udp: name servers, iperf3, every size of datagram, many flows, cuts, and who may what."""
import json
import os
import re
import socket
import subprocess
import threading
import time

from harness import BIN, SANITIZED, World, clean_env, need, until
from peers import run
from run import test
from services import connect, free_port
from stockagent import StockAgent


class Echo:
	"""Sends each datagram back; remembers from how many addresses they came."""

	def __init__(self, answers=1):
		self.s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
		self.s.bind(('127.0.0.1', 0))
		self.port, self.seen, self.got, self.answers = self.s.getsockname()[1], set(), 0, answers
		threading.Thread(target=self.run, daemon=True).start()

	def run(self):
		while True:
			data, who = self.s.recvfrom(65536)
			self.seen.add(who)
			self.got += 1
			for _ in range(self.answers):
				self.s.sendto(data, who)


def client(port, host='127.0.0.1'):
	s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
	s.connect((host, port))
	s.settimeout(10)
	return s


def ask(s, data, tries=1):
	s.send(data)
	got = s.recv(65536)
	assert got == data, (len(got), len(data))


def world(w, port, agent=None, **tunnel):
	w.gateway()
	a = w.agent(**dict({'allow': 'udp:127.0.0.1:*'}, **(agent or {})))
	f = w.forwarder({'u': dict({'type': 'udp', 'port': port}, **tunnel)})
	return a, f, f.ports['u']


def tunnel_of(w, f, name='u'):
	return next(t for t in w.status(f)[0]['forwarder']['tunnels'] if t['name'] == name)


def comes_late(port, client):
	"""A service begins at the port, and the client's flow, to which nobody answered before, goes there."""
	late = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	late.bind(('127.0.0.1', port))
	late.settimeout(10)
	client.send(b'now')
	data, who = late.recvfrom(100)
	late.sendto(b'here', who)
	assert client.recv(100) == b'here'
	return late


@test('udp: datagrams of 0, 1 and 65,507 bytes both ways; many clients at a time, each a flow that ends with udp_idle', 90)
def sizes_and_flows():
	with World() as w:
		e = Echo()
		a, f, port = world(w, e.port, udp_idle='2s')
		with client(port) as c:
			for n in (0, 1, 2, 511, 1472, 1473, 9000, 32768, 65507, 0, 65507):
				ask(c, os.urandom(n))
		socks = [client(port) for _ in range(200)]
		for i, s in enumerate(socks):
			s.send(b'%d' % i)
		for i, s in enumerate(socks):
			assert s.recv(100) == b'%d' % i
		assert len(e.seen) == 201
		t = tunnel_of(w, f)
		assert t['type'] == 'udp' and t['connections'] >= 200 and t['datagrams_dropped'] == 0, t
		assert len(t['sessions']) == 1
		until(lambda: tunnel_of(w, f)['connections'] == 0, 10, 'idle flows end')
		until(lambda: sum(x == 'socket' for x in a.fds()) < 20, 10, 'the agent closes their sockets')
		ask(socks[0], b'again')
		for s in socks:
			s.close()


@test('udp: dig asks a dnsmasq through it, also for an answer that is longer than a packet, over IPv4 and IPv6', 60)
def dns():
	need('dnsmasq', 'dig')
	with World() as w:
		port = free_port()
		p = w.proc('dnsmasq', ['dnsmasq', '-k', '-C', '/dev/null', '-p', str(port), '--listen-address=127.0.0.1', '--bind-interfaces', '--no-resolv',
			'--no-hosts', '--pid-file=', '--user=', '--edns-packet-max=4096', '--log-facility=-', '--address=/db.test/10.1.2.3'] +
			['--txt-record=long.test,' + ','.join('%d-%s' % (i, 'x' * 200) for i in range(12))])
		p.expect_exit = {0, -15}
		w.gateway()
		w.agent(allow='udp:127.0.0.1:%d' % port)
		f = w.forwarder({'u': {'type': 'udp', 'port': port, 'listen': '127.0.0.1:0, [::1]:0', 'udp_idle': '1s'}})
		ports = [a.rsplit(':', 1) for a in tunnel_of(w, f)['listen']]
		for host, local in ports:
			dig = ['dig', '@' + host.strip('[]'), '-p', local, '+notcp', '+time=5', '+short']
			assert run(dig + ['db.test'], w).decode().strip() == '10.1.2.3'
			long = run(dig + ['+bufsize=4096', '+ignore', 'TXT', 'long.test'], w).decode()
			assert long.count('x' * 200) == 12, long[:300]
		assert w.procs[-1].count('connection closed') == 0  # questions are no news


@test('udp: iperf3 -u through it, with its control connection in a tunnel to the same port', 60)
def iperf():
	need('iperf3')
	with World() as w:
		port, local = free_port(), free_port()
		p = w.proc('iperf3', ['iperf3', '-s', '-p', str(port), '--bind', '127.0.0.1', '--forceflush'])
		p.expect_exit = {0, 1, -15}
		p.wait_log('Server listening')
		w.gateway()
		w.agent(allow='udp:127.0.0.1:%d, 127.0.0.1:%d' % (port, port))
		where = '127.0.0.1:%d' % local
		f = w.forwarder({'u': {'type': 'udp', 'port': port, 'listen': where}, 't': {'port': port, 'listen': where}})
		for turn, way in enumerate(([], ['-R'])):
			until(lambda: p.count('Server listening') > turn, 10, 'iperf3 takes the next test')
			out = json.loads(run(['iperf3', '-c', '127.0.0.1', '-p', str(local), '-u', '-b', '20M', '-l', '1200', '-t', '3', '-J'] + way, w))
			assert 'sum' in out['end'], out.get('error')
			total = out['end']['sum']
			assert total['packets'] > 1000 and total['lost_percent'] < 20, total
			print('note: %s %.1f Mbit/s, %d of %d lost' % (way or 'up', total['bits_per_second'] / 1e6, total['lost_packets'], total['packets']))


@test('udp: over a cut of the link the flow goes on, with the newest of what was sent meanwhile; memory is bounded', 90)
def cut():
	with World() as w:
		e = Echo()
		g = w.gateway()
		w.agent(allow='udp:127.0.0.1:*')
		f = w.forwarder({'u': {'type': 'udp', 'port': e.port, 'udp_queue': '64K', 'reconnect_min': '20ms', 'reconnect_max': '200ms'}})
		with client(f.ports['u']) as c:
			ask(c, b'before')
			g.kill9()
			f.wait_log('data channel lost')
			before = f.rss()
			for i in range(20000):
				c.send(b'%08d' % i + b'x' * 992)
				if i % 100 == 99:
					time.sleep(0.001)
			assert f.rss() - before < 16 << 20 or SANITIZED  # which keeps what was freed
			w.gateway()
			c.settimeout(30)
			last = 0
			while last != 19999:
				got = int(c.recv(2000)[:8])
				assert got >= last
				last = got
		assert tunnel_of(w, f)['datagrams_dropped'] > 10000
		text = run([BIN, 'status', '-c', f.argv[-1]], w, ok=(0, 1)).decode()
		assert 'u' in text


@test('udp: at max_flows the longest silent flow goes, one just heard of does not; what is not carried is counted', 60)
def too_many():
	with World() as w:
		e = Echo()
		a, f, port = world(w, e.port, max_flows=3)
		socks = [client(port) for _ in range(5)]
		for s in socks[:3]:
			ask(s, b'one')
		socks[3].settimeout(0.3)
		socks[3].send(b'no room')  # all were heard of within a second
		try:
			assert not socks[3].recv(100)
		except TimeoutError:
			pass
		f.wait_log('max_flows is reached')
		time.sleep(1.1)
		ask(socks[1], b'busy')
		ask(socks[2], b'busy')
		ask(socks[4], b'in')  # in the place of the first
		ask(socks[1], b'still')
		ask(socks[2], b'still')
		assert len(e.seen) == 4
		assert tunnel_of(w, f)['datagrams_dropped'] == 1
		socks[3].send(b'no room')
		until(lambda: tunnel_of(w, f)['datagrams_dropped'] == 2, 10, 'again there is none')
		assert f.count('max_flows is reached') == 1  # said once, though one had made way meanwhile
		for s in socks:
			s.close()


@test('udp: an agent without udp: rules, a port that is not in them and a stock agent are refused, and said', 60)
def refused():
	with World() as w:
		e = Echo()
		a, f, port = world(w, e.port, agent={'allow': '127.0.0.1:*', 'audit_log': 'audit.log'})
		with client(port) as c:
			c.send(b'x')
			f.wait_log('carries no datagrams')
		a.stop()
		a = w.agent(name='agent-b', allow='udp:127.0.0.1:1, 127.0.0.1:*', audit_log='audit.log')
		with client(port) as c:
			until(lambda: (c.send(b'x'), f.find('not allowed: the address is in no udp: entry'))[1], 10, 'the refusal', 0.1)
		until(lambda: '"udp"' in open(w.path('audit.log')).read(), 5, 'the audit line')
		a.stop()
		a = w.agent(name='agent-c', allow='udp:127.0.0.1:*')  # allows no TCP
		g = w.forwarder({'t': {'port': e.port}}, name='forwarder-t')
		with connect(g.ports['t']) as c:
			c.settimeout(10)
			try:
				assert c.recv(1) == b''
			except ConnectionResetError:
				pass
		a.stop()
		StockAgent(w)
		h = w.forwarder({'s': {'type': 'udp', 'port': 1}}, name='forwarder-s')
		with client(h.ports['s']) as c:
			c.send(b'x')
			h.wait_log('carries no datagrams')
		assert e.got == 0


@test('udp: an answer larger than its question, a service that is not there, a reload and an orderly end', 60)
def odd():
	with World() as w:
		e = Echo(answers=20)
		nobody = free_port()
		w.gateway()
		w.agent(allow='udp:127.0.0.1:*')
		f = w.forwarder({'u': {'type': 'udp', 'port': e.port}, 'n': {'type': 'udp', 'port': nobody}})
		with client(f.ports['u']) as c, client(f.ports['n']) as n:
			for _ in range(3):
				n.send(b'nobody is there')
			c.send(b'y' * 5000)
			for _ in range(20):
				assert len(c.recv(65536)) == 5000
			late = comes_late(nobody, n)
		bad = w.write_forwarder({'u': {'type': 'udp', 'port': 1, 'send_proxy': 'v1', 'bandwidth': '1M', 'listen': 'unix:x'}}, name='bad')
		r = subprocess.run([BIN, '-t', '-c', bad], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_env())
		assert r.returncode and r.stdout.count('type = udp: ') == 2, r.stdout
		f.stop()


@test('udp: bandwidth holds each way, shared by all flows; what is more waits, then the oldest go, and are counted', 60)
def bandwidth():
	burst = 102400 // 10 + 65536
	with World() as w:
		sink, source = Echo(answers=0), Echo(answers=40)
		w.gateway()
		w.agent(allow='udp:127.0.0.1:*')
		slow = {'type': 'udp', 'bandwidth': '100K', 'udp_queue': '20K'}
		f = w.forwarder({'up': dict(slow, port=sink.port), 'down': dict(slow, port=source.port)})
		with client(f.ports['up']) as c, client(f.ports['up']) as d:
			c.send(b'1'), d.send(b'2')
			until(lambda: sink.got == 2, 10, 'both flows stand')
			t0 = time.monotonic()
			for i in range(300):
				for s in (c, d):
					s.send(b'%08d' % i + b'x' * 992)
				if i % 10 == 9:
					time.sleep(0.002)  # all of it would not find room in the kernel's buffer
			until(lambda: tunnel_of(w, f, 'up')['datagrams_dropped'] + sink.got == 602, 20, 'each has come or was dropped')
			assert sink.got * 1000 <= (time.monotonic() - t0) * 102400 + burst, (sink.got, time.monotonic() - t0)
			assert sink.got < 400 and len(sink.seen) == 2, sink.got
		with client(f.ports['down']) as c:
			t0 = time.monotonic()
			for i in range(20):
				c.send(b'%08d' % i + b'x' * 992)
			got = []
			while not got or got[-1] != 19 or got.count(19) < 5:  # of the newest some come
				got.append(int(c.recv(2000)[:8]))
			assert got == sorted(got)
			assert len(got) * 1000 <= (time.monotonic() - t0) * 102400 + burst, (len(got), time.monotonic() - t0)
			assert len(got) < 400 and tunnel_of(w, f, 'down')['datagrams_dropped'] > 20, (len(got), tunnel_of(w, f, 'down'))


@test('udp: probe says that the agent may send there, sends nothing, and says so when the agent may not', 60)
def probe():
	with World() as w:
		e, nobody = Echo(), free_port()
		w.gateway()
		w.agent(allow='udp:127.0.0.1:%d, udp:127.0.0.1:%d' % (e.port, nobody))
		f = w.forwarder({'u': {'type': 'udp', 'port': e.port, 'probe': '1s'}, 'n': {'type': 'udp', 'port': nobody, 'probe': '1s'},
			'x': {'type': 'udp', 'port': 1, 'probe': '1s'}})
		for name, result in (('u', 'ok'), ('n', 'ok'), ('x', 'denied')):
			until(lambda: tunnel_of(w, f, name)['probe']['result'] == result, 15, '%s: %s' % (name, result))
		assert tunnel_of(w, f)['probe']['certain'] is False
		assert 'no udp: entry' in tunnel_of(w, f, 'x')['probe']['error']
		f.wait_log('probe succeeded tunnel=u')
		with client(f.ports['u']) as c:
			ask(c, b'x')
		t = tunnel_of(w, f)
		assert (t['connections'], t['accepted'], e.got) == (1, 1, 1), t
		w.write_forwarder({'u': {'type': 'udp', 'port': e.port}})  # and goes, also while one is under way
		f.signal(1)
		until(lambda: 'probe' not in tunnel_of(w, f), 10, 'the reload')


@test('udp: IPv6 at both ends with the longest datagram; that nobody listens is said once, and the flow goes on', 60)
def six_and_nobody():
	with World() as w:
		s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
		s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
		s.bind(('::1', 0))
		s.settimeout(10)
		nobody = free_port()
		w.gateway()
		a = w.agent(allow='udp:[::1]:*, udp:127.0.0.1:*')
		f = w.forwarder({'u': {'type': 'udp', 'port': s.getsockname()[1], 'host': '::1', 'listen': '[::1]:0'}, 'n': {'type': 'udp', 'port': nobody}})
		c = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
		c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
		c.connect(f.ports['u'])
		c.settimeout(10)
		for n in (65507, 0, 1):
			data = os.urandom(n)
			c.send(data)
			got, who = s.recvfrom(70000)
			assert got == data
			s.sendto(got, who)
			assert c.recv(70000) == data
		with client(f.ports['n']) as n:
			for _ in range(3):
				n.send(b'nobody is there')
				a.wait_log('datagrams are not taken peer=127.0.0.1:%d error="Connection refused"' % nobody)
			late = comes_late(nobody, n)
			assert a.count('datagrams are not taken') == 1
			late.close()
			until(lambda: (n.send(b'gone'), a.count('datagrams are not taken') == 2)[1], 10, 'it is said again', 0.05)


@test('udp: connect is refused in words, exec gives a program the address', 60)
def one_shot():
	with World() as w:
		e = Echo()
		w.gateway()
		w.agent(allow='udp:127.0.0.1:*, 127.0.0.1:*')
		conf = w.write_forwarder({'u': {'type': 'udp', 'port': e.port}})
		for words in (('u',), ('u', '22')):
			r = subprocess.run([BIN, 'connect', '-c', conf, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), timeout=30)
			assert r.returncode == 2 and b'u is a tunnel of datagrams (type = udp), and connect makes connections' in r.stderr, r.stderr
		code = 'import socket,sys; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(10); s.sendto(b"hi",(sys.argv[1],int(sys.argv[2]))); print(s.recv(9))'
		for p in ((), ('-P',)):
			r = subprocess.run([BIN, 'exec', '-c', conf, *p, 'u', '--', 'python3', '-c', code, '{host}', '{port}'], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
				env=clean_env(), timeout=60)
			assert r.returncode == 0 and r.stdout == b"b'hi'\n", (p, r)


@test('udp: what waits of many flows, at either end, stays within memory_limit, and the newest of each comes when there is room', 90)
def memory():
	with World() as w:
		flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		flood.bind(('127.0.0.1', 0))
		flood.settimeout(20)
		g = w.gateway()
		a = w.agent(allow='udp:127.0.0.1:*', td_memory_limit='16M')
		f = w.forwarder({'u': {'type': 'udp', 'port': flood.getsockname()[1], 'udp_queue': '16M', 'reconnect_min': '20ms', 'reconnect_max': '200ms'}}, memory_limit='16M')
		socks, peers = [client(f.ports['u']) for _ in range(300)], []
		for s in socks:
			s.send(b'first')
			peers.append(flood.recvfrom(100)[1])
		g.kill9()
		f.wait_log('data channel lost')
		before = f.rss(), a.rss()
		for i in range(100):  # 90 MB, from each end
			for s, peer in zip(socks, peers):
				s.send(b'%08d' % i + b'x' * 2992)
				flood.sendto(b'%08d' % i + b'x' * 2992, peer)
			time.sleep(0.01)
		grown = f.rss() - before[0], a.rss() - before[1]
		print('note: grown by %s KiB' % (tuple(x >> 10 for x in grown),))
		assert max(grown) < 24 << 20 or SANITIZED, grown
		w.gateway()
		for s in (socks[0], socks[-1]):
			until(lambda: (s.send(b'last'), flood.recvfrom(4000)[0] == b'last')[1], 30, 'it goes on', 0.001)


@test('udp: 20,000 addresses that each send once have max_flows places and no more memory; who comes afterwards is served', 90)
def flood():
	with World() as w:
		e = Echo()
		a, f, port = world(w, e.port, max_flows=500)
		ask(client(port), b'before')
		before = f.rss(), a.rss()
		for i in range(20000):
			with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
				s.bind(('127.%d.%d.%d' % (1 + i // 40000, i // 200 % 200, 1 + i % 200), 0))
				s.sendto(b'%d' % i * (i % 3), ('127.0.0.1', port))
			if i % 200 == 199:
				t = tunnel_of(w, f)
				assert t['connections'] <= 2 * 500, t
		grown = f.rss() - before[0], a.rss() - before[1]
		print('note: grown by %s KiB, %d datagrams dropped' % (tuple(x >> 10 for x in grown), tunnel_of(w, f)['datagrams_dropped']))
		assert max(grown) < 16 << 20 or SANITIZED, grown
		assert sum(x == 'socket' for x in a.fds()) <= 2 * 500 + 20
		with client(port) as c:
			c.settimeout(0.2)
			def served():
				c.send(b'afterwards')
				try:
					return c.recv(100) == b'afterwards'
				except TimeoutError:
					return False
			until(served, 20, 'a place for who comes afterwards')
		assert f.count('max_flows is reached') == 1
