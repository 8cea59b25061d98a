"""What daemons log: members of JSON lines, fields of the journal, single connections or none."""
import fcntl
import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading

from harness import BIN, TARGET, USER_SECRET, Skip, World, until
from run import test
from services import Server, connect, echo, free_port, ping, refused


def objects(p):
	return [json.loads(line) for line in p.lines if line.startswith('{')]


@test('logs: JSON lines have a member for each pair, and what a peer writes makes none', 60, short=True)
def members():
	s = Server(echo)
	with World(log_format='json') as w:
		w.closers.append(s.close)
		w.gateway()
		a = w.agent()
		f = w.forwarder({'t': {'port': s.port}, 'shut': {'port': free_port()}})
		with connect(f.ports['t']) as c:
			ping(c)
		f.wait_log('connection closed')
		assert refused(f.ports['shut'])
		f.wait_log('"message":"connection reset"')
		closed = next(o for o in objects(f) if o['message'] == 'connection closed')
		assert closed['tunnel'] == 't' and closed['target'] == TARGET and closed['port'] == s.port and closed['in'] == 64 and closed['out'] == 64, closed
		assert closed['reason'] == 'done' and closed['level'] == 'info' and closed['session'] and closed['peer'].startswith('127.0.0.1:'), closed
		started = next(o for o in objects(f) if o['message'] == 'session started')
		assert started['tunnel'] == 't', started
		# An instance that names itself as it likes.
		status, out = w.api().call('StartSession', {'Target': TARGET, 'Reason': 'x tunnel=evil level=debug "owner=root'})
		assert status == 200, out
		w.api().call('DescribeSessions tunnel=evil', {})
		for p in w.procs:
			for o in objects(p):
				assert '=' not in o['message'] or 'https' in o['message'], o
				assert o.get('tunnel') != 'evil' and o.get('owner') != 'root', o
		bad = [line for p in w.procs for line in p.lines if line and not line.startswith('{')]
		assert not bad, bad
		assert a.alive()


@test('logs: what the configuration warns of is a line of the log, also before anything has started', 60, short=True)
def warnings():
	for form in ('json', 'text'):
		with World(log_format=form) as w:
			conf = w.write_gateway()
			os.chmod(conf, 0o644)  # there are secrets in it
			p = w.proc('gateway', [BIN, 'gateway', '-c', conf])
			p.wait_note('READY=1')
			lines = [line for line in p.lines if line]
			if form == 'text':
				assert lines[0].startswith('warning: ' + conf), lines[0]
				continue
			assert not [line for line in lines if not line.startswith('{')], lines
			first = json.loads(lines[0])
			assert first['level'] == 'warn' and first['module'] == 'config' and conf in first['message'] and 'time' in first, first


@test('logs: a tunnel without lines for its connections still tells of those that fail', 60, short=True)
def quiet():
	s = Server(echo)
	with World() as w:
		w.closers.append(s.close)
		w.gateway()
		a = w.agent(td_log_connections='no')
		f = w.forwarder({'t': {'port': s.port}, 'shut': {'port': free_port()}}, log_connections='no')
		for _ in range(3):
			with connect(f.ports['t']) as c:
				ping(c)
		assert refused(f.ports['shut'])
		f.wait_log('WARN forwarder .*connection reset tunnel=shut')
		a.wait_log('connection refused')
		f.stop()
		a.stop()
		assert not f.count('connection closed') and not a.count('connected peer|connection closed'), (f.lines, a.lines)
		assert f.count('session started tunnel=t')


class Journal:
	"""The socket of a journald, in a folder of its own."""

	def __init__(self, w):
		self.folder = w.path('journal')
		os.mkdir(self.folder)
		self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		self.socket.bind(os.path.join(self.folder, 'socket'))
		self.entries = []
		threading.Thread(target=self._read, daemon=True).start()

	def _read(self):
		while True:
			try:
				got = self.socket.recv(1 << 16)
			except OSError:
				return
			lines = got.decode().split('\n')
			assert lines.pop() == ''
			self.entries.append(dict(x.split('=', 1) for x in lines))

	def prefix(self):
		script = 'mkdir -p /run/systemd/journal && mount --bind %s /run/systemd/journal || exit 99; JOURNAL_STREAM=$(stat -Lc %%d:%%i /proc/self/fd/2) exec "$@"'
		return ['unshare', '-m', 'sh', '-c', script % self.folder, 'sh']


@test('logs: what systemd connects to the journal gets fields there, and nothing on the standard error output', 60)
def journal():
	if os.geteuid() or subprocess.run(['unshare', '-m', 'true'], stderr=subprocess.DEVNULL).returncode:
		raise Skip('mount namespaces require root')
	s = Server(echo)
	with World() as w:
		w.closers.append(s.close)
		j = Journal(w)
		w.gateway()
		w.agent()
		conf = w.write_forwarder({'t': {'port': s.port}})
		f = w.proc('forwarder', [BIN, '-c', conf], prefix=j.prefix())
		f.wait_note('READY=1')
		it = until(lambda: next((e for e in j.entries if 'listening tunnel=t' in e['MESSAGE']), None), what='the line in the journal')
		assert it['PRIORITY'] == '6' and it['SYSLOG_IDENTIFIER'] == 'tunneld' and it['TUNNELD_TUNNEL'] == 't' and it['TUNNELD_MODULE'] == 'forwarder', it
		port = int(it['TUNNELD_ADDRESS'].rsplit(':', 1)[1])
		with connect(port) as c:
			ping(c)
		it = until(lambda: next((e for e in j.entries if e.get('TUNNELD_REASON') == 'done'), None), what='the end of the connection')
		assert it['TUNNELD_SESSION'] and it['TUNNELD_IN'] == '64' and it['TUNNELD_PEER'].startswith('127.0.0.1:'), it
		assert not any(line for line in f.lines), f.lines
		assert USER_SECRET not in str(j.entries)
		f.stop()


def nobody_reads(w, reader, path):
	"""The agent's standard error output goes to `path`; what is read of it comes out of `reader`."""
	s = Server(echo)
	w.closers.append(s.close)
	w.gateway()
	a = w.agent(prefix=('sh', '-c', 'exec "$@" 2>%s' % path, 'sh'))
	f = w.forwarder({'t': {'port': s.port}})
	for i in range(120):  # each writes two lines
		with connect(f.ports['t']) as c:
			ping(c, b'%d' % i)
	until(lambda: w.status(a)[0]['agent']['counters']['connections'] == 120, what='each connection')
	seen = b''

	def told():
		nonlocal seen
		a.signal(signal.SIGHUP)  # has something to say
		try:
			seen += os.read(reader, 1 << 16)
		except BlockingIOError:
			pass
		return re.search(rb'lines of the log could not be written lines=\d+ error="nobody reads them"', seen)
	until(told, what='what was lost')
	os.close(reader)


@test('logs: whoever reads the standard error output and stops holds nobody up; what was lost is told when he reads again', 60, short=True)
def fifo_stops():
	with World() as w:
		fifo = w.path('fifo')
		os.mkfifo(fifo)
		reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
		fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
		nobody_reads(w, reader, fifo)


@test('logs: a terminal that is stopped holds nobody up either', 60, short=True)
def terminal_stops():
	with World() as w:
		reader, terminal = pty.openpty()
		os.set_blocking(reader, False)
		nobody_reads(w, reader, os.ttyname(terminal))
		os.close(terminal)
