"""Programs that nobody here wrote, through the tunnel."""
import hashlib
import os
import pwd
import random
import shutil
import subprocess

from harness import Skip, World, clean_env, need, until
from peers import me, run, sshd
from run import test
from services import free_port


@test('curl against an HTTP server: files, ranges, 20 requests in parallel', 60)
def curl():
	need('curl', 'python3')
	with World() as w:
		port = free_port()
		os.mkdir(w.path('www'))
		data = random.Random(5).randbytes(3000000)
		open(w.path('www/file'), 'wb').write(data)
		w.proc('http', ['python3', '-u', '-m', 'http.server', str(port), '--bind', '127.0.0.1'], cwd=w.path('www')).wait_log('Serving')
		_, _, f = w.standard(port)
		url = 'http://127.0.0.1:%d/file' % f.ports['t']
		assert run(['curl', '-sf', '--max-time', '40', url], w) == data
		run(['curl', '-sf', '--max-time', '40', '--parallel'] + sum((['-o', 'out%d' % i, url] for i in range(20)), []), w)
		for i in range(20):
			assert open(w.path('out%d' % i), 'rb').read() == data, i


@test('redis-cli and redis-benchmark against a private Redis', 90)
def redis():
	need('redis-server', 'redis-cli', 'redis-benchmark')
	with World() as w:
		port = free_port()
		w.proc('redis', ['redis-server', '--port', str(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', w.dir]).wait_log(
			'Ready to accept|ready to accept')
		_, _, f = w.standard(port)
		cli = ['redis-cli', '-p', str(f.ports['t'])]
		assert run(cli + ['ping'], w).strip() == b'PONG'
		value = 'v' * 100000
		run(cli + ['-x', 'set', 'k'], w, input=value.encode())
		assert run(cli + ['--raw', 'get', 'k'], w).decode().strip() == value
		out = run(['redis-benchmark', '-q', '-p', str(f.ports['t']), '-n', '2000', '-c', '20', '-t', 'set,get,lrange_100'], w).decode()
		rates = [line.strip() for line in out.replace('\r', '\n').split('\n') if 'requests per second' in line]
		assert len(rates) >= 3, out
		print('note: ' + ', '.join(r.split(',')[0] for r in rates[:3]))


def postgres_bin():
	if shutil.which('initdb') and shutil.which('postgres'):
		return os.path.dirname(os.path.realpath(shutil.which('initdb')))
	base = '/usr/lib/postgresql'
	for v in sorted(os.listdir(base) if os.path.isdir(base) else [], reverse=True):
		if os.path.exists('%s/%s/bin/initdb' % (base, v)):
			return '%s/%s/bin' % (base, v)
	raise Skip('PostgreSQL server is not installed')


@test('psql against a private PostgreSQL: queries, COPY both ways, large values', 120)
def postgres():
	need('psql')
	binary = postgres_bin()
	for name in ('initdb', 'postgres'):
		if not os.path.exists(os.path.join(binary, name)):
			base = '/usr/lib/postgresql'
			binary = '%s/%s/bin' % (base, sorted(os.listdir(base))[-1])
	user = 'postgres' if os.getuid() == 0 else None
	with World() as w:
		data = w.path('pg')
		os.mkdir(data, 0o700)
		prefix = []
		if user:
			try:
				p = pwd.getpwnam(user)
			except KeyError:
				raise Skip('no user postgres')
			os.chown(data, p.pw_uid, p.pw_gid)
			prefix = ['setpriv', '--reuid', str(p.pw_uid), '--regid', str(p.pw_gid), '--clear-groups']
		run(prefix + [binary + '/initdb', '-D', data, '-A', 'trust', '-U', 'tester', '--no-sync', '-E', 'UTF8', '--locale', 'C'], w, cwd='/')
		port = free_port()
		server = w.proc('postgres', prefix + [binary + '/postgres', '-D', data, '-p', str(port), '-k', data, '-h', '127.0.0.1', '-F'])
		server.wait_log('ready to accept connections', 30)
		_, _, f = w.standard(port)
		psql = ['psql', '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-h', '127.0.0.1', '-p', str(f.ports['t']), '-U', 'tester', '-d', 'postgres']
		assert run(psql + ['-c', 'select 6*7'], w).strip() == b'42'
		lines = b''.join(b'%d\t%s\n' % (i, hashlib.sha256(b'%d' % i).hexdigest().encode() * 4) for i in range(20000))
		run(psql + ['-c', 'create table t(i int, s text)', '-c', '\\copy t from pstdin'], w, input=lines)
		assert run(psql + ['-c', '\\copy (select * from t order by i) to pstdout'], w) == lines
		assert run(psql + ['-c', "select length(repeat('x', 20000000))"], w).strip() == b'20000000'
		big = run(psql + ['-c', "select repeat('0123456789', 1000000)"], w)
		assert big == b'0123456789' * 1000000 + b'\n', len(big)
		server.expect_exit = {0, 1, None}


@test('OpenSSH over the forwarded port: ssh, scp, sftp, rsync, git', 120)
def openssh():
	with World() as w:
		port, opts = sshd(w)
		_, _, f = w.standard(port)
		p = str(f.ports['t'])
		host = me() + '@127.0.0.1'
		ssh = ['ssh'] + opts + ['-p', p]
		assert run(ssh + [host, 'echo hello; exit 7'], w, ok=(7,)).strip() == b'hello'
		data = random.Random(9).randbytes(4000000)
		open(w.path('src'), 'wb').write(data)
		assert run(ssh + [host, 'cat'], w, input=data) == data
		run(['scp'] + opts + ['-P', p, w.path('src'), host + ':' + w.path('scp_up')], w)
		run(['scp'] + opts + ['-P', p, host + ':' + w.path('src'), w.path('scp_down')], w)
		run(['sftp'] + opts + ['-P', p, '-b', '-', host], w, input=('put %s %s\nget %s %s\n' % (w.path('src'), w.path('sftp_up'), w.path('src'),
			w.path('sftp_down'))).encode())
		for name in ('scp_up', 'scp_down', 'sftp_up', 'sftp_down'):
			assert open(w.path(name), 'rb').read() == data, name
		if shutil.which('rsync'):
			run(['rsync', '-a', '-e', ' '.join(ssh), w.path('src'), host + ':' + w.path('rsync_up')], w)
			assert open(w.path('rsync_up'), 'rb').read() == data
		if shutil.which('git'):
			env = clean_env(GIT_SSH_COMMAND=' '.join(['ssh'] + opts), GIT_CONFIG_NOSYSTEM='1', HOME=w.dir)
			git = ['git', '-c', 'user.name=t', '-c', 'user.email=t@example.com']
			run(['git', 'init', '-q', 'repo'], w, env=env)
			shutil.copy(w.path('src'), w.path('repo/f'))
			run(git + ['add', 'f'], w, env=env, cwd=w.path('repo'))
			run(git + ['commit', '-q', '-m', 'x'], w, env=env, cwd=w.path('repo'))
			run(['git', 'clone', '-q', 'ssh://%s:%s%s' % (host, p, w.path('repo')), 'cloned'], w, env=env)
			assert open(w.path('cloned/f'), 'rb').read() == data


@test('the aws command: describe, start errors, describe-sessions, terminate', 120)
def aws_cli():
	aws = '/usr/bin/aws' if os.path.exists('/usr/bin/aws') else shutil.which('aws')
	if not aws:
		raise Skip('the aws command is not installed')
	import json
	from harness import REGION, TARGET, USER_KEY, USER_SECRET
	with World() as w:
		w.gateway()
		w.agent()
		env = clean_env(AWS_ACCESS_KEY_ID=USER_KEY, AWS_SECRET_ACCESS_KEY=USER_SECRET, AWS_DEFAULT_REGION=REGION, AWS_CA_BUNDLE=w.path('ca.pem'),
			HOME=w.dir, AWS_MAX_ATTEMPTS='1', AWS_PAGER='', AWS_EC2_METADATA_DISABLED='true')

		def call(*argv, fail=None):
			r = subprocess.run([aws, 'ssm'] + list(argv) + ['--endpoint-url', w.url, '--output', 'json'], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
				env=env, timeout=60)
			text = r.stderr.decode()
			if fail:
				assert r.returncode != 0 and fail in text, (argv, r.returncode, text)
				return None
			assert r.returncode == 0, (argv, text)
			return json.loads(r.stdout or b'{}')

		info = call('describe-instance-information')['InstanceInformationList']
		assert [i['InstanceId'] for i in info] == [TARGET] and info[0]['PingStatus'] == 'Online', info
		assert call('describe-sessions', '--state', 'Active')['Sessions'] == []
		call('start-session', '--target', 'i-00000000000000bad', fail='TargetNotConnected')
		call('start-session', '--target', TARGET, '--document-name', 'No-SuchDocument', fail='InvalidDocument')
		call('start-session', '--target', TARGET, '--document-name', 'AWS-StartPortForwardingSession', '--parameters', 'nosuch=1', fail='InvalidParameters')
		call('terminate-session', '--session-id', 'nobody-0123456789abcdef0', fail='DoesNotExistException')
		status, out = w.api().start(TARGET, 80)
		assert status == 200, out
		listed = call('describe-sessions', '--state', 'Active')['Sessions']
		assert [s['SessionId'] for s in listed] == [out['SessionId']], listed
		assert call('resume-session', '--session-id', out['SessionId'])['TokenValue']
		assert call('terminate-session', '--session-id', out['SessionId'])['SessionId'] == out['SessionId']
		assert call('describe-sessions', '--state', 'Active')['Sessions'] == []
		hist = call('describe-sessions', '--state', 'History')['Sessions']
		assert out['SessionId'] in [s['SessionId'] for s in hist], hist
		env['AWS_SECRET_ACCESS_KEY'] = 'wrong'
		call('describe-instance-information', fail='Signature')
