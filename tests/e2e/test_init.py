"""tunneld init: asked at a terminal, or by flags; tested before it is written; nothing is overwritten."""
import os
import re
import resource
import stat
import subprocess

from harness import BIN, REGION, SLOW, TARGET, USER_KEY, USER_SECRET, World, clean_env
from peers import Terminal
from run import test
from services import Server, connect, echo, free_port, ping


def home(w):
	"""A home with two profiles, of which ops leads to the gateway as if that were AWS's; -> environment"""
	os.makedirs(w.path('.aws'), exist_ok=True)
	open(w.path('.aws/config'), 'w').write('[profile ops]\nregion = %s\nservices = own\n[services own]\nssm =\n  endpoint_url = %s\n[profile other]\n'
		'region = us-east-1\n' % (REGION, w.url))
	open(w.path('.aws/credentials'), 'w').write('[ops]\naws_access_key_id = %s\naws_secret_access_key = %s\n' % (USER_KEY, USER_SECRET))
	os.chmod(w.path('.aws/credentials'), 0o600)
	return clean_env(HOME=w.dir, AWS_CA_BUNDLE=w.path('ca.pem'), AWS_EC2_METADATA_DISABLED='true', TERM='xterm')


def init(w, env, *argv):
	r = subprocess.run([BIN, 'init', *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=w.dir, timeout=60 * SLOW)
	return r.returncode, r.stdout.decode(), r.stderr.decode()


def works(w, env, conf, s):
	"""The file as it is: bytes go through it."""
	text = open(conf).read()
	port = int(re.search(r'^listen = 127\.0\.0\.1:(\d+)$', text, re.M)[1])
	f = w.proc('made', [BIN, '-c', conf], env=dict({k: env[k] for k in ('HOME', 'AWS_CA_BUNDLE', 'AWS_EC2_METADATA_DISABLED')}, STATE_DIRECTORY=w.path('state-made')))
	f.wait_note('READY=1')
	with connect(port) as c:
		ping(c)
	assert f.stop() == 0


@test('init at a terminal: profile, region, an instance from the list, host, port; tested, written 0600, and it works', 60)
def asked():
	s = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		env = home(w)
		conf = w.path('.config/tunneld/tunneld.ini')
		most = resource.getrlimit(resource.RLIMIT_CORE)[1]
		resource.setrlimit(resource.RLIMIT_CORE, (most, most))
		with Terminal([BIN, 'init'], env=env, cwd=w.dir) as t:
			t.expect(r'Profiles: .*ops.*\n')
			t.expect(r'Profile, or empty[^:]*: ')
			assert re.search(r'Max core file size\s+0\s', open('/proc/%d/limits' % t.p.pid).read())
			t.type(b'ops\r')
			t.expect(r'Region \[%s\]: ' % REGION)
			t.type(b'\r')
			t.expect(r'Instances that are online:\r\n +1  %s  .*\n' % TARGET)
			t.expect(r'number or id \[1\]: ')
			t.type(b'1\r')
			t.expect(r'Host behind it[^:]*: ')
			t.type(b'\r')
			t.expect(r'Port there: ')
			t.type(b'%d\r' % s.port)
			t.expect(r'Local address \[127\.0\.0\.1:\d+\]: ')
			t.type(b'\r')
			t.expect(r'Name of the tunnel \[port-%d\]: ' % s.port)
			t.type(b'mine\r')
			t.expect(r'Testing it:')
			t.expect(r'1 MiB each way')
			t.expect(r'Wrote %s' % re.escape(conf))
			assert t.end() == 0
		assert stat.S_IMODE(os.stat(conf).st_mode) == 0o600
		text = open(conf).read()
		assert '[tunnel mine]' in text and 'profile = ops' in text and 'target = %s' % TARGET in text and '\n; ' in text, text
		assert USER_SECRET not in text
		works(w, env, conf, s)
		# It is there now.
		with Terminal([BIN, 'init'], env=env, cwd=w.dir) as t:
			assert t.end() == 1 and b'is there already; nothing was written' in t.out, t.out
		assert open(conf).read() == text
		# Ctrl-D at a question: nothing.
		with Terminal([BIN, 'init', '-o', w.path('none.ini')], env=env, cwd=w.dir) as t:
			t.expect(r'Profile, or empty[^:]*: ')
			t.type(b'\4')
			assert t.end() == 1 and not os.path.exists(w.path('none.ini'))
		# What does not work is written only when somebody says so.
		for answer, code in ((b'n', 5), (b'y', 0)):
			with Terminal([BIN, 'init', '-o', w.path('dead.ini'), '--profile', 'ops', '--region', REGION, '--target', TARGET, '--host', '127.0.0.1', '--port',
					str(free_port()), '--listen', '127.0.0.1:%d' % free_port(), '--name', 'x'], env=env, cwd=w.dir) as t:
				t.expect(r'fail.*dial')
				t.expect(r'all the same\? y or n \[n\]: ')
				t.type(answer + b'\r')
				assert t.end() == code and os.path.exists(w.path('dead.ini')) == (code == 0), (code, t.out)


@test('init by flags: no question, what is missing is said, nothing that fails its test is written', 60)
def flags():
	s = Server(echo)
	with World() as w:
		g = w.gateway()
		w.agent()
		env = home(w)
		conf = w.path('new/t.ini')
		argv = ['--profile', 'ops', '--target', TARGET, '--port', str(s.port), '--host', '127.0.0.1', '--output', conf]
		code, out, err = init(w, env, *argv)
		assert code == 0 and 'Wrote' in out and not err and '?' not in out, (out, err)
		assert stat.S_IMODE(os.stat(conf).st_mode) == 0o600 and 'host = 127.0.0.1' in open(conf).read()
		r = subprocess.run([BIN, '-t', '-c', conf], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=w.dir)
		assert r.returncode == 0 and not r.stderr, r.stderr
		works(w, env, conf, s)
		before = open(conf).read()
		code, out, err = init(w, env, *argv)
		assert code == 1 and 'is there already' in err and open(conf).read() == before
		code, out, err = init(w, env, *argv, '--force', '--name', 'other')
		assert code == 0 and '[tunnel other]' in open(conf).read()
		# A gateway of one's own, keys of the environment.
		own = w.path('own.ini')
		code, out, err = init(w, dict(env, AWS_ACCESS_KEY_ID=USER_KEY, AWS_SECRET_ACCESS_KEY=USER_SECRET), '--endpoint', w.url, '--ca-file', 'ca.pem', '--region',
			REGION, '--target', TARGET, '--port', str(s.port), '-o', own)
		assert code == 0 and 'ca_file = %s' % w.path('ca.pem') in open(own).read() and USER_SECRET not in open(own).read(), (out, err)
		for argv, word in ((['--port', '1'], '--region'), (['--region', REGION, '--port', '1'], '--target'), (['--region', REGION, '--target', TARGET], '--port'),
				(['--region', REGION, '--target', TARGET + ' ;x', '--port', '1'], '--target')):
			code, out, err = init(w, env, *argv, '-o', w.path('no.ini'))
			assert code == 2 and word in err and not os.path.exists(w.path('no.ini')), (argv, out, err)
		code, out, err = init(w, env, '--profile', 'ops', '--target', TARGET, '--port', '0', '-o', w.path('no.ini'))
		assert code == 1 and '1 to 65535' in err
		code, out, err = init(w, env, '--profile', 'ops', '--target', 'i-00000000000000bad', '--port', '1', '-o', w.path('no.ini'))
		assert code == 4 and 'nothing was written' in err and not os.path.exists(w.path('no.ini')), (code, out, err)
		code, out, err = init(w, env, '--profile', 'ops', '--target', 'i-00000000000000bad', '--port', '1', '-o', w.path('no.ini'), '--no-test')
		assert code == 0 and os.path.exists(w.path('no.ini'))
