#!/usr/bin/env python3
"""How long `tunneld connect` takes from its start to the first byte back, by itself and served by a running daemon:
usage: one_shot.py [ROUNDS].  Gateway, agent, daemon and an echo service on loopback; the first one of each is left out."""
import os
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../e2e'))
from harness import BIN, REGION, TARGET, USER_KEY, USER_SECRET, World, clean_env, ini
from services import Server, echo


def once(w, conf, name):
	began = time.monotonic()
	p = subprocess.Popen([BIN, 'connect', '-c', conf, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_env(), cwd=w.dir)
	p.stdin.write(b'x')
	p.stdin.flush()
	assert os.read(p.stdout.fileno(), 1) == b'x'
	took = time.monotonic() - began
	p.stdin.close()
	assert p.wait(20) == 0
	return took * 1000


def main():
	rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
	e = Server(echo)
	with World() as w:
		w.gateway()
		w.agent()
		aws = {'region': REGION, 'ssm_endpoint': w.url, 'ca_file': 'ca.pem', 'access_key_id': USER_KEY, 'secret_access_key': USER_SECRET}
		alias = {'target': TARGET, 'port': e.port}
		conf = ini(w.path('one.ini'), [('tunneld', {'state_dir': w.path('state')}), ('aws', aws),
			('tunnel t', {'listen': '127.0.0.1:0', 'target': TARGET, 'port': e.port}), ('alias served', alias), ('alias alone', dict(alias, one_shot='no'))])
		w.proc('forwarder', [BIN, '-c', conf]).wait_note('READY=1')
		for name in ('alone', 'served'):
			took = sorted([once(w, conf, name) for _ in range(rounds + 1)][1:])
			print('%-7s median %.1f ms, 9 of 10 within %.1f ms (%d rounds)' % (name, statistics.median(took), took[int(rounds * 0.9) - 1], rounds))


main()
