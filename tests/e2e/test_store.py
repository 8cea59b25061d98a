"""Gateways that share a Redis server: any node takes any call, tokens and quotas hold on all of them together, and what
becomes of it when a node or the store goes."""
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request

from cluster import BALANCER, STORE_PASSWORD, Cluster
from harness import BIN, TARGET, TOP, clean_env, until
from run import test
from services import MIB, Server, blob, connect, download, free_port, upload
from wire import WebSocket


class Shared(Cluster):
	"""Nodes with one store; HAProxy before them where an agent is to come to the node in a session's id."""

	quota = ''

	def write_gateway(self, **kw):
		path = super().write_gateway(**kw)
		text = open(path).read()
		with open(path, 'w') as f:
			f.write(text.replace('[user ops]\n', '[user ops]\n' + self.quota))
		return path

	def begin(self, **options):
		"""Store, nodes, balancer, an agent; -> the node of its control channel, and the others."""
		self.redis()
		self.start_nodes(proxy_protocol=BALANCER, **options)
		self.balancer = self.haproxy()
		self.agent(wait=False)
		holder = until(lambda: next((n for n in self.names if self.node[n].count('instance connected')), None), 15, 'the agent is connected')
		for n in self.names:
			self.knows_agent(n)
		return holder, [n for n in self.names if n != holder]

	def table(self, node):
		"""tunneld status, as people read it."""
		argv = [BIN, 'status', '-c', self.path('gateway-%s.ini' % node)]
		r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env(), timeout=20)
		return r.stdout.decode()

	def socket(self, node, sid, token, client_id='c1'):
		ws = WebSocket('wss://127.0.0.1:%d/v1/data-channel/%s?role=publish_subscribe' % (self.port[node], sid), self.path('ca.pem'))
		assert ws.status == 101, ws.head
		ws.token(token, client_id)
		return ws


@test('store: a session started on one node with the agent on another; every node describes, resumes and ends it', 90, short=True)
def any_node():
	with Shared() as w:
		s = Server(blob)
		holder, (start, third) = w.begin()
		f = w.forwarder({'t': {'port': s.port}}, port=w.port[start])
		c = connect(f.ports['t'])
		upload(c, 5 * MIB)
		download(c, 5 * MIB)
		sid = w.at(start).sessions()[0]['SessionId']
		assert '-%s-' % start in sid, sid
		for n in w.names:
			got = w.at(n).sessions()
			assert [(o['SessionId'], o['Status'], o['Target']) for o in got] == [(sid, 'Connected', TARGET)], (n, got)
			assert w.at(n).call('GetConnectionStatus', {'Target': TARGET})[1]['Status'] == 'connected', n
			assert w.at(n).call('DescribeInstanceInformation', {})[1]['InstanceInformationList'][0]['AgentVersion'], n
		status, out = w.at(third).call('ResumeSession', {'SessionId': sid})
		assert status == 200 and out['TokenValue'] and out['SessionId'] == sid, (status, out)
		status, out = w.at(third).call('TerminateSession', {'SessionId': sid})
		assert (status, out) == (200, {'SessionId': sid}), (status, out)
		f.wait_log('session (ended|over|is over)', 10)
		for n in w.names:
			until(lambda: [o['Status'] for o in w.at(n).sessions('History')] == ['Terminated'], 10, 'history of %s' % n)
			assert w.at(n).sessions() == [], n
		assert w.at(third).call('ResumeSession', {'SessionId': sid}) == (200, {'SessionId': sid})
		status, out = w.at(third).call('ResumeSession', {'SessionId': 'nobody-' + start + '-00000000000000000'})
		assert status == 400 and out['__type'] == 'DoesNotExistException', (status, out)


@test('store: a token is good once, on whichever node, and not after its node has taken it', 60)
def token_once():
	with Shared(names=('n1', 'n2')) as w:
		w.redis()
		w.start_nodes()
		w.agent(port=w.port['n2'], wait=False)
		w.node['n2'].wait_log('instance connected')
		w.knows_agent('n1')
		status, out = w.at('n1').start(TARGET, 1)
		assert status == 200, (status, out)
		sid, used = out['SessionId'], out['TokenValue']
		status, out = w.at('n2').call('ResumeSession', {'SessionId': sid})  # another, granted at the other node
		assert status == 200, (status, out)
		unused = out['TokenValue']
		assert w.socket('n2', sid, used).close_code() == 1013  # not there, and not used up by that
		first = w.socket('n1', sid, used)
		w.node['n1'].wait_log('client attached', 5) if w.log_level == 'debug' else until(
			lambda: w.gateway_status('n1')['sessions'][0]['client']['attached'], 10, 'attached')
		assert w.socket('n1', sid, used).close_code() == 1008
		assert not w.keys_of_store('--raw', 'KEYS', '*%s*' % used)
		w.node['n1'].kill9()
		assert w.socket('n2', sid, used).close_code() == 1008
		second = w.socket('n2', sid, unused)  # the node is gone: the session is n2's now
		until(lambda: [o['id'] for o in w.gateway_status('n2')['sessions']] == [sid], 10, 'n2 has the session')
		assert w.socket('n2', sid, unused).close_code() == 1008
		first.close()
		second.close()


@test('store: quotas count on all nodes together; what a dead node had counts no more', 60)
def quotas():
	with Shared(names=('n1', 'n2')) as w:
		w.quota = 'max_sessions = 2\nbandwidth = 1M\n'
		w.redis()
		w.start_nodes()
		a = w.agent(port=w.port['n2'], wait=False)
		w.node['n2'].wait_log('instance connected')
		w.knows_agent('n1')
		sids = []
		for n in ('n1', 'n2'):
			status, out = w.at(n).start(TARGET, 1)
			assert status == 200, (n, status, out)
			sids.append(out['SessionId'])
		for n in ('n1', 'n2'):
			until(lambda: w.gateway_status(n)['user_shares'][0]['bandwidth'] == MIB // 2, 15, '%s gives half of the bandwidth' % n)
		for n in ('n1', 'n2'):
			status, out = w.at(n).start(TARGET, 1)
			assert status == 400 and out['__type'] == 'ThrottlingException' and 'limit of' in out['message'], (n, status, out)
		assert w.at('n2').call('TerminateSession', {'SessionId': sids[1]})[0] == 200
		status, out = w.at('n1').start(TARGET, 1)
		assert status == 200, (status, out)
		a.signal(signal.SIGSTOP)  # else its sessions there come to the other one, where they count
		w.node['n1'].kill9()  # both that are left were its own
		status, out = w.at('n2').start(TARGET, 1)
		assert status == 200, (status, out)
		until(lambda: w.gateway_status('n2')['user_shares'][0]['bandwidth'] == MIB, 12, 'n2 gives all of it')
		a.signal(signal.SIGCONT)


@test('store: sessions_per_minute counts on all nodes together', 60)
def rates():
	with Shared(names=('n1', 'n2')) as w:
		w.quota = 'sessions_per_minute = 3\n'
		w.redis()
		w.start_nodes()
		w.agent(port=w.port['n2'], wait=False)
		w.node['n2'].wait_log('instance connected')
		w.knows_agent('n1')
		for n in ('n1', 'n2', 'n1'):
			status, out = w.at(n).start(TARGET, 1)
			assert status == 200, (n, status, out)
		status, out = w.at('n2').start(TARGET, 1)
		assert status == 400 and 'per minute' in out['message'], (status, out)


@test('store: calls about a session of another node have their rate, at each node and for each session; refused ones leave nothing in the store', 60)
def call_rates():
	with Shared(names=('n1', 'n2')) as w:
		w.redis()
		w.start_nodes()
		w.agent(port=w.port['n2'], wait=False)
		w.node['n2'].wait_log('instance connected')
		w.knows_agent('n1')
		sid, other = (w.at('n2').start(TARGET, 1)[1]['SessionId'] for _ in range(2))
		n1, given, began = w.at('n1'), 0, time.monotonic()
		while True:
			status, out = n1.call('ResumeSession', {'SessionId': sid})
			if status != 200:
				break
			given += 1
			assert given <= 300 + 5 * (time.monotonic() - began) + 1, given
		assert given >= 300 and status == 400 and out['__type'] == 'ThrottlingException', (given, status, out)
		def count(what):
			return w.gateway_status('n1')['counters'][what]
		limited, granted, tokens = count('limit_user_calls'), 0, len(w.keys_of_store('KEYS', '*:tok:*'))
		for _ in range(40):
			granted += n1.call('ResumeSession', {'SessionId': sid})[0] == 200  # five a second come to be free
		assert granted <= 5 * (time.monotonic() - began) + 1 and count('limit_user_calls') == limited + 40 - granted, granted
		assert len(w.keys_of_store('KEYS', '*:tok:*')) <= tokens + granted
		for node, id in (('n1', other), ('n2', sid)):  # each session, and each node, has its own
			status, out = w.at(node).call('ResumeSession', {'SessionId': id})
			assert status == 200 and out['TokenValue'], (node, status, out)
		assert {o['SessionId'] for o in n1.sessions()} == {sid, other}  # nothing ends for it


@test('store: killed and started anew in mid-transfer: bytes go on, starts fail with Retry-After, presence heals', 90)
def store_restarts():
	with Shared() as w:
		s = Server(blob)
		http = free_port()
		holder, (start, third) = w.begin()
		w.node[start].stop()
		w.start_node(start, proxy_protocol=BALANCER, td_http='127.0.0.1:%d' % http)
		w.knows_agent(start)
		f = w.forwarder({'t': {'port': s.port}, 'u': {'port': s.port, 'session': 'per-connection'}}, port=w.port[start])
		c = connect(f.ports['t'])
		upload(c, MIB)
		over = w.at(start).start(TARGET, 1)[1]['SessionId']
		w.store.kill9()
		w.node[start].wait_log('the store is away')
		assert w.at(start).call('TerminateSession', {'SessionId': over})[0] == 200
		w.balancer.stop()  # links break meanwhile: their node knows its sessions
		w.haproxy()
		upload(c, 8 * MIB)
		download(c, 8 * MIB)
		body = json.dumps({'Target': TARGET, 'DocumentName': 'AWS-StartPortForwardingSession', 'Parameters': {'portNumber': ['1']}}).encode()
		api = w.at(start)
		began = time.monotonic()
		status, headers, out = api.raw('POST', '/', api.headers('StartSession', body), body)
		assert status == 503 and headers['Retry-After'] and time.monotonic() - began < 10, (status, out)
		st = w.gateway_status(start)['store']
		assert st['kind'] == 'redis' and st['up'] is False, st
		assert 'store 127.0.0.1:%d AWAY' % w.store_port in w.table(start) and '! store' in w.table(start), w.table(start)
		with urllib.request.urlopen('http://127.0.0.1:%d/readyz' % http, timeout=10) as r:
			assert r.status == 200 and b'warning: the store is away' in r.read()
		w.redis()  # empty
		for n in w.names:
			w.node[n].wait_log('the store is there again')
			w.knows_agent(n)
		upload(c, MIB)
		for n in w.names:
			until(lambda: len(w.at(n).sessions()) == 1, 10, '%s lists the session' % n)
			until(lambda: [o['SessionId'] for o in w.at(n).sessions('History')] == [over], 10, '%s lists what ended meanwhile' % n)
		d = connect(f.ports['u'])
		upload(d, MIB)
		assert w.gateway_status(start)['store']['up'] is True
		assert 'node %s, store 127.0.0.1:%d up' % (start, w.store_port) in w.table(start), w.table(start)
		until(lambda: all(re.search(r'^%s\b' % n, w.table(start), re.M) for n in (holder, third)), 10, 'the other nodes are in the status')


@test('store: a node is killed in mid-transfer, both ends go on at another', 90)
def node_dies():
	with Shared() as w:
		s = Server(blob)
		holder, (start, third) = w.begin()
		f = w.forwarder({'t': {'port': s.port}})
		c = connect(f.ports['t'])
		upload(c, MIB)
		sid = w.at(holder).sessions()[0]['SessionId']
		owner = next(n for n in w.names if '-%s-' % n in sid)
		done = threading.Event()

		def transfer():
			upload(c, 64 * MIB)
			download(c, 64 * MIB)
			done.set()
		t = threading.Thread(target=transfer, daemon=True)
		t.start()
		until(lambda: w.gateway_status(owner)['counters']['bytes_relayed'] > 8 * MIB, 20, 'the transfer is under way')
		w.node[owner].kill9()
		assert done.wait(60), 'the transfer did not end'
		others = [n for n in w.names if n != owner]
		assert [sid] in [[o['id'] for o in w.gateway_status(n)['sessions']] for n in others]
		w.start_node(owner, proxy_protocol=BALANCER)
		w.at(owner).call('TerminateSession', {'SessionId': sid})
		for n in others:
			until(lambda: not w.gateway_status(n)['sessions'], 10, 'ended at %s' % n)


def refused(w, name, **options):
	"""A gateway that does not start: what it says."""
	port = free_port()
	was, w.gw_port = w.gw_port, port
	conf = w.write_gateway(name=name, **options)
	w.gw_port = was
	r = subprocess.run([BIN, 'gateway', '-c', conf], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), timeout=30)
	text = r.stderr.decode()
	assert r.returncode == 1, (r.returncode, text)
	assert STORE_PASSWORD not in text and 'wrongSecret' not in text, text
	lines = [line for line in text.split('\n') if 'ERROR' in line]
	assert len(lines) == 1 and 'listening' not in text, text
	return lines[0]


@test('store: wrong password, other version, node name in use, nobody there: one line each, and nothing started', 60)
def bad_input():
	with Shared(names=('n1',)) as w:
		w.redis()
		w.start_nodes()
		store = w.options['store']
		assert 'user or password is wrong' in refused(w, 'a', store=store.replace(STORE_PASSWORD, 'wrongSecret'), node='a')
		assert 'user or password is wrong' in refused(w, 'a', store='redis://127.0.0.1:%d/1' % w.store_port, node='a')
		assert 'another gateway runs as node n1' in refused(w, 'b', store=store, node='n1')
		assert 'refused' in refused(w, 'c', store='redis://127.0.0.1:%d' % free_port(), node='c')
		other = store[:-1] + '2'
		subprocess.run(['redis-cli', '-p', str(w.store_port), '-n', '2', '--no-auth-warning', '-a', STORE_PASSWORD, 'SET', 'tunneld:schema', '9'], check=True,
			stdout=subprocess.DEVNULL)
		assert 'written by another version of tunneld (schema 9' in refused(w, 'd', store=other, node='d')
		w.node['n1'].kill9()
		w.start_node('n1')  # at once: nobody listens under its name


def pair(w, **options):
	"""Two nodes, the agent at the second; a session from the first starts."""
	w.start_nodes(**options)
	w.agent(port=w.port['n2'], wait=False)
	w.node['n2'].wait_log('instance connected')
	w.knows_agent('n1')
	status, out = w.at('n1').start(TARGET, 1)
	assert status == 200, (status, out)
	return out['SessionId']


@test('store: over TLS, whose server must have a certificate of store_ca', 60)
def over_tls():
	with Shared(names=('n1', 'n2')) as w:
		tls = free_port()
		w.redis('--tls-port', str(tls), '--tls-cert-file', w.path('gateway.pem'), '--tls-key-file', w.path('gateway.key'), '--tls-ca-cert-file', w.path('ca.pem'),
			'--tls-auth-clients', 'no')
		store = w.options['store'].replace('redis:', 'rediss:').replace(':%d' % w.store_port, ':%d' % tls)
		w.options.update(store=store, store_ca='ca.pem')
		pair(w)
		assert w.gateway_status('n1')['store']['server'] == '127.0.0.1:%d' % tls
		assert 'certificate' in refused(w, 'x', store=store, store_ca='/etc/ssl/certs/ca-certificates.crt', node='x')


def sentinel(w):
	"""A server, a replica of it and a Sentinel; -> the server."""
	w.redis(password=None)
	first, port = w.store, free_port()
	w.proc('redis-replica', ['redis-server', '--port', str(port), '--bind', '127.0.0.1', '--save', '', '--dir', w.dir, '--replicaof', '127.0.0.1 %d' % w.store_port]).wait_log(
		'MASTER <-> REPLICA sync: Finished')
	at = free_port()
	with open(w.path('sentinel.conf'), 'w') as f:
		f.write('port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor main 127.0.0.1 %d 1\nsentinel down-after-milliseconds main 500\n'
			'sentinel failover-timeout main 5000\n' % (at, w.dir, w.store_port))
	p = w.proc('sentinel', ['redis-server', w.path('sentinel.conf'), '--sentinel'])
	p.wait_log(r'\+slave')
	w.options['store'] = 'redis://127.0.0.1:%d?sentinel=main' % at
	return first


@test('store: Sentinel names the server; after its failover the nodes are at the other one', 90)
def failover():
	with Shared(names=('n1', 'n2')) as w:
		first = sentinel(w)
		sid = pair(w)
		first.kill9()
		w.node['n1'].wait_log('the store is there again', 40)
		w.node['n2'].wait_log('the store is there again', 40)
		w.knows_agent('n1')
		assert sid in [o['SessionId'] for o in w.at('n2').sessions()]
		status, out = w.at('n1').start(TARGET, 1)
		assert status == 200, (status, out)
		assert 'knows no server of the name other' in refused(w, 'y', store=w.options['store'].replace('=main', '=other'), node='y')


@test('store: the Redis user of docs/scale.md may do all that is needed; one with less is told at the start', 60)
def acl():
	text = open(os.path.join(TOP, 'docs', 'scale.md')).read()
	words = re.search(r'^```\nuser tunneld on >PASSWORD (.*?)^```', text, re.M | re.S).group(1).split()
	with Shared(names=('n1', 'n2')) as w:
		w.redis('--user', 'tunneld', 'on', '>' + STORE_PASSWORD, *words, password=None)
		w.options['store'] = 'redis://tunneld:%s@127.0.0.1:%d' % (STORE_PASSWORD, w.store_port)
		sid = pair(w)
		assert w.at('n2').call('TerminateSession', {'SessionId': sid})[0] == 200
		until(lambda: w.at('n2').sessions('History'), 10, 'it is in the history')
		for n in w.names:
			assert not w.node[n].count('refuses what it is asked'), n
		less = ['redis-cli', '-p', str(w.store_port), 'ACL', 'SETUSER', 'tunneld', '-evalsha']
		subprocess.run(less, check=True, stdout=subprocess.DEVNULL)
		assert 'docs/scale.md has the commands' in refused(w, 'z', store=w.options['store'], node='z')
