"""What a session was granted when it started (its streams may say where they go, the agent may listen for it) is in its record: a gateway that
was killed knows it, and holds it against the rights that users have by then."""
import signal

from harness import World, until
from run import test
from services import MIB, Server, blob, connect, echo, ping, upload
from test_proxy import socks5
from test_reverse import bound, port_of, reverse


class Grants(World):
	def build(self):
		self.rights = {'ops': {'reverse': True}}
		self.blob, self.echo = Server(blob), Server(echo)
		self.g = self.gateway()
		self.a = self.agent(reverse='127.0.0.1:*')
		self.f = self.forwarder({**reverse(self.blob.port, '127.0.0.1:0'), 'p': {'type': 'proxy'}, 't': {'port': self.echo.port}})
		bound_at = until(lambda: self.tunnel('r').get('bound'), 20, 'the agent listens')
		self.c = [connect(port_of(bound_at)), socks5(self.f.ports['p'], 'localhost', self.echo.port)[0], connect(self.f.ports['t'])]
		self.use()
		return self

	def tunnel(self, name):
		return [t for t in self.status(self.f)[0]['forwarder']['tunnels'] if t['name'] == name][0]

	def use(self):
		upload(self.c[0], MIB), ping(self.c[1]), ping(self.c[2])

	def ids(self):
		sessions = {n: self.tunnel(n)['sessions'] for n in 'rpt'}
		return {n: v[0]['id'] for n, v in sessions.items() if v}

	def narrow(self, **rights):
		self.rights = {'ops': rights}
		self.write_gateway()
		mark = self.g.mark()
		self.g.signal(signal.SIGHUP)
		return mark

	def ended(self, n, since=0):
		self.g.wait_log('session=%s .*Access to this session was removed' % self.was[n], since=since)


@test('grants: after kill -9 of the gateway all goes on, and a reload that takes a right away still ends what had it', 90, short=True)
def restarted():
	with Grants() as w:
		w.build()
		w.was = w.ids()
		w.g.kill9()
		w.g = w.gateway()
		w.use()
		assert w.ids() == w.was
		mark = w.narrow(reverse=True, hosts='localhost')
		w.ended('p', mark)
		upload(w.c[0], MIB), ping(w.c[2])
		assert w.ids()['r'] == w.was['r'] and w.ids()['t'] == w.was['t']
		mark = w.narrow(hosts='localhost')
		w.ended('r', mark), w.ended('t', mark)  # every session to a port may have the agent listen


@test('grants: rights that were taken away while no gateway ran end what had them as soon as one runs', 90)
def meanwhile():
	with Grants() as w:
		w.build()
		w.was = w.ids()
		w.g.kill9()
		w.rights = {'ops': {'reverse': True, 'hosts': 'localhost'}}
		w.g = w.gateway()
		w.ended('p')
		upload(w.c[0], MIB), ping(w.c[2])
		w.g.kill9()
		w.rights = {}
		w.g = w.gateway()  # p stays ended, though it could be permitted again
		w.ended('r'), w.ended('t')
		active = {s['SessionId'] for s in w.api().sessions()}
		assert not active & set(w.was.values()), (active, w.was)
