"""tunneld shell: terminal, signals, window size, commands, exit codes."""
import os
import signal
import subprocess
import sys
import termios
import time

from harness import BIN, SLOW, TARGET, Skip, World, clean_env, until
from peers import Terminal, client_ini, me, run
from run import test
from services import Server

PROMPT = r'[#$%>] $'


def shells(w, gateway=None, **agent):
	w.gateway(**(gateway or {}))
	w.agent(shell=True, shell_user=me(), **agent)
	return [BIN, 'shell', '-c', client_ini(w), TARGET]


def no_session(w):
	until(lambda: not w.api().sessions(), 10, 'the session has ended')


@test('shell: raw terminal, window size and its change, Ctrl-C, terminal restored', 60)
def terminal():
	with World() as w:
		argv = shells(w)
		with Terminal(argv, cwd=w.dir) as t:
			t.expect(PROMPT)
			assert t.is_raw()
			t.type(b'echo A$((40+2))B; stty size\r')
			t.expect('A42B\r\n33 101\r\n')
			t.resize(50, 140)
			t.type(b'sleep 1; stty size\r')
			t.expect('50 140\r\n')
			# The process in the foreground says it itself: a shell between two commands would swallow the Ctrl-C.
			t.type(b"sh -c 'echo g$((1+1))o; exec sleep 100'\r")
			t.expect('g2o')
			t.type(b'\x03')
			t.expect(PROMPT)
			t.type(b'echo h$((1+1))o\r')
			t.expect('h2o')
			t.type(b'exit 3\r')
			assert t.end() == 0, t.p.returncode  # the protocol has no room for a terminal's exit code
			assert t.restored()
		no_session(w)


@test('shell: a command that a signal cuts short does not look like one that succeeded', 60)
def cut_short():
	with World() as w:
		argv = shells(w) + ['--', 'echo started; sleep 100']
		for number in (signal.SIGINT, signal.SIGTERM):
			p = subprocess.Popen(argv, cwd=w.dir, env=clean_env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
			assert p.stdout.readline() == b'started\n'
			p.send_signal(number)
			assert p.wait(10 * SLOW) == 128 + number, p.returncode
			p.stdout.close()
		no_session(w)


@test('shell: SIGTERM, SIGHUP, SIGINT and the end of the agent restore the terminal; signals end the session within 5 s', 90)
def restored():
	with World() as w:
		argv = shells(w)
		for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
			with Terminal(argv, cwd=w.dir) as t:
				t.expect(PROMPT)
				assert t.is_raw()
				t.p.send_signal(number)
				assert t.end(5) == 0, number
				assert t.restored(), number
			no_session(w)
		with Terminal(argv, cwd=w.dir) as t:
			t.expect(PROMPT)
			assert w.api().call('TerminateSession', {'SessionId': w.api().sessions()[0]['SessionId']})[0] == 200
			t.end(10)
			assert t.restored()
		with Terminal(argv, cwd=w.dir) as t:
			t.expect(PROMPT)
			w.procs[-1].kill9()
			w.agent(shell=True, shell_user=me())
			assert t.end(30) == 6, t.p.returncode
			assert b'restarted' in t.out or b'no longer knows' in t.out, t.out
			assert t.restored()


@test('shell: a gateway killed in mid-session is not noticed', 60)
def resumes():
	with World() as w:
		argv = shells(w)
		with Terminal(argv, cwd=w.dir) as t:
			t.expect(PROMPT)
			w.procs[0].kill9()
			t.type(b'echo C$((1+1))D\r')
			w.gateway()
			t.expect('C2D', 30)
			t.type(b'exit\r')
			assert t.end() == 0


@test('shell: commands with output, errors and exit code apart; with a terminal; large output; off by default', 60)
def commands():
	with World() as w:
		argv = shells(w)

		def command(text, code, **kw):
			r = subprocess.run(argv + ['--', text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), cwd=w.dir, timeout=30 * SLOW,
				stdin=subprocess.DEVNULL, **kw)
			assert r.returncode == code, (text, r)
			return r.stdout, r.stderr
		out, err = command('ls -d /etc/passwd /nonexistent', 2)
		assert out == b'/etc/passwd\n' and b'/nonexistent' in err and b'passwd' not in err, (out, err)
		assert command('echo out; echo err >&2; exit 77', 77) == (b'out\n', b'err\n')
		for i in range(10):
			assert command('exit %d' % i, i) == (b'', b'')
		out, err = command("head -c 3000000 /dev/zero | tr '\\0' x", 0)
		assert out == b'x' * 3000000 and not err, len(out)
		assert command('kill -9 $$', 137)[0] == b''
		# as with ssh: options stand before the command, what follows its first word is its own
		for words in (['printf', '%s.', '-t', '--help', '--', 'x'], ['--', 'printf', '%s.', '-t', '--help', '--', 'x']):
			assert run(argv + words, w, stdin=subprocess.DEVNULL) == b'-t.--help.--.x.', words
		assert run(argv[:-1] + ['-t', TARGET, '--', 'tty >/dev/null && echo yes; exit 5'], w, stdin=subprocess.DEVNULL).strip() == b'yes'
		with Terminal(argv + ['--', 'tty; echo I$((20+3))J; exit 6'], cwd=w.dir) as t:
			t.expect(r'/dev/pts/\d+\r\nI23J')
			assert t.end() == 0
			assert t.restored()
		no_session(w)
		w.procs[-1].stop()
		a = w.agent(name='agent-2')
		r = subprocess.run(argv + ['--', 'true'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), cwd=w.dir, timeout=30 * SLOW)
		assert r.returncode == 5 and not r.stdout and b'shells are off at this agent' in r.stderr, r
		a.wait_log('shells are off')


def output_to(w, argv, out, **kw):
	"""-> exit code, stderr"""
	r = subprocess.run(argv, stdout=out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=clean_env(), cwd=w.dir, timeout=30 * SLOW, **kw)
	return r.returncode, r.stderr.decode()


@test('shell, connect: a write that fails here is an error of its own; a closed input is an empty one', 60)
def failed_writes():
	s = Server(lambda c: (c.sendall(b'hello'), c.recv(1)))
	with World() as w:
		argv = shells(w)
		much = argv + ['--', 'head -c 3000000 /dev/zero']
		link = [BIN, 'connect', '-c', client_ini(w), TARGET, str(s.port)]
		for a in (much, argv + ['--', 'echo x'], link):
			with open('/dev/full', 'wb') as full:
				code, err = output_to(w, a, full)
			assert code == 1 and 'cannot write the output: No space left on device' in err, (a, code, err)
			code, err = output_to(w, a, None, preexec_fn=lambda: os.close(1))
			assert code == 1 and 'standard output is closed' in err, (a, code, err)
		p = subprocess.Popen(much, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=clean_env(), cwd=w.dir)
		p.stdout.read(10)
		p.stdout.close()
		err = p.stderr.read()
		assert p.wait(20 * SLOW) == 1 and b'closed by its reader' in err, (p.returncode, err)
		p.stderr.close()
		with open('/dev/full', 'wb') as full:
			r = subprocess.run(argv + ['--', 'echo out; echo err >&2'], stdout=subprocess.PIPE, stderr=full, stdin=subprocess.DEVNULL, env=clean_env(),
				cwd=w.dir, timeout=30 * SLOW)
		assert r.returncode == 1 and r.stdout == b'out\n', r
		r = subprocess.run(link, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), cwd=w.dir, timeout=30 * SLOW,
			preexec_fn=lambda: os.close(0))
		assert r.returncode == 0 and r.stdout == b'hello', r
		no_session(w)


@test('shell: a link that is away is told after 3 s and when it is back; Enter ~ . leaves, ~? helps, ~~ is one ~', 90)
def away():
	with World() as w:
		argv = shells(w)
		with Terminal(argv, cwd=w.dir) as t:
			t.expect(PROMPT)
			t.type(b"stty -echo; echo re''ady; cat -A\r")
			t.expect('ready')
			t.type(b'~~one\r')
			t.expect(r'~one\$')
			t.type(b'~?')
			t.expect(r'~~  one ~')
			t.type(b'~x\ra~.b\r')
			t.expect(r'~x\$')
			t.expect(r'a~\.b\$')
			w.procs[0].kill9()
			began = time.monotonic()
			t.expect('the connection is away', 20)
			assert time.monotonic() - began > 2.5
			t.type(b'meanwhile\r')
			w.gateway()
			t.expect(r'connection is back[\s\S]*meanwhile\$|meanwhile\$[\s\S]*connection is back', 40)
			assert b'WARN' not in t.out and b'ResumeSession' not in t.out, t.out
			# One that takes everything and answers nothing.
			w.procs[-1].signal(signal.SIGSTOP)
			until(lambda: open('/proc/%d/stat' % w.procs[-1].pid).read().rsplit(')', 1)[1].split()[0] == 'T', 10, 'it stands still')
			t.type(b'into the void\r')
			t.expect('the connection is away', 20)
			t.type(b'~.')
			assert t.end(10) == 6 and b'left with' in t.out, (t.p.returncode, t.out)
			assert t.restored()
			w.procs[-1].signal(signal.SIGCONT)
		with Terminal(argv, cwd=w.dir) as t:
			t.expect(PROMPT)
			t.type(b'~.')
			assert t.end(10) == 0 and t.restored()


@test('shell: stopped and continued, the terminal is raw again and its size right; SIGTSTP gives it back meanwhile', 60)
def stopped():
	def state(p):
		return open('/proc/%d/stat' % p.pid).read().rsplit(')', 1)[1].split()[0]
	with World() as w:
		argv = shells(w)
		for number in (signal.SIGSTOP, signal.SIGTSTP):
			with Terminal(argv, cwd=w.dir) as t:
				t.expect(PROMPT)
				t.p.send_signal(number)
				until(lambda: state(t.p) == 'T', 10, 'stopped')
				if number == signal.SIGTSTP:
					assert t.restored()
				termios.tcsetattr(t.slave, termios.TCSANOW, t.before)  # as the shell that took over does
				t.resize(44, 120)
				t.p.send_signal(signal.SIGCONT)
				until(t.is_raw, 10, 'raw again')
				t.type(b'stty size\r')
				t.expect('44 120\r\n')
				t.type(b'exit\r')
				assert t.end() == 0 and t.restored()


@test('shell: a command in the background of a terminal; one that is too long names the limit', 60)
def background():
	with World() as w:
		argv = shells(w)
		code = 'import os, signal, subprocess, sys; signal.signal(signal.SIGTTOU, signal.SIG_IGN);' \
			'sys.exit(subprocess.run(sys.argv[1:], preexec_fn=lambda: (os.setpgid(0, 0), signal.signal(signal.SIGTTOU, signal.SIG_DFL))).returncode)'
		with Terminal([sys.executable, '-c', code] + argv + ['--', 'echo A$((40+2))B; cat; exit 7'], cwd=w.dir) as t:
			assert t.end(20) == 7, t.out
			assert b'A42B' in t.out and not t.is_raw(), t.out
		for n, said in ((8192, None), (8193, '1 to 8192 bytes, this one has 8193')):
			r = subprocess.run(argv + ['--', ': ' + 'x' * (n - 2)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
				env=clean_env(), cwd=w.dir, timeout=30 * SLOW)
			assert (r.returncode == 0 and not r.stderr) if said is None else (r.returncode != 0 and said in r.stderr.decode()), r
