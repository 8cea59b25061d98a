"""Keys that change while connections are open: at the gateway, at the forwarder, at the agent."""
import signal

from harness import AGENT_KEY, AGENT_SECRET, TARGET, USER_KEY, USER_SECRET, World, until
from run import test
from services import Server, connect, echo, ping

NEW_USER, NEW_AGENT = 'plantedRotatedUserH3k8', 'plantedRotatedAgentJ6m2'


def hup(p):
	p.notified.clear()
	mark = p.mark()
	p.signal(signal.SIGHUP)
	p.wait_note('READY=1')
	return mark


def restart(w, g):
	"""Every link breaks, the session records stay."""
	g.kill9()
	return w.gateway()


@test('rotation: new secrets at gateway, forwarder and agent; an open connection outlives the next break of its links', 90, short=True)
def secrets():
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port)
		c = connect(f.ports['t'])
		ping(c)
		session = list(w.api().sessions())
		w.keys = {'users': {'ops': (USER_KEY, NEW_USER, 'i-*')}, 'instances': {TARGET: (AGENT_KEY, NEW_AGENT)}}
		w.write_gateway()
		w.write_agent()
		w.write_forwarder({'t': {'port': s.port}}, aws={'secret_access_key': NEW_USER})
		hup(g), hup(a)
		mark = hup(f)
		ping(c)
		g = restart(w, g)
		ping(c)
		d = connect(f.ports['t'])
		ping(d)
		assert not f.count('listening', mark) and not f.count('tunnel closed', mark), 'a listener was touched'
		assert list(w.api(secret=NEW_USER).sessions()) == session
		c.close(), d.close()
		for p in (g, a, f):
			assert not p.count('planted'), 'a secret is in a log'


@test('rotation: a secret changed in the credentials file alone is found without a reload', 60)
def credentials_file():
	with World() as w:
		s = Server(echo)
		g = w.gateway()
		w.agent()
		path = w.path('credentials')

		def write(secret):
			with open(path, 'w') as out:
				out.write('[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' % (USER_KEY, secret))
		write(USER_SECRET)
		f = w.forwarder({'t': {'port': s.port}}, aws={'access_key_id': None, 'secret_access_key': None}, env={'AWS_SHARED_CREDENTIALS_FILE': path})
		c = connect(f.ports['t'])
		ping(c)
		w.keys['users']['ops'] = (USER_KEY, NEW_USER, 'i-*')
		write(NEW_USER)
		w.write_gateway()
		restart(w, g)
		ping(c)
		c.close()


@test('rotation: an agent that waits out its back-off tries at once when it is reloaded with the right key', 60)
def agent_waits():
	with World() as w:
		s = Server(echo)
		g, a, f = w.standard(s.port, agent={'reconnect_min': '50s', 'reconnect_max': '100s'})
		c = connect(f.ports['t'])
		ping(c)
		w.keys['instances'][TARGET] = (AGENT_KEY, NEW_AGENT)
		w.write_gateway()
		restart(w, g)
		w.write_agent(reconnect_min='100ms', reconnect_max='1s')
		hup(a)
		ping(c)  # 10 s at most, the back-off would have been a minute
		c.close()
		assert AGENT_SECRET != NEW_AGENT
		until(lambda: w.api().instances().get(TARGET, {}).get('PingStatus') == 'Online', 5, 'the control channel is back')
