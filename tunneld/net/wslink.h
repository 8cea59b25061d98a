/* A WebSocket over a td_conn, client (dial + upgrade) or server (adopted after the
 * upgrade).  Pings and pong time-outs by itself; back-pressure by room()/pause. */
#ifndef TD_NET_WSLINK_H
#define TD_NET_WSLINK_H
#include "lib/buf.h"
#include "lib/sigv4.h"
#include "lib/ws.h"
#include "tunneld/net/http_kept.h"

struct td_wslink;
/* code: of the close frame; 1006 when there was none. err: TNL_EEOF after a close frame (either side's). */
struct td_wslink_cb {
	void (*open)(void *ctx); /* upgrade done (dialed links only). May be NULL */
	/* TEXT or BINARY; p is valid during the call, which may free the link. */
	void (*message)(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n);
	void (*batch_end)(void *ctx); /* after the messages of one read: pump now. May be NULL */
	void (*writable)(void *ctx);  /* room again */
	/* The peer pings and does not read: it gets no pongs until it does. For a counter. May be NULL. */
	void (*muted)(void *ctx);
	/* Then td_wslink_free. http_status: of a refused upgrade, with its body's text in why; else 0. */
	void (*closed)(void *ctx, int err, uint16_t code, int http_status, const char *why);
};
struct td_wslink_opts {
	struct tnl_tls_ctx *tls;
	const struct td_proxy *proxy;
	uint64_t timeout_ns; /* until it is open; 0: 15 s */
	/* Sign the upgrade; keys NULL: do not. service NULL: "ssmmessages". */
	const struct tnl_sigv4_keys *keys;
	const char *region, *service;
	uint64_t ping_ns;   /* 0: no pings */
	uint64_t pong_ns;   /* 0: 20 s */
	size_t max_message; /* 0: 256 KiB */
	bool whole_only;    /* no fragments are taken */
	bool client;	    /* adopted: this is the end that masks */
	/* Not NULL: a connection that a call has left there may be taken for the upgrade. Of the same trust as tls. */
	struct td_http_kept *kept;
	/* The connection may speak HTTP again when the WebSocket on it is over. Dialed: offered, when it is one of
	 * `kept`; adopted: it was agreed upon (td_request_offers_return). */
	bool returns;
};
/* url: wss:// or ws://. */
struct td_wslink *td_wslink_dial(struct td_loop *l, const char *url, const struct td_wslink_opts *o,
				 const struct td_wslink_cb *cb, void *ctx);
/* An open link at once, no open() call. Takes the conn whose upgrade has been answered with 101; `early` bytes were
 * read behind the head. */
struct td_wslink *td_wslink_adopt(struct td_loop *l, struct td_conn *c, const void *early, size_t n,
				  const struct td_wslink_opts *o, const struct td_wslink_cb *cb, void *ctx);
/* Of an open link: from here on its callbacks come from that loop; also inside of message(), then those that follow in
 * the same turn still come from here. Messages that were read already come there. */
void td_wslink_move(struct td_wslink *w, struct td_loop *l);
void td_wslink_set_cb(struct td_wslink *w, const struct td_wslink_cb *cb, void *ctx);
/* What is taken from the next message on: the peer has shown who it is. */
void td_wslink_trust(struct td_wslink *w, size_t max_message);
/* 0, TNL_EAGAIN (room too small), TNL_ECLOSED. */
int td_wslink_send(struct td_wslink *w, enum tnl_ws_op op, const void *p, size_t n);
/* Of binary messages only the first n bytes can be read, a multiple of 4, and the rest after td_wslink_unmask: for who
 * sends most of them on. SIZE_MAX: all. */
void td_wslink_set_clear(struct td_wslink *w, size_t n);
void td_wslink_unmask(struct td_wslink *w); /* inside of message(); else nothing */
/* As td_wslink_send of the message that `from` is just handing over. */
int td_wslink_send_on(struct td_wslink *w, const struct td_wslink *from);
size_t td_wslink_room(const struct td_wslink *w); /* payload bytes that send takes now; 0 while not open */
size_t td_wslink_queued(const struct td_wslink *w);
/* As td_conn_hop, with what waits in the link itself. */
const struct tnl_hop *td_wslink_hop(struct td_wslink *w, size_t ahead);
/* What was sent in this turn may wait so long for company, if that is all: the next send takes it along. */
void td_wslink_linger(struct td_wslink *w, uint64_t ns);
/* Takes effect before the next message; no pong is waited for meanwhile. */
void td_wslink_pause(struct td_wslink *w, bool paused);
void td_wslink_ping(struct td_wslink *w);				      /* now (after a sleep) */
void td_wslink_close(struct td_wslink *w, uint16_t code, const char *reason); /* polite; closed() comes within 2 s */
void td_wslink_free(struct td_wslink *w);				      /* at once; safe inside callbacks */
/* In place of td_wslink_free, for who is through with it: where it was agreed upon, the WebSocket is closed politely
 * and the connection goes back to `kept`. Nothing is called any more. */
void td_wslink_retire(struct td_wslink *w);
/* In closed(): the connection, when both ends have closed the WebSocket and agreed that HTTP goes on behind it; what
 * was read of that is appended to `bytes`. NULL: it goes with the link. */
struct td_conn *td_wslink_return(struct td_wslink *w, struct tnl_buf *bytes);
bool td_wslink_cert_named(const struct td_wslink *w, const char *name); /* td_conn_cert_named */
const char *td_wslink_peer(const struct td_wslink *w);

#endif
