"""The gateway behind balancers that say in a PROXY header for whom they connect: limits, logs and the audit log have that
address; from anybody else a header is refused."""
import json
import socket
import ssl
import struct

from harness import SLOW, TARGET, World, until
from run import test
from services import Server, connect, echo, ping
from wire import read_head, status_of

BALANCER = '127.0.0.2'  # where the tests' balancer connects from
SIGNATURE = b'\r\n\r\n\0\r\nQUIT\n'
ASK = b'POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSSM.DescribeSessions\r\nContent-Length: 2\r\n\r\n{}'


def v1(address, port):
	return b'PROXY TCP%d %s %s %d 443\r\n' % (6 if ':' in address else 4, address.encode(), b'::1' if ':' in address else b'127.0.0.1', port)


def v2(address, port, command=1, tlv=b''):
	six = ':' in address
	family = socket.AF_INET6 if six else socket.AF_INET
	body = socket.inet_pton(family, address) + socket.inet_pton(family, '::1' if six else '127.0.0.1') + struct.pack('>HH', port, 443) + tlv
	return SIGNATURE + struct.pack('>BBH', 0x20 | command, 0x21 if six else 0x11, len(body)) + body


def raw(w, header, source=BALANCER, slowly=False):
	"""A TLS connection from `source` with these bytes in front of it."""
	s = socket.create_connection(('127.0.0.1', w.gw_port), 10 * SLOW, source_address=(source, 0))
	s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
	for part in ([bytes([b]) for b in header] if slowly else [header]):
		s.sendall(part)
	return ssl.create_default_context(cafile=w.path('ca.pem')).wrap_socket(s, server_hostname='127.0.0.1')


def ask(s):
	"""The status of a call that nobody signed."""
	s.sendall(ASK)
	return status_of(read_head(s)[0])


def dropped(w, header, source=BALANCER):
	try:
		raw(w, header, source).close()
	except (ssl.SSLError, ConnectionError):
		return True
	return False


@test('PROXY header: from a balancer it names who is refused, in log and audit log; LOCAL, UNKNOWN and pieces are taken', 60, short=True)
def named():
	with World() as w:
		g = w.gateway(proxy_protocol=BALANCER + '/32, 192.0.2.0/24', audit_log='audit')
		for header, who in ((v1('198.51.100.7', 4711), '198.51.100.7:4711'), (v2('198.51.100.8', 4712), '198.51.100.8:4712'),
				(v2('2001:db8::9', 4713, tlv=b'\x04\0\x02ab'), '[2001:db8::9]:4713'), (v1('2001:db8::a', 4714), '[2001:db8::a]:4714'),
				(v1('::ffff:198.51.100.13', 4716), '198.51.100.13:4716'), (v2('198.51.100.11', 1, command=0), BALANCER), (b'PROXY UNKNOWN\r\n', BALANCER)):
			mark = g.mark()
			s = raw(w, header)
			assert ask(s) in (400, 403), header
			s.close()
			shown = '"?' + who.replace('.', '\\.').replace('[', '\\[').replace(']', '\\]')
			g.wait_log('request refused .*peer=' + shown, since=mark)
			until(lambda: any(json.loads(line).get('peer', '').startswith(who) for line in open(w.path('audit'))), 10, 'audit line with ' + who)
		s = raw(w, v2('198.51.100.12', 4715), slowly=True)
		assert ask(s) in (400, 403)
		s.close()


@test('PROXY header: limits by address count whom the balancer names, not the balancer', 60, short=True)
def counted():
	with World() as w:
		g = w.gateway(proxy_protocol=BALANCER, per_peer_connections=3)
		held = [raw(w, v2('198.51.100.%d' % i, 1000)) for i in range(1, 9)]
		assert [ask(s) for s in held] == [ask(held[0])] * 8
		held += [raw(w, v2('203.0.113.5', 1000 + i)) for i in range(3)]
		for s in held[-3:]:
			ask(s)
		mark = g.mark()
		assert dropped(w, v2('203.0.113.5', 2000)), 'a fourth connection of one address was served'
		g.wait_log('refused peer=203\\.0\\.113\\.5:2000 status=503', since=mark)
		raw(w, v2('203.0.113.6', 2000)).close()
		for s in held:
			s.close()
		until(lambda: not dropped(w, v2('203.0.113.5', 3000)), 10, 'the address is served again')


@test('PROXY header: refused from elsewhere and when it is malformed or missing, one line each, others are served', 60, short=True)
def refused():
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port, gateway={'proxy_protocol': BALANCER})  # agent and forwarder come by themselves
		c = connect(f.ports['t'])
		ping(c)
		for header in (v1('198.51.100.7', 4711), v2('198.51.100.8', 4712)):
			mark = g.mark()
			assert dropped(w, header, source='127.0.0.3')
			g.wait_log('refused peer=127\\.0\\.0\\.3:\\d+ status=400 field="PROXY header: from an address that is not in proxy_protocol"', since=mark)
		for header, fault in ((b'', 'missing'), (b'PROXY TCP4 198.51.100.7 127.0.0.1 99999 1\r\n', 'malformed'), (SIGNATURE + b'\x31\x11\0\x0c' + 12 * b'x', 'malformed')):
			mark = g.mark()
			assert dropped(w, header)
			g.wait_log('refused peer=127\\.0\\.0\\.2:\\d+ status=400 field="PROXY header: %s, from an address that is in proxy_protocol"' % fault, since=mark)
		mark = g.mark()
		for _ in range(60):
			assert dropped(w, v1('198.51.100.7', 4711), source='127.0.0.4')
		assert g.count('refused peer=127\\.0\\.0\\.4', since=mark) <= 25, 'the lines are not folded'
		ping(c)
		c.close()
