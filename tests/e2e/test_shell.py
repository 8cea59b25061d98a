"""tunneld shell: terminal, signals, window size, commands, exit codes."""
import os
import signal
import subprocess

from harness import BIN, SLOW, TARGET, Skip, World, clean_env, until
from peers import Terminal, client_ini, me, run
from run import test

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
