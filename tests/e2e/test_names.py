"""Targets by name: tags, host names, services of ECS, lists with failover, and `tunneld list`."""
import http.server
import json
import os
import re
import subprocess
import threading

from harness import AGENT_KEY, AGENT_SECRET, BIN, SLOW, TARGET, World, clean_env, until
from peers import client_ini
from run import test
from services import Server, connect, echo, ping, refused

WEB, DB = 'i-0000000000000web0', 'i-0000000000000db00'
IN_ECS = 'ecs:prod_0a1b2c_0a1b2c-77'


def world():
	w = World()
	for i, n in enumerate((WEB, DB, IN_ECS)):
		w.keys['instances'][n] = (AGENT_KEY[:-1] + 'WDE'[i], AGENT_SECRET)
	w.keys['users']['ops'] = w.keys['users']['ops'][:2] + ('i-*, ecs:*',)
	w.tags = {TARGET: 'Name=web, env=prod', WEB: 'Name=web, env=test', DB: 'Name=db, env=prod'}
	return w


def tool(w, *argv, code=0, **env):
	r = subprocess.run([BIN] + list(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=w.dir, timeout=40 * SLOW,
		env=clean_env(XDG_CACHE_HOME=w.path('cache'), **env))
	out, err = r.stdout.decode(), r.stderr.decode()
	assert r.returncode == code, (argv, r.returncode, code, out, err)
	return out, err


def passes(f, tunnel):
	with connect(f.ports[tunnel]) as c:
		ping(c)


def leads_to(w, f, tunnel):
	"""The ids that its sessions have."""
	return [s['target'] for x in w.status(f) for t in x['forwarder']['tunnels'] if t['name'] == tunnel for s in t['sessions']]


@test('names: tags and host names lead to what is online, several matches are an error unless one of them will do', 90)
def names():
	s = Server(echo)
	with world() as w:
		w.closers.append(s.close)
		w.gateway()
		w.agent()
		w.agent(name='agent-web', instance=WEB)
		w.agent(name='agent-db', instance=DB)
		conf = client_ini(w)
		found = {i['id']: i for i in json.loads(tool(w, 'list', '-c', conf, '--json')[0])}
		host = found[TARGET]['computer_name']
		each = {'port': s.port, 'session': 'per-connection'}
		f = w.forwarder({'db': dict(each, target='tag:Name=db'), 'both': dict(each, target='tag:Name=web,env=prod'), 'two': dict(each, target='tag:Name=web'),
			'newest': dict(each, target='tag:Name=web', select='newest'), 'any': dict(each, target='tag:env=prod', select='any'),
			'none': dict(each, target='tag:Name=gone'), 'host': dict(each, target='name:' + host, select='newest')})
		for tunnel, where in (('db', DB), ('both', TARGET), ('newest', WEB)):
			at = f.mark()
			passes(f, tunnel)
			f.wait_log(r'session started tunnel=%s target=%s' % (tunnel, where), since=at)
		passes(f, 'any')
		passes(f, 'host')
		for tunnel, why in (('two', r'matches 2 instances, and select = only: \S+ \(web\), \S+ \(web\)'), ('none', 'no instance that is online matches tag:Name=gone')):
			assert refused(f.ports[tunnel])
			f.wait_log(r'connection reset tunnel=%s .*%s' % (tunnel, why))
		# The commands in the foreground take the same, by themselves and from a section.
		with open(conf, 'a') as out:
			out.write('[alias db]\ntarget = tag:Name=db\nport = %d\n' % s.port)
		for argv in (['db'], ['tag:Name=db', str(s.port)], ['--select', 'any', 'tag:Name=web', str(s.port)]):
			p = subprocess.run([BIN, 'connect', '-c', conf] + argv, input=b'hello', stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(),
				cwd=w.dir, timeout=30 * SLOW)
			assert p.returncode == 0 and p.stdout == b'hello', (argv, p)
		ask = 'import socket, sys; c = socket.create_connection((sys.argv[1], int(sys.argv[2]))); c.sendall(b"x" * 8); print(len(c.recv(8)))'
		assert tool(w, 'exec', '-c', conf, 'db', '--', 'python3', '-c', ask, '{host}', '{port}')[0] == '8\n'
		out = tool(w, 'exec', '-c', conf, '--select', 'newest', 'tag:Name=web', '--', 'python3', '-c', 'print("{port}")')[0]
		assert out.strip().isdigit(), out
		assert 'matches 2 instances' in tool(w, 'exec', '-c', conf, 'tag:Name=web', '--', 'true', code=2)[1]
		p = w.proc('forward', [BIN, 'forward', '-c', conf, '--select', 'newest', '-L', '0:localhost:%d' % s.port, 'tag:Name=web'])
		p.wait_log(r'session started tunnel=forward-1 target=%s' % WEB)
		with connect(w.ports(p)['forward-1']) as c:
			ping(c)
		p.stop()
		err = tool(w, 'connect', '-c', conf, 'tag:Name=web', str(s.port), code=2)[1]
		assert TARGET in err and WEB in err, err
		assert 'no instance that is online' in tool(w, 'connect', '-c', conf, 'tag:Name=gone', '22', code=4)[1]
		assert 'neither an instance id' in tool(w, 'connect', '-c', conf, 'tag:Name', '22', code=2)[1]
		assert '--select loud' in tool(w, 'connect', '-c', conf, '--select', 'loud', 'i-1', code=2)[1]


@test('names: a target that goes gives way to the next match and the next in the list; sessions that run stay', 90)
def failover():
	s = Server(echo)
	with world() as w:
		w.closers.append(s.close)
		w.gateway()
		w.agent()
		web = w.agent(name='agent-web', instance=WEB)
		each = {'port': s.port, 'session': 'per-connection'}
		f = w.forwarder({'newest': dict(each, target='tag:Name=web', select='newest'), 'list': dict(each, target=None, targets='%s, tag:Name=db, %s' % (WEB, TARGET)),
			'shared': {'port': s.port, 'target': None, 'targets': '%s, %s' % (TARGET, WEB)}})
		for tunnel in ('newest', 'list'):
			passes(f, tunnel)
			f.wait_log(r'session started tunnel=%s target=%s' % (tunnel, WEB))
		stays = connect(f.ports['shared'])
		ping(stays)
		assert leads_to(w, f, 'shared') == [TARGET]
		web.stop()
		api = w.api()
		until(lambda: api.instances()[WEB]['PingStatus'] != 'Online', what='the gateway to miss its agent')
		at = f.mark()
		passes(f, 'newest')  # what was found a moment ago is not connected: looked up again
		f.wait_log(r'target is not connected, looked up again tunnel=newest query="tag:Name=web" target=%s' % WEB, since=at)
		f.wait_log(r'session started tunnel=newest target=%s' % TARGET, since=at)
		passes(f, 'list')
		f.wait_log(r'the next one is tried tunnel=list target=%s' % WEB, since=at)
		f.wait_log(r'the next one is tried tunnel=list target="tag:Name=db"', since=at)
		f.wait_log(r'session started tunnel=list target=%s' % TARGET, since=at)
		w.agent(name='agent-web-2', instance=WEB)
		at = f.mark()
		passes(f, 'list')  # in order again
		f.wait_log(r'session started tunnel=list target=%s' % WEB, since=at)
		ping(stays)
		passes(f, 'shared')
		assert leads_to(w, f, 'shared') == [TARGET]
		stays.close()


class FakeEcs:
	"""ListTasks and DescribeTasks of one service."""

	def __init__(self):
		self.asked, fake = [], self

		class Handler(http.server.BaseHTTPRequestHandler):
			def do_POST(self):
				body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
				op = self.headers['X-Amz-Target'].rsplit('.', 1)[1]
				fake.asked.append((op, body, self.headers['Authorization']))
				arn = 'arn:aws:ecs:eu-west-1:1:task/prod/0a1b2c'
				task = {'taskArn': arn, 'clusterArn': 'arn:aws:ecs:eu-west-1:1:cluster/prod', 'startedAt': 1.7e9, 'containers': [
					{'name': 'app', 'runtimeId': '0a1b2c-77', 'lastStatus': 'RUNNING', 'managedAgents': [{'name': 'ExecuteCommandAgent', 'lastStatus': 'RUNNING'}]},
					{'name': 'log', 'runtimeId': '0a1b2c-78', 'lastStatus': 'RUNNING', 'managedAgents': [{'name': 'ExecuteCommandAgent', 'lastStatus': 'STOPPED'}]}]}
				known = body.get('serviceName') == 'api' or op == 'DescribeTasks'
				answer = {'ListTasks': {'taskArns': [arn] if known else []}, 'DescribeTasks': {'tasks': [task]}}[op]
				text = json.dumps(answer).encode()
				self.send_response(200)
				self.send_header('Content-Type', 'application/x-amz-json-1.1')
				self.send_header('Content-Length', str(len(text)))
				self.end_headers()
				self.wfile.write(text)

			def log_message(self, *a):
				pass
		self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
		self.url = 'http://127.0.0.1:%d' % self.server.server_port
		threading.Thread(target=self.server.serve_forever, daemon=True).start()

	def close(self):
		self.server.shutdown()
		self.server.server_close()


@test('names: a container of a service of ECS is found by its task', 60)
def ecs():
	s, fake = Server(echo), FakeEcs()
	with world() as w:
		w.closers += [s.close, fake.close]
		w.gateway()
		w.agent(name='agent-ecs', instance=IN_ECS)
		f = w.forwarder({'app': {'port': s.port, 'target': 'ecs:prod/api'}, 'named': {'port': s.port, 'target': 'ecs:prod/api/app', 'session': 'per-connection'},
			'none': {'port': s.port, 'target': 'ecs:prod/other'}}, aws={'ecs_endpoint': fake.url})
		passes(f, 'app')
		f.wait_log(r'session started tunnel=app target=%s' % IN_ECS)
		passes(f, 'named')
		passes(f, 'named')
		assert [a[0] for a in fake.asked] == ['ListTasks', 'DescribeTasks'] * 2, fake.asked  # the second time it was known
		assert fake.asked[0][1]['serviceName'] == 'api' and '/ecs/aws4_request' in fake.asked[0][2]
		assert refused(f.ports['none'])
		f.wait_log(r'tunnel=none .*no instance that is online matches ecs:prod/other')
		conf = client_ini(w, ecs_endpoint=fake.url)
		out = tool(w, 'list', '-c', conf, 'ecs:prod/api')[0]
		assert re.search(r'^%s +app +Online' % IN_ECS, out, re.M) and re.search(r'^ecs:prod_0a1b2c_0a1b2c-78 +log +RUNNING', out, re.M), out


@test('list: a table and JSON, only what the user may reach, filters; completion knows what was seen', 60)
def listing():
	with world() as w:
		w.gateway()
		w.agent()
		web = w.agent(name='agent-web', instance=WEB)
		w.agent(name='agent-ecs', instance=IN_ECS)
		web.stop()
		conf = client_ini(w)
		with open(conf, 'a') as f:
			f.write('[alias prod]\ntarget = tag:env=prod\n')
		out = tool(w, 'list', '-c', conf)[0]
		assert re.match(r'ID +NAME +STATUS +AGENT +PLATFORM +TAGS\n', out), out
		assert re.search(r'^%s +web +Online .*Name=web, env=prod$' % TARGET, out, re.M), out
		assert re.search(r'^%s +web +ConnectionLost ' % WEB, out, re.M), out
		cache = w.path('cache/tunneld/instances')
		assert os.stat(cache).st_mode & 0o777 == 0o600
		for argv, ids in ((['tag:Name=web'], {TARGET, WEB}), (['tag:Name=web,env=prod'], {TARGET}), (['web'], {TARGET, WEB}), (['i-01*'], {TARGET}), (['prod'], {TARGET}),
				(['nothing'], set()), ([], {TARGET, WEB, IN_ECS})):
			got = json.loads(tool(w, 'list', '-c', conf, '--json', *argv)[0])
			assert {i['id'] for i in got} == ids, (argv, got)
		it = next(i for i in got if i['id'] == TARGET)
		assert it['tags'] == {'Name': 'web', 'env': 'prod'} and it['name'] == 'web' and it['status'] == 'Online' and it['agent_version'] and it['platform'], it
		offered = tool(w, '__complete', '--', 'connect', '-c', conf, '')[0].split()
		assert {TARGET, WEB, IN_ECS, 'tag:Name=web', 'tag:env=prod', 'prod', 'name:' + it['computer_name']} <= set(offered), offered
		w.keys['users']['ops'] = w.keys['users']['ops'][:2] + ('i-0000000000000*',)
		w.write_gateway()
		g = w.procs[0]
		at = g.mark()
		g.signal(1)
		g.wait_log('reloaded', since=at)
		assert {i['id'] for i in json.loads(tool(w, 'list', '-c', conf, '--json')[0])} == {WEB}
		assert 'no instance is there that matches' in tool(w, 'list', '-c', conf, 'tag:env=prod')[1]
		bad = client_ini(w, 'bad', secret_access_key='wrong')
		assert 'DescribeInstanceInformation' in tool(w, 'list', '-c', bad, code=3)[1]
