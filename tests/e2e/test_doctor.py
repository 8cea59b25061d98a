"""tunneld doctor: rows in their order, facts and advice, exit codes of the first that failed, and a bundle without secrets."""
import email.utils
import http.server
import json
import os
import re
import signal
import socket
import stat
import subprocess
import tarfile
import threading
import time

from cluster import STORE_PASSWORD, Cluster
from harness import AGENT_SECRET, BIN, REGION, SLOW, TARGET, USER_KEY, USER_SECRET, World, clean_env, ini, until
from peers import Terminal
from run import test
from services import Server, connect, echo, free_port, ping
from stockagent import StockAgent

ORDER = ['configuration', 'clock', 'name', 'connection', 'tls', 'credentials', 'start-session', 'target', 'stream-url', 'websocket', 'dial',
	'round-trip', 'transfer', 'store', 'peers', 'listen', 'descriptors', 'memory']
WAY = [c for c in ORDER if c not in ('store', 'peers')]  # of a tunnel


def forwarder_ini(w, tunnels, name='fwd', url=None, more=(), **aws):
	a = {'region': REGION, 'ssm_endpoint': url or w.url, 'ca_file': 'ca.pem', 'access_key_id': USER_KEY, 'secret_access_key': USER_SECRET}
	a.update(aws)
	sections = [('tunneld', {'state_dir': w.path('state-' + name)}), ('aws', a)]
	for t, keys in tunnels.items():
		sections.append(('tunnel ' + t, dict({'listen': '127.0.0.1:%d' % free_port(), 'target': TARGET, 'port': 1}, **keys)))
	return ini(w.path(name + '.ini'), sections + list(more))


def doctor(w, conf, *argv, env=None, timeout=60):
	"""-> exit code, {check: row} (the last of its kind), all rows"""
	r = subprocess.run([BIN, 'doctor', '-c', conf, '--json', *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(HOME=w.dir, **(env or {})),
		cwd=w.dir, timeout=timeout * SLOW)
	assert r.stdout, r.stderr.decode()
	d = json.loads(r.stdout)
	assert d['exit_code'] == r.returncode, (d, r.returncode, r.stderr.decode())
	for row in d['rows']:
		assert row['result'] in ('ok', 'warn', 'fail', 'skipped') and row['fact'], row
		assert row['result'] != 'fail' or row['advice'], row
	return r.returncode, {row['check']: row for row in d['rows']}, d['rows']


def results(rows):
	return {k: v['result'] for k, v in rows.items()}


def failing(code, rows, check, text):
	"""The first that failed is that one; -> the rest."""
	first = next(k for k in ORDER if k in rows and rows[k]['result'] == 'fail')
	assert first == check and re.search(text, rows[check]['fact']), (code, rows[first], rows.get(check))
	return {k: rows[k]['result'] for k in ORDER[ORDER.index(check) + 1:] if k in rows}


@test('doctor: all is well, row by row in order, with echo and 1 MiB each way; nothing is left behind', 60)
def healthy():
	s = Server(echo)
	with World() as w:
		g = w.gateway()
		w.agent()
		conf = forwarder_ini(w, {'db': {'port': s.port}, 'web': {'port': s.port, 'host': '127.0.0.1'}}, more=[('alias box', {'target': TARGET, 'port': s.port})])
		code, rows, every = doctor(w, conf, 'db')
		assert code == 0 and [r['check'] for r in every] == WAY and set(results(rows).values()) == {'ok'}, every
		assert '1 MiB each way' in rows['transfer']['fact'] and 'tunneld 0' in rows['websocket']['fact'] and TARGET in rows['target']['fact'], rows
		assert 'days left' in rows['tls']['fact'] and USER_KEY in rows['credentials']['fact'] and rows['dial']['tunnel'] == 'db'
		code, rows, every = doctor(w, conf)  # every tunnel, what they share once
		assert code == 0 and [r['check'] for r in every].count('tls') == 1 and {r.get('tunnel') for r in every if r['check'] == 'dial'} == {'db', 'web'}, every
		assert doctor(w, conf, 'box')[0] == 0
		r = subprocess.run([BIN, 'doctor', '-c', conf, 'nobody'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(HOME=w.dir), cwd=w.dir)
		assert r.returncode == 2 and b'no [tunnel] or [alias] nobody in ' in r.stderr and not r.stdout, r
		r = subprocess.run([BIN, 'doctor', '-c', conf, 'db'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(HOME=w.dir), cwd=w.dir)
		lines = r.stdout.decode().splitlines()
		assert r.returncode == 0 and not r.stderr and [l.split()[:2] for l in lines] == [['ok', c] for c in WAY] and b'\033' not in r.stdout, r
		until(lambda: not w.status(g)[0]['gateway']['sessions_active'], 5, 'no session is left')
		# Roles that are not the forwarder's.
		code, rows, every = doctor(w, w.path('agent.ini'))
		assert code == 0 and rows['channel']['result'] == 'ok' and 'credentials' in rows and 'start-session' not in rows, rows
		code, rows, every = doctor(w, w.path('gateway.ini'))
		assert code == 0 and 'tunneld listens there' in rows['listen']['fact'] and 'days left' in rows['tls']['fact'], rows
		assert rows['store']['fact'].startswith('sqlite: up, 0 records queued') and rows['peers']['result'] == 'skipped', rows
		assert not [l for l in g.lines if 'WARN' in l or 'request refused' in l], g.lines


@test('doctor: what fails, by exit code: configuration 2, credentials 3, target 4, names, connections, TLS and what is refused 5; dependent rows are skipped', 120)
def failures():
	s = Server(echo)
	with World() as w:
		g = w.gateway()
		a = w.agent()
		bad = ini(w.path('bad.ini'), [('tunnel x', {'listen': 'nowhere', 'target': TARGET, 'port': 99999})])
		code, rows, _ = doctor(w, bad)
		assert code == 2 and set(failing(code, rows, 'configuration', r'bad\.ini:2').values()) == {'skipped', 'ok'} and rows['listen']['result'] == 'skipped'
		code, rows, _ = doctor(w, forwarder_ini(w, {'t': {'port': s.port}}, secret_access_key='plantedWrongSecret1'))
		assert code == 3 and rows['credentials']['result'] == 'ok', rows
		rest = failing(code, rows, 'start-session', 'signature|secret')
		assert rest['stream-url'] == rest['dial'] == rest['transfer'] == 'skipped' and rest['listen'] == rest['memory'] == 'ok', rest
		code, rows, _ = doctor(w, forwarder_ini(w, {'t': {'port': s.port}}, access_key_id=None, secret_access_key=None), env={'AWS_EC2_METADATA_DISABLED': 'true'})
		assert code == 3 and failing(code, rows, 'credentials', 'no credentials')['start-session'] == 'skipped', rows
		code, rows, _ = doctor(w, forwarder_ini(w, {'t': {'port': s.port}}, access_key_id=None, secret_access_key=None, profile='nobody'))
		assert code == 2 and set(failing(code, rows, 'configuration', 'nobody').values()) == {'skipped', 'ok'}, rows
		code, rows, _ = doctor(w, forwarder_ini(w, {'t': {'port': free_port()}}))
		assert code == 5 and failing(code, rows, 'dial', 'Connection refused')['transfer'] == 'skipped'
		code, rows, _ = doctor(w, forwarder_ini(w, {'t': {'port': 80, 'host': '192.0.2.1'}}))
		assert code == 5 and failing(code, rows, 'dial', 'not allowed')
		a.stop()
		until(lambda: not w.status(g)[0]['gateway']['instances'][0]['connected'], 10, 'the agent is away')
		code, rows, _ = doctor(w, forwarder_ini(w, {'t': {'port': s.port}}))
		assert code == 4 and rows['target']['result'] == 'fail' and failing(code, rows, 'start-session', 'TargetNotConnected'), rows
		code, rows, _ = doctor(w, w.path('agent.ini'))
		assert rows['channel']['result'] == 'skipped', rows
		# TLS: another authority.  Addresses: taken by somebody.
		subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', w.path('o.key'), '-out',
			w.path('other.pem'), '-days', '2', '-subj', '/CN=other'], check=True, stderr=subprocess.DEVNULL, env=clean_env())
		code, rows, _ = doctor(w, forwarder_ini(w, {'t': {}}, ca_file='other.pem'))
		assert code == 5 and failing(code, rows, 'tls', '.')['credentials'] == 'skipped' and 'ca_file' in rows['tls']['advice'], rows
		with socket.create_server(('127.0.0.1', 0)) as taken:
			code, rows, _ = doctor(w, forwarder_ini(w, {'t': {'listen': '127.0.0.1:%d' % taken.getsockname()[1]}}))
			assert code == 4 and rows['listen']['result'] == 'fail' and 'in use' in rows['listen']['fact'], rows['listen']
		w.procs[0].stop()
		code, rows, _ = doctor(w, forwarder_ini(w, {'t': {}}))
		assert code == 5 and rows['name']['result'] == 'ok' and set(failing(code, rows, 'connection', 'refused').values()) >= {'skipped', 'ok'}
		assert rows['tls']['result'] == rows['credentials']['result'] == rows['clock']['result'] == 'skipped'
		dead = free_port()
		code, rows, _ = doctor(w, forwarder_ini(w, {'t': {}}, url='https://gateway.example:8443', proxy='http://u:plantedProxyPw@127.0.0.1:%d' % dead))
		assert code == 5 and failing(code, rows, 'connection', 'proxy')['tls'] == 'skipped' and 'the proxy 127.0.0.1' in rows['name']['fact'], rows
		assert 'planted' not in json.dumps(rows)


@test('doctor: a gateway\'s store and the other nodes, before it runs and while it does', 90)
def nodes():
	with Cluster(names=('n1', 'n2')) as w:
		w.link_nodes()
		w.redis()
		conf = w.start_node('n1').argv[3]
		w.start_node('n2')
		w.linked()
		code, rows, every = doctor(w, conf)
		assert code == 0 and rows['store']['fact'].startswith('redis 127.0.0.1:%d: up' % w.store_port), rows
		assert [r['fact'] for r in every if r['check'] == 'peers'] == ['n2 at 127.0.0.1:%d: linked' % w.peer['n2']], every
		w.node['n2'].stop()
		w.node['n1'].stop()
		code, rows, _ = doctor(w, conf)
		assert code == 0 and 'it answers' in rows['store']['fact'] and rows['peers']['result'] == 'skipped', rows
		text = open(conf).read()
		open(conf, 'w').write(text.replace(STORE_PASSWORD, 'plantedOther'))
		code, rows, _ = doctor(w, conf)
		assert code == 3 and rows['store']['result'] == 'fail' and 'plantedOther' not in json.dumps(rows), rows
		open(conf, 'w').write(text)
		w.store.stop()
		code, rows, _ = doctor(w, conf)
		assert code == 5 and failing(code, {'store': rows['store']}, 'store', 'refused') == {}, rows
	with World() as w:
		for store, code, fact in (('sqlite:%s' % w.path('a.db'), 0, 'made at the first start'), ('sqlite:%s' % w.path('ca.pem'), 2, 'no SQLite database'),
				('sqlite::memory:', 0, 'in memory')):
			got, rows, _ = doctor(w, w.write_gateway(store=store))
			assert got == code and fact in rows['store']['fact'], (store, rows)
		with socket.create_server(('127.0.0.1', 0)) as taken:
			code, rows, _ = doctor(w, w.write_gateway(listen='127.0.0.1:%d' % taken.getsockname()[1]))
			assert code == 2 and rows['listen']['result'] == 'fail', rows


class Web:
	"""An HTTP server on loopback whose answers have that Date and body."""

	def __init__(self, seconds=0, body=b'{}'):
		class Handler(http.server.BaseHTTPRequestHandler):
			def date_time_string(self, timestamp=None):
				return email.utils.formatdate(time.time() + seconds, usegmt=True)

			def do_HEAD(self):
				self.send_response(200)
				self.end_headers()

			def do_GET(self):
				self.rfile.read(int(self.headers.get('Content-Length') or 0))
				self.send_response(200)
				self.send_header('Content-Type', 'application/json')
				self.send_header('Content-Length', str(len(body)))
				self.end_headers()
				self.wfile.write(body)

			do_POST = do_GET

			def log_message(self, *args):
				pass

		self.s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
		self.url = 'http://127.0.0.1:%d' % self.s.server_address[1]
		threading.Thread(target=self.s.serve_forever, daemon=True).start()


@test('doctor: tunnels that go elsewhere: a Unix socket, a proxy, datagrams', 60)
def kinds():
	with World() as w, socket.socket(socket.AF_UNIX) as u:
		u.bind(w.path('service.sock'))
		u.listen()
		w.gateway()
		w.agent(allow='unix:%s/*.sock, 127.0.0.1:*, udp:127.0.0.1:53' % w.dir)
		for name, keys, dial in (('unix', {'port': 'unix:' + w.path('service.sock')}, 'ok'), ('gone', {'port': 'unix:' + w.path('gone.sock')}, 'fail'),
				('proxy', {'type': 'proxy', 'port': None}, 'skipped'), ('udp', {'type': 'udp', 'port': 53, 'host': '127.0.0.1'}, 'skipped')):
			code, rows, _ = doctor(w, forwarder_ini(w, {name: keys}))
			assert rows['dial']['result'] == dial and code == (5 if dial == 'fail' else 0), (name, rows)
			assert dial == 'fail' or rows['transfer']['result'] == 'ok', (name, rows)
		bad = forwarder_ini(w, {'p': {'type': 'proxy', 'port': None, 'probe': '60s'}})
		code, rows, _ = doctor(w, bad)
		assert code == 2 and 'probe: ' in rows['configuration']['fact'], rows


@test('doctor: a clock that is off, and whose the credentials are', 60)
def clock():
	s = Server(echo)
	with World() as w:
		for off, code, result in ((600, 3, 'fail'), (-120, 5, 'warn'), (5, 5, 'ok')):
			got, rows, _ = doctor(w, forwarder_ini(w, {'t': {}}, url=Web(off).url))
			assert rows['clock']['result'] == result and ('timedatectl' in rows['clock'].get('advice', '')) == (result != 'ok'), rows['clock']
			assert rows['tls']['result'] == 'warn' and rows['start-session']['result'] == 'fail' and got == code, (got, rows)
		w.gateway()
		w.agent()
		sts = Web(0, json.dumps({'GetCallerIdentityResponse': {'GetCallerIdentityResult': {'Account': '123456789012', 'Arn': 'arn:aws:iam::1:user/x'}}}).encode())
		code, rows, _ = doctor(w, forwarder_ini(w, {'t': {'port': s.port}}, sts_endpoint=sts.url))
		assert code == 0 and 'account 123456789012, arn:aws:iam::1:user/x' in rows['credentials']['fact'], rows['credentials']
		for answer in (b'<html>', b'{"GetCallerIdentityResponse":7}'):
			code, rows, _ = doctor(w, forwarder_ini(w, {'t': {'port': s.port}}, sts_endpoint=Web(0, answer).url))
			assert code == 0 and USER_KEY in rows['credentials']['fact'] and 'account' not in rows['credentials']['fact'], rows['credentials']


@test('doctor: a stock agent has no echo, and does not say when it has connected', 60)
def stock():
	with World() as w:
		w.gateway()
		StockAgent(w)
		code, rows, _ = doctor(w, forwarder_ini(w, {'t': {'port': 1}}))
		assert code == 0 and 'not tunneld' in rows['websocket']['fact'] and 'not refused within' in rows['dial']['fact'], rows
		assert rows['transfer']['result'] == 'skipped' and rows['round-trip']['result'] == 'ok' and 'acknowledgements' in rows['round-trip']['fact'], rows


PLANTED = {k: 'planted%sX7q9' % k for k in ('Key', 'Token', 'Proxy', 'File', 'Env', 'EnvToken', 'EnvProxy', 'User2', 'Redis', 'Comment', 'Inline')}


@test('doctor --bundle: result, status, configuration, log and version in a tar of mode 0600, with no secret that is planted', 60)
def bundle():
	s = Server(echo)
	with World() as w:
		g = w.gateway()
		w.agent()
		f = w.forwarder({'db': {'port': s.port, 'listen': '127.0.0.1:%d' % free_port()}})
		with connect(f.ports['db']) as c:
			ping(c)
		conf = f.argv[f.argv.index('-c') + 1]
		open(w.path('secret'), 'w').write(PLANTED['File'] + '\n')
		os.chmod(w.path('secret'), 0o600)
		with open(conf, 'a') as out:
			out.write('; an old one was %(Comment)s\n[alias far]\ntarget = %(t)s\naccess_key_id = AKIAFARFARFARFARFAR1\nsecret_access_key = %(Key)s\n'
				'session_token = %(Token)s ; and %(Inline)s\nproxy = http://joe:%(Proxy)s@127.0.0.1:1\n' % dict(PLANTED, t=TARGET))
			out.write('[alias file]\ntarget = %s\naccess_key_id = AKIAFARFARFARFARFAR2\nsecret_access_key_file = secret\n' % TARGET)
		env = {'AWS_SECRET_ACCESS_KEY': PLANTED['Env'], 'AWS_SESSION_TOKEN': PLANTED['EnvToken'], 'HTTPS_PROXY': 'http://me:%s@127.0.0.1:1' % PLANTED['EnvProxy'],
			'NO_PROXY': '127.0.0.1'}
		path = w.path('b.tar')
		code, rows, _ = doctor(w, conf, 'db', '--bundle', path, env=env)
		assert code == 0 and 'tunneld listens there' in rows['listen']['fact'], rows
		assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
		raw = open(path, 'rb').read()
		for name, secret in list(PLANTED.items()) + [('user', USER_SECRET), ('agent', AGENT_SECRET)]:
			assert secret.encode() not in raw, name
		t = tarfile.open(path)
		text = {m.name: t.extractfile(m).read().decode() for m in t.getmembers()}
		assert set(text) == {'tunneld-doctor/' + n for n in ('doctor.json', 'status.json', 'configuration.ini', 'log.txt', 'version.txt')}, set(text)
		assert all(m.mode == 0o600 and m.isfile() for m in t.getmembers())
		assert json.loads(text['tunneld-doctor/doctor.json'])['exit_code'] == 0
		assert json.loads(text['tunneld-doctor/status.json'])[0]['role'] == 'forwarder'
		assert 'session started' in text['tunneld-doctor/log.txt'] and 'INFO' not in text['tunneld-doctor/version.txt']
		c = text['tunneld-doctor/configuration.ini']
		assert c.count('(blanked)') == 4 and 'proxy = http://(blanked)@127.0.0.1:1' in c and 'port = %d' % s.port in c, c
		# A gateway's: the keys of users and instances.
		with open(w.path('gateway.ini'), 'a') as out:
			out.write('[user two]\naccess_key_id = AKIATWOTWOTWOTWOTWO1\nsecret_access_key = %(User2)s\ntargets = i-*\n' % PLANTED)
		code, rows, _ = doctor(w, w.path('gateway.ini'), '--bundle', path)
		raw = open(path, 'rb').read()
		for secret in (PLANTED['User2'], USER_SECRET, AGENT_SECRET):
			assert secret.encode() not in raw
		assert b'[user two]' in raw and b'instance connected' in raw
		# One that cannot be read as a configuration goes out the same way.
		bad = ini(w.path('bad.ini'), [('aws', {'region': 'x y', 'secret_access_key': PLANTED['Key'], 'nonsense': PLANTED['Token']}),
			('gateway', {'store': 'redis://:%s@127.0.0.1/1' % PLANTED['Redis']})])
		code, rows, _ = doctor(w, bad, '--bundle', path)
		raw = open(path, 'rb').read()
		assert code == 2 and b'[gateway]' in raw and not any(v.encode() in raw for v in PLANTED.values())
		r = subprocess.run([BIN, 'doctor', '-c', conf, '--json', '--bundle', w.path('no/where.tar')], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
			env=clean_env(HOME=w.dir), cwd=w.dir)
		assert r.returncode == 1 and b'cannot write' in r.stderr


@test('doctor on a terminal: what takes longer than a second shows that it goes on, and is gone at the end; an interrupt ends it', 60)
def progress():
	with World() as w, socket.create_server(('127.0.0.1', 0)) as silent:
		conf = forwarder_ini(w, {'t': {}}, url='https://127.0.0.1:%d' % silent.getsockname()[1])
		for env in ({'TERM': 'xterm'}, {'TERM': 'xterm', 'NO_COLOR': '1'}):
			with Terminal([BIN, 'doctor', '-c', conf], env=clean_env(HOME=w.dir, **env), cwd=w.dir) as t:
				before = t.expect(r'(\033\[2m)?[-|/\\] TLS … [123] s')
				t.expect(r'fail')
				assert t.end() == 5
				out, last = t.out.decode(), t.out.decode().rfind('TLS …')
				assert last < 0 or '\r\033[K' in out[last:], out
				assert bool(before[1]) == ('NO_COLOR' not in env) and ('\033[2mskipped' in out) == ('NO_COLOR' not in env), out
		p = subprocess.Popen([BIN, 'doctor', '-c', conf], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(HOME=w.dir, TERM='xterm'), cwd=w.dir)
		time.sleep(2)
		p.send_signal(signal.SIGINT)
		out, err = p.communicate(timeout=3 * SLOW)
		assert p.returncode == 1 and not err and b'configuration' in out, (p.returncode, out, err)
