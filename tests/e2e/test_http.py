"""[tunneld] http: metrics that promtool takes, health and readiness, the status page in a browser."""
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import time
from harness import BIN, SLOW, TARGET, World, clean_env, need, until
from run import test
from services import Server, connect, cpu_seconds, echo, free_port, ping, read_exact, refused

def tool(name):
	need(name)
	return shutil.which(name)


SECRETS = re.compile('planted')


def get(port, path, method='GET', **headers):
	"""-> (status, headers, body)"""
	c = http.client.HTTPConnection('127.0.0.1', port, timeout=10 * SLOW)
	c.request(method, path, headers=headers)
	r = c.getresponse()
	body = r.read()
	c.close()
	assert not SECRETS.search(body.decode('utf-8', 'replace')), 'a secret in %s' % path
	return r.status, r.headers, body.decode()


def samples(text):
	"""{(name, labels): value}"""
	return {(m.group(1), m.group(2) or ''): float(m.group(3)) for m in re.finditer(r'^(\w+)(\{.*\})? (\S+)$', text, re.M)}


def check_metrics(text):
	r = subprocess.run([tool('promtool'), 'check', 'metrics'], input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
	assert r.returncode == 0 and not r.stdout.strip(), r.stdout.decode()


class Watched(World):
	"""Gateway, agent and forwarder, each with http; .http: {name: port}"""

	def __init__(self):
		super().__init__()
		self.http = {}

	def top(self, name, **more):
		self.http[name] = free_port()
		return dict({'http': '127.0.0.1:%d' % self.http[name]}, **more)

	def metrics(self, name):
		status, _, text = get(self.http[name], '/metrics')
		assert status == 200
		return samples(text)


@test('/metrics: promtool finds no fault, in both formats; zeros from the start, counts afterwards', 90)
def metrics():
	s = Server(echo)
	with Watched() as w:
		g = w.gateway(td_http=w.top('gateway')['http'])
		w.agent(td_http=w.top('agent')['http'])
		f = w.forwarder({'db': {'port': s.port}, 'twin': {'port': s.port}, 'dead': {'port': free_port()}}, **w.top('forwarder'))
		for name in w.http:
			status, headers, text = get(w.http[name], '/metrics')
			assert status == 200 and headers['Content-Type'].startswith('text/plain; version=0.0.4'), headers
			check_metrics(text)
			assert 'tunneld_build_info{version=' in text and 'role="%s"' % name in text, text[:300]
			status, headers, text = get(w.http[name], '/metrics', Accept='application/openmetrics-text; version=1.0.0')
			assert headers['Content-Type'].startswith('application/openmetrics-text') and text.endswith('# EOF\n'), headers
		m = w.metrics('forwarder')
		for name in ('up', 'connections', 'connections_total', 'received_bytes_total', 'sent_bytes_total', 'sessions', 'resumes_total',
				'outage_seconds_total', 'rtt_seconds', 'retransmitted_messages_total', 'last_success_timestamp_seconds',
				'session_start_seconds_count', 'connect_seconds_count'):
			assert m['tunneld_tunnel_' + name, '{tunnel="db"}'] == 0, name
		for reason in ('session', 'timeout', 'refused', 'denied', 'shutdown'):
			assert m['tunneld_tunnel_connections_failed_total', '{tunnel="db",reason="%s"}' % reason] == 0
		assert m['tunneld_tunnel_state', '{tunnel="db",state="idle"}'] == 1 and m['tunneld_tunnel_state', '{tunnel="db",state="up"}'] == 0
		for name in w.http:
			assert w.metrics(name)['tunneld_credentials_expiry_timestamp_seconds', ''] == 0, name
		assert abs(m['tunneld_start_time_seconds', ''] - time.time()) < 60
		assert 0 < m['tunneld_memory_bytes', ''] < m['tunneld_memory_limit_bytes', ''] == 96 << 20
		with connect(f.ports['db']) as c:
			ping(c)
			m = w.metrics('forwarder')
			assert m['tunneld_tunnel_up', '{tunnel="db"}'] == 1 and m['tunneld_tunnel_connections', '{tunnel="db"}'] == 1
			assert m['tunneld_tunnel_rtt_seconds', '{tunnel="db"}'] > 0
			# Shared sessions count once.
			assert m['tunneld_tunnel_sessions', '{tunnel="db"}'] == 1 and m['tunneld_tunnel_sessions', '{tunnel="twin"}'] == 0
			assert m['tunneld_tunnel_session_start_seconds_count', '{tunnel="db"}'] == 1
			assert m['tunneld_tunnel_connect_seconds_bucket', '{tunnel="db",le="+Inf"}'] == 1
			assert abs(m['tunneld_tunnel_last_success_timestamp_seconds', '{tunnel="db"}'] - time.time()) < 60
			got = w.metrics('gateway')
			assert got['tunneld_gateway_instances_connected', ''] == 1 and got['tunneld_gateway_sessions', ''] == 1
			assert got['tunneld_gateway_sessions_started_total', ''] == 1
			assert got['tunneld_gateway_relayed_bytes_total', '{direction="to_agent"}'] > 0
			assert got['tunneld_gateway_certificate_expiry_timestamp_seconds', ''] > time.time()
			assert got['tunneld_gateway_auth_failures_total', '{reason="signature"}'] == 0
			got = w.metrics('agent')
			assert got['tunneld_agent_control_up', ''] == 1 and got['tunneld_agent_sessions', ''] == 1 and got['tunneld_agent_dials_total', ''] == 1
			g.kill9()
			until(lambda: w.metrics('forwarder')['tunneld_tunnel_state', '{tunnel="db",state="resuming"}'] == 1, 10, 'resuming')
			w.gateway()
			until(lambda: w.metrics('forwarder')['tunneld_tunnel_up', '{tunnel="db"}'] == 1, 20, 'up again')
			m = w.metrics('forwarder')
			assert m['tunneld_tunnel_resumes_total', '{tunnel="db"}'] == 1 and m['tunneld_tunnel_resumes_total', '{tunnel="twin"}'] == 0
			assert m['tunneld_tunnel_outage_seconds_total', '{tunnel="db"}'] > 0
		assert refused(f.ports['dead'], b'x')
		until(lambda: w.metrics('forwarder')['tunneld_tunnel_connections_failed_total', '{tunnel="dead",reason="refused"}'] == 1, 10, 'a refused connection')
		w.forwarder({'t': {'port': s.port}}, name='stranger', aws={'secret_access_key': 'Zq7notTheSecretOfAnybody'}, **w.top('stranger'))


@test('dashboard and alert rules: promtool takes the rules, and every name is one that /metrics has', 60)
def dashboards():
	top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
	rules = os.path.join(top, 'contrib/prometheus/rules.yml')
	r = subprocess.run([tool('promtool'), 'check', 'rules', rules], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
	assert r.returncode == 0 and b'SUCCESS' in r.stdout, r.stdout.decode()
	with Watched() as w:
		w.gateway(td_http=w.top('gateway')['http'])
		w.agent(td_http=w.top('agent')['http'])
		w.forwarder({'t': {'port': 80}}, **w.top('forwarder'))
		there = {name for where in w.http for name, _ in w.metrics(where)}
		labels = {label for where in w.http for _, text in w.metrics(where) for label in re.findall(r'(\w+)="', text)}
		dashboard = json.load(open(os.path.join(top, 'contrib/grafana/tunneld.json')))
		assert len({p['id'] for p in dashboard['panels']}) == len(dashboard['panels']) > 10
		for text in (open(rules).read(), json.dumps(dashboard)):
			used = set(re.findall(r'\btunneld_\w+', text))
			assert used and used <= there, used - there
			assert set(re.findall(r'(\w+)=~?\\*"', text)) - {'instance'} <= labels


@test('http: GET and HEAD only, the Host is checked, health and readiness say why', 90)
def health():
	s = Server(echo)
	with Watched() as w:
		g = w.gateway()
		a = w.agent(td_http=w.top('agent')['http'])
		f = w.forwarder({'db': {'port': s.port}, 'late': {'port': s.port, 'host': '127.0.0.1', 'open': 'start'}},
			**w.top('forwarder', http_hosts='mon.example'))
		port = w.http['forwarder']
		assert get(port, '/healthz')[0] == 200
		until(lambda: get(port, '/readyz')[0] == 200, 10, 'ready')
		assert get(port, '/readyz/db')[0] == 200 and get(port, '/readyz/nobody')[0] == 404
		for host, status in (('localhost', 200), ('127.0.0.1:1', 200), ('[::1]', 200), ('MON.example:99', 200), ('evil.example', 403),
				('localhost.evil.example', 403), ('mon.example.', 403)):
			assert get(port, '/healthz', Host=host)[0] == status, host
			assert get(port, '/metrics', Host=host)[0] == status, host
		for method in ('POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE'):
			status, headers, _ = get(port, '/healthz', method, **{'Content-Length': '0'})
			assert status in (405, 400, 411, 501) and (status != 405 or method == 'TRACE' or headers['Allow'] == 'GET, HEAD'), (method, status)
		status, headers, body = get(port, '/', 'HEAD')
		assert status == 200 and not body and int(headers['Content-Length']) > 1000
		assert "default-src 'none'" in headers['Content-Security-Policy'] and 'unsafe' not in headers['Content-Security-Policy']
		for path in ('/nothing', '/readyz/', '/../etc/passwd', '/%00', '/%zz', '/metrics/'):
			assert get(port, path)[0] == 404, path
		assert json.loads(get(port, '/status.json')[2])['role'] == 'forwarder'
		assert any('listening' in e['text'] for e in json.loads(get(port, '/events.json')[2]))
		assert set(json.loads(get(port, '/history.json')[2])['tunnels']) == {'db', 'late'}
		assert get(w.http['agent'], '/readyz')[0] == 200
		g.kill9()
		until(lambda: get(port, '/readyz')[0] == 503, 10, 'not ready')
		text = get(port, '/readyz/late')[2]
		assert 'tunnel late: resuming' in text, text
		until(lambda: get(w.http['agent'], '/readyz')[0] == 503, 10, 'the agent is not ready')
		assert 'not connected to the gateway' in get(w.http['agent'], '/readyz')[2]
		assert get(port, '/healthz')[0] == 200 and get(w.http['agent'], '/healthz')[0] == 200


@test('probe: readiness, status and metrics say whether the service behind a tunnel is reached, without a local program', 90)
def probe():
	s, gone = Server(echo), free_port()
	with Watched() as w:
		w.gateway()
		w.agent()
		f = w.forwarder({'db': {'port': s.port, 'probe': '1s'}, 'dead': {'port': gone, 'probe': '1s', 'open': 'start'}, 'plain': {'port': gone}},
			**w.top('forwarder'))
		port = w.http['forwarder']
		until(lambda: 'tunnel dead: the probe failed: could not connect' in get(port, '/readyz/dead')[2], 15, 'the probe of one that is not there')
		assert get(port, '/readyz/dead')[0] == 503
		until(lambda: w.metrics('forwarder')['tunneld_tunnel_probe_up', '{tunnel="db"}'] == 1, 15, 'the probe of one that is there')
		assert get(port, '/readyz/db')[0] == get(port, '/readyz/plain')[0] == 200 and get(port, '/readyz')[0] == 503
		m = w.metrics('forwarder')
		assert m['tunneld_tunnel_probe_runs_total', '{tunnel="db",result="ok"}'] >= 1
		assert m['tunneld_tunnel_probe_interval_seconds', '{tunnel="plain"}'] == 0 and m['tunneld_tunnel_probe_interval_seconds', '{tunnel="db"}'] == 1
		assert m['tunneld_tunnel_connections_total', '{tunnel="db"}'] == 0
		r = subprocess.run([BIN, 'status', '-c', f.argv[f.argv.index('-c') + 1]], stdout=subprocess.PIPE, env=clean_env(), cwd=w.dir)
		assert r.returncode == 1 and b'! tunnel dead: the probe failed: could not connect' in r.stdout and b'tunnel db' not in r.stdout, r.stdout
		until(lambda: f.count('probe ') >= 2, 5, 'lines')
		before = f.count('probe ')
		time.sleep(2.5)
		assert f.count('probe ') == before  # what stays as it was is not told again


@test('http on a Unix socket and after a reload; an address that is taken is an error with its line', 60)
def addresses():
	s = Server(echo)
	with Watched() as w:
		w.gateway()
		port = free_port()
		f = w.forwarder({'t': {'port': s.port}}, http='unix:http.sock, 127.0.0.1:%d' % port)
		with socket.socket(socket.AF_UNIX) as u:
			u.connect(w.path('http.sock'))
			u.sendall(b'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
			assert u.recv(100).startswith(b'HTTP/1.1 200')
		conf = f.argv[f.argv.index('-c') + 1]
		text, other = open(conf).read(), free_port()
		open(conf, 'w').write(text.replace('127.0.0.1:%d' % port, '127.0.0.1:%d' % other))
		subprocess.run([BIN, 'reload', '-c', conf], check=True, env=clean_env(), cwd=w.dir)
		assert get(other, '/healthz')[0] == 200
		try:
			get(port, '/healthz')
			assert False, 'the old address is still served'
		except ConnectionRefusedError:
			pass
		bad = w.write_forwarder({'t': {'port': 1, 'listen': '127.0.0.1:%d' % free_port()}}, name='bad', http='127.0.0.1:%d' % other)
		r = subprocess.run([BIN, '-c', bad], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env(HOME=w.dir), cwd=w.dir, timeout=20 * SLOW)
		assert r.returncode == 1 and b'http: ' in r.stdout and str(other).encode() in r.stdout, r.stdout


def asks_ahead(port, n, i=0):
	"""A connection on which so many requests wait, and nobody who reads: beyond what the kernel keeps, the answers are the process's to keep."""
	k = socket.socket()
	k.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
	k.bind(('127.0.1.%d' % (1 + i // 32), 0))
	k.connect(('127.0.0.1', port))
	k.settimeout(0)
	k.send(b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n' * n)
	return k


@test('http: who asks and asks and does not read costs neither memory nor time; who reads late has every answer whole', 60, short=True)
def not_read():
	s = Server(echo)
	with Watched() as w:
		w.gateway()
		w.agent()
		f = w.forwarder({'t': {'port': s.port}}, **w.top('forwarder', memory_limit='32M'))
		used = lambda: w.status(f)[0]['memory']['used']
		port = w.http['forwarder']
		page = get(port, '/')[2].encode()
		late = asks_ahead(port, 5000)
		spent = cpu_seconds(f.pid)
		time.sleep(1)
		spent = cpu_seconds(f.pid) - spent
		assert SLOW > 1 or spent < 0.4, 'busy with requests that it does not take: %g s of 1' % spent
		late.settimeout(10 * SLOW)
		for i in range(100):
			head = b''
			while not head.endswith(b'\r\n\r\n'):
				head += late.recv(1)
			assert head.startswith(b'HTTP/1.1 200') and read_exact(late, len(page)) == page, i
		late.close()
		crowd = [asks_ahead(port, 100, i) for i in range(150)]
		until(lambda: used() > 1 << 20, 10, 'answers wait')
		time.sleep(0.5)
		assert used() < 10 << 20, used()  # a sixteenth is for the answers; the rest is what connections are
		with connect(f.ports['t']) as c:
			ping(c)
		f.wait_log('refused peer=127.0.1.*answer: not taken, and others need its memory')
		for k in crowd:
			k.close()


# ---- the page ---------------------------------------------------------------------------

class Browser:
	"""Headless Chromium: the page's text after its scripts have run, and pictures of it."""

	def __init__(self, directory):
		self.program = tool('chromium')
		self.dir = directory

	def run(self, url, *argv, width=1200, height=900, dark=False):
		profile = os.path.join(self.dir, 'chromium')
		r = subprocess.run([self.program, '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
			'--user-data-dir=' + profile, '--window-size=%d,%d' % (width, height), '--hide-scrollbars', '--virtual-time-budget=6000']
			+ (['--blink-settings=preferredColorScheme=0'] if dark else []) + list(argv) + [url],
			stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60 * SLOW, env=dict(clean_env(), HOME=self.dir))
		err = r.stderr.decode('utf-8', 'replace')
		assert r.returncode == 0, err[-2000:]
		assert 'Content Security Policy' not in err and 'Uncaught' not in err, err[-2000:]
		return r.stdout.decode()

	def dom(self, url, **kw):
		return self.run(url, '--dump-dom', '--enable-logging=stderr', **kw)

	def picture(self, url, name, **kw):
		path = os.path.join(os.environ.get('PICTURES', self.dir), name)
		self.run(url, '--screenshot=' + path, **kw)
		assert os.path.getsize(path) > 5000, name
		return path


def state_of(dom, tunnel):
	m = re.search(r'<tr data-tunnel="%s" data-state="([a-z-]+)"' % tunnel, dom)
	return m and m.group(1)


@test('the status page in a browser: up, resuming, needs-login, failed, empty, 500 tunnels; phone width and dark', 240)
def page():
	s = Server(echo)
	with Watched() as w:
		b = Browser(w.dir)
		g = w.gateway(td_http=w.top('gateway')['http'])
		w.agent(td_http=w.top('agent')['http'])
		url = lambda name: 'http://127.0.0.1:%d/' % w.http[name]
		home = w.path('sso')
		os.makedirs(os.path.join(home, '.aws'))
		with open(os.path.join(home, '.aws', 'config'), 'w') as f:
			f.write('[profile sso]\nsso_start_url = https://login.example\nsso_region = eu-west-1\nsso_account_id = 1\nsso_role_name = r\n')
		taken = socket.create_server(('127.0.0.1', 0))
		f = w.forwarder({'db': {'port': s.port}, 'busy': {'port': 80, 'listen': '127.0.0.1:%d' % taken.getsockname()[1]}}, wait=False, **w.top('forwarder'))
		f.wait_note('READY=1')
		f.wait_log('listening tunnel=db')
		dom = b.dom(url('forwarder'))
		assert state_of(dom, 'db') == 'idle' and state_of(dom, 'busy') == 'failed' and 'in use' in dom, dom[-3000:]
		assert '1 thing is not well' in dom
		taken.close()
		with connect(w.ports(f)['db']) as c:
			ping(c)
			until(lambda: w.status(f)[0]['forwarder']['tunnels'][0]['state'] == 'up', 10, 'up')
			f.wait_log('listening tunnel=busy', timeout=30)
			dom = b.dom(url('forwarder'))
			assert state_of(dom, 'db') == 'up' and 'All is well' in dom and '<svg' in dom, dom[-3000:]
			b.picture(url('forwarder'), 'up.png')
			b.picture(url('forwarder'), 'phone.png', width=390, height=844)
			b.picture(url('forwarder'), 'dark.png', dark=True)
			dom = b.dom(url('gateway'))
			assert TARGET in dom and '>on<' in dom and 'data-label="Owner"' in dom, dom[-3000:]
			b.picture(url('gateway'), 'gateway.png')
			dom = b.dom(url('agent'))
			assert '>connected<' in dom and re.findall(r'data-label="(Connections|Dialed|Not dialed)"[^>]*><div>(\d+)<', dom) == [
				('Connections', '1'), ('Dialed', '1'), ('Not dialed', '0')], dom[-3000:]
			subprocess.run([BIN, 'exec', '-c', f.argv[f.argv.index('-c') + 1], '-P', 'db', '--', 'true'], check=True, env=clean_env(), timeout=20 * SLOW)
			rows = re.findall(r'<tr data-tunnel="db".*?</tr>', b.dom(url('forwarder')), re.S)
			assert ['for commands' in r for r in rows] == [False, True] and not any('<div>…' in r for r in rows), rows
			g.kill9()
			until(lambda: w.status(f)[0]['forwarder']['tunnels'][0]['state'] == 'resuming', 10, 'resuming')
			dom = b.dom(url('forwarder'))
			assert state_of(dom, 'db') == 'resuming', dom[-3000:]
			b.picture(url('forwarder'), 'resuming.png')
			w.gateway()
		many = {'t%d' % i: {'port': 80, 'listen': 'unix:%s' % w.path('s%d' % i)} for i in range(500)}
		w.forwarder(many, wait=False, name='many', **w.top('many')).wait_note('READY=1', timeout=30)
		dom = b.dom(url('many'))
		assert len(re.findall('data-tunnel=', dom)) == 500 and '500 tunnels' in dom
		b.picture(url('many'), 'many.png')
		others = {'web': {'type': 'proxy', 'port': None}, 'back': {'type': 'reverse', 'listen': None, 'port': None, 'bind': '127.0.0.1:9', 'connect': '127.0.0.1:1'}}
		login = w.forwarder({'t': {'port': s.port, 'open': 'start'}, **others}, name='login', wait=False, env={'HOME': home},
			aws={'access_key_id': None, 'secret_access_key': None, 'profile': 'sso'}, **w.top('login'))
		login.wait_note('READY=1')
		until(lambda: [t['state'] for t in w.status(login)[0]['forwarder']['tunnels'] if t['name'] != 'web'] == 2 * ['needs-login'], 15, 'needs-login')
		dom = b.dom(url('login'))
		assert state_of(dom, 't') == 'needs-login' and re.search(r'<code>aws sso login[^<]*</code>', dom), dom[-3000:]
		row = lambda tunnel: re.search(r'<tr data-tunnel="%s".*?</tr>' % tunnel, dom).group()
		assert '>%s (proxy)<' % TARGET in row('web') and 'agent: <code>127.0.0.1:9<' in row('back') and '>%s → here 127.0.0.1:1<' % TARGET in row('back')
		assert state_of(dom, 'back') == 'needs-login' and '2 things are not well' in dom
		b.picture(url('login'), 'login.png')
