"""A service that lies to the commands: what it calls things ends neither on a terminal, nor on a command line, nor in a configuration as more
than a name."""
import http.server
import json
import os
import re
import subprocess
import threading

from harness import BIN, SLOW, World, clean_env
from peers import Terminal
from run import test

EVIL = 'i-0bad\nhost = 169.254.169.254\n[tunneld]\nlog_level = debug\n;'


class Liar:
	"""Answers every call with the bytes of `say`, or with what it returns for the name of the call."""

	def __init__(self, w):
		self.say, self.status, self.calls = b'{}', 200, []
		liar = self

		class Handler(http.server.BaseHTTPRequestHandler):
			protocol_version = 'HTTP/1.1'

			def do_POST(self):
				self.rfile.read(int(self.headers.get('Content-Length', 0)))
				call = self.headers.get('X-Amz-Target', self.path).split('.')[-1]
				liar.calls.append(call)
				body = liar.say(call) if callable(liar.say) else liar.say
				self.send_response(liar.status)
				self.send_header('Content-Length', str(len(body)))
				self.end_headers()
				self.wfile.write(body)

			def log_message(self, *a):
				pass
		self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
		threading.Thread(target=self.server.serve_forever, daemon=True).start()
		w.closers.append(self.server.shutdown)
		self.url = 'http://127.0.0.1:%d' % self.server.server_port
		self.env = clean_env(HOME=w.dir, XDG_CACHE_HOME=w.path('cache'), AWS_ACCESS_KEY_ID='AKIA', AWS_SECRET_ACCESS_KEY='secret-of-tests', TERM='xterm',
			AWS_EC2_METADATA_DISABLED='true', AWS_REGION='eu-west-1', AWS_ENDPOINT_URL_SSM=self.url)

	def instances(self, *more):
		self.say = json.dumps({'InstanceInformationList': [dict({'PingStatus': 'Online'}, **m) for m in more]}, ensure_ascii=False).encode()


def tool(w, liar, *argv, code=0):
	r = subprocess.run([BIN] + list(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=w.dir, timeout=20 * SLOW, env=liar.env)
	assert code is None or r.returncode == code, (argv, r)
	return r.stdout, r.stderr


def is_plain(data):
	"""What a terminal shows and does nothing else with."""
	return not re.search('[\0-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]', data.decode())


@test('a lying service: list, its JSON and the completion show names that do nothing; init writes no line of theirs', 30)
def names():
	with World() as w:
		liar = Liar(w)
		odd = '\x1b]0;pwned\x07\x9b31m\u202e\x7f$(touch pwned)\r\nweb'
		liar.instances({'InstanceId': 'i-0aaa', 'ComputerName': odd, 'PlatformName': odd, 'AgentVersion': odd, 'Tags': [{'Key': 'Name', 'Value': odd},
			{'Key': 'k' * 200 + odd, 'Value': '`id`'}, {'Key': 'x', 'Value': '$(touch pwned)'}]}, {'InstanceId': EVIL, 'PingStatus': odd})
		for argv in (['list'], ['list', '--json']):
			out, err = tool(w, liar, *argv)
			assert out.count(b'i-0') == 2 and is_plain(out) and not err, (out, err)
		assert len(out.splitlines()) == 1 and [i['name'] for i in json.loads(out)] == [odd, '']
		out, err = tool(w, liar, '__complete', '--', 'connect', '')
		assert out == b'i-0aaa\n', out
		for liar.say in (b'', b'{}', b'[]', b'<html>', b'{"InstanceInformationList":{}}', b'[' * 60000):
			out, err = tool(w, liar, 'list', code=None)
			assert not out and re.search(b"the answer is not one of this service|that is not AWS's API", err), (liar.say[:40], out, err)
		# More of them than anybody asked for.
		liar.instances(*[{'InstanceId': 'i-%d' % i} for i in range(5000)])
		out, err = tool(w, liar, 'list', '--json')
		assert len(json.loads(out)) == 4000 and b'more instances than the 4000' in err, (len(out), err)
		liar.status, liar.say = 400, json.dumps({'__type': 'Odd' + odd, 'message': odd}).encode()
		out, err = tool(w, liar, 'list', code=5)
		assert err.startswith(b'tunneld list: DescribeInstanceInformation: Odd') and err.count(b'\n') == 1 and is_plain(err), err
		# What is chosen from its list becomes a line of the file.
		liar.status = 200
		liar.instances({'InstanceId': EVIL, 'ComputerName': odd}, {'InstanceId': 'i-0aaa'})
		for number, code in ((b'1', 1), (b'2', 0)):
			with Terminal([BIN, 'init', '-o', w.path('made.ini'), '--port', '22', '--no-test'], env=liar.env, cwd=w.dir) as t:
				t.expect('Region')
				t.type(b'\r')
				t.expect('number or id: ')
				t.type(number + b'\r')
				if code:
					t.expect('the service calls it what no instance is called: i-0bad.x0ahost')
				else:
					for question in ('Host behind', 'Local address', 'Name of the tunnel'):
						t.expect(question)
						t.type(b'\r')
				assert t.end() == code and os.path.exists(w.path('made.ini')) == (code == 0), t.out
		assert 'target = i-0aaa\n' in open(w.path('made.ini')).read() and not os.path.exists(w.path('pwned'))
