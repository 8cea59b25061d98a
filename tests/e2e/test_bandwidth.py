"""bandwidth of a tunnel: the rate holds each way, connections get equal parts, nothing is lost, nobody else is held up."""
import threading
import time

from harness import World
from run import test
from services import Server, blob, connect, download, echo, ping, read_exact, request, upload
from stockagent import StockAgent

RATE = 1 << 20
BURST = RATE // 10 + 65536


def together(*jobs):
	faults = []

	def one(job):
		try:
			job()
		except BaseException as e:
			faults.append(e)

	threads = [threading.Thread(target=one, args=(j,), daemon=True) for j in jobs]
	for t in threads:
		t.start()
	for t in threads:
		t.join()
	if faults:
		raise faults[0]


@test('bandwidth: what connections move together, each way for itself, takes its time, and arrives whole over a cut', 90)
def holds():
	with World() as w:
		s = Server(blob)
		g, a, f = w.standard(s.port, bandwidth='1M')
		socks = [connect(f.ports['t'], 60) for _ in range(4)]
		t0 = time.monotonic()
		cut = threading.Timer(0.7, g.kill9)
		cut.start()
		back = threading.Timer(1.2, w.gateway)
		back.start()
		together(lambda: upload(socks[0], 1500000), lambda: upload(socks[1], 1500000, 5), lambda: download(socks[2], 1500000, 6),
			lambda: download(socks[3], 1500000, 7))
		took = time.monotonic() - t0
		back.join()
		assert took * RATE >= 3000000 - BURST, took
		for c in socks:
			c.close()


@test('bandwidth: connections get equal parts, one with little to say goes before them, and another tunnel of the session is free', 90)
def fair():
	with World() as w:
		bulk, small = Server(blob), Server(echo)
		w.gateway()
		w.agent()
		f = w.forwarder({'slow': {'port': bulk.port, 'bandwidth': '1M'}, 'echo': {'port': small.port, 'bandwidth': '20K'},
			'free': {'port': bulk.port}})
		got, stop = [0] * 4, threading.Event()

		def reader(i):
			with connect(f.ports['slow'], 60) as c:
				c.sendall(request(b'D', 1 << 30, i))
				while not stop.is_set():
					got[i] += len(c.recv(16384))

		threads = [threading.Thread(target=reader, args=(i,), daemon=True) for i in range(4)]
		for t in threads:
			t.start()
		with connect(f.ports['free'], 60) as c:
			download(c, 20000000)
		time.sleep(2)
		before = list(got)
		time.sleep(3)
		parts = [b - a for a, b in zip(before, got)]
		stop.set()
		for t in threads:
			t.join()
		assert min(parts) * 2 > max(parts), parts
		assert sum(parts) <= RATE * 4, parts
		with connect(f.ports['echo'], 60) as flood, connect(f.ports['echo'], 60) as c:
			flood.setblocking(False)
			try:
				while True:
					flood.send(b'x' * 65536)
			except BlockingIOError:
				pass
			assert sum(ping(c) for _ in range(5)) < 20  # behind the flood, it would be a minute and more


@test('bandwidth: through a stock agent the rate holds, and every byte arrives', 60)
def stock():
	with World() as w:
		w.gateway()
		StockAgent(w)
		f = w.forwarder({'t': {'port': 1, 'bandwidth': '200K'}})
		with connect(f.ports['t'], 60) as c:
			t0, data = time.monotonic(), bytes(range(256)) * 2000
			together(lambda: c.sendall(data), lambda: check(c, data))
			assert (time.monotonic() - t0) * 204800 >= len(data) - 204800 // 10 - 65536


def check(c, data):
	assert read_exact(c, len(data)) == data
