"""StartSession that is throttled is tried again with back-off, by a daemon and by commands, and who waits hears why."""
import re
import subprocess
import time

from harness import BIN, SLOW, TARGET, World, clean_env, until
from run import test
from services import Server, connect, echo
from test_one_shot import Connect, daemon, write


class Full(World):
	"""A gateway whose user has as many sessions as it may, until the first of them ends."""

	def build(self):
		self.echo = Server(echo)
		self.rights = {'ops': {'max_sessions': 1}}
		self.g = self.gateway()
		self.agent()
		status, out = self.api().start(TARGET, self.echo.port)
		assert status == 200, out
		self.held = out['SessionId']
		return self

	def free(self):
		assert self.api().call('TerminateSession', {'SessionId': self.held})[0] == 200


@test('throttled: a daemon tries StartSession again with back-off, its connections wait, and the status says why', 60, short=True)
def by_daemon():
	with Full() as w:
		w.build()
		f = daemon(w, write(w, w.echo.port, log_level='info'))
		c = connect(w.ports(f)['db'], 40)
		c.sendall(b'waits')
		began = time.monotonic()
		f.wait_log('StartSession will be tried again tunnel=db error="?ThrottlingException')
		t = w.status(f)[0]['forwarder']['tunnels'][0]
		assert t['state'] == 'starting' and 'ThrottlingException: Rate exceeded' in t['last_error'], t
		until(lambda: f.count('will be tried again') >= 4, 20, 'it goes on trying')
		assert f.count('will be tried again') <= 4 + 20 * (time.monotonic() - began)
		w.free()
		c.settimeout(30)
		assert c.recv(5) == b'waits'
		assert f.count('session started') == 1
		c.close()


@test('throttled: connect, exec and forward wait as well, with a word, by themselves and beside a daemon', 90, short=True)
def by_commands():
	with Full() as w:
		w.build()
		conf = write(w, w.echo.port)
		word = {False: 'StartSession will be tried again command=connect error="?ThrottlingException', True: 'tunneld connect: %s: ThrottlingException: Rate exceeded.*; it is tried again' % TARGET}
		for served in (False, True):
			if served:
				w.api().start(TARGET, w.echo.port)
				w.held = w.api().sessions()[0]['SessionId']
				daemon(w, conf)
			with Connect(w, conf, ['far']) as c:
				until(lambda: re.search(word[served], c.said()), 20, 'why it waits: ' + c.said())
				w.free()
				c.ping()
				assert c.served() == served and c.end() == 0
				assert len(re.findall('it is tried again', c.said())) == served  # once
			until(lambda: served or not w.api().sessions(), 10, 'its session has ended')
		for words in (['exec', '-c', conf, 'far', '--', 'true'],):
			r = subprocess.run([BIN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), cwd=w.dir, timeout=40 * SLOW)
			assert r.returncode == 0, r
