"""contrib/haproxy.cfg and contrib/nginx.conf as they are: calls reach any node, both ends of a session the one in its id."""
import json
import re

from cluster import BALANCER, Cluster
from harness import until
from run import test
from services import MIB, Server, blob, connect, download, upload


def through(start, **gateway):
	"""The agent's control channel and the calls are at n2 alone, without the balancer, data channels come through it; -> the
	addresses that they are known by."""
	with Cluster() as w:
		s = Server(blob)
		w.start_nodes(audit_log='audit', **gateway)
		balancer = start(w)
		a = w.agent(port=w.port['n2'], wait=False)
		w.node['n2'].wait_log('instance connected')
		f = w.forwarder({'t': {'port': s.port}}, port=w.port['n2'])
		c = connect(f.ports['t'])
		upload(c, 3 * MIB)
		download(c, 3 * MIB)
		w.gw_port = w.port['n2']
		sid = w.api().sessions()[0]['SessionId']
		assert re.fullmatch(r'ops-n2-[0-9a-f]{17}', sid), sid
		for n in ('n1', 'n3'):
			assert not w.gateway_status(n)['counters']['links_opened'], n
		mark = w.node['n2'].mark()
		peers = [o['peer'] for o in w.audit() if o['event'] == 'link-open' and o['channel'] == 'data']
		assert len(peers) >= 2, peers
		balancer.stop()  # with it go the links that it carried
		until(lambda: w.api().sessions()[0]['Status'] == 'Disconnected', 10, 'the links went with the balancer')
		return peers


@test('haproxy.cfg: valid as it is; both ends of a session come to the node in its id, with their own addresses', 90, short=True)
def haproxy():
	for peer in through(lambda w: w.haproxy(), proxy_protocol=BALANCER):
		assert peer.startswith('127.0.0.1:'), peer


@test('nginx.conf: valid; both ends of a session come to the node in its id', 90)
def nginx():
	through(lambda w: w.nginx())
