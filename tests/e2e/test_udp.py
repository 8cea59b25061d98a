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
		for way in ([], ['-R']):
			out = json.loads(run(['iperf3', '-c', '127.0.0.1', '-p', str(local), '-u', '-b', '20M', '-l', '1200', '-t', '3', '-J'] + way, w))
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
			late = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
			late.bind(('127.0.0.1', nobody))
			late.settimeout(10)
			n.send(b'now')
			data, who = late.recvfrom(100)
			late.sendto(b'here', who)
			assert n.recv(100) == b'here'
		bad = w.write_forwarder({'u': {'type': 'udp', 'port': 1, 'send_proxy': 'v1', 'bandwidth': '1M', 'listen': 'unix:x'}}, name='bad')
		r = subprocess.run([BIN, '-t', '-c', bad], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_env())
		assert r.returncode and r.stdout.count('type = udp: ') == 3, r.stdout
		f.stop()
