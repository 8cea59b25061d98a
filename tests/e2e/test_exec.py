"""tunneld exec: a tunnel for as long as a program runs."""
import hashlib
import os
import re
import signal
import subprocess
import sys

from harness import BIN, REGION, SLOW, TARGET, USER_KEY, USER_SECRET, World, clean_env, ini, until
from peers import Terminal, client_ini
from run import test
from services import Server, connect, echo, free_port, ping

SPEAK = 'import socket,sys; s=socket.create_connection((sys.argv[1], int(sys.argv[2]))); s.sendall(sys.stdin.buffer.read()); ' \
	's.shutdown(1); b=s.makefile("rb").read(); sys.stdout.buffer.write(b); sys.exit(7)'


def exec_ini(w, port, name='exec', tunnels=None, **aws):
	a = {'region': REGION, 'ssm_endpoint': w.url, 'ca_file': 'ca.pem', 'access_key_id': USER_KEY, 'secret_access_key': USER_SECRET}
	a.update(aws)
	sections = [('tunneld', {'state_dir': w.path('state-' + name)}), ('aws', a), ('alias far', {'target': TARGET, 'port': port})]
	for n, keys in (tunnels or {'db': {}}).items():
		t = {'listen': '127.0.0.1:%d' % free_port(), 'target': TARGET, 'port': port}
		t.update(keys)
		sections.append(('tunnel ' + n, t))
	return ini(w.path(name + '.ini'), sections)


def run_exec(w, argv, code=0, text='', input=b''):
	r = subprocess.run([BIN, 'exec'] + argv, input=input, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), cwd=w.dir, timeout=40 * SLOW)
	err = r.stderr.decode()
	assert r.returncode == code and re.search(text, err), (argv, r.returncode, r.stdout[-300:], err)
	return r.stdout


@test('exec: own address, -P beside a daemon, an alias, an id; input, output and exit code are the program\'s', 60)
def ways():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		port = free_port()
		conf = exec_ini(w, e.port, tunnels={'db': {'listen': '127.0.0.1:%d' % port}, 'each': {'session': 'per-connection'}, 'six': {'listen': '[::1]:0'}})
		speak = ['--', sys.executable, '-c', SPEAK, '{host}', '{port}']
		data = os.urandom(300000)
		assert run_exec(w, ['-c', conf, 'db'] + speak, 7, '^$', input=data) == data
		said = run_exec(w, ['-c', conf, 'db', '--', 'echo', 'postgres://{host}:{port}/db', '-c', '{hosts}'])
		assert said == b'postgres://127.0.0.1:%d/db -c {hosts}\n' % port, said
		assert re.fullmatch(rb'::1 x://\[::1\]:[1-9]\d+/\n', run_exec(w, ['-c', conf, 'six', '--', 'echo', '{host}', 'x://{host}:{port}/']))
		for name in ('far', 'each', TARGET):
			argv = ['-c', conf, '-P', name] if name == 'each' else ['-c', conf, name]
			if name != TARGET:  # an id alone leads to port 22
				assert run_exec(w, argv + speak, 7, '^$', input=data) == data
		f = w.proc('forwarder', [BIN, '-c', conf])
		f.wait_note('READY=1')
		with connect(port) as c:
			ping(c)
			out = run_exec(w, ['-c', conf, '-P', 'db'] + speak + ['{port}'], 7, '^$', input=data)
			assert out == data
			ping(c)
		assert f.stop() == 0
		until(lambda: not w.api().sessions(), 10, 'every session ended with its program')


@test('exec: a tunnel that does not come up has the exit code of forward, and nothing runs', 60)
def not_up():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		good = exec_ini(w, e.port, tunnels={'db': {}, 'gone': {'target': 'i-00000000000000bad'}, 'sock': {'listen': 'unix:' + w.path('s')}})
		bad = exec_ini(w, e.port, 'bad', secret_access_key='wrong')
		touch = ['--', 'touch', w.path('ran')]
		run_exec(w, [], 2, 'TUNNEL is missing')
		run_exec(w, ['-c', good, 'db'], 2, 'the command is missing')
		for words in (['db', 'psql', '-h', '{host}'], ['-P', 'db', 'sh', '-c', 'exit 0'], ['--select=any', '-v', 'db', 'psql', '-p', '{port}', '--', 'x'], ['db', 'psql', '--help']):
			run_exec(w, ['-c', good] + words, 2, '-- is missing before (psql|sh)')
		assert b'usage: tunneld exec' in run_exec(w, ['--help', 'db', 'psql'])
		assert run_exec(w, ['-c', good, '-P', 'db', '--', 'echo', '-h', '--help', '--', '{host']) == b'-h --help -- {host\n'
		run_exec(w, ['-c', good, 'nobody'] + touch, 2, 'neither an instance id')
		run_exec(w, ['-c', good, 'sock'] + touch + ['{port}'], 2, 'has no {port}; -P')
		run_exec(w, ['-c', bad, 'db'] + touch, 3, '[Ss]ignature')
		run_exec(w, ['-c', good, 'gone'] + touch, 4, 'TargetNotConnected|not connected')
		busy = Server(echo)
		taken = exec_ini(w, e.port, 'taken', tunnels={'db': {'listen': '127.0.0.1:%d' % busy.port}})
		run_exec(w, ['-c', taken, 'db'] + touch, 1, 'in use.*-P takes a free port')
		assert not os.path.exists(w.path('ran'))
		run_exec(w, ['-c', good, 'db', '--', w.path('no-such-program')], 127, 'cannot run .*no-such-program: No such file')
		run_exec(w, ['-c', good, 'db', '--', w.dir], 126, 'cannot run .*: Permission denied')
		assert run_exec(w, ['-c', good, 'sock', '--', 'echo', '{host}']) == w.path('s').encode() + b'\n'
		until(lambda: not w.api().sessions(), 10, 'every session ended')


@test('exec: signals are passed on once; 128 + signal; a program has our limits and signals as they were', 60)
def signals():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		conf = exec_ini(w, e.port)
		for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
			p = subprocess.Popen([BIN, 'exec', '-c', conf, '-P', 'db', '--', 'sh', '-c', 'echo up; exec sleep 60'], stdout=subprocess.PIPE, env=clean_env(), cwd=w.dir)
			assert p.stdout.readline() == b'up\n'
			p.send_signal(sig)
			assert p.wait(20 * SLOW) == 128 + sig, (sig, p.returncode)
		count = "trap 'echo got; n=x$n' TERM; echo up; while [ \"$n\" != xx ]; do sleep 0.05; done; exit 5"
		p = subprocess.Popen([BIN, 'exec', '-c', conf, '-P', 'db', '--', 'sh', '-c', count], stdout=subprocess.PIPE, env=clean_env(), cwd=w.dir)
		assert p.stdout.readline() == b'up\n'
		for _ in range(2):
			p.send_signal(signal.SIGTERM)
			assert p.stdout.readline() == b'got\n'
		assert p.wait(20 * SLOW) == 5
		same = ['sh', '-c', 'ulimit -S -c; grep ^Sig[BIC] /proc/self/status']

		def settings(said):  # without the C library's own two signals, 32 and 33
			core, *masks = said.split(b'\n', 1)[0], *re.findall(rb'Sig...:\s*(\S+)', said)
			return core, [int(m, 16) & 0x7fffffff for m in masks]
		plain = subprocess.run(same, stdout=subprocess.PIPE, env=clean_env()).stdout
		got = run_exec(w, ['-c', conf, '-P', 'db', '--'] + same)
		assert settings(got) == settings(plain), (got, plain)
		quiet = subprocess.run(['sh', '-c', 'trap "" HUP PIPE; "$0" "$@"', BIN, 'exec', '-c', conf, '-P', 'db', '--', 'sh', '-c', 'kill -HUP $PPID; ' + same[2]],
			stdout=subprocess.PIPE, env=clean_env(), cwd=w.dir, timeout=30 * SLOW)
		assert quiet.returncode == 0 and int(re.search(rb'SigIgn:\s*(\S+)', quiet.stdout).group(1), 16) & 0x1001 == 0x1001, quiet.stdout


@test('exec: on a terminal Ctrl-C comes once, Ctrl-Z stops both, and the shell gets its terminal back', 60)
def terminal():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		conf = exec_ini(w, e.port)
		exec_ = [BIN, 'exec', '-c', conf, '-P', 'db', '--']
		count = 'import os,signal,sys,threading\nn=0\nsignal.pthread_sigmask(signal.SIG_BLOCK,{2})\n' \
			'def read():\n for l in sys.stdin:\n  print("n=%d %s" % (n,l),end="",flush=True)\n os._exit(4)\n' \
			'threading.Thread(target=read).start()\nprint("is-up",flush=True)\nwhile True:\n signal.sigwait({2})\n n+=1\n print("interrupted",n,flush=True)\n'
		with open(w.path('count.py'), 'w') as f:
			f.write(count)
		with Terminal(['bash', '--norc', '-i'], env=clean_env(PS1='$ ', TERM='dumb'), cwd=w.dir) as t:
			t.expect(r'\$ ')
			t.type((' '.join(exec_) + ' %s count.py\r' % sys.executable).encode())
			t.expect(r'\nis-up\r\n')
			for n in range(1, 6):
				t.type(b'\x03')
				t.expect(r'interrupted %d\r\n' % n)
			t.type(b'one\r')
			t.expect(r'\nn=5 one\r\n')
			t.type(b'\x1a')
			t.expect('Stopped')
			t.expect(r'\$ ')
			t.type(b'fg\r')
			t.expect('exec')
			t.type(b'two\r')
			t.expect(r'\nn=5 two\r\n')
			t.type(b'\x04')
			t.expect(r'\$ ')
			t.type(b'echo code=$?\r')
			t.expect('code=4')
			t.type(b'exit\r')
			assert t.end() == 0
		# A program with groups of its own in the foreground dies without giving it back.
		script = '"$@" bash --norc -i; echo code=$?; read a; echo a=$a'
		with Terminal(['sh', '-c', script, 'sh'] + exec_, env=clean_env(PS1='$ ', TERM='dumb'), cwd=w.dir) as t:
			t.expect(r'\$ ')
			t.type(b'kill -9 $$\r')
			t.expect('code=137')
			t.type(b'mine\r')
			t.expect(r'\na=mine\r\n')
			assert t.end() == 0


@test('exec: the shell is back when the program has stopped, and not before; one that ignores Ctrl-Z keeps the terminal', 60)
def stops():
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		exec_ = ' '.join([BIN, 'exec', '-c', exec_ini(w, e.port), '-P', 'db', '--', sys.executable])
		for name, body in (('late', 'def stop(n, f):\n print("goes", flush=True)\n time.sleep(1)\n print("gone", flush=True)\n os.kill(os.getpid(), signal.SIGSTOP)\n'
				'signal.signal(signal.SIGTSTP, stop)\n'), ('never', 'signal.signal(signal.SIGTSTP, signal.SIG_IGN)\n'), ('plain', '')):
			with open(w.path(name + '.py'), 'w') as f:
				f.write('import os, signal, sys, time\n' + body + 'print("is-" + "up", flush=True)\nfor l in sys.stdin:\n print("read", l, end="", flush=True)\n')
		with Terminal(['bash', '--norc', '-i'], env=clean_env(PS1='$ ', TERM='dumb'), cwd=w.dir) as t:
			t.expect(r'\$ ')
			t.type((exec_ + ' late.py\r').encode())
			t.expect(r'\nis-up\r\n')
			t.type(b'\x1a')
			t.expect(r'goes\r\n')
			assert b'Stopped' not in t.expect(r'(?s).*?gone\r\n').group(0)
			t.expect(r'Stopped[^$]*\$ ')
			t.type(b'fg\r')
			t.expect('late.py')
			t.type(b'one\r')
			t.expect(r'\nread one\r\n')
			t.type(b'\x04')
			t.expect(r'\$ ')
			t.type((exec_ + ' never.py\r').encode())
			t.expect(r'\nis-up\r\n')
			t.type(b'\x1a')
			t.type(b'two\r')
			t.expect(r'\nread two\r\n')
			t.type(b'\x04')
			t.expect(r'\$ ')
			t.type((exec_ + ' plain.py &\r').encode())  # wants to read in the background, and may not
			t.expect(r'is-up\r\n')
			t.type(b'until jobs -s | grep -q .; do sleep 0.05; done; jobs\r')
			t.expect(r'Stopped[^$]*\$ ')
			t.type(b'fg\r')
			t.expect('plain.py\r\n')
			t.type(b'three\r')
			t.expect(r'\nread three\r\n')
			t.type(b'\x1a')
			t.expect(r'Stopped[^$]*\$ ')
			t.type(b'fg\r')
			t.expect('plain.py\r\n')
			t.type(b'\x04')
			t.expect(r'\$ ')
			t.type(b'exit\r')
			assert t.end() == 0


@test('exec: what a program sends last arrives, and a session that breaks while it runs is waited out', 60)
def last_bytes():
	got = []

	def digest(sock):
		h = hashlib.sha256()
		while True:
			part = sock.recv(65536)
			if not part:
				break
			h.update(part)
		got.append(h.hexdigest())
	s, e = Server(digest), Server(echo)
	with World() as w:
		g = w.gateway()
		w.agent()
		send = 'import socket,sys; s=socket.create_connection((sys.argv[1], int(sys.argv[2]))); s.sendall(sys.stdin.buffer.read())'
		data = os.urandom(4000000)
		run_exec(w, ['-c', exec_ini(w, s.port), 'db', '--', sys.executable, '-c', send, '{host}', '{port}'], input=data)
		until(lambda: got, 10, 'the service has read all')
		assert got == [hashlib.sha256(data).hexdigest()]
		talk = 'import socket,sys\ns=socket.create_connection((sys.argv[1], int(sys.argv[2])))\nfor l in sys.stdin.buffer:\n s.sendall(l); ' \
			'sys.stdout.buffer.write(s.recv(99)); sys.stdout.buffer.flush()'
		p = subprocess.Popen([BIN, 'exec', '-c', exec_ini(w, e.port, 'two'), 'db', '--', sys.executable, '-c', talk, '{host}', '{port}'], stdin=subprocess.PIPE,
			stdout=subprocess.PIPE, env=clean_env(), cwd=w.dir)
		try:
			for turn in range(2):
				p.stdin.write(b'%d\n' % turn)
				p.stdin.flush()
				assert p.stdout.readline() == b'%d\n' % turn
				if turn == 0:
					g.kill9()
					g = w.gateway()
			p.stdin.close()
			assert p.wait(20 * SLOW) == 0
		finally:
			p.kill()
			p.wait()
