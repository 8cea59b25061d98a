"""include and groups, on a running daemon."""
import os
import re
import signal
import subprocess

from harness import BIN, TARGET, World, clean_env
from run import test
from services import Server, connect, echo, free_port, ping


def tool(w, conf, *words, code=0):
	r = subprocess.run([BIN, words[0], '-c', conf] + list(words[1:]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), cwd=w.dir, timeout=40)
	assert r.returncode == code, (words, r)
	return r.stdout.decode() + r.stderr.decode()


def closed(port):
	try:
		connect(port).close()
	except ConnectionRefusedError:
		return True
	return False


def tunnel(w, name, port, to, group=''):
	with open(w.path('conf.d/%s.ini' % name), 'w') as f:
		f.write('[tunnel %s]\nlisten = 127.0.0.1:%d\ntarget = %s\nport = %d\n%s' % (name, port, TARGET, to, group and 'group = %s\n' % group))
	os.chmod(w.path('conf.d/%s.ini' % name), 0o600)


@test('include: -t names the files, a reload reads them anew, mistakes have their file and line', 40)
def reload():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		os.mkdir(w.path('conf.d'))
		ports = [free_port() for _ in range(3)]
		tunnel(w, 'a', ports[0], e.port)
		conf = w.write_forwarder({'main': {'port': e.port}}, include='conf.d/*.ini')
		said = subprocess.run([BIN, '-t', '-c', conf], stdout=subprocess.PIPE, env=clean_env(), cwd=w.dir).stdout.decode()
		assert said == '%s: included\n%s: ok\n' % (w.path('conf.d/a.ini'), conf), said
		f = w.proc('forwarder', [BIN, '-c', conf])
		f.wait_note('READY=1')
		with connect(ports[0]) as c:
			ping(c)
			tunnel(w, 'b', ports[1], e.port)
			tool(w, conf, 'reload')
			with connect(ports[1]) as d:
				ping(d)
			ping(c)  # untouched
			with open(w.path('conf.d/c.ini'), 'w') as bad:
				bad.write('\nlisten = 1\n')
			os.chmod(w.path('conf.d/c.ini'), 0o600)
			assert w.path('conf.d/c.ini') + ':2: listen comes before the first section' in tool(w, conf, 'reload', code=2)
			ping(c)
			os.unlink(w.path('conf.d/c.ini'))
			os.unlink(w.path('conf.d/b.ini'))
			tool(w, conf, 'reload')
			assert closed(ports[1])
			ping(c)
			# A pipe that nobody writes into is not waited for.
			os.rename(conf, conf + '.was')
			os.mkfifo(conf, 0o600)
			held = os.open(conf, os.O_RDWR)
			f.signal(signal.SIGHUP)
			f.wait_log('reload refused: the configuration is wrong')
			ping(c)
			os.close(held)
			os.rename(conf + '.was', conf)


@test('groups: open, close and status by group:NAME take its tunnels and no others', 40)
def groups():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		ports = [free_port() for _ in range(3)]
		tunnels = {n: {'listen': '127.0.0.1:%d' % p, 'port': e.port, 'group': g} for n, p, g in zip('abc', ports, ('prod', 'prod, db', 'db'))}
		tunnels['bad'] = {'port': e.port, 'target': 'i-00000000000000bad', 'group': 'broken'}
		tunnels['good'] = {'port': e.port, 'group': 'broken'}
		f = w.forwarder(tunnels)
		conf = f.argv[2]
		said = tool(w, conf, 'status', 'group:prod')
		assert re.findall(r'^name +(\S+)$', said, re.M) == ['a', 'b'], said
		tool(w, conf, 'close', 'group:prod')
		for p in ports[:2]:
			assert closed(p)
		with connect(ports[2]) as c:
			ping(c)
		states = {t['name']: (t['state'], t.get('groups')) for t in w.status(f)[0]['forwarder']['tunnels']}
		assert states['a'] == ('closed', ['prod']) and states['b'] == ('closed', ['prod', 'db']) and states['c'][0] == 'up', states
		tool(w, conf, 'open', 'group:prod')
		states = {t['name']: t['state'] for t in w.status(f)[0]['forwarder']['tunnels']}
		assert states['a'] == 'up' and states['b'] == 'up', states
		for p in ports[:2]:
			with connect(p) as c:
				ping(c)
		assert 'there is no tunnel in group nope' in tool(w, conf, 'close', 'group:nope', code=1)
		said = tool(w, conf, 'open', 'group:broken', code=1)
		assert 'not connected' in said or 'TargetNotConnected' in said, said
		assert {t['name']: t['state'] for t in w.status(f)[0]['forwarder']['tunnels']}['good'] == 'up'  # the others are done nevertheless
		assert 'no daemon that runs has a tunnel group:nope' in tool(w, conf, 'status', 'group:nope', code=7)
