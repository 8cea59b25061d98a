"""Credentials from the places where the SDKs look, end to end; the aws command against our gateway; proxies."""
import base64
import datetime
import hashlib
import http.server
import json
import os
import socket
import subprocess
import threading
import time

from harness import BIN, REGION, SLOW, TARGET, USER_KEY, USER_SECRET, World, clean_env, need, until
from run import test
from services import Server, connect, echo, ping, refused

NO_KEYS = {'access_key_id': None, 'secret_access_key': None}


def home(w, files, **env):
	"""A home folder with these files, and an environment that looks for nothing elsewhere."""
	d = w.path('home')
	for name, text in files.items():
		p = os.path.join(d, name)
		os.makedirs(os.path.dirname(p), exist_ok=True)
		with open(p, 'w') as f:
			os.fchmod(f.fileno(), 0o600)
			f.write(text)
	os.makedirs(d, exist_ok=True)
	out = {'HOME': d, 'AWS_EC2_METADATA_DISABLED': 'true', 'AWS_REGION': REGION}
	out.update(env)
	return out


def keys_text(section, key=USER_KEY, secret=USER_SECRET):
	return '[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n' % (section, key, secret)


def serve(w):
	s = Server(echo)
	w.gateway()
	w.agent()
	return s


def state(w, f, tunnel='t'):
	"""Of that tunnel, wherever it stands in the status."""
	def walk(x):
		if isinstance(x, dict):
			if x.get('name') == tunnel and 'state' in x:
				yield x['state']
			x = list(x.values())
		if isinstance(x, list):
			for y in x:
				yield from walk(y)
	return next(walk(w.status(f)), None)


def passes(w, f):
	c = connect(f.ports['t'])
	ping(c)
	c.close()


@test('credentials: environment, profile, credential_process', 60, short=True)
def sources():
	with World() as w:
		s = serve(w)
		doc = json.dumps({'Version': 1, 'AccessKeyId': USER_KEY, 'SecretAccessKey': USER_SECRET})
		with open(w.path('keys.json'), 'w') as f:
			f.write(doc)
		files = {'.aws/config': '[profile proc]\ncredential_process = cat %s\n' % w.path('keys.json'), '.aws/credentials': keys_text('ops')}
		cases = [
			({'AWS_ACCESS_KEY_ID': USER_KEY, 'AWS_SECRET_ACCESS_KEY': USER_SECRET}, {}),
			({'AWS_PROFILE': 'ops'}, {}),
			({}, {'profile': 'ops'}),
			({'AWS_PROFILE': 'proc'}, {}),
		]
		for i, (env, aws) in enumerate(cases):
			f = w.forwarder({'t': {'port': s.port}}, name='forwarder-%d' % i, env=home(w, files, **env), aws=dict(NO_KEYS, **aws))
			passes(w, f)
			f.stop()


@test('credentials: each refusal is one line with cause and cure', 60, short=True)
def refusals():
	with World() as w:
		s = serve(w)
		cases = [
			({}, {}, {}, r'no credentials: set access_key_id'),
			({'AWS_ACCESS_KEY_ID': 'AKIDNOBODY', 'AWS_SECRET_ACCESS_KEY': 'x'}, {}, {}, r'the access key of the environment is not known: check'),
			({'AWS_ACCESS_KEY_ID': USER_KEY, 'AWS_SECRET_ACCESS_KEY': 'wrong'}, {}, {}, r'the signature was refused: check the secret access key of the environment'),
			({'AWS_PROFILE': 'p'}, {'.aws/config': '[profile p]\ncredential_process = exit 7\n'}, {}, r'credential_process of profile p failed \(exit code 7\)'),
			({'AWS_PROFILE': 'p'}, {'.aws/config': '[profile p]\nrole_arn = r\nsource_profile = q\n'}, {}, r'source_profile q, which does not exist'),
		]
		for i, (env, files, aws, line) in enumerate(cases):
			f = w.forwarder({'t': {'port': s.port}}, name='forwarder-%d' % i, env=home(w, files, **env), aws=dict(NO_KEYS, **aws))
			assert refused(f.ports['t'])
			f.wait_log(r'connection reset tunnel=t .*' + line)
			assert f.alive()
			f.stop()


@test('credentials: a malformed profile file is named with its line', 30, short=True)
def malformed():
	with World() as w:
		w.gateway()
		env = home(w, {'.aws/config': '[default]\nregion = x\nwhat is this\n'})
		conf = w.write_forwarder({'t': {'port': 1}}, aws=NO_KEYS)
		r = subprocess.run([BIN, '-c', conf], env=clean_env(**env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20 * SLOW, cwd=w.dir)
		assert r.returncode in (1, 2), r.returncode
		assert b'/.aws/config:3: neither KEY = VALUE nor [SECTION]' in r.stderr, r.stderr


class Fake(http.server.BaseHTTPRequestHandler):
	"""The portal of IAM Identity Center: keys for whoever has the token."""

	def do_GET(self):
		ok = self.headers.get('x-amz-sso_bearer_token') == 'good'
		body = json.dumps({'roleCredentials': {'accessKeyId': USER_KEY, 'secretAccessKey': USER_SECRET, 'sessionToken': '',
			'expiration': int(time.time() + 3600) * 1000}} if ok else {'message': 'no'}).encode()
		self.send_response(200 if ok else 401)
		self.send_header('Content-Length', str(len(body)))
		self.end_headers()
		self.wfile.write(body)

	def log_message(self, *args):
		pass


@test('SSO: needs-login names the command, the listener stays, and it goes on after the login', 60)
def sso_login():
	with World() as w:
		s = serve(w)
		portal = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Fake)
		threading.Thread(target=portal.serve_forever, daemon=True).start()
		w.closers.append(portal.shutdown)
		conf = ('[profile work]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Ops\n'
			'[sso-session corp]\nsso_start_url = https://corp.awsapps.com/start\nsso_region = eu-west-1\n')
		env = home(w, {'.aws/config': conf}, AWS_PROFILE='work', AWS_ENDPOINT_URL_SSO='http://127.0.0.1:%d' % portal.server_port)
		f = w.forwarder({'t': {'port': s.port}}, env=env, aws=NO_KEYS)
		assert refused(f.ports['t'])
		f.wait_log(r'needs login: .*run: aws sso login --profile work')
		assert state(w, f) == 'needs-login', w.status(f)
		cache = os.path.join(env['HOME'], '.aws/sso/cache')
		os.makedirs(cache)
		end = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)).strftime('%Y-%m-%dT%H:%M:%SZ')
		with open(os.path.join(cache, hashlib.sha1(b'corp').hexdigest() + '.json'), 'w') as g:
			json.dump({'accessToken': 'good', 'expiresAt': end}, g)
		f.wait_log(r'credentials are there again', 30)
		assert state(w, f) == 'idle', w.status(f)
		passes(w, f)


class Proxy:
	"""A CONNECT proxy that wants a user and a password."""

	def __init__(self, login=b'me:p@ss'):
		self.want = b'Basic ' + base64.b64encode(login)
		self.tunnels, self.denied, self.bytes = 0, 0, 0
		self.l = socket.create_server(('127.0.0.1', 0))
		self.port = self.l.getsockname()[1]
		threading.Thread(target=self.run, daemon=True).start()

	def run(self):
		while True:
			try:
				c, _ = self.l.accept()
			except OSError:
				return
			threading.Thread(target=self.one, args=(c,), daemon=True).start()

	def one(self, c):
		head = b''
		while b'\r\n\r\n' not in head:
			got = c.recv(4096)
			if not got:
				return
			head += got
		words = head.split()
		lines = dict(l.split(b': ', 1) for l in head.split(b'\r\n')[1:] if b': ' in l)
		if words[0] != b'CONNECT' or lines.get(b'Proxy-Authorization') != self.want:
			self.denied += 1
			c.sendall(b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n')
			c.close()
			return
		host, port = words[1].rsplit(b':', 1)
		t = socket.create_connection((host.decode(), int(port)))
		self.tunnels += 1
		c.sendall(b'HTTP/1.1 200 Connection established\r\n\r\n')
		for a, b in ((c, t), (t, c)):
			threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

	def pump(self, a, b):
		try:
			while True:
				got = a.recv(65536)
				if not got:
					break
				b.sendall(got)
				self.bytes += len(got)
			b.shutdown(socket.SHUT_WR)
		except OSError:
			pass

	def close(self):
		self.l.close()


@test('proxy with a password: everything goes through it; a wrong one is one line', 60, short=True)
def proxies():
	with World() as w:
		s = serve(w)
		p = Proxy()
		w.closers.append(p.close)
		f = w.forwarder({'t': {'port': s.port}}, aws={'proxy': 'http://me:p%%40ss@127.0.0.1:%d' % p.port})
		with connect(f.ports['t']) as c:
			for _ in range(50):
				ping(c, os.urandom(4096))
		assert p.tunnels >= 1 and p.bytes > 100000, (p.tunnels, p.bytes)  # the call, and the data channel with what passed
		f.stop()
		f = w.forwarder({'t': {'port': s.port}}, name='forwarder-2', aws={'proxy': 'http://me:hush@127.0.0.1:%d' % p.port})
		assert refused(f.ports['t'])
		f.wait_log(r'proxy 127\.0\.0\.1:%d refused .*407.*user or password of the proxy is wrong' % p.port)
		assert not f.find('hush')
		f.stop()
		before = p.tunnels
		f = w.forwarder({'t': {'port': s.port}}, name='forwarder-3', aws={'proxy': 'none'},
			env={'HTTPS_PROXY': 'http://me:p%%40ss@127.0.0.1:%d' % p.port})
		passes(w, f)
		assert p.tunnels == before


@test('the aws command signs, our gateway verifies', 120)
def aws_command():
	need('aws')
	with World() as w:
		w.gateway()
		w.agent()

		def aws(*argv, key=USER_KEY, secret=USER_SECRET, **env):
			e = home(w, {}, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret, AWS_CA_BUNDLE=w.path('ca.pem'), AWS_MAX_ATTEMPTS='1', **env)
			r = subprocess.run(('aws', 'ssm') + argv + ('--endpoint-url', w.url, '--output', 'json', '--region', REGION),
				env=clean_env(**e), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60 * SLOW)
			return r.returncode, r.stdout, r.stderr

		code, out, err = aws('describe-instance-information')
		assert code == 0, err
		assert [i['InstanceId'] for i in json.loads(out)['InstanceInformationList']] == [TARGET], out
		# A token of temporary credentials is a signed header more.
		code, out, err = aws('describe-sessions', '--state', 'Active', AWS_SESSION_TOKEN='a/token+=')
		assert code == 0, err
		code, out, err = aws('terminate-session', '--session-id', 'ops-nothing')
		assert code != 0
		code, out, err = aws('describe-instance-information', secret='wrong')
		assert code != 0 and b'InvalidSignatureException' in err, err
		code, out, err = aws('describe-instance-information', key='AKIDNOBODY')
		assert code != 0 and b'UnrecognizedClientException' in err, err
