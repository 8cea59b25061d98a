/* A byte stream over TCP, with or without TLS (and through an HTTP CONNECT proxy):
 * client (dialed) or server (accepted).  Back-pressure by room()/pause. */
#ifndef TD_NET_CONN_H
#define TD_NET_CONN_H
#include "lib/message.h"
#include "lib/tls.h"
#include "tunneld/base/loop.h"
#include "tunneld/net/addr.h"
#include <sys/types.h>

struct td_conn;
struct td_conn_cb {
	void (*ready)(void *ctx);    /* connected, TLS done */
	void (*readable)(void *ctx); /* after ready: read until it gives TNL_EAGAIN, or pause */
	void (*writable)(void *ctx); /* room again after write came up short */
	/* Over (TNL_EEOF: orderly); then td_conn_free. Not called after free.  TNL_EREFUSED, of an accepted one: its
	 * PROXY header is missing or malformed, or there is one where none is taken. */
	void (*closed)(void *ctx, int err, const char *why);
	void (*idle)(void *ctx); /* about a second after traffic: give empty buffers back. May be NULL */
	/* Of td_conn_accepted_behind: for whom it comes, which is td_conn_peer from here on. Before ready. */
	void (*named)(void *ctx, const struct td_addr *peer);
};
/* tls: the way to the proxy itself is TLS, with the trust of the dial's tls context. */
struct td_proxy {
	char host[256];
	uint16_t port;
	bool tls;
	char user[128], password[256];
};
struct td_conn_opts {
	const char *host;
	uint16_t port;
	struct tnl_tls_ctx *tls;      /* NULL: plain; a reference is taken */
	bool plain;		      /* tls is for the proxy alone: none end to end */
	const char *tls_name;	      /* NULL: host */
	const struct td_proxy *proxy; /* NULL: direct; copied */
	uint64_t timeout_ns;	      /* for connect + proxy + TLS; 0: 15 s */
};
/* No callback runs inside any call of this header; after td_conn_free none does. NULL: no memory. */
struct td_conn *td_conn_dial(struct td_loop *l, const struct td_conn_opts *o, const struct td_conn_cb *cb, void *ctx);
/* Takes fd, also when it fails. timeout_ns: for TLS; 0: 15 s. */
struct td_conn *td_conn_accepted(struct td_loop *l, int fd, struct tnl_tls_ctx *tls, uint64_t timeout_ns,
				 const struct td_conn_cb *cb, void *ctx);
#define TD_CONN_STRAY_HEADER "PROXY header: from an address that is not in proxy_protocol"
/* The same from a balancer: in front of all, TLS too, stands a PROXY header, 1 or 2, within timeout_ns. */
struct td_conn *td_conn_accepted_behind(struct td_loop *l, int fd, struct tnl_tls_ctx *tls, uint64_t timeout_ns,
					const struct td_conn_cb *cb, void *ctx);
/* Fields of the header, by which one of us says what names the peer's certificate has (tnl_tls_peer_names). */
enum { TD_CONN_FIELD_NAME = 0xe0, TD_CONN_FIELD_EXACT = 0xe1 };
/* Of one that is accepted behind one of us: these fields are believed. At once. */
void td_conn_vouched(struct td_conn *c);
/* Is the name in the peer's verified certificate (tnl_tls_peer_named), or in that of whom it comes for? */
bool td_conn_cert_named(const struct td_conn *c, const char *name);
/* The other side of td_conn_accepted: takes fd, which is connected, and begins TLS as the client; tls_name as in
 * td_conn_opts. */
struct td_conn *td_conn_connected(struct td_loop *l, int fd, struct tnl_tls_ctx *tls, const char *tls_name,
				  uint64_t timeout_ns, const struct td_conn_cb *cb, void *ctx);
/* End to end; NULL: without TLS, or not there yet. Borrowed, for questions. */
struct tnl_tls *td_conn_tls(struct td_conn *c);
/* Of one that was accepted, is open, or over: from here on its callbacks come from that loop, also those about what was
 * read already. */
void td_conn_move(struct td_conn *c, struct td_loop *l);
void td_conn_set_cb(struct td_conn *c, const struct td_conn_cb *cb, void *ctx);
/* >0, TNL_EAGAIN; end and errors come through closed() after everything readable was read. */
ssize_t td_conn_read(struct td_conn *c, void *p, size_t n);
/* Bytes taken (0..n). What is taken is sent by itself, many small writes in one record at the end of the turn. */
size_t td_conn_write(struct td_conn *c, const void *p, size_t n);
void td_conn_flush(struct td_conn *c);		/* send now what the end of the turn would send */
size_t td_conn_room(const struct td_conn *c);	/* about 256 KiB when empty */
size_t td_conn_queued(const struct td_conn *c); /* plaintext + ciphertext not yet in the kernel */
void td_conn_tell_empty(struct td_conn *c);	/* writable(), once, when nothing is queued any more */
/* What a byte that is written now meets, `ahead` more bytes before it: of the kernel, asked every 2 ms at most. Stays.
 */
const struct tnl_hop *td_conn_hop(struct td_conn *c, size_t ahead);
void td_conn_pause(struct td_conn *c, bool paused); /* stop/start reading from the socket */
/* Flush, close_notify, wait up to 2 s for the peer's end (what it still sends is discarded), then closed(TNL_EEOF). */
void td_conn_shutdown(struct td_conn *c);
void td_conn_free(struct td_conn *c);		   /* at once; safe inside callbacks (memory goes deferred) */
const char *td_conn_peer(const struct td_conn *c); /* "127.0.0.1:40212" */

#endif
