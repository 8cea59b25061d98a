"""Signals: drain, reload, restart."""
import signal
import socket
import sqlite3
import subprocess
import threading
import time

from harness import BIN, SLOW, TARGET, World, clean_env, until
from run import test
from services import Server, blob, connect, echo, ping, read_exact, upload, wait_reset


@test('SIGTERM: nothing to drain, exit 0 within 2 s, sessions terminated', 60, short=True)
def term_idle():
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port)
		c = connect(f.ports['t'])
		ping(c)
		c.close()
		assert s.wait_open(0)
		assert len(w.api().sessions()) == 1
		for p in (f, a, g):
			t0 = time.monotonic()
			if p is a:
				until(lambda: not w.api().sessions(), 5, 'TerminateSession at exit')
			assert p.stop() == 0, p.name
			assert time.monotonic() - t0 < 2.5 * SLOW, '%s took %.1f s' % (p.name, time.monotonic() - t0)


@test('SIGTERM: listening ends, a running connection finishes, then exit 0', 60)
def term_drain():
	with World() as w:
		s = Server(echo)
		_, _, f = w.standard(s.port)
		c = connect(f.ports['t'])
		ping(c)
		f.signal(signal.SIGTERM)
		f.wait_note('STOPPING=1')

		def refused():
			try:
				connect(f.ports['t'], 1).close()
				return False
			except ConnectionError:
				return True
		until(refused, 5, 'listening has ended')
		for _ in range(5):
			ping(c)
		assert f.alive()
		t0 = time.monotonic()
		c.close()
		assert f.wait(10) == 0
		assert time.monotonic() - t0 < 3 * SLOW, 'exit took %.1f s after the last connection' % (time.monotonic() - t0)


@test('SIGTERM: drain_timeout cuts what is left, exit 0; a second SIGTERM is immediate', 60)
def term_deadline():
	with World() as w:
		s = Server(echo)
		w.gateway()
		w.agent()
		f = w.forwarder({'t': {'port': s.port}}, drain_timeout='1s')
		c = connect(f.ports['t'])
		ping(c)
		t0 = time.monotonic()
		f.signal(signal.SIGTERM)
		assert wait_reset(c), 'the cut connection ended in order'
		assert 0.8 < time.monotonic() - t0 < 4 * SLOW, time.monotonic() - t0
		assert f.wait(10) == 0
		f = w.forwarder({'t': {'port': s.port}}, drain_timeout='5m')
		c = connect(f.ports['t'])
		ping(c)
		f.signal(signal.SIGTERM)
		f.wait_note('STOPPING=1')
		t0 = time.monotonic()
		f.signal(signal.SIGTERM)
		assert wait_reset(c)
		f.expect_exit = {0, 1}
		f.wait(10)
		assert time.monotonic() - t0 < 3 * SLOW


@test('SIGHUP: unchanged tunnels keep their connections, others come and go', 60)
def reload():
	with World() as w:
		s = Server(echo)
		w.gateway()
		w.agent()
		f = w.forwarder({'keep': {'port': s.port}, 'gone': {'port': s.port}})
		old = dict(f.ports)
		keep = connect(old['keep'])
		ping(keep)
		mark = f.mark()
		w.write_forwarder({'keep': {'port': s.port}, 'new': {'port': s.port}})
		f.notified.clear()
		f.signal(signal.SIGHUP)
		f.wait_note('READY=1')
		f.wait_log('listening .*tunnel=new', since=mark)
		new = w.ports(f, mark)
		assert 'keep' not in new, 'an unchanged tunnel was opened again'
		ping(keep)
		c = connect(old['keep'])
		ping(c)
		c.close()
		c = connect(new['new'])
		ping(c)
		c.close()
		try:
			connect(old['gone'], 2).close()
			raise AssertionError('a removed tunnel still listens')
		except ConnectionError:
			pass
		ping(keep)
		keep.close()


@test('SIGHUP: a tunnel that was opened by hand while it was up goes for good, and its session with it', 60)
def reload_opened():
	with World() as w:
		s = Server(echo)
		w.gateway()
		w.agent()
		f = w.forwarder({'a': {'port': s.port}, 'b': {'port': s.port + 1}, 'each': {'port': s.port, 'session': 'per-connection'}})
		with connect(f.ports['a']) as c:
			ping(c)
		for name, said in (('a', b''), ('each', b'tunneld open: each: it listens; a session starts with each connection, none was tried (tunneld doctor does)\n')):
			r = subprocess.run([BIN, 'open', '-c', w.path('forwarder.ini'), name], env=clean_env(), timeout=20, stdout=subprocess.PIPE)
			assert r.returncode == 0 and r.stdout == said, r
		w.write_forwarder({'b': {'port': s.port + 1}})
		f.signal(signal.SIGHUP)
		f.wait_log('reloaded')
		until(lambda: not w.api().sessions(), 10, 'the session has ended')
		f.stop()
		assert f.count('session started') == 1, f.lines


@test('SIGHUP: a bad file changes nothing and is reported with its line', 60)
def reload_bad():
	with World() as w:
		s = Server(echo)
		w.gateway()
		w.agent()
		f = w.forwarder({'t': {'port': s.port}})
		c = connect(f.ports['t'])
		ping(c)
		with open(f.argv[-1], 'a') as conf:
			conf.write('[tunnel broken]\nlisten = nowhere\n')
		mark = f.mark()
		f.signal(signal.SIGHUP)
		f.wait_log(r'forwarder\.ini:\d+: ', since=mark)
		ping(c)
		d = connect(f.ports['t'])
		ping(d)
		c.close(), d.close()


@test('SIGHUP: agent and gateway reload without touching connections', 60)
def reload_others():
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port)
		c = connect(f.ports['t'])
		ping(c)
		w.keys['users']['new'] = ('AKIATESTUSER00000002', 'plantedSecondSecretQ1w2', 'i-*')
		w.write_gateway()
		w.write_agent(allow='127.0.0.1:*, 192.0.2.0/24:*')
		for p in (g, a):
			p.notified.clear()
			p.signal(signal.SIGHUP)
			p.wait_note('READY=1')
		ping(c)
		until(lambda: w.api('AKIATESTUSER00000002', 'plantedSecondSecretQ1w2').call('DescribeInstanceInformation', {})[0] == 200, 5,
			'the new user is known')
		d = connect(f.ports['t'])
		ping(d)
		c.close(), d.close()


@test('open = start: the session is there before the first connection', 60)
def open_start():
	with World() as w:
		s = Server(echo)
		w.standard(s.port, open='start')
		until(lambda: len(w.api().sessions()) == 1, 10, 'session at start')


@test('idle timeout: an idle session ends quietly and the next connection starts another', 60)
def idle():
	with World() as w:
		s = Server(echo)
		w.gateway(idle_timeout='2s')
		w.agent()
		f = w.forwarder({'t': {'port': s.port, 'idle_timeout': '1s'}, 'off': {'port': s.port, 'keepalive': 'no', 'session': 'per-connection'}})
		c = connect(f.ports['t'])
		ping(c)
		time.sleep(4)  # the passing of time is what is tested: an open stream keeps the session
		ping(c)
		c.close()
		f.wait_log('session is over tunnel=t cause="?closed')
		assert not w.api().sessions()
		assert not f.count(' error '), 'idling out is no error'
		c = connect(f.ports['t'])
		ping(c)
		d = connect(f.ports['off'])
		ping(d)
		assert wait_reset(d, 15) in (True, False)  # keepalive = no: the idle timeout bites
		ping(c)
		c.close()


@test('sd_notify: ready, reloading, stopping and a status text', 30)
def notify():
	with World() as w:
		w.gateway()
		w.agent()
		f = w.forwarder({'t': {'port': 9}})
		f.wait_note('READY=1')
		assert any(n.startswith('STATUS=') for n in f.notified), f.notified
		f.signal(signal.SIGHUP)
		f.wait_note('RELOADING=1')
		f.stop()
		assert 'STOPPING=1' in f.notified, f.notified


@test('tunneld status --json: tunnels, state and counters', 30, short=True)
def status():
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port)
		c = connect(f.ports['t'])
		ping(c)
		text = str(w.status(f))
		assert "'t'" in text and str(f.ports['t']) in text, text
		assert w.status(a) and w.status(g)
		c.close()


@test('planted secrets are in no log and no status, at debug level too', 60, short=True)
def secrets():
	for log_format in ('text', 'json'):
		look_for_secrets(log_format)


def look_for_secrets(log_format):
	with World(log_level='debug', log_format=log_format) as w:
		s = Server(blob)
		w.gateway()
		w.agent()
		f = w.forwarder({'t': {'port': s.port}})
		g, a = w.procs[:2]
		api = w.api()
		c = connect(f.ports['t'])
		upload(c, 100000)
		tokens = []
		status, out = api.start('i-0123456789abcdef0', s.port)
		assert status == 200, out
		tokens.append(out['TokenValue'])
		body = b'{"Target":"i-plantedBodyValue77"}'
		h = api.headers('StartSession', body)
		h['Authorization'] = h['Authorization'][:-4] + 'beef'
		api.raw('POST', '/', h, body)
		api.raw('GET', '/v1/data-channel/x?X-Amz-Signature=plantedQueryValue88&X-Amz-Security-Token=plantedQueryValue99', {'Host': 'x'})
		state = str([w.status(f), w.status(a), w.status(g)])
		c.sendall(b'plantedPayload66')
		c.close()
		for p in (f, a, g):
			p.stop()
		from harness import AGENT_SECRET, USER_SECRET
		for secret in tokens + [USER_SECRET, AGENT_SECRET, 'plantedBodyValue77', 'plantedQueryValue', 'plantedPayload66', 'Signature=', 'TokenValue":"']:
			assert secret not in state, 'status shows %s' % secret
			for p in (f, a, g):
				hit = [line for line in p.lines if secret in line]
				assert not hit, '%s logs %s: %s' % (p.name, secret, hit[0])


@test('a start takes records out of the store that are older than 30 days', 30)
def old_records():
	with World() as w:
		path = w.path('sessions.db')
		g = w.gateway(store='sqlite:' + path)
		g.stop()
		db = sqlite3.connect(path, isolation_level=None)
		now = int(time.time() * 1000)
		for id, days in (('ops-old', 31), ('ops-recent', 29)):
			ended = now - days * 86400000
			db.execute('INSERT INTO session VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)',
				(id, 'ops', TARGET, 'SSM-SessionManagerRunShell', '{}', '', '', 'Terminated', '', ended - 1000, ended, 0, 0))
		g = w.gateway(store='sqlite:' + path)
		assert [o['SessionId'] for o in w.api().sessions('History')] == ['ops-recent']
		g.stop()
		assert db.execute('SELECT id FROM session').fetchall() == [('ops-recent',)]
		db.close()
