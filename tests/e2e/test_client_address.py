"""send_proxy: what programs that nobody here wrote read of the PROXY header, and what of the connection behind it."""
import os
import socket
import subprocess

from harness import BIN, SLOW, World, clean_env, need, until
from run import test
from services import Server, blob, connect, download, free_port, read_all, read_exact, upload
from stockagent import StockAgent

ASK = b'GET / HTTP/1.0\r\n\r\n'


def answer(address, source=None):
	"""What the service says of a connection to address, and that connection's own two ends."""
	if isinstance(address, str):
		s, ends = connect(address), None
	else:
		s = socket.create_connection(address, 20, source_address=source)
		ends = '%s %d %s %d' % (s.getsockname()[:2] + s.getpeername()[:2])
	with s:
		s.sendall(ASK)
		got = read_all(s).decode()
	assert ' 200 ' in got.split('\r\n')[0], got
	return got.split('\r\n\r\n')[1].strip(), ends


def nginx(w):
	need('nginx')
	port = free_port()
	temp = ''.join('%s_temp_path %s/%s;' % (k, w.dir, k) for k in ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'))
	with open(w.path('nginx.conf'), 'w') as f:
		f.write('daemon off; master_process off; pid %s/nginx.pid; error_log stderr info; events {}\n'
			'http { access_log off; %s server { listen 127.0.0.1:%d proxy_protocol; location / { return 200 '
			'"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port"; } } }\n' % (w.dir, temp, port))
	w.proc('nginx', ['nginx', '-e', 'stderr', '-c', w.path('nginx.conf')])
	until(lambda: socket.socket().connect_ex(('127.0.0.1', port)) == 0, 10, 'nginx listens')
	return port


def haproxy(w):
	need('haproxy')
	port = free_port()
	with open(w.path('haproxy.cfg'), 'w') as f:
		f.write('defaults\n mode http\n timeout client 20s\n timeout connect 20s\n timeout server 20s\nfrontend f\n bind 127.0.0.1:%d accept-proxy\n'
			' http-request return status 200 content-type text/plain lf-string "%%[src] %%[src_port] %%[dst] %%[dst_port]"\n' % port)
	p = w.proc('haproxy', ['haproxy', '-db', '-f', w.path('haproxy.cfg')])
	p.expect_exit = {0, 143}
	until(lambda: socket.socket().connect_ex(('127.0.0.1', port)) == 0, 10, 'haproxy listens')
	return port


@test('send_proxy: nginx and HAProxy read the address of who connected, in both versions and families', 60)
def addresses():
	with World() as w:
		services = {'nginx': nginx(w), 'haproxy': haproxy(w)}
		w.gateway()
		w.agent()
		tunnels = {n + v: {'port': p, 'send_proxy': v, 'listen': '127.0.0.1:0'} for n, p in services.items() for v in ('v1', 'v2')}
		tunnels.update({'six' + v: {'port': services['nginx'], 'send_proxy': v, 'listen': '[::1]:0'} for v in ('v1', 'v2')})
		f = w.forwarder(tunnels)
		for n in tunnels:
			where = f.ports[n] if n.startswith('six') else ('127.0.0.1', f.ports[n])
			said, ends = answer(where)
			assert said == ends, (n, said, ends)
		said, ends = answer(('127.0.0.1', f.ports['nginxv2']), ('127.0.0.7', 0))
		assert said == ends and said.startswith('127.0.0.7 '), (said, ends)


@test('send_proxy: who comes through a Unix socket is UNKNOWN, or LOCAL; what follows the header is whole', 60)
def unix():
	with World() as w:
		port, heads = nginx(w), []

		def service(sock):
			heads.append(read_exact(sock, 15 if len(heads) == 0 else 16))
			blob(sock)

		s = Server(service)
		w.gateway()
		w.agent()
		f = w.forwarder({v: {'port': port, 'send_proxy': v, 'listen': 'unix:%s/%s' % (w.dir, v)} for v in ('v1', 'v2')} |
			{'b' + v: {'port': s.port, 'send_proxy': v, 'listen': 'unix:%s/b%s' % (w.dir, v)} for v in ('v1', 'v2')})
		for v in ('v1', 'v2'):
			assert answer(w.path(v))[0] == '', v
			with connect(w.path('b' + v)) as c:
				upload(c, 3000000)
				download(c, 3000000)
		assert heads == [b'PROXY UNKNOWN\r\n', b'\r\n\r\n\0\r\nQUIT\n\x20\0\0\0'], heads


@test('send_proxy: a service that speaks first has the header before the client has sent a byte; also through a stock agent', 60)
def server_first():
	with World() as w:
		def service(sock):
			line = b''
			while not line.endswith(b'\r\n'):
				line += read_exact(sock, 1)
			sock.sendall(b'hello ' + line)
			sock.sendall(read_all(sock))

		s = Server(service)
		g, a, f = w.standard(s.port, send_proxy='v1')
		with connect(f.ports['t']) as c:
			line = b'hello PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n' % (c.getsockname()[1], f.ports['t'])
			assert read_exact(c, len(line)) == line
			c.sendall(b'x' * 100000)
			c.shutdown(socket.SHUT_WR)
			assert read_all(c) == b'x' * 100000
		assert sum(t['bytes_in'] for t in w.status(f)[0]['forwarder']['tunnels']) == 100000  # the header is not the client's
		a.stop()
		StockAgent(w)
		other = w.forwarder({'s': {'port': 1, 'send_proxy': 'v1'}}, name='forwarder-s')
		with connect(other.ports['s']) as c:
			line = b'PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n' % (c.getsockname()[1], other.ports['s'])
			assert read_exact(c, len(line)) == line  # it echoes


@test('send_proxy: connect by itself and beside a daemon, and a probe, come for nobody: LOCAL, or UNKNOWN', 60)
def commands():
	empty = {'v1': b'PROXY UNKNOWN\r\n', 'v2': b'\r\n\r\n\0\r\nQUIT\n\x20\0\0\0'}
	for v, head in empty.items():
		with World() as w:
			heads = []

			def service(sock):
				heads.append(read_exact(sock, len(head)))
				sock.sendall(read_all(sock))

			s, plain = Server(service), Server(lambda sock: sock.sendall(read_all(sock)))
			w.gateway()
			w.agent()
			conf = w.write_forwarder({'t': {'port': s.port, 'send_proxy': v}})

			def connects(*words):
				r = subprocess.run([BIN, 'connect', '-v', '-c', conf, *words], input=b'x' * 100000, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(),
					timeout=40 * SLOW, cwd=w.dir)
				assert r.returncode == 0 and r.stdout == b'x' * 100000, (words, r.returncode, len(r.stdout), r.stderr)
				return b'served by the daemon' in r.stderr

			assert not connects('t')
			connects('t', str(plain.port))  # another service of the target
			f = w.proc('forwarder', [BIN, '-c', conf])
			f.wait_note('READY=1')
			assert connects('t')
			assert heads == [head] * 2, heads
			w.write_forwarder({'t': {'port': s.port, 'send_proxy': v, 'probe': '1s'}})
			f.signal(1)
			until(lambda: w.status(f)[0]['forwarder']['tunnels'][0].get('probe', {}).get('result') == 'ok', 15, 'the probe')
			until(lambda: heads == [head] * 3, 10, 'its header: %r' % heads)


@test('send_proxy: who comes over IPv4 to a socket of both families is told as IPv4', 60)
def mapped():
	def service(sock):
		line = b''
		while not line.endswith(b'\r\n'):
			line += read_exact(sock, 1)
		sock.sendall(line)

	with World() as w, socket.socket(socket.AF_INET6) as both:
		s = Server(service)
		w.gateway()
		w.agent()
		both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
		both.bind(('::', 0))
		both.listen()
		port = both.getsockname()[1]
		conf = w.write_forwarder({'t': {'port': s.port, 'send_proxy': 'v1', 'listen': 'fd:t'}})
		high = os.dup2(both.fileno(), 200, inheritable=True)
		f = w.proc('forwarder', [BIN, '-c', conf], pass_fds=[high],
			prefix=['bash', '-c', 'exec 3<&200 200<&-; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=t exec "$@"', 'sh'])
		os.close(high)
		f.wait_note('READY=1')
		for host, family in (('127.0.0.1', b'TCP4'), ('::1', b'TCP6')):
			with connect((host, port)) as c:
				want = b'PROXY %s %s %s %d %d\r\n' % (family, host.encode(), host.encode(), c.getsockname()[1], port)
				assert read_exact(c, len(want)) == want
