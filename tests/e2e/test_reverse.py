"""Reverse tunnels: the agent listens, who connects there reaches a service here; who may, who takes over, what is told."""
import os
import signal
import socket
import subprocess
import threading

from harness import BIN, TARGET, World, clean_env, until
from run import test
from services import MIB, Server, blob, both_ways, connect, download, echo, free_port, ping, read_all, refused as refused_at, upload, wait_reset
from stockagent import StockAgent
from test_audit import wait_event
from test_http import get, samples


def reverse(port, bind, **more):
	return {'r': dict({'listen': None, 'type': 'reverse', 'bind': bind, 'connect': '127.0.0.1:%d' % port}, **more)}


def tunnel(w, f):
	return w.status(f)[0]['forwarder']['tunnels'][0]


def bound(w, f):
	"""Where the agent listens for it, once it does."""
	until(lambda: tunnel(w, f)['state'] == 'up', 20, 'the agent listens')
	return tunnel(w, f)['bound']


def port_of(address):
	return int(address.rsplit(':', 1)[1])


class ReverseWorld(World):
	"""A gateway that allows it, an agent where some ports and sockets may be bound."""

	def build(self, allowed='127.0.0.1:*', gateway=None, agent=None, may=True):
		self.rights = {'ops': {'reverse': may}}
		self.g = self.gateway(**(gateway or {}))
		self.a = self.agent(reverse=allowed, **(agent or {}))
		return self

	def reverse(self, port, bind='127.0.0.1:0', name='forwarder', **more):
		return self.forwarder(reverse(port, bind, **more), name=name)


@test('reverse: bytes both ways at once, half-close, many connections; who connected is told; status, metrics, audit', 90, short=True)
def through():
	with ReverseWorld() as w:
		s = Server(blob)
		http = free_port()
		w.build(agent={'audit_log': 'agent.audit', 'td_http': '127.0.0.1:%d' % http}, gateway={'audit_log': 'gateway.audit'})
		f = w.reverse(s.port)
		port = port_of(bound(w, f))
		with connect(port) as c:
			me = '127.0.0.1:%d' % c.getsockname()[1]
			upload(c, 5 * MIB)
			download(c, 5 * MIB)
			both_ways(c, 8 * MIB)
			wait_event(w.path('agent.audit'), 'incoming', listen='127.0.0.1:%d' % port, peer=me, user='ops')
			c.shutdown(socket.SHUT_WR)
			assert read_all(c) == b''
		over = wait_event(w.path('agent.audit'), 'incoming-end', peer=me, text='closed')
		assert over['bytes_in'] >= 13 * MIB and over['bytes_out'] >= 13 * MIB, over
		f.wait_log('connection closed tunnel=r .*peer=%s' % me)
		wait_event(w.path('agent.audit'), 'listen', listen='127.0.0.1:%d' % port, user='ops')
		wait_event(w.path('gateway.audit'), 'session-start', user='ops', reverse='allowed')
		many = [connect(port) for _ in range(40)]
		for i, c in enumerate(many):
			upload(c, 1000 + i)
		t, ses = tunnel(w, f), w.status(w.a)[0]['agent']['sessions'][0]
		assert t['type'] == 'reverse' and t['connections'] == 40 and t['accepted'] == 41 and t['bytes_in'] > 13 * MIB, t
		m = samples(get(http, '/metrics')[2])
		assert (m['tunneld_agent_listeners', ''], m['tunneld_agent_reverse_connections_total', '']) == (1, 41), m
		assert ses['listeners'] == [{'listen': '127.0.0.1:%d' % port, 'connections': 40, 'accepted': 41, 'paused': False}], ses
		for c in many:
			c.close()
		until(lambda: tunnel(w, f)['connections'] == 0, 10, 'all are closed')


@test('reverse: half-close keeps the reply; a reset on either side reaches the other; a service that is not there', 60)
def ends():
	with ReverseWorld() as w:
		def reply(sock):
			got = read_all(sock)
			sock.sendall(b'%d bytes' % len(got))

		s = Server(reply)
		w.build()
		f = w.reverse(s.port)
		port = port_of(bound(w, f))
		with connect(port) as c:
			c.sendall(b'x' * 300000)
			c.shutdown(socket.SHUT_WR)
			assert read_all(c) == b'300000 bytes'
		nobody = free_port()
		other = w.reverse(nobody, name='forwarder-2')
		assert refused_at(port_of(bound(w, other)))
		other.wait_log('connection refused tunnel=r connect=127.0.0.1:%d peer=127.0.0.1:' % nobody)
		w.a.wait_log('connection reset listen=.*could not connect')


@test('reverse: Unix sockets at both ends, owner only; a name for the service; the socket goes with the listener', 60)
def unix():
	with ReverseWorld() as w:
		s = socket.socket(socket.AF_UNIX)
		s.bind(w.path('service.sock'))
		s.listen()

		def serve():
			while True:
				c, _ = s.accept()
				threading.Thread(target=blob, args=(c,), daemon=True).start()

		threading.Thread(target=serve, daemon=True).start()
		there = w.path('there.sock')
		w.build(allowed='unix:%s/*.sock, localhost:*' % w.dir)
		f = w.reverse(0, 'unix:' + there, connect='unix:' + w.path('service.sock'))
		assert bound(w, f) == 'unix:' + there
		assert os.stat(there).st_mode & 0o777 == 0o600
		with connect(there) as c:
			upload(c, 3 * MIB)
			download(c, 3 * MIB)
		f.stop()
		until(lambda: not os.path.exists(there), 10, 'the socket is gone')
		other = Server(blob)
		f = w.reverse(0, '[::1]:0', name='forwarder-n', connect='localhost:%d' % other.port)
		where = bound(w, f)
		with connect(('::1', port_of(where))) as c:
			upload(c, MIB)


@test('reverse: what the agent does not allow, a user who may not, and an agent without it are refused in words', 90, short=True)
def refused():
	with ReverseWorld() as w:
		s = Server(blob)
		taken = socket.socket()
		taken.bind(('127.0.0.1', 0))
		taken.listen()
		low = free_port()
		w.build(allowed='127.0.0.1:%d-%d, 127.0.0.1:%d, unix:%s/x*' % (low, low, taken.getsockname()[1], w.dir), agent={'audit_log': 'agent.audit'})

		def fails(why, bind, n):
			f = w.reverse(s.port, bind, name='forwarder-%d' % n)
			until(lambda: tunnel(w, f)['state'] == 'failed', 20, 'it has failed')
			assert why in tunnel(w, f)['last_error'], tunnel(w, f)
			f.wait_log('cannot open tunnel=r .*' + why)
			return f

		fails('does not allow it', '127.0.0.1:%d' % (low + 1), 1)
		fails('does not allow it', '0.0.0.0:%d' % low, 2)
		fails('does not allow it', 'unix:%s/y.sock' % w.dir, 3)
		fails('does not allow it', 'unix:%s/x/../y.sock' % w.dir, 4)
		f = fails('Address already in use', '127.0.0.1:%d' % taken.getsockname()[1], 5)
		wait_event(w.path('agent.audit'), 'listen-refused', listen='0.0.0.0:%d' % low, user='ops')
		taken.close()
		bound(w, f)  # it asks again
		f = w.reverse(s.port, '127.0.0.1:0', name='forwarder-6')
		assert port_of(bound(w, f)) == low
		w.rights = {}
		w.write_gateway()
		w.g.signal(signal.SIGHUP)
		until(lambda: tunnel(w, f)['state'] == 'failed', 20, 'the right is gone, and the session with it')
		assert 'gateway does not allow' in tunnel(w, f)['last_error'], tunnel(w, f)
		assert socket.socket().connect_ex(('127.0.0.1', low)) != 0


@test('reverse: a stock agent never listens, and that is said', 60)
def stock():
	with ReverseWorld() as w:
		w.build()
		w.a.stop()
		StockAgent(w)
		f = w.reverse(1)
		until(lambda: tunnel(w, f)['state'] == 'failed', 20, 'it has failed')
		assert "not tunneld's" in tunnel(w, f)['last_error'], tunnel(w, f)


@test('reverse: the agent starts anew and listens again; a client that is killed takes its port over', 90, short=True)
def restarts():
	with ReverseWorld() as w:
		s = Server(blob)
		w.build()
		f = w.reverse(s.port)
		where = bound(w, f)
		c = connect(port_of(where))
		upload(c, MIB)
		mark = f.mark()
		w.a.kill9()
		wait_reset(c)
		w.a = w.agent(reverse='127.0.0.1:*')
		f.wait_log('the agent listens', since=mark, timeout=30)
		where = bound(w, f)
		with connect(port_of(where)) as c:
			upload(c, MIB)
		# the gateway still believes in the first one's session, and its TerminateSession never comes
		old = w.api().sessions()[0]['SessionId']
		f.kill9()
		for n in os.listdir(w.path('state-forwarder')):
			for m in os.listdir(w.path('state-forwarder/' + n)) if os.path.isdir(w.path('state-forwarder/' + n)) else []:
				if 'sessions' in m:
					os.unlink(w.path('state-forwarder/%s/%s' % (n, m)))
		f = w.reverse(s.port)
		assert bound(w, f) == where, (bound(w, f), where)
		w.a.wait_log('listener taken over listen=%s from=%s' % (where, old))
		with connect(port_of(where)) as c:
			upload(c, MIB)


@test('reverse: twice the same client: the newer has the listener, the older says so and leaves it alone', 60)
def twice():
	with ReverseWorld() as w:
		s, port = Server(blob), free_port()
		w.build()
		argv = [BIN, 'forward', '-c', w.write_forwarder({}), '-v', '-R', '%d:127.0.0.1:%d' % (port, s.port), TARGET]
		first = w.proc('forward-1', argv)
		first.expect_exit = {6}
		first.wait_log('the agent listens')
		with connect(port) as c:
			upload(c, 1000)
		second = w.proc('forward-2', argv)
		second.wait_log('the agent listens')
		assert first.wait(20) == 6
		first.wait_log('taken it over')
		with connect(port) as c:
			upload(c, 1000)


@test('reverse: forward -R with its spellings; a port that is refused ends it with code 5', 60)
def command():
	with ReverseWorld() as w:
		s = Server(blob)
		port = free_port()
		w.build(allowed='127.0.0.1:%d, unix:%s/*' % (port, w.dir))
		conf = w.write_forwarder({})
		p = w.proc('forward', [BIN, 'forward', '-c', conf, '-v', '-R', '%d:localhost:%d' % (port, s.port), '-R', '%s/r.sock:127.0.0.1:%d' % (w.dir, s.port), TARGET])
		p.wait_log('the agent listens tunnel=reverse-1')
		p.wait_log('the agent listens tunnel=reverse-2')
		for where in (port, w.path('r.sock')):
			with connect(where) as c:
				upload(c, MIB)
		p.stop()
		there = w.write_forwarder(reverse(s.port, '127.0.0.1:%d' % port), name='other')
		for words in (('connect', '-c', there, 'r'), ('exec', '-c', there, 'r', '--', 'true')):
			r = subprocess.run([BIN] + list(words), env=clean_env(), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=20)
			assert r.returncode == 2 and b'r is a reverse tunnel' in r.stderr, (words, r)
		r = subprocess.run([BIN, 'doctor', '-c', there, 'r'], env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
		assert b'the agent listens for clients' in r.stdout, r.stdout
		for spec, code, said in (('*:%d:localhost:1' % port, 5, 'does not allow it'), ('x:localhost:1', 2, r'-R x:localhost:1: not \[bind:\]port'), ('1:2', 2, 'not')):
			p = w.proc('forward', [BIN, 'forward', '-c', conf, '-R', spec, TARGET])
			p.expect_exit = {code}
			assert p.wait(20) == code, (spec, p.lines)
			assert p.find(said), (spec, p.lines)


@test('reverse: max_connections holds the next ones back, and they come when there is room', 60)
def bounds():
	with ReverseWorld() as w:
		s = Server(echo)
		w.build()
		f = w.reverse(s.port, max_connections=2)
		port = port_of(bound(w, f))
		first = [connect(port) for _ in range(2)]
		for c in first:
			ping(c, b'one')
		third = connect(port)  # in the kernel's queue
		third.sendall(b'waits')
		until(lambda: w.status(w.a)[0]['agent']['sessions'][0]['listeners'][0]['paused'], 10, 'the listener is paused')
		assert s.accepted == 2
		first[0].close()
		assert third.recv(5) == b'waits'


@test('reverse: a session that only listens does not idle away; a reload of the agent that takes the port away closes it', 60)
def idle():
	with ReverseWorld() as w:
		s = Server(blob)
		w.build(gateway={'idle_timeout': '3s'})
		f = w.reverse(s.port, idle_timeout='3s')
		where = bound(w, f)
		sid = w.api().sessions()[0]['SessionId']
		until(lambda: w.status(w.a)[0]['agent']['sessions'][0]['received'] >= 8, 30, 'keep-alives have gone for several times idle_timeout')
		assert [x['SessionId'] for x in w.api().sessions()] == [sid]
		with connect(port_of(where)) as c:
			upload(c, 1000)
			w.write_agent(reverse='127.0.0.1:1')
			w.a.signal(signal.SIGHUP)
			until(lambda: tunnel(w, f)['state'] == 'failed', 20, 'it is not allowed any more')
			assert socket.socket().connect_ex(('127.0.0.1', port_of(where))) != 0
			upload(c, 1000)  # what was there stays


@test('reverse: open and close by hand, and a reload of the forwarder that changes the address', 60)
def switch():
	with ReverseWorld() as w:
		s = Server(blob)
		w.build()
		f = w.reverse(s.port)
		port = port_of(bound(w, f))
		conf = w.path('forwarder.ini')
		c = connect(port)
		upload(c, 1000)
		assert subprocess.run([BIN, 'close', '-c', conf, 'r'], env=clean_env(), timeout=20).returncode == 0
		until(lambda: socket.socket().connect_ex(('127.0.0.1', port)) != 0, 10, 'nobody listens')
		upload(c, 1000)
		assert subprocess.run([BIN, 'open', '-c', conf, 'r'], env=clean_env(), timeout=20).returncode == 0  # in the session that has stayed
		port = port_of(bound(w, f))
		upload(c, 1000)
		c.close()
		with connect(port) as c:
			upload(c, 1000)
		new = free_port()
		w.write_forwarder(reverse(s.port, '127.0.0.1:%d' % new))
		f.signal(signal.SIGHUP)
		until(lambda: socket.socket().connect_ex(('127.0.0.1', new)) == 0, 10, 'the agent listens there')
		until(lambda: socket.socket().connect_ex(('127.0.0.1', port)) != 0, 10, 'and no longer where it did')
		with connect(new) as c:
			upload(c, MIB)
		assert f.count('session started') == 2, f.lines  # one for each address
