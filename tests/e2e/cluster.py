"""Several gateways, and the balancers of contrib/ before them, on loopback."""
import json
import os
import subprocess

from harness import BIN, REGION, TARGET, TOP, USER_KEY, USER_SECRET, World, clean_env, make_certificates, need, until
from services import free_port
from wire import Api

BALANCER = '127.0.0.2'  # where HAProxy connects from, so that others may come without a PROXY header
NAMES = ('n1', 'n2', 'n3')
STORE_PASSWORD = 'plantedStoreSecretK3'


class Cluster(World):
	"""Gateways n1, n2, n3, and one address for all of them."""

	def __init__(self, names=NAMES, **kw):
		super().__init__(**kw)
		self.names = names
		self.port = {n: free_port() for n in names}
		self.node = {}
		self.front = free_port()  # what clients and agents are told
		self.options = {}
		self.peer = {}

	def link_nodes(self):
		"""The nodes hand on links to each other; to be called before they start. Their certificate has all of their names."""
		make_certificates(self.dir, 'DNS:localhost,IP:127.0.0.1,' + ','.join('DNS:' + n for n in self.names))
		self.peer = {n: free_port() for n in self.names}

	def make_pem(self):
		"""Certificate and key in one file, as HAProxy wants them."""
		with open(self.path('front.pem'), 'wb') as out:
			for n in ('gateway.pem', 'gateway.key'):
				out.write(open(self.path(n), 'rb').read())
		os.chmod(self.path('front.pem'), 0o600)

	def start_node(self, name, wait=True, **options):
		"""The gateway of that name, anew when it was there before."""
		g = {'listen': '127.0.0.1:%d' % self.port[name], 'public_url': 'https://127.0.0.1:%d' % self.front, 'node': name}
		if self.peer:
			g.update(peer_listen='127.0.0.1:%d' % self.peer[name], peer_ca='ca.pem')
		g.update(self.options)
		g.update(options)
		was, self.gw_port = self.gw_port, self.port[name]
		conf = self.write_gateway(name='gateway-' + name, **g)
		self.gw_port = was
		p = self.proc('gateway-' + name, [BIN, 'gateway', '-c', conf])
		self.node[name] = p
		if wait:
			p.wait_note('READY=1')
		return p

	def start_nodes(self, **options):
		for n in self.names:
			self.start_node(n, wait=False, **options)
		for n in self.names:
			self.node[n].wait_note('READY=1')
		self.gw_port = self.front

	def redis(self, *more, password=STORE_PASSWORD, port=None):
		"""A Redis server of the test's own, whose URL the nodes get; again: on the same port, and what was not saved is forgotten."""
		need('redis-server')
		self.store_port = port or getattr(self, 'store_port', None) or free_port()
		argv = ['redis-server', '--port', str(self.store_port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', self.dir]
		p = self.proc('redis', argv + (['--requirepass', password] if password else []) + list(more))
		p.wait_log('Ready to accept connections')
		p.expect_exit = {0, None}
		self.store = p
		self.options['store'] = 'redis://%s127.0.0.1:%d/1' % (':%s@' % password if password else '', self.store_port)
		return p

	def keys_of_store(self, *command):
		"""What redis-cli says to a command, a line an element."""
		r = subprocess.run(['redis-cli', '-p', str(self.store_port), '-n', '1', '--no-auth-warning', '-a', STORE_PASSWORD] + list(command),
			stdout=subprocess.PIPE, env=clean_env(), timeout=20, check=True)
		return [line for line in r.stdout.decode().split('\n') if line]

	def shutdown(self, check=True):
		faults = super().shutdown(check)
		return faults + ['%s: the password of the store is in its log' % p.name for p in self.procs if STORE_PASSWORD in '\n'.join(p.lines)]

	def haproxy(self):
		need('haproxy')
		self.make_pem()
		self.passed = free_port()
		env = {'TUNNELD_LISTEN': '127.0.0.1:%d' % self.front, 'TUNNELD_PASS': '127.0.0.1:%d' % self.passed, 'TUNNELD_PEM': self.path('front.pem'),
			'TUNNELD_CA': self.path('ca.pem'), 'TUNNELD_NAME': 'localhost', 'TUNNELD_SOURCE': BALANCER}
		for n in self.names:
			env['TUNNELD_' + n.upper()] = '127.0.0.1:%d' % self.port[n]
		conf = os.path.join(TOP, 'contrib', 'haproxy.cfg')
		r = subprocess.run(['haproxy', '-c', '-f', conf], env=clean_env(**env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
		assert r.returncode == 0 and b'[WARNING]' not in r.stdout, r.stdout.decode()
		p = self.proc('haproxy', ['haproxy', '-db', '-f', conf], env=env)
		self.answers(p)
		return p

	def nginx(self):
		need('nginx')
		self.make_pem()
		text = open(os.path.join(TOP, 'contrib', 'nginx.conf')).read()
		for i, n in enumerate(self.names):
			text = text.replace('192.0.2.%d:8443' % (11 + i), '127.0.0.1:%d' % self.port[n])
		text = text.replace('listen 8443', 'listen 127.0.0.1:%d' % self.front).replace('gw.example', 'localhost')
		for was, now in (('/etc/nginx/tunneld.pem', 'front.pem'), ('/etc/nginx/tunneld.key', 'gateway.key'), ('/etc/nginx/tunneld-ca.pem', 'ca.pem')):
			assert was in text
			text = text.replace(was, self.path(now))
		with open(self.path('nginx.conf'), 'w') as f:
			f.write('daemon off; master_process off; error_log stderr; pid %s;\n' % self.path('nginx.pid') + text)
		os.mkdir(self.path('nginx'))
		argv = ['nginx', '-p', self.path('nginx'), '-c', self.path('nginx.conf')]
		r = subprocess.run(argv + ['-t'], env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
		assert r.returncode == 0, r.stdout.decode()
		p = self.proc('nginx', argv)
		self.answers(p)
		return p

	def answers(self, balancer):
		"""Until a call comes through."""
		def served():
			assert balancer.alive(), '%s has ended' % balancer.name
			try:
				return self.api().instances() is not None
			except (OSError, ValueError, AssertionError):
				return False
		self.gw_port = self.front
		until(served, 15, 'calls are answered through %s' % balancer.name)

	def at(self, node):
		"""The API of that node, without the balancer."""
		return Api('https://127.0.0.1:%d' % self.port[node], self.path('ca.pem'), USER_KEY, USER_SECRET, REGION)

	def knows_agent(self, node):
		until(lambda: self.at(node).instances().get(TARGET, {}).get('PingStatus') == 'Online', 15, '%s knows the agent' % node)

	def linked(self, names=None):
		"""Until each of these nodes has a link to each other."""
		names = names or self.names
		for n in names:
			until(lambda: {p['node'] for p in self.gateway_status(n)['peers'] if p['state'] == 'up'} == set(names) - {n}, 20, 'links of %s' % n)

	def gateway_status(self, name):
		return self.status(self.node[name])[0]['gateway']

	def audit(self):
		"""What all nodes have written there, each into the same file."""
		return [json.loads(line) for line in open(self.path('audit')).read().split('\n')[:-1]]
