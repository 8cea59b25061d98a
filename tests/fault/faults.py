"""Worlds with a fault proxy between forwarder and gateway and one between agent and gateway."""
import os
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'e2e'))

from harness import SLOW, World, clean_env  # noqa: E402
from services import Server, blob, free_port  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
# Small enough that what waits for them takes seconds, not minutes.
QUICK = {'ping_interval': '500ms', 'pong_timeout': '500ms', 'reconnect_min': '20ms', 'reconnect_max': '500ms'}
QUICK_GW = {'ping_interval': '500ms', 'pong_timeout': '500ms'}


class FaultProxy:
	def __init__(self, port):
		self.p = subprocess.Popen([sys.executable, os.path.join(HERE, 'faultproxy.py'), '127.0.0.1', str(port)], stdin=subprocess.PIPE,
			stdout=subprocess.PIPE, env=clean_env(), text=True, bufsize=1)
		self.port = int(self.p.stdout.readline())
		self.lock = threading.Lock()

	def do(self, *words):
		with self.lock:
			self.p.stdin.write(' '.join(map(str, words)) + '\n')
			self.p.stdin.flush()
			return self.p.stdout.readline().split()

	def stats(self):
		"""bytes, cuts, connections now"""
		return [int(x) for x in self.do('stats')[1:]]

	def close(self):
		self.p.stdin.close()
		self.p.wait(10)


class FaultWorld(World):
	"""client side proxy `c`, agent side proxy `a`; a tunnel `t` to a blob (or given) server."""

	def build(self, handler=blob, server=None, gateway=None, agent=None, tunnel=None, forwarder=None):
		self.gw_port = free_port()
		self.c, self.a = FaultProxy(self.gw_port), FaultProxy(self.gw_port)
		self.closers += [self.c.close, self.a.close]
		self.server = server or Server(handler)
		self.g = self.gateway(public_port=self.c.port, **{**QUICK_GW, **(gateway or {})})
		self.ag = self.agent(port=self.a.port, **{**QUICK, **(agent or {})})
		self.f = self.forwarder({'t': {'port': self.server.port, **QUICK, **(tunnel or {})}}, port=self.c.port, **(forwarder or {}))
		return self

	@property
	def both(self):
		return self.c, self.a

	def regateway(self, **options):
		"""The gateway again on its port, with its store."""
		self.g = self.gateway(public_port=self.c.port, **{**QUICK_GW, **options})
		return self.g


def background(fn, *args):
	"""Runs fn in a thread; join() returns its result or raises what it raised."""
	box = {}

	def run():
		try:
			box['result'] = fn(*args)
		except BaseException as e:
			box['fault'] = e
	t = threading.Thread(target=run, daemon=True)
	t.start()

	def join(timeout=60):
		t.join(timeout * SLOW)
		if t.is_alive():
			raise AssertionError('transfer hangs')
		if 'fault' in box:
			raise box['fault']
		return box.get('result')
	join.running = t.is_alive
	return join
