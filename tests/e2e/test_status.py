"""tunneld status, reload, drain, open, close and log-level: what they say of running daemons, and their exit codes."""
import json
import os
import re
import socket
import subprocess
import sys
import time
from harness import BIN, SLOW, TARGET, Skip, World, clean_env, until
from peers import Terminal
from run import test
from services import Server, blob, connect, echo, free_port, ping


def conf_of(p):
	return p.argv[p.argv.index('-c') + 1]


def tool(w, *argv, code=0, env=None):
	r = subprocess.run([BIN] + list(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=clean_env(**(env or {})),
		cwd=w.dir, timeout=40 * SLOW)
	out, err = r.stdout.decode(), r.stderr.decode()
	assert r.returncode == code, (argv, r.returncode, code, out, err)
	return out, err


def row(text, name):
	"""{column: cell} of the line that begins with name, by the head above it."""
	lines = text.splitlines()
	at = next(i for i, l in enumerate(lines) if l.split('  ')[0] == name)
	head = next(l for l in reversed(lines[:at]) if re.match('[A-Z]+  ', l))
	starts = [m.start() for m in re.finditer(r'(?:(?<=  )|^)\S', head)] + [None]
	line = lines[at]
	return {head[a:b].strip(): line[a:b].strip() for a, b in zip(starts, starts[1:])}


@test('status: a table for people, what is wrong first, exit codes 0, 1, 2 and 7', 90)
def tables():
	s = Server(blob)
	with World() as w:
		g = w.gateway()
		a = w.agent()
		f = w.forwarder({'db': {'port': s.port}, 'other': {'port': free_port(), 'host': '127.0.0.1'}})
		conf = conf_of(f)
		out, _ = tool(w, 'status', '-c', conf)
		db = row(out, 'db')
		assert db['STATE'] == 'idle' and db['CONN'] == '0' and db['TARGET'] == TARGET and db['LISTENS'].startswith('127.0.0.1:'), db
		assert '\033' not in out and '!' not in out, out
		with connect(f.ports['db']) as c:
			c.sendall(b'x')
			until(lambda: row(tool(w, 'status', '-c', conf)[0], 'db')['STATE'] == 'up', 10, 'up')
			db = row(tool(w, 'status', '-c', conf)[0], 'db')
			assert db['CONN'] == '1' and 'ms' in db['RTT'] and re.search(r'\d', db['RATE']), db
			detail, _ = tool(w, 'status', '-c', conf, 'db')
			assert re.search(r'^state +up$', detail, re.M) and 'other' not in detail, detail
			assert re.search(r'^ +error +-$', detail, re.M) and not re.search(r' $', detail, re.M), detail  # nothing is blank
			it = row(tool(w, 'status', '-c', conf_of(a))[0], TARGET)
			assert it == {'AGENT': TARGET, 'CONNECTED': 'yes', 'SESSIONS': '1', 'CONN': '1', 'DIALED': '1', 'NOT DIALED': '0'}, it
			gw = tool(w, 'status', '-c', conf_of(g))[0]
			assert row(gw, TARGET)['CONNECTED'] == 'yes' and 'SESSION' in gw, gw
			g.kill9()
			until(lambda: w.status(f)[0]['forwarder']['tunnels'][0]['state'] == 'resuming', 10, 'resuming')
			out, _ = tool(w, 'status', '-c', conf, code=1)
			assert out.startswith('! tunnel db: resuming: '), out
			assert row(out, 'db')['STATE'] == 'resuming' and row(out, 'db')['WHAT IS WRONG'] != '-', out
			tool(w, 'status', '--json', '-c', conf, code=1)
			tool(w, 'status', '-c', conf, 'db', code=1)
			tool(w, 'status', '-c', conf, 'other')
			until(lambda: not w.status(a)[0]['agent']['connected'], 10, 'the agent has noticed')
			assert tool(w, 'status', '-c', conf_of(a), code=1)[0].startswith('! agent ' + TARGET)
			w.gateway(name='gateway-2')
			tool(w, 'status', '-c', conf, '--wait', 'up=20')
			tool(w, 'status', '-c', conf)
		tool(w, 'status', '-c', conf, 'nobody', code=7)
		tool(w, 'status', '-c', w.path('missing.ini'), code=2)
		assert f.stop() == 0
		_, err = tool(w, 'status', '-c', conf, code=7)
		assert 'nothing is running' in err, err
		before = time.monotonic()
		tool(w, 'status', '-c', conf, '--wait', 'up=1', code=7)
		assert time.monotonic() - before >= 1


@test('status --wait: a tunnel that opens at start and cannot is waited for, and told', 60)
def waits():
	s = Server(echo)
	with World() as w:
		w.gateway()
		f = w.forwarder({'t': {'port': s.port, 'open': 'start', 'reconnect_min': '100ms', 'reconnect_max': '100ms'}})
		until(lambda: w.status(f)[0]['forwarder']['tunnels'][0]['state'] == 'failed', 10, 'failed')
		_, err = tool(w, 'status', '-c', conf_of(f), '--wait', 'up=1', code=1)
		assert 'not up within 1 seconds' in err and 'TargetNotConnected' in err, err
		a = w.agent()
		tool(w, 'status', '-c', conf_of(f), '--wait', 'up=20')
		assert row(tool(w, 'status', '-c', conf_of(f))[0], 't')['STATE'] == 'up'
		# on its way up, and that has failed before: not well, and why
		a.stop()
		until(lambda: w.status(f)[0]['forwarder']['tunnels'][0].get('last_error'), 10, 'a start that failed')
		out, _ = tool(w, 'status', '-c', conf_of(f), code=1)
		assert out.startswith('! tunnel t: starting: TargetNotConnected') and row(out, 't')['WHAT IS WRONG'] != '-', out


@test('status on a terminal: colours unless NO_COLOR is set; --watch paints in place, with bars', 60)
def on_terminal():
	s = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		f = w.forwarder({'t': {'port': s.port}})
		with connect(f.ports['t']) as c:
			ping(c)
			for env, coloured in (({}, True), ({'NO_COLOR': '1'}, False)):
				with Terminal([BIN, 'status', '-c', conf_of(f)], env=clean_env(**env), cwd=w.dir) as t:
					assert t.end() == 0
					assert 'WHAT IS WRONG'.encode() in t.out and (b'\033[32mup' in t.out) == coloured, t.out
			with Terminal([BIN, 'status', '-c', conf_of(f), '--watch'], cwd=w.dir) as t:
				for _ in range(3):
					t.expect('\033\\[H\033\\[J[^!]*WHAT IS WRONG')
					ping(c)
				t.expect('[▁▂▃▄▅▆▇█] ')
				t.type(b'\3')
				t.p.wait(10 * SLOW)


def can_connect(port):
	try:
		connect(port).close()
		return True
	except ConnectionRefusedError:
		return False


@test('open and close: a tunnel by hand; its connections finish, its port is free meanwhile', 60)
def open_close():
	s = Server(echo)
	with World() as w:
		w.gateway()
		a = w.agent()
		f = w.forwarder({'t': {'port': s.port}, 'u': {'port': s.port, 'max_connections': 5}})
		conf, port = conf_of(f), f.ports['t']
		tool(w, 'open', '-c', conf, 't')
		assert w.status(f)[0]['forwarder']['tunnels'][0]['state'] == 'up'
		c = connect(port)
		ping(c)
		tool(w, 'close', '-c', conf, 't')
		assert not can_connect(port)
		assert w.status(f)[0]['forwarder']['tunnels'][0]['state'] == 'closed'
		ping(c)
		tool(w, 'close', '-c', conf, 't')  # once more is fine
		with connect(f.ports['u']) as other:  # which shares the session
			ping(other)
			c.close()
			ping(other)
		assert len(w.api().sessions()) == 1
		tool(w, 'close', '-c', conf, 'u')
		until(lambda: not w.api().sessions(), 10, 'nobody wants the session any more')
		tool(w, 'open', '-c', conf, 't')
		t = w.status(f)[0]['forwarder']['tunnels'][0]
		assert t['state'] == 'up' and len(t['listen']) == 1, t
		os.mkdir(w.path('all'))
		for d in ('agent', 'forwarder', 'gateway'):
			for name in os.listdir(w.path('state-' + d)):
				os.symlink(w.path('state-%s/%s' % (d, name)), w.path('all/' + name))
		for argv, env in ((('-c', conf), {}), ((), {'STATE_DIRECTORY': w.path('all')})):  # of all that run, agent and gateway as well
			_, err = tool(w, 'open', *argv, 'nobody', code=1, env=env)
			assert 'there is no tunnel nobody' in err, err
		tool(w, 'close', '-c', conf, 't')
		until(lambda: not w.api().sessions(), 10, 'its session ended')
		a.stop()
		_, err = tool(w, 'open', '-c', conf, 't', code=1)
		assert 'TargetNotConnected' in err, err


@test('reload, log-level and drain over the control socket answer when it is done', 60)
def manage():
	s = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		f = w.forwarder({'t': {'port': s.port}})
		conf, text = conf_of(f), open(conf_of(f)).read()
		with connect(f.ports['t']) as c:
			ping(c)
			open(conf, 'w').write(text + '\n[tunnel v]\nlisten = 127.0.0.1:0\ntarget = %s\nport = %d\n' % (TARGET, s.port))
			tool(w, 'reload', '-c', conf)
			assert [t['name'] for t in w.status(f)[0]['forwarder']['tunnels']] == ['t', 'v']
			ping(c)
			open(conf, 'w').write(text + '\n[tunnel w]\nprot = 1\n')
			_, err = tool(w, 'reload', '-c', conf, code=2)
			open(conf, 'w').write(text)
			assert 'unknown key prot' in err, err
			mark = f.mark()
			tool(w, 'log-level', '-c', conf, 'debug')
			with connect(f.ports['t']) as d:
				ping(d)
			f.wait_log(r'connection opened', since=mark)
			tool(w, 'log-level', '-c', conf, 'error')
			p = subprocess.Popen([BIN, 'drain', '-c', conf], cwd=w.dir, env=clean_env(), stdin=subprocess.DEVNULL)
			until(lambda: w.status(f)[0]['state'] == 'draining', 10, 'draining')
			assert p.poll() is None and f.alive()
			ping(c)
		assert p.wait(20 * SLOW) == 0
		assert f.p.wait(10 * SLOW) == 0


VALIDATE = '''
import json, jsonschema, sys
schema, docs = json.load(open(sys.argv[1])), json.load(sys.stdin)
jsonschema.Draft202012Validator.check_schema(schema)
jsonschema.Draft202012Validator(schema).validate(docs)


def unknown(doc, s, path):
	"""Keys that the schema does not describe."""
	if isinstance(doc, dict) and 'properties' in s:
		for k, v in doc.items():
			if k not in s['properties']:
				yield path + '/' + k
			else:
				yield from unknown(v, s['properties'][k], path + '/' + k)
	if isinstance(doc, list):
		for v in doc:
			yield from unknown(v, s.get('items', {}), path)


missing = sorted(set(unknown(docs, schema, '')))
assert not missing, missing
'''


@test('status --json is what docs/status.schema.json describes, in each role and state', 90)
def schema():
	python = next((p for p in ('/usr/bin/python3', sys.executable)
		if subprocess.run([p, '-c', 'import jsonschema'], stderr=subprocess.DEVNULL, env=clean_env()).returncode == 0), None)
	if not python:
		raise Skip('python3-jsonschema is not installed (contrib/debian-packages.sh test)')
	path = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), 'docs/status.schema.json')
	docs = []
	s, taken = Server(echo), socket.create_server(('127.0.0.1', 0))
	with World() as w:
		g, a = w.gateway(), w.agent()
		f = w.forwarder({'t': {'port': s.port}, 'twin': {'port': s.port}, 'busy': {'port': 1, 'listen': '127.0.0.1:%d' % taken.getsockname()[1]},
			'away': {'port': 1, 'target': 'i-00000000000000bad', 'open': 'start'}}, wait=False)
		f.wait_note('READY=1')
		f.wait_log('listening tunnel=twin')
		take = lambda *procs: [docs.extend(w.status(p)) for p in procs]
		def asks():  # no id yet: StartSession waits for an instance that does not come
			take(f)
			return any(x['id'] is None for t in docs[-1]['forwarder']['tunnels'] for x in t['sessions'])
		until(asks, 20, 'a session that starts')
		take(g, a, f)
		with connect(w.ports(f)['t']) as c, connect(w.ports(f)['twin']) as d:
			ping(c)
			ping(d)
			take(g, a, f)
			g.kill9()
			until(lambda: w.status(f)[0]['forwarder']['tunnels'][0]['state'] == 'resuming', 10, 'resuming')
			take(a, f)
			w.gateway()
		local = w.proc('local', [BIN, 'local', '--target', '127.0.0.1:%d' % s.port], env={'STATE_DIRECTORY': w.path('state-local')})
		local.wait_log('tunneld local: ready')
		docs.extend(json.loads(tool(w, 'status', '--json', 'local', env={'STATE_DIRECTORY': w.path('state-local')})[0]))
	assert {'forwarder', 'agent', 'gateway', 'local'} == {x['role'] for x in docs}
	r = subprocess.run([python, '-c', VALIDATE, path], input=json.dumps(docs).encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env())
	assert r.returncode == 0, r.stdout.decode()[-3000:]


@test('init gateway: three files that fit together, from nothing to bytes through a tunnel; nothing is overwritten', 60)
def init_gateway():
	s = Server(echo)
	with World() as w:
		d, port = w.path('made'), free_port()
		out, _ = tool(w, 'init', 'gateway', '127.0.0.1', 'localhost', '::1', '--dir', d, '--port', str(port), '--instance', 'mi-0123456789abcdef0')
		assert 'tunneld agent -c agent.ini' in out
		files = ['agent.ini', 'ca.key', 'ca.pem', 'forwarder.ini', 'gateway.ini', 'gateway.key', 'gateway.pem']
		assert sorted(os.listdir(d)) == files
		assert all(os.stat(os.path.join(d, f)).st_mode & 0o777 == 0o600 for f in files)
		before = {f: open(os.path.join(d, f)).read() for f in files}
		for f in files:
			if f.endswith('.ini'):
				secrets = re.findall(r'secret_access_key = (\S+)', before[f])
				assert secrets and all(len(x) == 40 and x not in out for x in secrets)
		names = subprocess.run(['openssl', 'x509', '-in', os.path.join(d, 'gateway.pem'), '-noout', '-ext', 'subjectAltName'], stdout=subprocess.PIPE).stdout
		assert b'IP Address:127.0.0.1' in names and b'DNS:localhost' in names and b'IP Address:0:0:0:0:0:0:0:1' in names, names
		_, err = tool(w, 'init', 'gateway', 'gw.example', '--dir', d, code=1)
		assert 'is there already; nothing was written' in err
		os.remove(os.path.join(d, 'ca.pem'))
		tool(w, 'init', 'gateway', 'gw.example', '--dir', d, code=1)
		assert not os.path.exists(os.path.join(d, 'ca.pem'))
		assert all(open(os.path.join(d, f)).read() == before[f] for f in files if f != 'ca.pem')
		open(os.path.join(d, 'ca.pem'), 'w').write(before['ca.pem'])
		for argv in (('init',), ('init', 'gateway'), ('init', 'gateway', 'a b'), ('init', 'gateway', 'x', '--port', '0'), ('init', 'nothing')):
			tool(w, *argv, code=2)
		assert 'ProxyCommand tunneld connect %h %p' in tool(w, 'init', 'ssh')[0]
		local = free_port()
		conf = before['forwarder.ini'].replace('127.0.0.1:2222', '127.0.0.1:%d' % local).replace('port = 22\n', 'port = %d\n' % s.port)
		open(os.path.join(d, 'forwarder.ini'), 'w').write('[tunneld]\nstate_dir = %s\n' % w.path('state-f') + conf)
		g = w.proc('gateway', [BIN, 'gateway', '-c', os.path.join(d, 'gateway.ini')], env={'STATE_DIRECTORY': w.path('state-g')})
		g.wait_note('READY=1')
		a = w.proc('agent', [BIN, 'agent', '-c', os.path.join(d, 'agent.ini')], env={'STATE_DIRECTORY': w.path('state-a')})
		a.wait_log('control channel up')
		f = w.proc('forwarder', [BIN, '-c', os.path.join(d, 'forwarder.ini')])
		f.wait_note('READY=1')
		with connect(local) as c:
			ping(c)
