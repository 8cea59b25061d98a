#!/usr/bin/env python3
"""The service of `make run`: HTTP on a free loopback port, which it prints.

GET /          a page that says so
GET /blob      SIZE random bytes (64 MiB)      GET /sum  their SHA-256
PUT /anything  answers with the SHA-256 of what it got"""
import hashlib
import http.server
import os
import socketserver
import sys

SIZE = int(os.environ.get('SIZE', 64 << 20))
BLOB = os.urandom(SIZE)
SUM = hashlib.sha256(BLOB).hexdigest().encode() + b'\n'


class Handler(http.server.BaseHTTPRequestHandler):
	protocol_version = 'HTTP/1.1'

	def reply(self, body, kind='text/plain'):
		self.send_response(200)
		self.send_header('Content-Type', kind)
		self.send_header('Content-Length', str(len(body)))
		self.end_headers()
		self.wfile.write(body)

	def do_GET(self):
		if self.path == '/blob':
			self.reply(BLOB, 'application/octet-stream')
		elif self.path == '/sum':
			self.reply(SUM)
		else:
			self.reply(b'This page came from a service of its own, through a tunnel of tunneld.\n')

	def do_PUT(self):
		left, digest = int(self.headers.get('Content-Length', 0)), hashlib.sha256()
		while left:
			piece = self.rfile.read(min(left, 1 << 20))
			if not piece:
				return
			digest.update(piece)
			left -= len(piece)
		self.reply(digest.hexdigest().encode() + b'\n')

	def log_message(self, *args):
		pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
	daemon_threads = True
	request_queue_size = 64


server = Server(('127.0.0.1', 0), Handler)
print(server.server_address[1])
sys.stdout.flush()
server.serve_forever()
