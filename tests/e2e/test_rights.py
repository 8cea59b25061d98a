"""What a user may do beside reaching a target: documents, ports, hosts, and a client certificate that goes with the key."""
import os
import signal
import subprocess

from harness import AGENT_KEY, AGENT_SECRET, TARGET, USER_KEY, USER_SECRET, World, clean_env
from run import test
from services import Server, connect, echo, ping, refused, wait_reset


def add_lines(path, section, lines):
	with open(path) as f:
		text = f.read()
	assert '[%s]\n' % section in text
	with open(path, 'w') as f:
		f.write(text.replace('[%s]\n' % section, '[%s]\n%s' % (section, lines)))


def hup(p):
	p.notified.clear()
	p.signal(signal.SIGHUP)
	p.wait_note('READY=1')


@test('rights: documents, ports and hosts of a user; a reload that narrows them ends what is not allowed any more', 60, short=True)
def narrowed():
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port)
		c = connect(f.ports['t'])
		ping(c)
		api = w.api()
		add_lines(w.write_gateway(), 'user ops', 'ports = %d\nhosts = localhost, db.*\n' % s.port)
		hup(g)
		ping(c)
		for port, host, document, status in ((s.port, None, None, 200), (s.port + 1, None, None, 400), (s.port, 'db.x', None, 200),
				(s.port, 'web.x', None, 400), (22, None, 'SSM-SessionManagerRunShell', 400)):
			got, out = api.start(TARGET, port, host, document) if document is None else api.call('StartSession',
				{'Target': TARGET, 'DocumentName': document})
			assert got == status, (port, host, document, got, out)
			assert got == 200 or out['__type'] == 'AccessDeniedException', out
		add_lines(w.write_gateway(), 'user ops', 'ports = 1-1023\n')
		mark = g.mark()
		hup(g)
		g.wait_log('session ended .*Access to this session was removed', since=mark)
		assert wait_reset(c) in (True, False)
		c.close()


def client_certificate(w, name, issuer='ca'):
	"""A client's certificate, signed by the test authority -> file names."""
	run = lambda *argv: subprocess.run(('openssl',) + argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=clean_env(), cwd=w.dir)
	from harness import certificates
	key, pem = name + '.key', name + '.pem'
	run('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', key)
	os.chmod(w.path(key), 0o600)
	run('req', '-new', '-key', key, '-subj', '/CN=' + name, '-out', name + '.csr')
	run('x509', '-req', '-in', name + '.csr', '-CA', os.path.join(certificates(), 'ca.pem'), '-CAkey', os.path.join(certificates(), 'ca.key'),
		'-set_serial', str(1000 + len(name)), '-days', '2', '-out', pem)
	return {'client_certificate': pem, 'client_key': key}


@test('rights: a key that is bound to a client certificate is refused without it, and with that of somebody else', 60, short=True)
def certificate():
	with World() as w:
		s = Server(echo)
		mine, others, agents = client_certificate(w, 'ops.example'), client_certificate(w, 'dev.example'), client_certificate(w, 'agent.example')
		conf = w.write_gateway(client_ca='ca.pem')
		add_lines(conf, 'user ops', 'certificate_name = ops.example\n')
		add_lines(conf, 'instance ' + TARGET, 'certificate_name = agent.example\n')
		from harness import BIN
		g = w.proc('gateway', [BIN, 'gateway', '-c', conf])
		g.wait_note('READY=1')
		a = w.agent(wait=False, **others)
		g.wait_log('request refused.*client certificate')
		w.write_agent(**agents)
		hup(a)
		g.wait_log('instance connected')
		f = w.forwarder({'t': {'port': s.port}}, aws=others)
		try:
			assert refused(f.ports['t']), 'the certificate of somebody else was taken'
		except ConnectionResetError:
			pass
		f.wait_log('client certificate')
		w.write_forwarder({'t': {'port': s.port}}, aws=mine)
		hup(f)
		c = connect(f.ports['t'])
		ping(c)
		add_lines(w.write_gateway(client_ca='ca.pem'), 'user ops', 'certificate_name = other.example\n')
		mark = g.mark()
		hup(g)
		g.wait_log('link closed: its client certificate', since=mark)
		c.close()
		assert (AGENT_KEY, AGENT_SECRET) and (USER_KEY, USER_SECRET)
