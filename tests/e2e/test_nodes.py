"""Three gateways, a Redis server and HAProxy before them: nodes die, restart one after the other and drain, links come to the
wrong one, and no stream is lost."""
import os
import re
import signal
import subprocess
import threading
import time

from cluster import BALANCER, STORE_PASSWORD, Cluster
from harness import BIN, SLOW, TARGET, clean_env, until
from run import test
from services import MIB, Server, blob, connect, download, upload


class Load:
	"""Connections that go on uploading and downloading, each transfer checked by its hash, until they are told to stop."""

	def __init__(self, port, n, size=MIB):
		self.stop, self.faults, self.rounds = threading.Event(), [], [0] * n
		self.size = size
		self.conns = [connect(port, 60) for _ in range(n)]
		self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(n)]
		for t in self.threads:
			t.start()

	def run(self, i):
		try:
			while not self.stop.is_set():
				upload(self.conns[i], self.size)
				download(self.conns[i], self.size)
				self.rounds[i] += 1
				time.sleep(0.02)  # two cores for all of it
		except Exception as e:
			self.faults.append('connection %d after %d rounds: %r' % (i, self.rounds[i], e))

	def moved(self):
		"""Until each of them has done one more whole round."""
		before = list(self.rounds)
		until(lambda: self.faults or all(r >= b + 2 for r, b in zip(self.rounds, before)), 60, 'all go on: %s' % self.rounds)
		assert not self.faults, self.faults

	def finish(self):
		self.stop.set()
		for t in self.threads:
			t.join(60 * SLOW)
			assert not t.is_alive(), 'a connection stands still: %s' % self.rounds
		assert not self.faults, self.faults
		for c in self.conns:
			c.close()


def begin(w, passed=False, nginx=False, **options):
	"""Store, nodes and HAProxy or nginx; agent and forwarder come through it. passed: TLS passes through to any node."""
	if passed:
		w.link_nodes()
	w.redis()
	if not nginx:
		w.options['proxy_protocol'] = BALANCER
	w.options.update(options)
	w.start_nodes()
	if nginx:
		w.nginx()
	else:
		w.haproxy()
	if passed:
		for n in w.names:  # what they are told is the port where TLS passes through
			w.node[n].stop()
		w.front = w.gw_port = w.passed
		w.start_nodes()
		w.linked()
		w.answers(w.node['n1'])
	w.agent(wait=False)
	for n in w.names:
		w.knows_agent(n)


def certificate_of(w, name):
	"""A client certificate with that name, of the same authority."""
	pem, key = name + '.pem', name + '.key'

	def run(*argv):
		subprocess.run(('openssl',) + argv, check=True, cwd=w.dir, env=clean_env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
	run('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', key)
	os.chmod(w.path(key), 0o600)
	run('req', '-new', '-key', key, '-subj', '/CN=' + name, '-out', name + '.csr')
	run('x509', '-req', '-in', name + '.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-set_serial', '77', '-days', '2',
		'-out', pem)
	return {'client_certificate': pem, 'client_key': key}


def tunnels(w, port):
	return w.forwarder({'t': {'port': port, 'session': 'pool 8', 'reconnect_max': '1s'}}, wait=True)


def sessions(w, name):
	return [s['id'] for s in w.gateway_status(name)['sessions']]


@test('nodes: behind a plain TCP balancer links are handed on, with the clients\' addresses, and every byte arrives', 120, short=True)
def handed_on():
	with Cluster() as w:
		s = Server(blob)
		begin(w, passed=True, audit_log='audit')
		f = w.forwarder({'t': {'port': s.port, 'session': 'per-connection'}})
		conns, st = [], {}

		def settled():  # the nodes are asked one after the other, while sessions may open further links
			st.update({n: w.gateway_status(n) for n in w.names})
			return sum(st[n]['handed_on'] for n in w.names) == sum(st[n]['taken_in'] for n in w.names)
		while len(conns) < 6 or (sum(st[n]['handed_on'] for n in w.names) < 3 and len(conns) < 60):  # a third may come to the right node by chance, or more
			conns.append(connect(f.ports['t']))
			upload(conns[-1], 3 * MIB)
			download(conns[-1], 3 * MIB)
			until(settled, 20, 'what was handed on was taken in')
		on, taken = sum(st[n]['handed_on'] for n in w.names), sum(st[n]['taken_in'] for n in w.names)
		assert on == taken and on >= 3, {n: (st[n]['handed_on'], st[n]['taken_in']) for n in w.names}
		for n in w.names:
			assert {p['node'] for p in st[n]['peers'] if p['state'] == 'up'} == set(w.names) - {n}, st[n]['peers']
			for o in st[n]['sessions']:
				assert '-%s-' % n in o['id'], (n, o['id'])
		peers = {o['peer'].split(':')[0] for o in w.audit() if o['event'] == 'link-open' and o['channel'] == 'data'}
		assert peers == {'127.0.0.1'}, peers
		for c in conns:
			c.close()


def kill_a_node(**kw):
	with Cluster() as w:
		s = Server(blob)
		begin(w, **kw)
		f = tunnels(w, s.port)
		load = Load(f.ports['t'], 4)
		load.moved()
		victim = max(w.names, key=lambda n: len(sessions(w, n)))
		assert sessions(w, victim)
		w.node[victim].kill9()
		left = [n for n in w.names if n != victim]
		t0 = time.monotonic()

		def starts():
			try:
				return w.api().start(TARGET, s.port)[0] == 200
			except OSError:
				return False
		until(starts, 5, 'a new session starts')
		spent = time.monotonic() - t0
		load.moved()
		print('note: a new session %.2f s after the node was killed' % spent)
		w.start_node(victim)
		load.moved()
		load.finish()
		assert sum(len(sessions(w, n)) for n in left) >= 1


@test('nodes: kill -9 of one in mid-transfer: both ends go on at another, new sessions start within 5 s', 150, short=True)
def killed():
	kill_a_node()


@test('nodes: the same behind a plain TCP balancer', 150)
def killed_passed():
	kill_a_node(passed=True)


@test('nodes: the same behind nginx', 150)
def killed_nginx():
	kill_a_node(nginx=True)


def restart_all(passed):
	with Cluster() as w:
		s = Server(blob)
		begin(w, passed=passed, drain_timeout='5s')
		f = tunnels(w, s.port)
		load = Load(f.ports['t'], 6)
		load.moved()
		for n in w.names:
			old = w.node[n]
			had = len(sessions(w, n))
			t0 = time.monotonic()
			old.signal(signal.SIGTERM)
			assert old.wait(10) == 0
			spent = time.monotonic() - t0
			print('note: %s had %d sessions and was gone after %.1f s' % (n, had, spent))
			assert spent < 6 * SLOW, spent
			w.start_node(n)
			for m in w.names:
				w.knows_agent(m)
			load.moved()
		load.finish()
		assert len(f.lines) and not f.count('session lost'), 'a session was lost'


@test('nodes: a rolling restart of all of them under load loses no stream', 240, short=True)
def rolling():
	restart_all(False)


@test('nodes: a rolling restart behind a plain TCP balancer loses no stream', 240)
def rolling_passed():
	restart_all(True)


@test('nodes: a takeover that the store forgot is heard of by the node that had the session, once its owner writes', 60)
def forgotten_takeover():
	with Cluster(names=('n1', 'n2')) as w:
		s = Server(blob)
		w.redis()
		w.front = w.port['n1']  # no balancer
		w.start_nodes()
		w.agent(port=w.port['n1'], wait=False)
		w.knows_agent('n1')
		f = w.forwarder({'t': {'port': s.port}}, port=w.port['n1'])
		c = connect(f.ports['t'])
		upload(c, 1000)
		sid = w.at('n1').sessions()[0]['SessionId']
		until(lambda: w.keys_of_store('--raw', 'HGET', 'tunneld:1:sess:' + sid, 'status') == ['Connected'], 10, 'the record')
		listener = w.proc('listener', ['redis-cli', '-p', str(w.store_port), '--no-auth-warning', '-a', STORE_PASSWORD, 'SUBSCRIBE', 'tunneld:1:n:n2'])
		listener.wait_log('subscribe')
		w.keys_of_store('--raw', 'HSET', 'tunneld:1:sess:' + sid, 'node', 'n2', 'epoch', '0')  # as before n1 took it
		f.kill9()  # its link goes, which n1 writes
		listener.wait_log('"op":"lost"|"lost"')
		until(lambda: w.keys_of_store('--raw', 'HMGET', 'tunneld:1:sess:' + sid, 'node', 'epoch') == ['n1', '1'], 10, 'the record is right again')


@test('nodes: one whose certificate has not its name gets no link, in one clear line on each side, and the others go on', 90)
def wrong_certificate():
	with Cluster(names=('n1', 'n2', 'n4'), log_level='debug') as w:
		w.link_nodes()
		w.names = ('n1', 'n2', 'n9')  # the certificate has n4
		w.port['n9'], w.peer['n9'] = w.port['n4'], w.peer['n4']
		w.redis()
		w.start_nodes()
		w.linked(('n1', 'n2'))
		for n in ('n1', 'n2'):
			w.node[n].wait_log('no link to node node=n9 .*error="its name is not in its certificate')
		w.node['n9'].wait_log('no link to node')
		for n in ('n1', 'n2'):  # attempts enough
			until(lambda: w.node[n].count('no link to node, as before node=n9') >= 3, 20, '%s goes on trying' % n)
		for n in w.names:
			lines = [line for line in w.node[n].lines if 'no link to node' in line and 'as before' not in line]
			assert 1 <= len(lines) <= 2, lines
		assert not [p for p in w.gateway_status('n9')['peers'] if p['state'] == 'up']
		argv = [BIN, 'status', '-c', w.path('gateway-n1.ini')]
		r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env(), timeout=20)
		table = r.stdout.decode()
		assert r.returncode == 1 and '! node n9: no link' in table and '! node n2' not in table, (r.returncode, table)
		assert re.search(r'(?m)^n2 .* up *$', table) and re.search(r'(?m)^n9 .* down *$', table), table


@test('nodes: an agent that goes from one node to another is waited for, and one that has gone for good not longer than that', 60)
def moving():
	with Cluster(names=('n1', 'n2')) as w:
		s = Server(blob)
		w.redis()
		w.front = w.port['n1']  # no balancer
		w.start_nodes()
		a = w.agent(port=w.port['n2'], wait=False)  # from here on n2 does not wait for it because it has just started itself
		until(lambda: w.at('n2').start(TARGET, s.port)[0] == 200, 20, 'it is at n2')
		a.stop()
		a = w.agent(port=w.port['n1'], wait=False)
		until(lambda: [i for i in w.gateway_status('n1')['instances'] if i['connected']], 20, 'it is at n1')
		until(lambda: w.at('n2').start(TARGET, s.port)[0] == 200, 20, 'both know it')

		def start(out):
			t0 = time.monotonic()
			out.append(w.at('n2').start(TARGET, s.port))
			out.append(time.monotonic() - t0)
		a.stop()
		until(lambda: not [i for i in w.gateway_status('n1')['instances'] if i['connected']], 10, 'it has left')
		moved, gone, later = [], [], []
		t = threading.Thread(target=start, args=(moved,))
		t.start()
		time.sleep(0.3)
		assert not moved, moved
		a = w.agent(port=w.port['n2'], wait=False)
		t.join()
		assert moved[0][0] == 200 and moved[1] < 2.5 * SLOW, moved
		a.kill9()
		until(lambda: not [i for i in w.gateway_status('n2')['instances'] if i['connected']], 10, 'it has left')
		start(gone)
		assert 'TargetNotConnected' in str(gone[0]) and gone[1] < 3 * SLOW, gone
		start(later)
		assert 'TargetNotConnected' in str(later[0]) and later[1] < 1 * SLOW, later


@test('nodes: a node that is called as its host, and whose certificate has not that name, says so, -t too', 60)
def host_name():
	with Cluster(names=('n1',)) as w:
		w.link_nodes()
		w.redis()
		w.start_node('n1', node=None)
		assert w.node['n1'].count('has no subjectAltName .*the name of this node'), w.node['n1'].lines
		r = subprocess.run([BIN, 'gateway', '-t', '-c', w.path('gateway-n1.ini')], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env(), timeout=20)
		assert r.returncode == 0 and b'has no subjectAltName' in r.stdout, r.stdout.decode()


@test('nodes: a key that is bound to a client certificate works on the node that a link is handed to, and not without', 60)
def handed_certificate():
	with Cluster(names=('n1', 'n2')) as w:
		s = Server(blob)
		w.link_nodes()
		w.redis()
		ours = certificate_of(w, 'ops.example')
		for n in w.names:
			w.start_node(n, public_url='https://127.0.0.1:%d' % w.port['n2'], client_ca='ca.pem', wait=False)
			w.node[n].wait_note('READY=1')
		w.linked()
		w.front = w.gw_port = w.port['n1']
		w.agent(wait=False, **certificate_of(w, 'agent.example'))
		until(lambda: [i for i in w.gateway_status('n1')['instances'] if i['connected']], 10, 'the agent')

		def bind(name):
			for n in w.names:
				conf = w.path('gateway-%s.ini' % n)
				text = re.sub(r'certificate_name = .*\n', '', open(conf).read()).replace('[user ops]\n', '[user ops]\ncertificate_name = %s\n' % name)
				open(conf, 'w').write(text)
				since = w.node[n].mark()
				w.node[n].signal(signal.SIGHUP)
				w.node[n].wait_log('reload', since=since)
		# Sessions are started at n1, and their links come to n2, as public_url of both says: they are handed to n1.
		bind('ops.example')
		f = w.forwarder({'t': {'port': s.port}}, aws=ours)
		with connect(f.ports['t']) as c:
			upload(c, MIB)
			st = w.gateway_status('n2')
			assert st['handed_on'] >= 1 and w.gateway_status('n1')['taken_in'] >= 1, st
			bind('other.example')
			w.node['n1'].wait_log('link closed: its client certificate')
