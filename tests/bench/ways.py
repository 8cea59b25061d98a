"""The ways that are measured beside each other: through tunneld, `ssh -L`, stunnel, and TCP itself; over loopback or over
emulated links, with one traffic server as the target of all."""
import ctypes
import json
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', 'e2e'), os.path.join(HERE, '..', 'fault')]

from harness import BIN, Skip, World, clean_env, make_certificates  # noqa: E402
from machine import children  # noqa: E402
from peers import me, sshd  # noqa: E402
from services import free_port  # noqa: E402

TOOLS = os.path.join(os.path.dirname(BIN), 'tests', 'tools')
TRAFFIC, EMU = os.path.join(TOOLS, 'traffic'), os.path.join(TOOLS, 'linkemu')
CLONE_NEWNET = 0x40000000
# The log of a process goes to a file, as it would elsewhere: a reader in Python would take a share of the machine.
TO_FILE = ('sh', '-c', 'f=$0; exec "$@" 2>>"$f"')


class WrongBytes(Exception):
	pass


def client_argv(mode, address, **options):
	return [TRAFFIC, mode, address] + ['%s=%g' % (k, v) if isinstance(v, float) else '%s=%d' % (k, v) for k, v in options.items()]


def traffic(way, mode, opened=None, **options):
	"""Runs the client; -> what it prints.  opened: called when every connection has been answered, before its bytes go."""
	options.setdefault('limit', 60)
	if opened:
		options.update(warm=1, hold=1)
	p = subprocess.Popen(list(way.prefix) + client_argv(mode, way.address, **options), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_env())
	try:
		if opened and p.stdout.readline():
			opened()
		out, _ = p.communicate(b'\n' if opened else None, timeout=options['limit'] + 30)
	finally:
		p.kill()
		p.wait()
	got = json.loads(out or b'{"error": "no answer"}')
	if got.get('wrong'):
		raise WrongBytes('%s %s: %d bytes differ' % (way.name, mode, got['wrong']))
	if 'error' in got:
		raise RuntimeError('%s %s: %s' % (way.name, mode, got['error']))
	return got


class Way:
	"""Where a client connects to go this way.  restart: new connections below it, as after a start."""
	name, prefix, address = '', (), ''

	def procs(self):
		return {}

	def restart(self):
		pass

	def stop(self):
		pass


class Tcp(Way):
	name = 'tcp'

	def __init__(self, world):
		self.prefix, self.address = world.client_prefix, world.target


class Tunneld(Way):
	name, role = 'tunneld', 'forwarder'

	def __init__(self, world, tunnel=None):
		self.w, self.prefix, self.tunnel, self.f = world, world.client_prefix, tunnel or {}, None
		self.port = free_port()
		self.address = '127.0.0.1:%d' % self.port

	def procs(self):
		return {'forwarder': lambda: [self.f.pid], 'gateway': lambda: [self.w.g.pid], 'agent': lambda: [self.w.ag.pid]}

	def configuration(self):
		t = {'port': self.w.target.rsplit(':', 1)[1], 'listen': self.address}
		t.update(self.tunnel)
		return self.w.write_forwarder({'t': t}, name=self.role, url=self.w.gateway_url)

	def restart(self):
		self.stop()
		self.f = self.w.start('forwarder', [BIN, '-c', self.configuration()], self.prefix)
		self.f.wait_note('READY=1')
		traffic(self, 'wait', limit=30)

	def stop(self):
		if self.f:
			self.w.end(self.f)
		self.f = None


class Direct(Tunneld):
	"""Past the relay: nothing of the streams goes over the gateway."""
	name, role = 'tunneld direct', 'forwarder-direct'

	def __init__(self, world, tunnel=None):
		super().__init__(world, {**(tunnel or {}), 'direct': 'only'})


class Ssh(Way):
	name = 'ssh -L'

	def __init__(self, world):
		self.w, self.prefix, self.p = world, world.client_prefix, None
		self.server_port, self.options = sshd(world, listen='0.0.0.0', prefix=world.server_prefix)
		self.sshd = world.procs[-1]
		self.port = free_port()
		self.address = '127.0.0.1:%d' % self.port

	def procs(self):
		return {'ssh': lambda: [self.p.pid], 'sshd': lambda: children(self.sshd.pid)}

	def argv(self):
		return ['ssh'] + self.options + ['-c', 'aes128-gcm@openssh.com', '-N', '-o', 'ExitOnForwardFailure=yes', '-L',
			'%s:127.0.0.1:%s' % (self.address, self.w.target.rsplit(':', 1)[1]), '-p', str(self.server_port), '%s@%s' % (me(), self.w.server_host)]

	def restart(self):
		self.stop()
		self.p = self.w.start('ssh', self.argv(), self.prefix)
		traffic(self, 'wait', limit=30)

	def stop(self):
		if self.p:
			self.w.end(self.p)
		self.p = None


class Stunnel(Way):
	"""Two stunnels, TLS between them: one hop less than ours and no reliability above TCP.  Loopback only."""
	name = 'stunnel'

	def __init__(self, world):
		if not shutil.which('stunnel'):
			raise Skip('stunnel is not installed')
		self.w, self.p = world, None
		self.port, self.middle = free_port(), free_port()
		self.address = '127.0.0.1:%d' % self.port

	def restart(self):
		self.stop()
		w = self.w
		with open(w.path('stunnel.ini'), 'w') as f:
			f.write('foreground = yes\npid =\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\nciphersuites = TLS_AES_128_GCM_SHA256\n'
				'[in]\nclient = yes\naccept = %s\nconnect = 127.0.0.1:%d\n' % (self.address, self.middle)
				+ '[out]\naccept = 127.0.0.1:%d\nconnect = %s\ncert = %s\nkey = %s\n' % (self.middle, w.target, w.path('gateway.pem'), w.path('gateway.key')))
		self.p = w.start('stunnel', ['stunnel', w.path('stunnel.ini')])
		traffic(self, 'wait', limit=10)

	def procs(self):
		return {'stunnel': lambda: [self.p.pid]}

	def stop(self):
		if self.p:
			self.w.end(self.p)
		self.p = None


class BenchWorld(World):
	"""Gateway, agent and target; `ways` by name, as many as can be had here."""
	client_prefix = server_prefix = ()
	ways, left_out = {}, {}
	server_host = '127.0.0.1'

	def start(self, name, argv, prefix=()):
		p = self.proc(name, argv, prefix=tuple(prefix) + TO_FILE + (self.path(name + '.stderr'),))
		p.expect_exit = {0, 255, -15}
		return p

	def end(self, p):
		"""Ends a process that is started again later."""
		p.signal(15)
		try:
			p.wait(20)
		except AssertionError:
			p.kill9()
		self.procs.remove(p)

	def build(self, ways=('tunneld', 'ssh -L', 'tcp'), tunnel=None, agent=None, start=True):
		kinds = {'tcp': Tcp, 'tunneld': lambda w: Tunneld(w, {**(tunnel or {}), 'direct': 'no'}), 'tunneld direct': lambda w: Direct(w, tunnel), 'ssh -L': Ssh,
			'stunnel': Stunnel}
		self.network()
		if 'tunneld direct' in ways:
			agent = {'direct_listen': '%s:%d' % (self.server_host, free_port()), **(agent or {})}
		self.gw_port = free_port()
		server = self.proc('server', [TRAFFIC, 'serve', '0.0.0.0:0'], prefix=self.server_prefix)
		port = server.wait_log(r'^(\d+)$').group(1)
		self.server, self.target = server, '%s:%s' % (self.server_host, port)
		if 'tunneld' in ways:
			options = self.gateway_options()
			conf = self.write_gateway(**options)
			self.g = self.start('gateway', [BIN, 'gateway', '-c', conf])
			self.g.wait_note('READY=1')
			conf = self.write_agent(url=self.agent_url, max_streams=65000, **(agent or {}))
			self.ag = self.start('agent', [BIN, 'agent', '-c', conf], self.server_prefix)
			self.wait_online()
		self.ways, self.left_out = {}, {}  # left out: why
		for name in ways:
			try:
				self.ways[name] = kinds[name](self)
			except Skip as e:
				self.left_out[name] = str(e)
		for way in self.ways.values() if start else ():
			way.restart()
		return self

	def shutdown(self, check=True):
		for way in self.ways.values():
			way.stop()
		return super().shutdown(check)

	def network(self):
		pass

	def gateway_options(self):
		return {}

	@property
	def gateway_url(self):
		return self.url

	agent_url = gateway_url

	def procs_of(self, way):
		return dict(way.procs(), server=lambda: [self.server.pid], **self.emulator())

	def emulator(self):
		return {}

	def settle(self):
		time.sleep(0.1)

	def dump(self):
		super().dump()
		for p in self.procs:
			path = self.path(p.name + '.stderr')
			if os.path.exists(path):
				with open(path, errors='replace') as f:
					print('---- %s' % path, *f.read().split('\n')[-40:], sep='\n  ')


class LinkWorld(BenchWorld):
	"""Client's machine and server's, one link between them; or with links=2 the gateway on a machine of its own in the middle."""

	def __init__(self, links=1, rtt=0.0, rate=0, loss=0.0, queue=0):
		super().__init__()
		self.links, self.rtt, self.rules = links, rtt, (('delay', rtt / 2), ('rate', rate), ('queue', queue), ('loss', int(loss * 100)))

	def network(self):
		if not os.access(EMU, os.X_OK):
			raise Skip('%s is not built' % EMU)
		self.emu = subprocess.Popen([EMU, '1', str(self.links)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=clean_env())
		self.closers.append(lambda: (self.emu.stdin.close(), self.emu.wait(10)))
		words = self.emu.stdout.readline().split()
		if not words or words[0] != 'ready':
			raise Skip('no network namespaces with TUN here (%s)' % ' '.join(words[1:]))
		spaces = ['/proc/%s/fd/%s' % (words[1], n) for n in words[2:]]
		self.client_prefix = ('nsenter', '--net=' + spaces[0])
		self.server_prefix = ('nsenter', '--net=' + spaces[-1])
		self.server_host = '10.77.%d.2' % (self.links - 1)
		fd = os.open(spaces[1], os.O_RDONLY)
		libc = ctypes.CDLL(None, use_errno=True)
		if libc.setns(fd, CLONE_NEWNET):  # what this process starts lives with the gateway from now on
			raise Skip('setns: %s' % os.strerror(ctypes.get_errno()))
		os.close(fd)
		for rule in self.rules:
			self.do(*rule)

	def do(self, *words):
		self.emu.stdin.write(' '.join(map(str, words)) + '\n')
		self.emu.stdin.flush()
		return [int(x) for x in self.emu.stdout.readline().split()[1:]]

	def gateway_options(self):
		return {'listen': '127.0.0.1:%d, 10.77.0.2:%d' % (self.gw_port, self.gw_port), 'public_url': self.gateway_url}

	@property
	def gateway_url(self):
		return 'https://10.77.0.2:%d' % self.gw_port

	@property
	def agent_url(self):
		return self.gateway_url if self.links == 2 else self.url

	def emulator(self):
		return {'linkemu': lambda: [self.emu.pid]}

	def settle(self):
		"""Until what the last one left on the links is gone."""
		time.sleep(self.rtt * self.links / 1000 + 0.1)
		end = time.monotonic() + 15
		before = self.do('stats')[0]
		while time.monotonic() < end:
			time.sleep(0.2)
			now = self.do('stats')[0]
			if now - before < 20:
				return
			before = now
