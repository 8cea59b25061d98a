"""The forwarder with an agent that is not ours (stockagent.py)."""
import time

from harness import SLOW, World, until
from run import test
from services import connect, ping, read_exact
from stockagent import StockAgent


def forwarder(w, **tunnel):
	w.gateway()
	a = StockAgent(w)
	f = w.forwarder({'t': dict({'port': 1, 'reconnect_min': '20ms', 'reconnect_max': '200ms'}, **tunnel)})
	return a, f


@test('stock agent: connections that only wait for their FIN to go count neither for max_connections nor as load', 60)
def held_back():
	with World() as w:
		a, f = forwarder(w, max_connections=4)
		began = time.monotonic()
		for i in range(40):  # 4 each 2 s, if they counted until the FIN has gone
			with connect(f.ports['t']) as c:
				ping(c)
		assert time.monotonic() - began < 8 * SLOW, time.monotonic() - began
		with connect(f.ports['t']) as c:  # half of it is closed, and the answer still comes
			c.sendall(b'last')
			c.shutdown(1)
			assert read_exact(c, 4) == b'last'
		until(lambda: not sum(t['connections'] for t in w.status(f)[0]['forwarder']['tunnels']), 10, 'every FIN has gone')
		assert f.count('listener paused') <= 40


@test('stock agent: a probe that nothing refuses succeeds, and says that it is not certain', 60)
def probe():
	with World() as w:
		a, f = forwarder(w, probe='1s')
		until(lambda: w.status(f)[0]['forwarder']['tunnels'][0]['probe']['result'] == 'ok', 15, 'a result')
		p = w.status(f)[0]['forwarder']['tunnels'][0]['probe']
		assert not p['certain'] and p['took_ms'] >= 4900, p
		until(lambda: w.status(f)[0]['forwarder']['tunnels'][0]['state'] == 'idle', 15, 'its session has ended')


@test('stock agent: a gateway that restarts costs only the connections with bytes on their way at that time', 60)
def restart():
	with World() as w:
		a, f = forwarder(w)
		cs = {n: connect(f.ports['t']) for n in ('flying', 'since', 'quiet')}
		for c in cs.values():
			ping(c)
		a.acking = False
		cs['flying'].sendall(b'on its way')
		time.sleep(0.3)  # nothing tells that it has been written to the link
		w.procs[0].kill9()
		f.wait_log('data channel lost')
		cs['since'].sendall(b'written since')
		a.acking = True
		w.gateway()
		until(lambda: not a.back(), 1, 'the agent is back')
		assert read_exact(cs['since'], 13) == b'written since'
		ping(cs['quiet'])
		ping(cs['since'])
		try:
			assert cs['flying'].recv(100) == b'', 'in doubt, and not reset'
		except ConnectionResetError:
			pass
		assert a.taken < 1000, a.taken
