"""Reverse tunnels: each of the two who have to allow it suffices to refuse it, and nobody gets what is another's."""
import os

from harness import AGENT_KEY, AGENT_SECRET, BIN, TARGET, USER_KEY, USER_SECRET, until
from run import test
from services import Server, blob, connect, free_port, upload
from test_reverse import ReverseWorld, bound, port_of, reverse

DEV_KEY, DEV_SECRET = 'AKIATESTUSER00000002', 'plantedDevSecretQ4hTn8'


def fails(w, f, why, name='r'):
	until(lambda: of(w, f, name)['state'] == 'failed', 20, 'it has failed')
	assert why in of(w, f, name)['last_error'], of(w, f, name)


def of(w, f, name):
	return [t for t in w.status(f)[0]['forwarder']['tunnels'] if t['name'] == name][0]


@test('reverse: refused by the gateway alone, and by the agent alone', 60)
def each_alone():
	for allowed, may, why in (('127.0.0.1:*', False, 'gateway does not allow them to this user'), (None, True, 'agent')):
		with ReverseWorld() as w:
			s = Server(blob)
			w.build(allowed=allowed, may=may)
			f = w.reverse(s.port)
			fails(w, f, why)
			assert 'listening listen=' not in '\n'.join(w.a.lines)


@test('reverse: another user does not take a listener over, though its client says it is the same one', 60)
def other_user():
	with ReverseWorld() as w:
		s, other = Server(blob), Server(blob)
		w.keys = {'users': {'ops': (USER_KEY, USER_SECRET, 'i-*'), 'dev': (DEV_KEY, DEV_SECRET, 'i-*')}, 'instances': {TARGET: (AGENT_KEY, AGENT_SECRET)}}
		w.rights = {'ops': {'reverse': True}, 'dev': {'reverse': True}}
		w.g = w.gateway()
		w.a = w.agent(reverse='127.0.0.1:*')
		port = free_port()
		f = w.reverse(s.port, '127.0.0.1:%d' % port)
		assert port_of(bound(w, f)) == port
		# the same file, by which the client is known, with the keys of somebody else
		conf = w.write_forwarder(reverse(other.port, '127.0.0.1:%d' % port), aws={'access_key_id': DEV_KEY, 'secret_access_key': DEV_SECRET}, state_dir=w.path('state-dev'))
		g = w.proc('forwarder-dev', [BIN, '-c', conf])
		g.wait_log('cannot open tunnel=r .*another session listens there', 20)
		assert w.a.count('listener taken over') == 0
		with connect(port) as c:
			upload(c, 1000)
		assert s.accepted == 1 and other.accepted == 0
		g.stop()
		w.write_forwarder(reverse(s.port, '127.0.0.1:%d' % port))
		# the control: the same user does take it over
		h = w.proc('forwarder-ops', [BIN, '-c', w.write_forwarder(reverse(other.port, '127.0.0.1:%d' % port), state_dir=w.path('state-ops'))])
		h.wait_log('the agent listens', 20)
		w.a.wait_log('listener taken over listen=127.0.0.1:%d' % port)
		with connect(port) as c:
			upload(c, 1000)
		assert other.accepted == 1


@test('reverse: an address twice is refused to the second; a socket that a killed agent left is taken anew, a file is not', 60)
def left_over():
	with ReverseWorld() as w:
		s, port = Server(blob), free_port()
		there = w.path('there.sock')
		w.build(allowed='127.0.0.1:%d, unix:%s/*' % (port, w.dir))
		common = {'listen': None, 'type': 'reverse', 'connect': '127.0.0.1:%d' % s.port}
		f = w.forwarder({'a': dict(common, bind='127.0.0.1:%d' % port)}, name='forwarder-a')
		until(lambda: of(w, f, 'a')['state'] == 'up', 20, 'the first has it')
		g = w.forwarder({'b': dict(common, bind='127.0.0.1:%d' % port)}, name='forwarder-b')
		fails(w, g, 'another session listens there', 'b')
		with connect(port) as c:
			upload(c, 1000)
		g.stop(), f.stop()
		f = w.reverse(s.port, 'unix:' + there)
		assert bound(w, f) == 'unix:' + there
		mark = f.mark()
		w.a.kill9()
		assert os.path.exists(there)
		w.a = w.agent(reverse='unix:%s/*' % w.dir)
		f.wait_log('the agent listens', since=mark, timeout=30)
		with connect(there) as c:
			upload(c, 1000)
		f.stop()
		until(lambda: not os.path.exists(there), 10, 'the socket is gone')
		with open(there, 'w') as plain:
			plain.write('mine')
		f = w.reverse(s.port, 'unix:' + there, name='forwarder-file')
		fails(w, f, 'there.sock')
		assert open(there).read() == 'mine'
