"""A disk that is full: who serves goes on serving and says it once; with room again all of it is written."""
import errno
import os
import sqlite3
import subprocess

from faults import FaultWorld
from harness import BIN, TARGET, Skip, until
from run import test
from services import Server, connect, echo, ping


class Disk:
	"""A file system of 1 MiB."""

	def __init__(self, w):
		self.dir = w.path('disk')
		os.mkdir(self.dir)
		if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m,mode=755', 'none', self.dir], stderr=subprocess.DEVNULL).returncode:
			raise Skip('a file system cannot be mounted here')
		w.closers.append(lambda: subprocess.run(['umount', '-l', self.dir], check=True))

	def path(self, name):
		return os.path.join(self.dir, name)

	def fill(self):
		fd = os.open(self.path('ballast'), os.O_WRONLY | os.O_CREAT)
		try:
			while True:
				os.write(fd, bytes(4096))
		except OSError as e:
			assert e.errno == errno.ENOSPC, e
		finally:
			os.close(fd)

	def clear(self):
		os.unlink(self.path('ballast'))

	def records(self):
		"""Status by session, of what another process can read of the store."""
		db = sqlite3.connect('file:%s?mode=ro' % self.path('sessions.db'), uri=True)
		try:
			return dict(db.execute('SELECT id, status FROM session'))
		finally:
			db.close()


def logged(path, what):
	with open(path) as f:
		return sum(what in line for line in f)


@test('disk: full for the store and audit logs: sessions come, flow and end, and a restart afterwards knows all of them', 120)
def full():
	with FaultWorld() as w:
		d, s = Disk(w), Server(echo)
		there = {'store': 'sqlite:' + d.path('sessions.db'), 'audit_log': d.path('gateway.audit'), 'td_state_dir': d.path('state-gateway')}
		g = w.gateway(**there)
		a = w.agent(allow='127.0.0.1:%d' % s.port, audit_log=d.path('agent.audit'))  # its state would come and go, and make room
		fast = {'reconnect_min': '20ms', 'reconnect_max': '200ms', 'port': s.port}
		f = w.forwarder({'t': fast}, name='forwarder-a')
		ping(connect(f.ports['t']), b'before')
		over = w.api().sessions()[0]['SessionId']
		until(lambda: d.records() == {over: 'Connected'}, 10, 'the first record')
		d.fill()
		f2 = w.forwarder({'t': fast}, name='forwarder-b')
		c = connect(f2.ports['t'])
		ping(c, b'while it is full')
		f.stop()
		until(lambda: len(w.api().sessions()) == 1, 10, 'the first session is over')
		stays = w.api().sessions()[0]['SessionId']
		for _ in range(400):  # more than the audit log has room for
			w.api().call('DescribeSessions', {'State': 'none'})
		g.wait_log('gateway.audit cannot be written, lines wait: No space left on device')
		g.wait_log('session record not written')
		ping(c, b'still')
		assert d.records() != {over: 'Terminated', stays: 'Connected'}
		mark = g.mark()
		d.clear()
		g.wait_log('session records are written again', since=mark)
		g.wait_log('gateway.audit is written again dropped=0', since=mark)
		until(lambda: d.records() == {over: 'Terminated', stays: 'Connected'}, 10, 'records of what happened meanwhile')
		assert g.count('session record not written') == g.count('cannot be written, lines wait') == 1
		assert a.count('cannot be written, lines wait') <= 1
		g.kill9()
		g = w.gateway(**there)
		ping(c, b'after a restart')
		assert [o['SessionId'] for o in w.api().sessions()] == [stays]


@test('disk: full at the start: an agent serves, its log says later what it lacks; a gateway without room for its store says so', 90)
def start():
	with FaultWorld() as w:
		d, s, log = Disk(w), Server(echo), None
		w.write_gateway(store='sqlite:' + d.path('sessions.db'))
		log = d.path('agent.log')
		open(log, 'w').close()
		d.fill()
		g = w.gateway(wait=False, store='sqlite:' + d.path('sessions.db'))
		g.expect_exit = {1}
		g.wait_log('cannot start: store .*: (disk I/O error: No space left on device|database or disk is full)')
		g.wait()
		d.clear()
		g = w.gateway(store='sqlite:' + d.path('sessions.db'))
		d.fill()
		# what a supervisor makes of the standard error output
		a = w.agent(allow='127.0.0.1:%d' % s.port, audit_log=d.path('agent.audit'), td_state_dir=d.path('state-agent'),
			prefix=('sh', '-c', 'exec "$0" "$@" 2>>' + log))
		f = w.forwarder({'t': {'port': s.port}}, state_dir=d.path('state-forwarder'))
		c = connect(f.ports['t'])
		ping(c, b'while it is full')
		r = subprocess.run([BIN, 'agent', '-c', a.argv[-1]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
		assert r.returncode == 1 and 'is in use by another tunneld, with the configuration' in r.stdout, r
		d.clear()
		w.write_agent(allow='127.0.0.1:%d' % s.port, audit_log=d.path('agent.audit'), td_state_dir=d.path('state-agent'))
		a.signal(1)
		until(lambda: logged(log, 'lines of the log could not be written lines='), 10, 'what was lost is told')
		assert logged(log, 'could not be written') == 1
		ping(c, b'after')
		assert TARGET in w.api().instances()
